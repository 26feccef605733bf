import re

import pytest
from comparison.made_up_comparison import METHODS, make_comparison
from matplotlib.figure import Figure

from prunelora.comparison import page
from prunelora.comparison.figures import draw_comparison, quality_figure, training_figure
from prunelora.comparison.page import lines, tables, to_markdown, write_comparison
from prunelora.comparison.results import Share
from prunelora.comparison.summary import costs, quality, warnings
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
    return [text.get_text() for one in axes for text in one.texts] + [
        label for one in axes for label in (one.get_xlabel(), one.get_ylabel()) if label
    ]


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
    for markdown in ((tmp_path / "report.md").read_text(encoding="utf-8"), to_markdown(results)):
        assert "| &lt;b>a\\|b\\*\\_x\\_ |" in markdown
        assert "<" not in markdown


def test_markdown_tables_have_as_many_cells_in_every_row():
    found = re.findall(r"(?:^\|.*\|\n)+", to_markdown(make_comparison()), flags=re.MULTILINE)
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
    assert line.startswith("6 of the trainings asked for are not done: lora, 0.001, 0; ")
    assert "and 2 more" in line
    assert line in " ".join(lines(results))
    assert not any("not done" in line for line in lines(make_comparison()))


def test_methods_that_lack_a_seed_are_named():
    results = make_comparison()
    short = results.methods[1].model_copy(update={"seeds": (0, 2)})
    found = warnings(results.model_copy(update={"methods": (results.methods[0], short)}))
    assert any("lora has 0, 2" in line for line in found)


def test_one_seed_is_said():
    assert any(line.startswith("one seed only") for line in warnings(make_comparison(seeds=(7,))))
    assert not any("one seed" in line for line in warnings(make_comparison()))


def test_a_method_at_the_majority_rate_is_said_to_have_learnt_nothing():
    found = [line for line in warnings(make_comparison(accuracies={"lora": (0.51, 0.52, 0.53)})) if "not above" in line]
    assert len(found) == 1
    assert "lora, 52.0 \N{PLUS-MINUS SIGN} 1.0 %" in found[0]
    assert "full" not in found[0]
    assert "50.9 %" in found[0]
    assert not any("not above" in line for line in warnings(make_comparison()))


def test_differences_within_noise_are_named_and_others_are_not():
    found = [line for line in warnings(make_comparison()) if line.startswith("within noise")]
    assert len(found) == 1
    assert "prune-lora and lora" in found[0]
    assert "random" not in found[0]


def test_where_nothing_is_more_than_noise_no_order_is_claimed():
    results = make_comparison(accuracies=dict.fromkeys(METHODS, (0.88, 0.881, 0.879)))
    assert any(line.startswith("no difference between any two methods") for line in warnings(results))


def test_missing_timing_is_said():
    assert any(line.startswith("nothing was timed") for line in warnings(make_comparison(timed=False)))
    assert not any("timed" in line for line in warnings(make_comparison()))


def test_a_learning_rate_at_the_edge_of_what_was_tried_is_said():
    results = make_comparison()
    edge = results.methods[0].model_copy(update={"learning_rate": 1e-4})
    found = warnings(results.model_copy(update={"methods": (edge, *results.methods[1:])}))
    assert any("full (0.0001, the largest)" in line for line in found)
    assert not any("last one tried" in line for line in warnings(results))


def test_a_pruned_model_that_is_not_faster_is_said():
    results = make_comparison()
    slow = results.methods[2]
    first = slow.latencies[0]
    ratio = first.to_dense.model_copy(update={"median": 1.1, "q25": 1.09, "q75": 1.12})
    slow = slow.model_copy(update={"latencies": (first.model_copy(update={"to_dense": ratio}), *slow.latencies[1:])})
    found = warnings(results.model_copy(update={"methods": (*results.methods[:2], slow)}))
    assert "not faster than the dense model: prune-lora at batch 1, 32 tokens." in found


def test_the_best_is_named_with_what_cannot_be_told_from_it():
    best, alike, *rest = quality(make_comparison())
    assert best.startswith("best accuracy on the 872 test rows: full, 89.0 \N{PLUS-MINUS SIGN} 0.3 %; ")
    assert "always the most frequent class: 50.9 %" in best
    assert alike.startswith("within noise of full: lora and prune-lora. Of all these, prune-lora does the least work")
    assert len(rest) == 4


def test_a_best_that_stands_alone_is_said_to():
    found = quality(make_comparison(accuracies={"full": (0.95, 0.95, 0.95)}))
    assert found[1] == "every other method is below full by more than noise."


def test_verdicts_follow_the_p_value():
    found = {line.split(",")[0]: line for line in quality(make_comparison()) if line.startswith("against")}
    assert list(found) == [f"against {name}" for name in METHODS if name != "prune-lora"]
    assert found["against lora"].endswith("p = 0.62): no more than noise.")
    assert found["against random-prune-lora"].endswith("p < 0.001): better by more than noise.")
    worse = quality(make_comparison(accuracies={"prune-lora": (0.7, 0.7, 0.7)}))
    assert any(line.startswith("against full") and line.endswith("worse by more than noise.") for line in worse)


def test_costs_are_those_of_prune_lora_over_the_others():
    own, full = make_comparison().method("prune-lora"), make_comparison().method("full")
    beside_full, beside_lora, inference = costs(make_comparison())
    assert f"{100 * own.memory.training / full.memory.training:.0f} % of the training memory" in beside_full
    assert beside_full.startswith("beside full, prune-lora takes 57 % of the time of a training step")
    assert beside_lora.startswith("beside lora, prune-lora takes 86 % of the time of a training step")
    assert "82 % (81\N{EN DASH}83) of the dense model's time at batch 32, 128 tokens" in inference
    assert costs(make_comparison(("full", "lora"))) == []


def test_the_time_beside_lora_is_the_ratio_taken_within_rounds_or_is_not_told():
    results = make_comparison(("lora", "prune-lora"))
    lora, own = results.methods
    for ratio, told in ((Share(median=0.7, q25=0.6, q75=0.8), "70 % of the time of a training step, "), (None, "")):
        changed = own.model_copy(update={"step_to_lora": ratio})
        beside = costs(results.model_copy(update={"methods": (lora, changed)}))[0]
        assert beside.startswith(f"beside lora, prune-lora takes {told}")
        assert ("training step" in beside) == bool(told)


def test_where_steps_have_other_numbers_of_rows_their_memory_says_so():
    results = make_comparison()
    assert page._rows_text(results) == ()
    assert "steps of" not in costs(results)[0]
    methods = tuple(
        one.model_copy(update={"memory": one.memory.model_copy(update={"step_rows": 16})})
        if one.name == "prune-lora"
        else one
        for one in results.methods
    )
    halved = results.model_copy(update={"methods": methods})
    (text,) = page._rows_text(halved)
    assert "(16 rows: prune-lora; 32 rows: full, lora, random-prune-lora, magnitude-prune-lora)" in text
    assert "of the training memory (steps of 16 rows and of 32)" in costs(halved)[0]


def test_the_time_of_all_stages_is_told_beside_that_of_a_step():
    own, full = make_comparison().method("prune-lora"), make_comparison().method("full")
    share = 100 * own.train_seconds / full.train_seconds
    assert f"{share:.0f} % of the time of all its stages, as recorded" in costs(make_comparison())[0]


def test_sizes_that_results_do_not_say_are_not_made_up():
    results = make_comparison()
    methods = tuple(
        one.model_copy(update={"memory": one.memory.model_copy(update={"step_rows": None, "tokens": None})})
        for one in results.methods
    )
    text = to_markdown(results.model_copy(update={"methods": methods, "timing": {"warmup": 3}}))
    assert "its rows of up to 128 tokens" in text
    assert "A step is timed apart" in text
    assert "rows a step" not in text
    assert "rows a step" in to_markdown(results)


def test_what_a_run_does_is_told_beside_the_papers_recipe():
    results = make_comparison(("full", "tune-first", "prune-lora"))
    places = [(line.split(",")[0], line.split(", ")[1].split()[0]) for line in quality(results)[-3:]]
    assert places == [
        ("against full", "tune-first"), ("against prune-lora", "tune-first"), ("against full", "prune-lora"),
    ]  # fmt: skip
    beside = [line.split(",")[0] for line in costs(results)]
    assert beside[0] == beside[2] == "beside full"
    assert beside[1].startswith("inference of tune-first takes")
    assert beside[3].startswith("inference of prune-lora takes")


def test_a_terminal_of_100_columns_has_room_for_every_table():
    for results in (
        make_comparison(device_peak=10**9),
        make_comparison(splits=("matched", "mismatched"), seeds=(0,)),
        make_comparison(splits=("matched", "mismatched")),
    ):
        for table in tables(results):
            widths = [
                max(len(part) for part in (*heading.splitlines(), *cells))
                for heading, *cells in zip(table.columns, *table.rows, strict=True)
            ]
            if "against" in table.rows[0][0]:  # broken at spaces: the longest name must fit
                widths[0] = max(len(name) for name in METHODS)
            assert sum(widths) + 3 * len(widths) + 1 <= 100, table.title


def test_the_figure_has_every_method_and_the_majority_rate():
    found = words(quality_figure(make_comparison()))
    assert set(METHODS) <= set(found)
    assert "most frequent class: 50.9" in found
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
            inside.append(low < 100 * rate < high and frame.y0 <= box.y0 and box.y1 <= frame.y1)
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
    assert "not done: full, 5e-05, 0" in (tmp_path / "report.md").read_text(encoding="utf-8")
