"""The trade-off: its curves, its points with their recipe files, and how far down quality holds."""

from pathlib import Path

import pytest
from comparison.made_up_comparison import MAJORITY, make_comparison
from comparison.made_up_tradeoff import BASES, BUDGETS, make_tradeoff

from prunelora.comparison.figures import draw_comparison, quality_figure
from prunelora.comparison.page import comparison_page, tables
from prunelora.comparison.results import load_comparison
from prunelora.comparison.summary import warnings
from prunelora.comparison.table_file import to_csv
from prunelora.comparison.tables import main_table, methods_table, sizes_shown, training_table
from prunelora.comparison.tradeoff import curves, holds_table
from prunelora.report.numbers import NONE

RESULTS = Path(__file__).parents[2] / "benchmarks" / "glue" / "results"


def lines_through_points(figure):
    """Places of the points that every curve goes through."""
    return [line.get_xydata().tolist() for line in figure.axes[0].lines if len(line.get_xdata()) == len(BUDGETS)]


def test_curves_are_the_methods_at_several_budgets_the_largest_first():
    results = make_tradeoff()
    turned = results.model_copy(update={"methods": results.methods[::-1]})
    for one in (results, turned):
        assert {name: [point.keep_macs for point in points] for name, points in curves(one).items()} == {
            name: list(BUDGETS) for name in BASES
        }
    assert curves(make_comparison()) == {}


def test_results_say_every_budget_and_are_read_back_the_same(tmp_path):
    results = make_tradeoff()
    results.save(tmp_path / "comparison.json")
    assert load_comparison(tmp_path / "comparison.json") == results
    assert to_csv(results).splitlines()[3].startswith("minilm,sst2,prune-lora@1,1.0,")


def test_results_of_before_there_were_budgets_can_be_read():
    found = sorted(RESULTS.glob("*/comparison.json"))
    assert found
    for path in found:
        assert {one.keep_macs for one in load_comparison(path).methods} == {None}


@pytest.mark.parametrize("place", [0, 1])
def test_a_curve_goes_through_the_measured_times_and_the_means(place):
    results = make_tradeoff()
    size = sizes_shown(results)[place]
    assert size == ((32, 128), (1, 128))[place]
    lines = lines_through_points(quality_figure(results, size))
    assert len(lines) == len(BASES)
    for base in BASES:
        points = [one for one in results.methods if one.base == base]
        expected = [
            [
                100 * next(t for t in one.latencies if (t.batch_size, t.tokens) == size).to_dense.median,
                100 * one.quality["test"]["accuracy"].mean,
            ]
            for one in points
        ]
        assert any(line == [pytest.approx(point) for point in expected] for line in lines)


def test_points_are_called_by_their_budgets_and_curves_have_a_legend():
    figure = quality_figure(make_tradeoff())
    words = [text.get_text() for axes in figure.axes for text in axes.texts]
    for budget in BUDGETS:
        assert words.count(f"{budget:g}") == len(BASES)
    assert any("most frequent class: 50.9" in word for word in words)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["full", "lora", *BASES]


def test_only_a_trade_off_has_curves_and_a_figure_of_a_single_row():
    assert set(draw_comparison(make_tradeoff())) == {"quality", "quality-single", "training"}
    plain = draw_comparison(make_comparison())
    assert set(plain) == {"quality", "training"}
    assert set(draw_comparison(make_tradeoff(timed=False))) == {"quality", "training"}


def test_every_point_has_a_row_with_its_quality_times_and_sizes():
    results = make_tradeoff()
    table = main_table(results, wide=True)
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows[1:]]
    assert [row["method"] for row in rows] == [
        "full", "lora", *(f"{base}@{budget:g}" for base in BASES for budget in BUDGETS),
    ]  # fmt: skip
    half = rows[4]
    assert half["accuracy, %"] == "88.2 \N{PLUS-MINUS SIGN} 0.4"
    assert half["inference, of dense, batch 32, 128 tokens"] == "54 %"
    assert half["inference, of dense, batch 1, 128 tokens"] == "62 %"
    assert (half["parameters"], half["training memory"]) == ("17.0 M", "0.46 GB")
    sizes = {row[0]: row[4:] for row in methods_table(results).rows}
    assert sizes["prune-lora@0.5"] == (
        "0.72 G", "36 of 72", "4,608 of 9,216", "0.5", "0, 1, 2",
        "trials/prune-lora@0.5/lr-0.001/seed-0/recipe.yaml",
    )  # fmt: skip
    assert sizes["full"][3] == NONE


def test_the_learning_rate_of_a_point_says_where_it_was_tried():
    rows = {row[0]: row[1:3] for row in training_table(make_tradeoff(("prune-lora",))).rows}
    assert rows["prune-lora@0.25"] == ("0.001, as of prune-lora@0.5", "0.001: 85.2")
    assert rows["prune-lora@0.5"] == ("0.001", "0.0005: 86.9; 0.001: 88.1; 0.002: 87.2")
    assert sum("as of" in rate for rate, _ in rows.values()) == len(BUDGETS) - 1


def test_how_far_down_quality_holds_is_shown_against_lora():
    ours, random = holds_table(make_tradeoff()).rows
    assert ours == (
        "prune-lora against lora", "0.5", "\N{MINUS SIGN}0.3", "\N{MINUS SIGN}1.5 to +0.8", "54 %",
        "0.35", "\N{MINUS SIGN}1.4", "< 0.001",
    )  # fmt: skip
    assert random[:2] == ("random-prune-lora against lora", "1")
    assert holds_table(make_comparison()).rows == ()


def test_without_lora_it_is_shown_against_the_largest_budget():
    (row,) = holds_table(make_tradeoff(("prune-lora",), references=())).rows
    assert row[:2] == ("prune-lora against prune-lora@1", "0.5")
    (worse,) = holds_table(make_tradeoff(("random-prune-lora",), references=())).rows
    assert (worse[1], worse[5]) == ("none", "0.75")


def test_a_gap_in_the_curve_ends_how_far_down_it_holds():
    """A budget further down that is within noise again does not count."""
    results = make_tradeoff(("prune-lora",))

    def row(p_of_a_half):
        values = {"prune-lora@0.5": p_of_a_half}
        pairs = tuple(pair.model_copy(update={"p_holm": values.get(pair.first, 0.5)}) for pair in results.pairs)
        return holds_table(results.model_copy(update={"pairs": pairs})).rows[0]

    assert (row(0.0005)[1], row(0.0005)[5]) == ("0.75", "0.5")
    assert (row(0.5)[1], row(0.5)[5]) == ("0.15", "none")


def test_a_point_at_the_majority_rate_is_said_to_have_learnt_nothing():
    results = make_tradeoff(("prune-lora",))
    last = results.methods[-1]
    low = last.quality["test"]["accuracy"].model_copy(update={"mean": MAJORITY, "values": (MAJORITY,) * 3})
    last = last.model_copy(update={"quality": {"test": {"accuracy": low}}})
    found = warnings(results.model_copy(update={"methods": (*results.methods[:-1], last)}))
    assert any(line.startswith("not significantly above") and "prune-lora@0.15" in line for line in found)


def test_tests_of_a_trade_off_are_folded_in_the_report_and_not_in_the_terminal():
    results = make_tradeoff()
    title = "Differences between methods"
    section = next(section for section in comparison_page(results).sections if section.heading == title)
    assert section.folded
    assert title not in [table.title for table in tables(results)]
    assert title in [table.title for table in tables(make_comparison())]


def test_a_trade_off_that_was_not_timed_shows_no_times():
    results = make_tradeoff(timed=False)
    assert any(line.startswith("nothing was timed") for line in warnings(results))
    assert not any("inference" in column for column in main_table(results, wide=True).columns)
