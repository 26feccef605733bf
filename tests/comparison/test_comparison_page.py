import io
import re
from dataclasses import replace

import pytest
from comparison.made_up_comparison import METHODS, make_comparison
from comparison.made_up_tradeoff import make_tradeoff
from matplotlib.figure import Figure
from rich.console import Console

from prunelora.comparison import page
from prunelora.comparison.figures import draw_comparison, quality_figure, training_figure
from prunelora.comparison.page import comparison_page, tables, write_comparison
from prunelora.comparison.summary import best, summarise, warnings
from prunelora.comparison.table_file import to_csv

FILES = {
    "figures/quality.svg", "figures/quality.png", "figures/training.svg", "figures/training.png",
    "report.html", "report.md", "comparison.csv",
}  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A page with its real figures, for tests that only look at it."""
    folder = tmp_path_factory.mktemp("comparison")
    return folder, write_comparison(make_comparison(), folder)


@pytest.fixture
def sketched(monkeypatch):
    """Figures are left empty: drawing them is most of the work."""
    monkeypatch.setattr(page, "draw_comparison", lambda results: {"quality": Figure(), "training": Figure()})


def words(figure):
    """Every text of a figure."""
    axes = figure.axes
    names = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    return [text.get_text() for one in axes for text in one.texts] + [
        *names, *(label for one in axes for label in (one.get_xlabel(), one.get_ylabel()) if label)
    ]  # fmt: skip


def test_what_it_says_it_wrote_is_exactly_what_is_there(written):
    folder, names = written
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert set(names) == there == FILES
    assert (folder / "comparison.csv").read_text(encoding="utf-8") == to_csv(make_comparison())


def test_the_page_refers_to_nothing_outside_itself(written):
    html = (written[0] / "report.html").read_text(encoding="utf-8")
    assert "http" not in html
    assert "<script" not in html
    assert "@import" not in html
    references = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert references
    assert all(reference.startswith("#") for reference in references)
    assert html.count("<svg") == 2
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))


def test_pictures_in_markdown_are_there(written):
    folder = written[0]
    pictures = re.findall(r"\]\((figures/[^)]+)\)", (folder / "report.md").read_text(encoding="utf-8"))
    assert pictures == ["figures/quality.png", "figures/training.png"]
    assert all((folder / picture).is_file() for picture in pictures)


def test_the_same_comparison_gives_the_same_bytes(written, tmp_path):
    write_comparison(make_comparison(), tmp_path)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (written[0] / name).read_bytes(), name


@pytest.mark.usefixtures("sketched")
def test_names_are_shown_and_not_obeyed(tmp_path):
    results = make_comparison(("full", "<b>a|b*_x_"), data="a & <u>")
    write_comparison(results, tmp_path)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<b>" not in html
    assert "<u>" not in html
    assert "&lt;b&gt;a|b*_x_" in html
    for markdown in ((tmp_path / "report.md").read_text(encoding="utf-8"), comparison_page(results).to_markdown()):
        assert "| &lt;b>a\\|b\\*\\_x\\_ |" in markdown
        assert "<" not in markdown


def test_markdown_tables_have_as_many_cells_in_every_row():
    found = re.findall(r"(?:^\|.*\|\n)+", comparison_page(make_comparison()).to_markdown(), flags=re.MULTILINE)
    assert len(found) >= 8
    for table in found:
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1, table


def test_the_majority_rate_and_every_mean_are_on_the_page(written):
    for name in ("report.html", "report.md"):
        text = (written[0] / name).read_text(encoding="utf-8").replace("\N{NO-BREAK SPACE}", " ")
        assert "most frequent class" in text
        assert "50.9" in text
        for mean in ("89.0", "88.5", "88.2", "84.5", "85.6"):
            assert f"{mean} \N{PLUS-MINUS SIGN}" in text


def test_missing_trainings_are_said_and_counted():
    results = make_comparison(missing=tuple(f"lora, 0.001, {seed}" for seed in range(6)))
    line = warnings(results)[0]
    assert "not done: 6 (lora, 0.001, 0; " in line
    assert "and 2 more" in line
    assert line in " ".join(summarise(results))
    assert not any("not done" in line for line in summarise(make_comparison()))


def test_methods_that_lack_a_seed_are_named():
    results = make_comparison()
    short = results.methods[1].model_copy(update={"seeds": (0, 2)})
    found = warnings(results.model_copy(update={"methods": (results.methods[0], short)}))
    assert any("lora has 0, 2" in line for line in found)


def test_one_seed_is_said():
    assert any(line.startswith("one seed only") for line in warnings(make_comparison(seeds=(7,))))
    assert not any("one seed" in line for line in warnings(make_comparison()))


def test_a_method_at_the_majority_rate_is_said_to_have_learnt_nothing():
    found = [line for line in warnings(make_comparison(accuracies={"lora": (0.51, 0.52, 0.53)})) if "50.9 %" in line]
    assert len(found) == 1
    assert "lora, 52.0 \N{PLUS-MINUS SIGN} 1.0" in found[0]
    assert "full" not in found[0]
    assert not any("50.9 %" in line for line in warnings(make_comparison()))


def test_missing_timing_is_said():
    assert any(line.startswith("nothing was timed") for line in warnings(make_comparison(timed=False)))
    assert not any("timed" in line for line in warnings(make_comparison()))


def test_a_learning_rate_at_the_edge_of_what_was_tried_is_said():
    results = make_comparison()
    edge = results.methods[0].model_copy(update={"learning_rate": 1e-4})
    found = warnings(results.model_copy(update={"methods": (edge, *results.methods[1:])}))
    assert any("full (0.0001, the largest)" in line for line in found)
    assert not any("largest" in line for line in warnings(results))


def test_a_pruned_model_that_is_not_faster_is_said():
    results = make_comparison()
    slow = results.methods[2]
    first = slow.latencies[0]
    ratio = replace(first.to_dense, median=1.1, q25=1.09, q75=1.12)
    slow = slow.model_copy(update={"latencies": (first.model_copy(update={"to_dense": ratio}), *slow.latencies[1:])})
    found = warnings(results.model_copy(update={"methods": (*results.methods[:2], slow)}))
    assert "not faster than the dense model: prune-lora at batch 1, 32 tokens." in found


def test_the_best_is_named_with_the_methods_within_noise_of_it():
    first, alike = best(make_comparison())
    assert "872 test rows: full, 89.0 \N{PLUS-MINUS SIGN} 0.3; " in first
    assert "50.9 %" in first
    assert alike == "within noise of full: lora, prune-lora."


def test_a_best_that_stands_alone_is_said_to():
    line = best(make_comparison(accuracies={"full": (0.95, 0.95, 0.95)}))[1]
    assert line == "every other method is significantly below full."


def test_a_terminal_of_100_columns_has_room_for_every_table():
    for results in (
        make_comparison(device_peak=10**9),
        make_comparison(splits=("matched", "mismatched"), seeds=(0,)),
        make_comparison(splits=("matched", "mismatched")),
        make_tradeoff(),
    ):
        for table in tables(results):
            text = io.StringIO()
            Console(file=text, width=100).print(replace(table, notes=()))
            shown = text.getvalue()
            for cell in (cell for row in table.rows for cell in row):
                assert all(line in shown for line in cell.splitlines()), cell


def test_the_figure_has_every_method_and_the_majority_rate():
    found = words(quality_figure(make_comparison()))
    assert set(METHODS) <= set(found)
    assert any("most frequent class: 50.9" in word for word in found)
    assert "inference time, % of dense (batch 32, 128 tokens)" in found
    assert set(METHODS) <= set(words(training_figure(make_comparison())))


@pytest.mark.parametrize("rate", [0.9, 0.99, 0.3])
def test_the_majority_rate_is_in_the_figure_wherever_the_methods_are(rate):
    results = make_comparison()
    results = results.model_copy(update={"task": results.task | {"majority_rate": {"test": rate}}})
    drawn = quality_figure(results)
    inside = []
    for axes in drawn.axes:
        note = next((text for text in axes.texts if text.get_text().startswith("most frequent class")), None)
        if note is not None:
            low, high = axes.get_ylim()
            box, frame = note.get_window_extent(), axes.get_window_extent()
            to_scale = low < 100 * rate < high or "further down" in note.get_text()
            inside.append(to_scale and frame.y0 <= box.y0 and box.y1 <= frame.y1)
    assert inside == [True]


def test_points_are_where_the_numbers_are():
    results = make_comparison(("full", "prune-lora"))
    axes = quality_figure(results).axes[0]
    points = [tuple(float(one[0]) for one in line.get_data()) for line in axes.lines if len(line.get_xdata()) == 1]
    for method in results.methods:
        place = (100 * method.latencies[-1].to_dense.median, 100 * method.quality["test"]["accuracy"].mean)
        assert any(point == pytest.approx(place) for point in points)


def test_without_timing_the_figures_say_that_they_show_macs():
    results = make_comparison(timed=False)
    for figure in draw_comparison(results).values():
        assert any("MACs" in word and "nothing was timed" in word for word in words(figure))


def test_a_comparison_without_a_finished_method_still_has_a_page(tmp_path):
    results = make_comparison((), missing=("full, 5e-05, 0",))
    assert draw_comparison(results) == {}
    assert write_comparison(results, tmp_path) == ["report.html", "report.md", "comparison.csv"]
    assert "full, 5e-05, 0" in (tmp_path / "report.md").read_text(encoding="utf-8")
