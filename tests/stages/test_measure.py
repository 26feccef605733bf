"""What measure finds beside costs: quality on the reported rows, before the cut too, and the latency asked for."""

import json

import numpy as np
import pytest
from small_run import make_data, make_mnli, make_model

import prunelora as pl
from prunelora.data.load import load_task
from prunelora.data.metrics import metrics
from prunelora.data.settings import DataSettings
from prunelora.data.tokens import tokenise
from prunelora.delivery.processors import load_tokenizer
from prunelora.evaluation.quality import evaluate
from prunelora.evaluation.significance import bootstrap
from prunelora.run.execute import execute
from prunelora.run.recipe import read_recipe

TUNING = {"epochs": 1, "learning_rate": 5e-3, "batch_size": 16}
TUNE_FIRST = ["finetune", "merge", "score", "plan", "prune", "finetune", "merge", "measure", "report"]
CUT_FIRST = ["linear_probe", "score", "plan", "prune", "finetune", "merge", "measure", "report"]
SMALL = {
    "linear_probe": {"steps": 4, "rows": 32},
    "score": {"rows": 32},
    "prune": {"repair_rows": 32},
    "finetune": TUNING,
    "measure": {"repeats": 3, "warmup": 1},
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, minilm_path):
    folder = tmp_path_factory.mktemp("inputs")
    return {"model": str(make_model(folder / "model", minilm_path)), "data": str(make_data(folder / "reviews.csv"))}


def run(inputs, out, kinds, plan, task=None):
    content = [{"stage": kind} | (plan if kind == "plan" else SMALL.get(kind, {})) for kind in kinds]
    task = task or {"data": inputs["data"]}
    recipe = read_recipe({"model": inputs["model"], "task": task, "stages": content}, source="test")
    return execute(recipe, out, progress=False)


@pytest.fixture(scope="module")
def tuned_first(tmp_path_factory, inputs):
    out = tmp_path_factory.mktemp("tuned") / "run"
    return run(inputs, out, TUNE_FIRST, {"keep_macs": 0.5})


def test_the_model_before_the_cut_is_judged_on_the_reported_rows(tuned_first, inputs):
    facts = tuned_first.results.facts("measure")["tuned_dense"]
    assert facts["stage"] == "merge-1"
    task = load_task(DataSettings(data=inputs["data"]))
    tokenizer = load_tokenizer(inputs["model"])
    model = pl.load(tuned_first.folder / "model-1")
    rows = tokenise(task.test, tokenizer, max_length=128)
    assert facts["test"] == pytest.approx(evaluate(model, rows, tokenizer, problem_type=task.problem_type))


def test_summary_report_and_card_show_the_model_before_the_cut(tuned_first):
    said = [line for line in tuned_first.summary if "(dense: before the cut)" in line]
    assert said
    report = (tuned_first.folder / "report.md").read_text(encoding="utf-8")
    assert "No dense model was trained on this task" not in report
    assert "same training up to the cut, nothing cut" in report
    card = (tuned_first.folder / "model" / "README.md").read_text(encoding="utf-8")
    assert card.count("| the same training up to the cut, nothing cut: accuracy, 12 test rows |") == 1
    assert card.count("| accuracy, 12 test rows |") == 1


def test_it_is_recorded_and_not_judged_again(tuned_first, inputs, monkeypatch):
    monkeypatch.setattr("prunelora.stages.judging.tested", lambda *_: pytest.fail("judged again"))
    again = run(inputs, tuned_first.folder, TUNE_FIRST, {"keep_macs": 0.5})
    assert again.ran == ()
    assert again.results.facts("measure")["tuned_dense"] == tuned_first.results.facts("measure")["tuned_dense"]


def test_measuring_again_leaves_one_row_a_number_on_the_card(tuned_first, inputs):
    (tuned_first.folder / "stages" / "measure.json").unlink()
    assert run(inputs, tuned_first.folder, TUNE_FIRST, {"keep_macs": 0.5}).ran[0] == "measure"
    card = (tuned_first.folder / "model" / "README.md").read_text(encoding="utf-8")
    assert card.count("| accuracy, 12 test rows |") == 1
    assert "## Plan" in card


def test_a_run_that_cuts_an_untuned_model_has_no_such_model(inputs, tmp_path):
    outcome = run(inputs, tmp_path / "run", CUT_FIRST, {"keep_macs": 0.5})
    assert "tuned_dense" not in outcome.results.facts("measure")
    assert "No dense model was trained on this task" in (outcome.folder / "report.md").read_text(encoding="utf-8")


def test_a_latency_is_measured_where_it_was_asked_for(inputs, tmp_path, latency_asked):
    plan = {"speedup": 1.3, "tokens": 19, "latency_batch_size": 3, "latency_threads": 1}
    outcome = run(inputs, tmp_path / "run", CUT_FIRST, plan)
    facts = outcome.results.facts("measure")["asked_latency"]
    assert (facts["batch_size"], facts["tokens"], facts["engine"], facts["threads"]) == (3, 19, "torch", 1)
    met = 1 / facts["ratio"]["median"] >= 1.3
    line = outcome.summary[0]
    assert line.startswith("speedup=1.3 at batch 3, 19 tokens, torch, 1 thread: ")
    assert f"{'met' if met else 'missed'}: " in line
    assert "speedup=1.3 at batch 3" in (outcome.folder / "report.md").read_text(encoding="utf-8")


def test_the_model_before_the_cut_is_judged_on_every_reported_split(inputs, tmp_path):
    data_dir = make_mnli(tmp_path / "data" / "mnli").parent
    outcome = run(inputs, tmp_path / "run", TUNE_FIRST, {"keep_macs": 0.5}, {"task": "mnli", "data_dir": str(data_dir)})
    facts = outcome.results.facts("measure")
    assert set(facts["tuned_dense"]["more_tests"]) == {"mismatched"}
    assert "9 matched rows" in " ".join(outcome.summary)


@pytest.mark.parametrize("metric", ["f1", "matthews"])
def test_samples_of_two_models_are_of_the_same_rows(metric):
    """So that their differences vary less than each: of a model with itself, not at all."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 80)
    answers = np.eye(2)[np.where(generator.random(80) < 0.8, labels, 1 - labels)]

    def judge(logits, of):
        return metrics(logits, of, "single_label_classification", ("a", "b"))

    first, second = (bootstrap(judge, answers, labels, draws=20) for _ in range(2))
    assert [one[metric] for one in first] == [one[metric] for one in second]
    assert len({one[metric] for one in first}) > 10
    assert json.dumps(first[0])
