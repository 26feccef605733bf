"""The command `prunelora`: one command for everything, and one for each stage.

Nothing heavy is imported here: `--help` answers at once. A command imports what it needs when it runs.
"""

import sys
import warnings

from prunelora.cli.app import app
from prunelora.errors import PruneLoraError

INTERRUPTED = 130


def main() -> None:
    """Run the command line; known errors end it with a message, not with a traceback."""
    from prunelora.cli.terminal import complain

    # transformers and peft warn each other of coming renames; nobody at a terminal can do anything about it.
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        app(standalone_mode=False)
    except PruneLoraError as error:
        complain(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        complain("Stopped. The same command goes on where it stopped.")
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
