"""The report's tables as data, shared by HTML and Markdown."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Any table: headings, and rows of as many texts. The first column names what the row is about."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
