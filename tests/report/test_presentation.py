"""The presentation that runs, comparisons, reproductions and benchmarks share: numbers, tables and pages."""

import io
import re
from html import unescape

import pytest
from matplotlib.figure import Figure
from rich.console import Console

from prunelora.evaluation.timing import Spread, Timing
from prunelora.report import numbers
from prunelora.report.page import Page, Section, fence, write_page
from prunelora.report.table import Table

MINUS = "\N{MINUS SIGN}"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (numbers.decimal(-0.5, 1), f"{MINUS}0.5"),
        (numbers.decimal(-0.0001, 1, signed=True), "0.0"),
        (numbers.decimal(1234.5, 2), "1,234.50"),
        (numbers.scaled(0), "0"),
        (numbers.scaled(9_999), "9,999"),
        (numbers.scaled(86_336), "86.3 k"),
        (numbers.scaled(109_482_240), "109.5 M"),
        (numbers.scaled(678_125_568, like=1_434_451_968), "0.68 G"),
        (numbers.scaled(69_372_936, "B"), "69.4 MB"),
        (numbers.scaled(512, "B"), "512 B"),
        (numbers.scaled_alike([1_434_451_968, 5])(678_125_568), "0.68 G"),
        (numbers.percent(0.637), "64 %"),
        (numbers.percent(0.0123), "1.2 %"),
        (numbers.percent(0.0035), "0.35 %"),
        (numbers.percent(0), "0 %"),
        (numbers.factor(1.84), "1.8"),
        (numbers.factor(0.931), "0.93"),
        (numbers.factor(12.3), "12"),
        (numbers.duration(0.42), "0.4 s"),
        (numbers.duration(187.5), "3 min 08 s"),
        (numbers.duration(7_500), "2 h 05 min"),
        (numbers.milliseconds(0.4123), "0.412 ms"),
        (numbers.milliseconds(11.04), "11.0 ms"),
        (numbers.milliseconds(1240.4), "1,240 ms"),
        (numbers.with_quartiles(numbers.percent, Spread(0.64, 0.6, 0.7)), "64 % (60\N{EN DASH}70)"),
        (numbers.with_quartiles(numbers.factor, Spread(1.84, 1.7, 1.9)), "1.8 (1.7\N{EN DASH}1.9)"),
        (numbers.optional(None, numbers.percent), numbers.NONE),
        (numbers.metric_heading("accuracy"), "accuracy, %"),
        (numbers.metric_value("accuracy", 0.8765), "87.6 %"),
        (numbers.metric_value("pearson", -0.7124), f"{MINUS}0.712"),
        (numbers.metric_difference("accuracy", -0.0234), f"{MINUS}2.3 points"),
        (numbers.metric_interval("accuracy", -0.004, 0.013, signed=True), f"{MINUS}0.4 to +1.3"),
        (numbers.estimate("accuracy", 0.877, 0.0041), "87.7 \N{PLUS-MINUS SIGN} 0.4"),
        (numbers.estimate("accuracy", 0.877, None), "87.7 (1 seed)"),
        (numbers.p_value(0.0004), "< 0.001"),
        (numbers.p_value(0.021), "0.021"),
        (numbers.p_value(0.3123), "0.31"),
        (numbers.learning_rate(2e-5), "2e-5"),
    ],
)
def test_numbers_for_people(text, wanted):
    assert text == wanted


def test_a_spread_is_read_from_timings_and_from_ratios():
    spread = Spread(2.0, 1.0, 4.0)
    assert Spread.read({"median_ms": 2.0, "q25_ms": 1.0, "q75_ms": 4.0, "repeats": 15}) == spread
    assert Spread.read({"median": 2.0, "q25": 1.0, "q75": 4.0}) == spread
    assert Spread.read(Timing((1.0, 2.0, 3.0)).to_dict()) == Spread(2.0, 1.5, 2.5)
    assert spread.inverse() == Spread(0.5, 0.25, 1.0)
    assert spread.noise == 1.5


TABLE = Table(("a name", "[value]"), (("<i>|b*", "1 %"), ("c", "2,000")), title="Title", notes=("A note.",))


def test_a_table_holds_every_text_in_every_format(tmp_path):
    written = Page("Page", (), (Section(table=TABLE),))
    write_page(written, tmp_path)
    source = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "&lt;i&gt;|b*" in source
    assert "<i>" not in source
    markdown = written.to_markdown().replace("\\", "").replace("&lt;", "<")
    for text in (str(TABLE), markdown, unescape(source).replace("\N{NO-BREAK SPACE}", " ")):
        assert all(cell in text for row in (TABLE.columns, *TABLE.rows) for cell in row)
        assert "Title" in text
        assert "A note." in text


def test_a_table_of_items_has_a_row_an_item():
    table = Table.of([3, 4], {"number": str, "square": lambda number: str(number**2)}, "Squares", "A note.")
    assert table == Table(("number", "square"), (("3", "9"), ("4", "16")), "Squares", ("A note.",))


def test_markdown_rows_have_as_many_cells_as_headings():
    rows = re.findall(r"^\|.*\|$", TABLE.to_markdown(), flags=re.MULTILINE)
    assert len(rows) == 4
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {3}


def test_a_narrow_terminal_breaks_cells_and_loses_none():
    wide = Table(("method", "value"), (("prune-lora", "word " * 30),))
    console = Console(width=40, file=io.StringIO())
    console.print(wide)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 40
    assert text.count("word") == 30


def page(**changes):
    parts = {
        "title": "Page",
        "intro": ("An intro.",),
        "sections": (
            Section("Items", items=("first",)),
            Section("Drawn", figure="drawn"),
            Section("Not drawn", ("text",), figure="missing"),
            Section("Both", ("text",), table=TABLE, code="command ```", language="sh"),
            Section("Empty", ("text",), table=Table(("a",), ())),
            Section("Prose", ("Only text.",)),
        ),
    }
    return Page(**parts | changes)


def test_a_page_shows_the_sections_that_have_content(tmp_path):
    written = write_page(page(), tmp_path, figures={"drawn": Figure()}, name="name")
    assert set(written) == {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    html, text = ((tmp_path / f"name.{kind}").read_text(encoding="utf-8") for kind in ("html", "md"))
    wanted = ["Items", "Drawn", "Both", "Prose"]
    assert re.findall(r"<h2>(.*)</h2>", html) == re.findall(r"^## (.*)$", text, flags=re.MULTILINE) == wanted
    assert "![Drawn](figures/drawn.png)" in text
    assert html.count("<svg") == 1


def test_warnings_come_before_the_sections():
    text = page(warnings=("keep_macs=1 is everything", "something else")).to_markdown().replace("\\", "")
    assert text.index("- keep_macs=1 is everything") < text.index("## Items")
    assert "- Something else" in text


def test_code_stands_apart_from_the_table_before_it_and_within_its_fence():
    assert "\n| c | 2,000 |\n\n````sh\ncommand ```\n````\n" in page().to_markdown()
    assert fence("plain") == "```"
    assert fence("a ```` b") == "`````"
