"""A task that reports several splits, none of them called "test", through everything that judges on reported rows."""

import json

import pytest
from small_run import make_mnli, make_model

from prunelora.comparison.compare import compare
from prunelora.data.load import load_task
from prunelora.data.settings import DataSettings
from prunelora.errors import DataError
from prunelora.reproduction.reproduce import reproduce
from prunelora.run.execute import execute
from prunelora.run.recipe import Recipe

SPLITS = ("matched", "mismatched")
SMALL = {"epochs": 1, "finetune.batch_size": 32, "rows": 16}


@pytest.fixture(autouse=True)
def without_figures(monkeypatch):
    """They take as long as the trainings."""
    monkeypatch.setattr("prunelora.comparison.page.draw_comparison", lambda _: {})


@pytest.fixture(scope="module")
def base(tmp_path_factory, minilm_path):
    folder = tmp_path_factory.mktemp("mnli")
    data_dir = make_mnli(folder / "mnli").parent
    model = make_model(folder / "model", minilm_path)
    return Recipe(model=str(model), task=DataSettings(task="mnli", data_dir=str(data_dir), max_length=32))


def test_every_reported_split_is_found_by_its_name(base):
    task = load_task(base.task)
    assert {name: len(task.split(name)) for name in ("matched", "mismatched", "test")} == {
        "matched": 9, "mismatched": 12, "test": 9,
    }  # fmt: skip
    with pytest.raises(DataError, match="no split 'fingerprint'"):
        task.split("fingerprint")  # A field that is no split.


def test_a_comparison_judges_every_reported_split(base, tmp_path):
    results = compare(
        base=base, out=tmp_path / "out", methods=("lora", "prune-lora"), seeds=(0, 1), factors=(1,),
        changes=SMALL | {"linear_probe.steps": 2}, timing=False, progress=False,
    )  # fmt: skip
    assert results.splits == SPLITS
    assert [(pair.split, pair.rows) for pair in results.pairs] == [("matched", 9), ("mismatched", 12)]
    assert all(set(method.quality) == set(SPLITS) for method in results.methods)


def test_a_reproduction_judges_every_reported_split(base, tmp_path, monkeypatch):
    def small_comparison(**options):
        small = {"methods": ("lora", "prune-lora"), "factors": (1,), "changes": SMALL | {"linear_probe.steps": 2}}
        return compare(**options | small)

    monkeypatch.setattr("prunelora.reproduction.reproduce.compare", small_comparison)
    reproduction = reproduce(
        out=tmp_path / "out", model=base.model, data_dir=base.task.data_dir, tasks=("mnli",), seeds=(0,),
        timing=False, progress=False,
    )  # fmt: skip
    comparison = reproduction.comparisons["mnli"]
    assert comparison.splits == SPLITS
    assert all(set(method.quality) == set(SPLITS) for method in comparison.methods)


def test_a_run_reports_every_split(base, tmp_path):
    recipe = base.without_export().with_options({"epochs": 1, "keep_heads": 8, "rows": 16, "repeats": 3})
    results = execute(recipe, tmp_path / "out", progress=False).results
    facts = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert set(facts["stages"]["measure"]["facts"]["more_tests"]) == {"mismatched"}
    assert results.task["rows"]["mismatched"] == 12
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "9 matched rows" in text
    assert "12 mismatched rows" in text
