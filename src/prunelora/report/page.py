"""The one page writer: a title, lines, and sections of text, tables and figures, as Markdown and as HTML.

page = Page("A run", ("minilm on mrpc, seed 0",), (Section("Time", table=Table(("stage", "time"), rows)),))
write_page(page, folder, figures={"kept": kept_per_layer(plan)})
    -> ["figures/kept.svg", "figures/kept.png", "report.html", "report.md"]
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from prunelora.report.figures import save_drawn
from prunelora.report.table import Table, markdown, unbroken
from prunelora.storage import write_text


@dataclass(frozen=True)
class Section:
    """A section of a page; its parts are shown in the order of the attributes.

    Attributes:
        title: Heading; the table's title if not given.
        text: Paragraphs, before the table's notes.
        items: Lines of a list.
        figure: Name of a figure, without ending.
        table: A table.
        code: Text that is shown as it stands.
        language: Of the code.
        folded: Whether HTML shows table and code closed.
    """

    title: str = ""
    text: tuple[str, ...] = ()
    items: tuple[str, ...] = ()
    figure: str | None = None
    table: Table | None = None
    code: str | None = None
    language: str = ""
    folded: bool = False

    @property
    def heading(self) -> str:
        """The title of the section, or that of its table."""
        return self.title or (self.table.title if self.table else "")

    @property
    def paragraphs(self) -> tuple[str, ...]:
        """The text of the section and the notes of its table."""
        return (*self.text, *(self.table.notes if self.table else ()))

    def shown(self, figures: Collection[str]) -> bool:
        """Whether the section has content; a figure that was not drawn, or a table without rows, is none."""
        table, figure = self.table is not None and bool(self.table.rows), self.figure in figures
        prose = bool(self.text) and self.table is None and self.figure is None
        return bool(self.items or self.code or table or figure or prose)


@dataclass(frozen=True)
class Page:
    """A page, before it is Markdown or HTML.

    Attributes:
        title: Heading.
        intro: Lines below the heading.
        sections: Sections in order; those without content are left out.
        warnings: Lines that are shown before the sections.
        numbers: Names of the files that hold the numbers for machines, such as "metrics.json".
    """

    title: str
    intro: tuple[str, ...]
    sections: tuple[Section, ...]
    warnings: tuple[str, ...] = ()
    numbers: str = ""

    def to_markdown(self, figures: Collection[str] = ()) -> str:
        """The page as Markdown, which shows the pictures in the folder "figures" beside it.

        Args:
            figures: Names of the figures that were drawn; others are left out.
        """
        blocks = [f"# {markdown(self.title)}", *map(markdown, self.intro)]
        for section in (Section("Warnings", items=self.warnings), *self.sections):
            if not section.shown(figures):
                continue
            blocks += [f"## {markdown(section.heading)}", *map(markdown, section.paragraphs)]
            if section.items:
                blocks.append("\n".join(f"- {markdown(sentence(line))}" for line in section.items))
            if section.figure in figures:
                blocks.append(f"![{markdown(section.heading)}](figures/{section.figure}.png)")
            if section.table and section.table.rows:
                blocks.append(section.table.to_markdown())
            if section.code:
                blocks.append(f"{fence(section.code)}{section.language}\n{section.code}\n{fence(section.code)}")
        return "\n\n".join(blocks) + "\n"


def write_page(
    page: Page, folder: Path, *, figures: Mapping[str, Figure] | None = None, name: str = "report"
) -> list[str]:
    """Write a page as HTML that holds its figures, and as Markdown that shows them; each file is replaced at once.

    Args:
        page: The page.
        folder: Folder of the two files; pictures are saved into its folder "figures".
        figures: Figures by name.
        name: Name of the two files, before .html and .md.

    Returns:
        Names of the written files, relative to `folder`, with forward slashes.
    """
    drawn = save_drawn(figures or {}, folder / "figures")
    svg = {name: inline_svg(drawn[f"{name}.svg"].read_text(encoding="utf-8"), name) for name in figures or {}}
    environment = Environment(
        loader=PackageLoader("prunelora.report", "."), autoescape=True, undefined=StrictUndefined,
        keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= {"sentence": sentence, "unbroken": unbroken}
    html = environment.get_template("page.html.j2").render(page=page, svg=svg, name=name)
    write_text(folder / f"{name}.html", html)
    write_text(folder / f"{name}.md", page.to_markdown(svg.keys()))
    return [*(f"figures/{picture}" for picture in drawn), f"{name}.html", f"{name}.md"]


def inline_svg(text: str, name: str) -> Markup:
    """An SVG file as an element of an HTML page: no prologue, no metadata, and ids that no other figure has."""
    element = text[text.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", element, flags=re.DOTALL)
    element = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", element)  # HTML knows the namespaces.
    element = re.sub(r'\bid="', f'id="{name}-', element)
    element = re.sub(r'(href="|url\()#', rf"\1#{name}-", element)
    return Markup(element.strip())


def fence(code: str) -> str:
    """Backticks that enclose code: more of them than the code has in a row itself."""
    longest = max((len(run) for run in re.findall("`+", code)), default=0)
    return "`" * max(3, longest + 1)


def sentence(text: str) -> str:
    """The text with a capital letter, except before an option, which stays as it is typed: "keep_macs=0.5 ..."."""
    return text if "=" in text.partition(" ")[0] else text[:1].upper() + text[1:]
