"""What training takes from beginning to end: how ratios are taken, and what docs/results.md says of them."""

import json

import pytest

from benchmarks import training_time


def made_up_round(task, lora, cut_early):
    seconds = {method: {"finetune": 50.0, "merge": 0.0} for method in training_time.METHODS}
    seconds |= {
        "lora": {"finetune": lora, "merge": 1.0},
        "cut-early": {"finetune-1": 20.0, "finetune": cut_early - 20.0},
    }
    return {"task": task, "seed": 0, "seconds": seconds}


def test_all_stages_count_and_ratios_are_taken_within_a_round():
    rounds = [made_up_round("sst2", 99.0, 80.0), made_up_round("mrpc", 199.0, 100.0), made_up_round("rte", 49.0, 60.0)]
    assert training_time.shares(rounds, "cut-early") == pytest.approx([0.8, 0.5, 1.2])
    line = next(line for line in training_time.lines(rounds) if line.startswith("cut-early"))
    assert "0.80 of LoRA's (0.50 to 1.20: sst2 0.80, mrpc 0.50, rte 1.20)" in line


@pytest.mark.parametrize("method", training_time.METHODS)
def test_all_train_for_as_many_epochs(method):
    recipe = training_time.recipe_of(method, "mrpc", 1)
    assert sum(tuning.epochs for tuning in recipe.tunings.values()) == pytest.approx(2)
    assert (recipe.seed, recipe.task.task) == (1, "mrpc")


def test_the_results_page_says_what_training_takes():
    rounds = json.loads(training_time.RESULT.read_text(encoding="utf-8"))["rounds"]
    page = " ".join((training_time.RESULT.parents[2] / "docs" / "results.md").read_text(encoding="utf-8").split())
    for method in ("tune-first", "cut-early"):
        least, *_, most = sorted(training_time.shares(rounds, method))
        before = {"tune-first": "all stages", "cut-early": "there"}[method]
        said = f"{least:.1f} to {most:.1f} times its time"
        assert (f"{said}, {before}" if method == "tune-first" else f"{before} {said}") in page, method


def test_rounds_that_are_there_stay_unless_another_machine_has_run_them(tmp_path):
    path = tmp_path / "found.json"
    assert training_time.found_before(path, {"cpu": "a"}) == []
    rounds = [made_up_round("sst2", 99.0, 80.0)]
    path.write_text(json.dumps({"rounds": rounds, "machine": {"cpu": "a"}}))
    assert training_time.found_before(path, {"cpu": "a"}) == rounds
    assert training_time.found_before(path, {"cpu": "b"}) == []
