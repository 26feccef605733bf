"""Output: progress on stderr; results on stdout, as JSON if `--json` is given."""

import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from rich.console import Console, ConsoleOptions
from rich.markup import escape

from prunelora.report.table import Table

# The exit code that a shell reports for a program that SIGPIPE ended: `prunelora families | head -1`.
BROKEN_PIPE = 128 + 13
# Wider than any table: rich cuts output into a pipe or a file at 80 columns.
_UNBOUNDED = 10_000


class _Console(Console):
    """A rich console that accepts a closed pipe and cuts nothing in a pipe or a file."""

    @property
    def options(self) -> ConsoleOptions:
        return super().options if self.is_terminal else super().options.update_width(_UNBOUNDED)

    def on_broken_pipe(self) -> None:
        end_quietly()


_out = _Console(highlight=False, soft_wrap=True)
_err = _Console(stderr=True, highlight=False, soft_wrap=True)


def end_quietly() -> NoReturn:
    """End silently, since the reader of stdout has closed it.

    Raises:
        SystemExit: Always.
    """
    # Python writes the rest of its buffer when it ends, and would complain.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(BROKEN_PIPE)


def tell(line: str) -> None:
    """Print a line about progress."""
    _err.print(escape(line), style="dim")


def escape_unknown_characters() -> None:
    """Print escapes in place of characters that the encoding of an output does not have."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def teller(quiet: bool) -> Callable[[str], None]:
    """The function that prints progress to stderr, or one that prints nothing."""
    return (lambda _: None) if quiet else tell


def no_bars_of_libraries() -> None:
    """Disable the progress bars that the Hugging Face libraries draw for downloads and data.

    Call this before the libraries are imported: they read the variables at import.
    """
    for library in ("HF_HUB", "HF_DATASETS"):
        os.environ[f"{library}_DISABLE_PROGRESS_BARS"] = "1"


def complain(message: str, *, kind: str, exit_code: int) -> None:
    """Print an error in red on stderr; with `--json` also as JSON on stdout.

    Args:
        message: What was asked, what was found, and what to do.
        kind: Name of the class of the error.
        exit_code: With which the command ends.
    """
    if asked_for_json():
        give_json({"error": {"kind": kind, "message": message, "exit_code": exit_code}})
    _err.print(f"[bold red]error:[/] {escape(message)}")


def asked_for_json() -> bool:
    """Whether `--json` was typed; also known if another option is mistyped."""
    return "--json" in sys.argv


def give_json(value: Any) -> None:
    """Print the result as JSON on stdout; with escapes where its encoding does not have all characters."""
    text = json.dumps(value, ensure_ascii=False, indent=2, default=str)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2, default=str)
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        end_quietly()


def give_lines(lines: Iterable[str | Table]) -> None:
    """Print the result for people: lines and tables."""
    for line in lines:
        _out.print(escape(line) if isinstance(line, str) else line)


def give_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table; on a terminal no wider than it, in a pipe or a file whole."""
    give_lines([Table(tuple(columns), tuple(tuple(map(str, row)) for row in rows), title=title)])
