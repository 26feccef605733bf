"""The trade-off benchmark: its report is what its results make, and its command one that the command line takes."""

import shutil

import pytest

from benchmarks.harness import ROOT
from benchmarks.tradeoff import benchmark as tradeoff
from prunelora.comparison.results import load_comparison
from prunelora.comparison.tables import latency_at, quality_text
from prunelora.report.numbers import percent, scaled

BUDGETS = [float(one) for one in tradeoff.COMMAND.split("--keep-macs ")[1].split()[0].split(",")]


@pytest.fixture(scope="module")
def results():
    return load_comparison(tradeoff.RESULTS / "comparison.json")


@pytest.mark.parametrize("name", ["report.md", "comparison.csv"])
def test_the_committed_report_is_what_the_results_make(name, tmp_path):
    shutil.copyfile(tradeoff.RESULTS / "comparison.json", tmp_path / "comparison.json")
    tradeoff.write_report(tmp_path)
    assert (tmp_path / name).read_text(encoding="utf-8") == (tradeoff.RESULTS / name).read_text(encoding="utf-8")
    drawn, committed = (sorted(path.name for path in (at / "figures").iterdir()) for at in (tmp_path, tradeoff.RESULTS))
    assert drawn == committed


def test_the_results_are_those_of_the_command(results):
    budgets = {method.keep_macs for method in results.methods if method.keep_macs is not None}
    assert budgets == set(BUDGETS)
    for method in results.methods:
        assert {trial.seed for trial in results.trials if trial.method == method.name} >= {0, 1, 2}
    epochs = {
        round(sum(stage["epochs"] for stage in trial.recipe["stages"] if stage["stage"] == "finetune"), 6)
        for trial in results.trials
    }
    assert epochs == {float(tradeoff.COMMAND.split("--epochs ")[1].split()[0])}


def test_the_results_page_shows_what_was_found(results):
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    for method in results.methods:
        budget = "all, plain LoRA" if method.keep_macs is None else f"{method.keep_macs:g}"
        times = (percent(latency_at(method, size).to_dense.median) for size in ((32, 128), (1, 128)))
        quality = quality_text(method, "accuracy", "test")
        row = "all" if budget == "1" else budget, quality, *times, scaled(method.parameters)
        assert f"\n| {' | '.join(row)} |\n" in page


def test_the_results_page_says_what_half_of_the_macs_costs_beside_both(results):
    means = {one.name: 100 * one.quality["test"]["accuracy"].mean for one in results.methods}
    page = " ".join((ROOT / "docs" / "results.md").read_text(encoding="utf-8").split())
    below, above = (abs(means["tune-first@0.5"] - means[name]) for name in ("tune-first@1", "lora"))
    assert means["lora"] < means["tune-first@0.5"] < means["tune-first@1"]
    assert f"{below:.1f} points below the same recipe with nothing cut, and {above:.1f} above LoRA on attention" in page
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    quarter = means["tune-first@1"] - means["tune-first@0.25"]
    assert f"half of the MACs costs {below:.1f} points" in readme
    assert f"a quarter of the MACs costs {quarter:.1f}:" in readme
