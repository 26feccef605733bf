"""The one table type: texts under headings, for a terminal, Markdown and HTML.

table = Table(("stage", "time"), (("score", "11 s"),), title="Wall time")
print(table)             Wall time
                         stage  time
                         score  11 s
table.to_markdown()      | stage | time |
                         | --- | ---: |
                         | score | 11 s |
"""

import io
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape as escape_rich
from rich.table import Table as RichTable

# A terminal table that is written into a pipe or a file is never cut.
_UNBOUNDED = 10_000

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Table:
    """Headings, and rows of as many texts; the first column names the row.

    Attributes:
        columns: Headings; all empty for pairs of a name and a value.
        rows: Texts.
        title: Heading of the table.
        notes: Lines that a reader needs to understand the numbers.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, items: Iterable[_Item], columns: Mapping[str, Callable[[_Item], str]], title: str = "", *notes: str
    ) -> "Table":
        """A row an item; `columns` has the function that formats an item below each heading."""
        rows = (tuple(text(item) for text in columns.values()) for item in items)
        return cls(tuple(columns), tuple(rows), title, notes)

    def __str__(self) -> str:
        """The table as a terminal shows it, at its full width."""
        text = io.StringIO()
        Console(file=text, width=_UNBOUNDED, highlight=False).print(self)
        return "\n".join(line.rstrip() for line in text.getvalue().splitlines())

    def __rich__(self) -> RichTable:
        """The table for a rich console: numbers to the right, headings no wider than their column."""
        table = RichTable(
            title=escape_rich(self.title) or None, title_justify="left", header_style="bold",
            caption=escape_rich("\n".join(self.notes)) or None, caption_justify="left", show_header=any(self.columns),
            box=SIMPLE_HEAD, pad_edge=False, show_edge=False,
        )  # fmt: skip
        for place, (heading, *cells) in enumerate(zip(self.columns, *self.rows, strict=True)):
            width = max(len(part) for part in (*heading.split(), *cells, "1"))
            # Names stay whole; on a narrow terminal the other columns are broken, and nothing is left out.
            table.add_column(
                escape_rich(textwrap.fill(heading, width, break_on_hyphens=False)), no_wrap=not place, overflow="fold",
                justify="left" if not place or not any(self.columns) else "right",
            )  # fmt: skip
        for row in self.rows:
            table.add_row(*map(escape_rich, row))
        return table

    def to_markdown(self) -> str:
        """Headings and rows as a Markdown table."""
        rules = ["---" if not place or not column else "---:" for place, column in enumerate(self.columns)]
        lines = [tuple(map(markdown, self.columns)), tuple(rules), *(tuple(map(markdown, row)) for row in self.rows)]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def markdown(text: object) -> str:
    """Text that Markdown shows as it stands, also within a table: "<i>" -> "&lt;i>", and bars escaped."""
    escaped = re.sub(r"([\\`*_\[\]|#~])", r"\\\1", str(text)).replace("&", "&amp;").replace("<", "&lt;")
    return " ".join(escaped.splitlines())


def unbroken(text: str) -> str:
    """The text without a line break between a number and its unit or sign, or within a range of numbers."""
    text = re.sub(r"(?<=\d)\N{EN DASH}(?=\d)", "\N{EN DASH}\N{WORD JOINER}", text)
    text = re.sub(r"(?<=\d) (?=(?:%|ms|s|min|h|points|times|[kMGT]|[kMGT]?B)(?!\w))", "\N{NO-BREAK SPACE}", text)
    return re.sub(
        r"(?<=\d) (?=\N{PLUS-MINUS SIGN})|(?<=[<=]) (?=\d)|(?<=\N{PLUS-MINUS SIGN}) ", "\N{NO-BREAK SPACE}", text
    )
