"""The command `prunelora`: one command for everything, and one for each stage.

No large package is imported here, so that `--help` is instant. A command imports its packages when it runs.
"""

import shlex
import sys
import traceback
import warnings
from typing import Any

import typer

from prunelora.cli.app import app
from prunelora.errors import PruneLoraError, first_line

# Exit codes; beside them terminal.BROKEN_PIPE. 70 is what sysexits.h calls an internal error.
REFUSED, MISTYPED, FAULT, INTERRUPTED = 1, 2, 70, 130

# The error of an unknown option or command; typer exports only its subclass BadParameter.
_UsageError: type[Any] = typer.BadParameter.__mro__[1]


def main() -> None:
    """Run the command line and end with its exit code; only a fault of prunelora itself shows a traceback."""
    from prunelora.cli.system_errors import system_error
    from prunelora.cli.terminal import (
        asked_for_json,
        complain,
        escape_unknown_characters,
        give_json,
        no_bars_of_libraries,
    )

    escape_unknown_characters()

    # transformers and peft warn each other of coming renames; a person at a terminal cannot act on them.
    warnings.filterwarnings("ignore", category=FutureWarning)
    if not sys.stderr.isatty():
        no_bars_of_libraries()  # A log file would fill with carriage returns.
    try:
        code = app(standalone_mode=False)
    except PruneLoraError as error:
        code = REFUSED
        complain(str(error), kind=type(error).__name__, exit_code=code)
    except _UsageError as error:
        code = MISTYPED
        if asked_for_json():
            give_json({"error": {"kind": "UsageError", "message": error.format_message(), "exit_code": code}})
        error.show()
    except typer.Abort:
        code = INTERRUPTED
    except Exception as error:
        message = system_error(error)
        code = FAULT if message is None else REFUSED
        if message is None:
            traceback.print_exc()
            message = (
                f"{type(error).__name__}: {first_line(error)}. This is a fault of prunelora. Please report it, with "
                f"the lines above and the command: {shlex.join(['prunelora', *sys.argv[1:]])}"
            )
        complain(message, kind=type(error).__name__, exit_code=code)
    if code == INTERRUPTED:  # What typer makes of Ctrl-C.
        complain("Stopped. The same command goes on where it stopped.", kind="Interrupted", exit_code=code)
    sys.exit(code)


if __name__ == "__main__":
    main()
