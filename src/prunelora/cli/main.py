"""The command `prunelora`: one command for everything, and one for each stage.

Nothing heavy is imported here: `--help` answers at once. A command imports what it needs when it runs.
"""

import sys
import warnings
from typing import Any

import typer

from prunelora.cli.app import app
from prunelora.errors import PruneLoraError

INTERRUPTED = 130

# What an unknown option or command raises; typer exports only this one of its children.
_UsageError: type[Any] = typer.BadParameter.__mro__[1]


def main() -> None:
    """Run the command line; known errors end it with a message, not with a traceback."""
    from prunelora.cli.terminal import complain, give_json

    # transformers and peft warn each other of coming renames; nobody at a terminal can do anything about it.
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        code = app(standalone_mode=False)
    except PruneLoraError as error:
        complain(str(error))
        sys.exit(1)
    except _UsageError as error:
        if "--json" in sys.argv:
            give_json({"error": error.format_message()})
        error.show()
        sys.exit(error.exit_code)
    except typer.Abort:
        code = INTERRUPTED
    if code == INTERRUPTED:  # What typer makes of Ctrl-C.
        complain("Stopped. The same command goes on where it stopped.")
    sys.exit(code)


if __name__ == "__main__":
    main()
