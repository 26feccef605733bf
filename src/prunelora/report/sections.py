"""A section of a page."""

from dataclasses import dataclass

from prunelora.report.tables import Table


@dataclass(frozen=True)
class Section:
    """One section; what it has of text, figure, table and code is shown in this order.

    Attributes:
        title: Its heading.
        text: Paragraphs for someone who has not read the paper.
        figure: Name of a figure, without ending.
        table: A table.
        code: Text to be shown as it stands.
        language: Of the code.
        folded: Whether table and code are shown closed where a page can do that.
    """

    title: str
    text: tuple[str, ...] = ()
    figure: str | None = None
    table: Table | None = None
    code: str | None = None
    language: str = ""
    folded: bool = False
