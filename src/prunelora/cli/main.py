"""The command `prunelora`: one command for everything, and one for each stage.

Nothing heavy is imported here: `--help` answers at once. A command imports what it needs when it runs.
"""

import os
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
    from prunelora.cli.terminal import complain

    # Read when torch is loaded. OpenMP's threads spin while they wait for each other; where another program has one of
    # few cores, they then mostly wait. Sleeping costs little on a quiet machine and much less on a busy one.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # transformers and peft warn each other of coming renames; nobody at a terminal can do anything about it.
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        code = app(standalone_mode=False)
    except PruneLoraError as error:
        complain(str(error))
        sys.exit(1)
    except _UsageError as error:
        error.show()
        sys.exit(error.exit_code)
    except typer.Abort:
        code = INTERRUPTED
    if code == INTERRUPTED:  # What typer makes of Ctrl-C.
        complain("Stopped. The same command goes on where it stopped.")
    sys.exit(code)


if __name__ == "__main__":
    main()
