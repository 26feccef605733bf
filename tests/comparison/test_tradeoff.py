"""The trade-off as people see it: curves, points with their commands, how far down quality holds."""

import re
from pathlib import Path

import pytest
from comparison.made_up_comparison import MAJORITY, make_comparison
from comparison.made_up_tradeoff import BASES, BUDGETS, make_tradeoff

from prunelora.comparison.commands import in_lines
from prunelora.comparison.figures import draw_comparison, quality_figure
from prunelora.comparison.page import commands, comparison_page, tables, to_markdown, write_comparison
from prunelora.comparison.results import load_comparison
from prunelora.comparison.summary import quality, warnings
from prunelora.comparison.table_file import to_csv
from prunelora.comparison.tables import learning_rates_table
from prunelora.comparison.texts import NONE
from prunelora.comparison.tradeoff import commands_text, curves, how_far_down, points_table, sizes_shown

RESULTS = Path(__file__).parents[2] / "benchmarks" / "glue" / "results"


def lines_through_points(figure):
    """Places of the points that every curve goes through."""
    return [line.get_xydata().tolist() for line in figure.axes[0].lines if len(line.get_xdata()) == len(BUDGETS)]


def test_curves_are_the_methods_at_several_budgets_the_largest_first():
    results = make_tradeoff()
    turned = results.model_copy(update={"methods": results.methods[::-1]})
    for one in (results, turned):
        assert {curve.name: [point.keep_macs for point in curve.points] for curve in curves(one)} == {
            name: list(BUDGETS) for name in BASES
        }
    assert curves(make_comparison()) == []


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
    assert {"full", "lora", "most frequent class: 50.9"} <= set(words)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(BASES)


def test_only_a_trade_off_has_curves_and_a_figure_of_a_single_row():
    assert set(draw_comparison(make_tradeoff())) == {"quality", "quality-single", "training"}
    plain = draw_comparison(make_comparison())
    assert set(plain) == {"quality", "training"}
    assert not any(figure.legends for figure in plain.values())
    assert set(draw_comparison(make_tradeoff(timed=False))) == {"quality", "training"}


def test_every_point_has_a_row_with_what_it_is_and_costs():
    table = points_table(make_tradeoff())
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert [(row["method"], row["budget"]) for row in rows] == [
        ("full", NONE), ("lora", NONE), *((base, f"{budget:g}") for base in BASES for budget in BUDGETS),
    ]  # fmt: skip
    assert rows[4] == {
        "method": "prune-lora", "budget": "0.5", "accuracy, %": "88.2 \N{PLUS-MINUS SIGN} 0.4",
        "time, of dense, batch 32, 128 tokens": "54 %", "time, of dense, batch 1, 128 tokens": "62 %",
        "heads of 72": "36", "neurons of 9,216": "4,608", "parameters": "17.0 M", "MACs": "0.72 G",
        "training memory": "0.46 GB",
    }  # fmt: skip
    assert points_table(make_comparison()).rows == ()


def test_every_point_has_its_command_as_it_stands_in_every_report(tmp_path):
    results = make_tradeoff()
    write_comparison(results, tmp_path)
    html, markdown = ((tmp_path / f"report.{kind}").read_text(encoding="utf-8") for kind in ("html", "md"))
    printed = "\n".join(commands(results))
    for method in results.methods:
        assert f"\n{in_lines(method.command)}\n" in markdown
        assert in_lines(method.command) in html
        assert f"\n{in_lines(method.command)}\n" in f"{printed}\n"
    assert html.count("<svg") == 3
    assert printed.count("# ") == printed.count("prunelora run") == len(results.methods)


def test_a_single_budget_has_its_commands_too():
    results = make_comparison(("full", "prune-lora"))
    one = results.methods[1].model_copy(update={"keep_macs": 0.4, "command": "prunelora run --keep-macs 0.4"})
    results = results.model_copy(update={"methods": (results.methods[0], one)})
    assert "prunelora run --keep-macs 0.4" in to_markdown(results)
    assert [row[:2] for row in points_table(results).rows] == [("full", NONE), ("prune-lora", "0.4")]
    assert commands_text(make_comparison()) is None
    assert "Pick a point" not in to_markdown(make_comparison())


def test_the_learning_rate_of_a_point_says_where_it_was_tried():
    rows = learning_rates_table(make_tradeoff(("prune-lora",))).rows
    assert ("prune-lora@0.25", "0.001", "85.2", "as of prune-lora@0.5") in rows
    assert ("prune-lora@0.5", "0.001", "88.1", "chosen") in rows
    assert sum(row[3].startswith("as of") for row in rows) == len(BUDGETS) - 1


def test_how_far_down_quality_holds_is_said_against_lora():
    ours, random = how_far_down(make_tradeoff())
    assert ours == (
        "down to keep_macs=0.5 prune-lora is not below the accuracy of lora by more than noise (there "
        "\N{MINUS SIGN}0.3, 95 % interval \N{MINUS SIGN}1.5 to +0.8), in 54 % of the dense model's time at "
        "batch 32, 128 tokens; at 0.35 it is at \N{MINUS SIGN}1.4 points (p < 0.001)."
    )
    assert random.startswith("down to keep_macs=1 random-prune-lora is not below")
    assert ours in quality(make_tradeoff())


def test_without_lora_it_is_said_against_the_largest_budget():
    (line,) = how_far_down(make_tradeoff(("prune-lora",), references=()))
    assert line.startswith("down to keep_macs=0.5 prune-lora is not below the accuracy of prune-lora@1 by more")
    (worse,) = how_far_down(make_tradeoff(("random-prune-lora",), references=()))
    assert worse.startswith(
        "random-prune-lora is below the accuracy of random-prune-lora@1 already at keep_macs=0.75: "
    )


def test_a_gap_in_the_curve_ends_how_far_down_it_holds():
    """What comes back within noise further down does not count."""
    results = make_tradeoff(("prune-lora",))
    pairs = tuple(
        pair.model_copy(update={"p_holm": 0.0005 if pair.first == "prune-lora@0.5" else 0.5})
        for pair in results.pairs
    )  # fmt: skip
    (line,) = how_far_down(results.model_copy(update={"pairs": pairs}))
    assert line.startswith("down to keep_macs=0.75 prune-lora is not below")
    assert "; at 0.5 it is at" in line
    (line,) = how_far_down(
        results.model_copy(update={"pairs": tuple(one.model_copy(update={"p_holm": 0.5}) for one in results.pairs)})
    )
    assert line.startswith("down to keep_macs=0.15 prune-lora is not below")
    assert line.endswith("128 tokens.")


def test_a_point_at_the_majority_rate_is_said_to_have_learnt_nothing():
    results = make_tradeoff(("prune-lora",))
    last = results.methods[-1]
    low = last.quality["test"]["accuracy"].model_copy(update={"mean": MAJORITY, "values": (MAJORITY,) * 3})
    last = last.model_copy(update={"quality": {"test": {"accuracy": low}}})
    found = warnings(results.model_copy(update={"methods": (*results.methods[:-1], last)}))
    assert any(line.startswith("not above always") and "prune-lora@0.15" in line for line in found)


def test_tests_of_a_trade_off_are_folded_in_the_report_and_not_in_the_terminal():
    results = make_tradeoff()
    title = "Which differences are more than noise"
    section = next(one for one in comparison_page(results, frozenset()).sections if one.title == title)
    assert section.folded
    assert title not in [table.title for table in tables(results)]
    assert title in [table.title for table in tables(make_comparison())]


def test_a_trade_off_that_was_not_timed_says_so():
    results = make_tradeoff(timed=False)
    text = to_markdown(results)
    assert "Nothing was timed." in text
    assert not any("time, of dense" in column for column in points_table(results).columns)
    assert re.search(r"^# prune-lora@0\.5, 88\.2 ± 0\.4 %$", text, flags=re.MULTILINE)
