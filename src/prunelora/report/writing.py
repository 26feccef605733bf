"""Writing a page as report.html and report.md; and the report of a run: its figures, its page and metrics.json."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from prunelora.report.sections import Section
from prunelora.storage import write_text


@dataclass(frozen=True)
class Page:
    """What a page says, before it is HTML or Markdown.

    Attributes:
        title: Its heading.
        subtitle: What it is about, below the heading.
        summary: What a reader should take away: headings with their lines.
        warnings: What went wrong or may mislead.
        sections: The rest, in order.
        numbers: Files that hold the numbers for machines: "metrics.json".
    """

    title: str
    subtitle: str
    summary: tuple[tuple[str, tuple[str, ...]], ...]
    warnings: tuple[str, ...]
    sections: tuple[Section, ...]
    numbers: str


def write_page(page: Page, drawn: Mapping[str, Path], folder: Path, *, name: str = "report") -> list[str]:
    """Write a page as HTML that holds everything, and as Markdown that shows the pictures in `folder`/figures.

    Args:
        page: What it says.
        drawn: Its figures' files by name, an SVG for each among them: "latency.svg" -> path.
        folder: Where the two files are put.
        name: What they are called, before .html and .md.

    Returns:
        Names of the written files, relative to `folder`.
    """
    svg = {
        path.stem: inline_svg(path.read_text(encoding="utf-8"), path.stem)
        for path in drawn.values()
        if path.suffix == ".svg"
    }
    template = _environment(html=True).get_template("report.html.j2")
    write_text(folder / f"{name}.html", template.render(page=page, svg=svg, name=name))
    write_text(folder / f"{name}.md", page_as_markdown(page))
    return [f"{name}.html", f"{name}.md"]


def page_as_markdown(page: Page) -> str:
    """The page as Markdown."""
    return _environment(html=False).get_template("report.md.j2").render(page=page)


def inline_svg(text: str, name: str) -> Markup:
    """An SVG file as an element of an HTML page: no prologue, no metadata, and ids that no other figure has."""
    element = text[text.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", element, flags=re.DOTALL)
    # In HTML the namespaces are known.
    element = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", element)
    element = re.sub(r'\bid="', f'id="{name}-', element)
    element = re.sub(r'(href="|url\()#', rf"\1#{name}-", element)
    return Markup(element.strip())


def markdown(text: object) -> str:
    """Text that Markdown shows as it stands, also in a table's cell: "<i>" -> "&lt;i>", and bars escaped."""
    escaped = re.sub(r"([\\`*_\[\]|#~])", r"\\\1", str(text)).replace("&", "&amp;").replace("<", "&lt;")
    return " ".join(escaped.splitlines())


def fence(code: str) -> str:
    """Backticks that fence code in: more of them than it has in a row itself."""
    longest = max((len(run) for run in re.findall("`+", code)), default=0)
    return "`" * max(3, longest + 1)


def unbroken(text: str) -> str:
    """The same with no line break between a number and its unit or sign, or within a range of numbers."""
    text = re.sub(r"(?<=\d)\N{EN DASH}(?=\d)", "\N{EN DASH}\N{WORD JOINER}", text)
    text = re.sub(r"(?<=\d) (?=(?:%|ms|s|min|h|points|times|[kMGT]|[kMGT]?B)(?!\w))", "\N{NO-BREAK SPACE}", text)
    text = re.sub(r"(?<=\d) (?=\N{PLUS-MINUS SIGN})|(?<=[<=]) (?=\d)", "\N{NO-BREAK SPACE}", text)
    return re.sub("(?<=\N{PLUS-MINUS SIGN}) ", "\N{NO-BREAK SPACE}", text)


def sentence(text: str) -> str:
    """The same with a capital letter, but for an option, which stays as it is typed: "keep_macs=0.5 can be met"."""
    return text if "=" in text.partition(" ")[0] else text[:1].upper() + text[1:]


def _environment(*, html: bool) -> Environment:
    environment = Environment(
        loader=PackageLoader("prunelora.report", "."),
        autoescape=html,
        undefined=StrictUndefined,
        trim_blocks=not html,
        keep_trailing_newline=True,
    )
    environment.filters |= {"md": markdown, "fence": fence, "sentence": sentence, "unbroken": unbroken}
    return environment
