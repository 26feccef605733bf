"""What a person sees: progress on stderr, results on stdout, and one line of JSON where `--json` asks for it."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

_out = Console(highlight=False, soft_wrap=True)
_err = Console(stderr=True, highlight=False, soft_wrap=True)


def tell(line: str) -> None:
    """A line about progress."""
    _err.print(escape(line), style="dim")


def complain(message: str) -> None:
    """An error: red for people; also as JSON where the command was given `--json`."""
    if "--json" in sys.argv:
        sys.stdout.write(json.dumps({"error": message}, ensure_ascii=False) + "\n")
    _err.print(f"[bold red]error:[/] {escape(message)}")


def give_json(value: Any) -> None:
    """The result for machines: JSON on stdout, nothing else there."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2, default=str) + "\n")


def give_lines(lines: Iterable[str]) -> None:
    """The result for people."""
    for line in lines:
        _out.print(escape(line))


def give_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table; the first column is text, the others are numbers."""
    table = Table(title=title, title_justify="left", header_style="bold")
    for number, column in enumerate(columns):
        # Names stay whole; where it is narrow, numbers are broken.
        table.add_column(column, justify="right" if number else "left", no_wrap=not number)
    for row in rows:
        table.add_row(*(escape(str(cell)) for cell in row))
    _out.print(table)


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested facts as one level: {"test": {"accuracy": 0.8}} -> {"test.accuracy": 0.8}; lists are left out."""
    flat: dict[str, Any] = {}
    for key, one in value.items():
        if isinstance(one, Mapping):
            flat |= flatten(one, f"{prefix}{key}.")
        elif not isinstance(one, list):
            flat[f"{prefix}{key}"] = one
    return flat
