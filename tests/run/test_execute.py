"""The whole way, small: every stage once, resuming, hand-edited plans, repeated stages, and the API's own doors."""

import dataclasses
import gc
import json
import math
import shutil
import sys
from pathlib import Path

import pandas
import pytest
import torch
from small_run import copy_dense_exports, make_data, make_model
from tiny import largest_difference, logits, tiny_model
from transformers import AlbertConfig, AlbertModel, Trainer

import prunelora as pl
from prunelora.data.load import load_task
from prunelora.data.tokens import calibration_batches, tokenise
from prunelora.delivery import onnx
from prunelora.delivery.processors import load_tokenizer
from prunelora.errors import (
    CheckpointError,
    DataError,
    ExportError,
    MissingExtraError,
    PruneLoraError,
    RecipeError,
    UnsupportedModelError,
)
from prunelora.finetuning import callbacks, training
from prunelora.finetuning.settings import FineTuneSettings
from prunelora.importance.linear_probe import train_linear_probe_
from prunelora.models.anatomy import dissect
from prunelora.models.families import FAMILIES
from prunelora.models.loading import load_pretrained
from prunelora.planning.latency_model import LatencyModel
from prunelora.run.check import PAIRS
from prunelora.run.execute import execute
from prunelora.run.folder import RunFolder
from prunelora.run.recipe import Recipe, read_recipe
from prunelora.stages import context
from prunelora.stages import training as stage_training
from prunelora.stages.kinds import BY_KIND
from prunelora.storage import locked

PAPER = ["linear_probe", "score", "plan", "prune", "finetune", "merge"]
SMALL = {
    "linear_probe": {"steps": 4, "rows": 32},
    "score": {"rows": 32},
    "plan": {"keep_heads": 0.5, "keep_ffn": 0.5},
    "finetune": {"epochs": 2, "learning_rate": 5e-3, "batch_size": 16},
    "measure": {"repeats": 3, "warmup": 1},
}
BATCH = {"input_ids": torch.tensor([[101, 2204, 2143, 102]]), "attention_mask": torch.ones(1, 4, dtype=torch.long)}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, minilm_path):
    folder = tmp_path_factory.mktemp("inputs")
    return {"model": str(make_model(folder / "model", minilm_path)), "data": str(make_data(folder / "reviews.csv"))}


def recipe_of(inputs, kinds=PAPER, **changes) -> Recipe:
    content = [{"stage": kind} | SMALL.get(kind, {}) for kind in kinds]
    recipe = read_recipe({"model": inputs["model"], "task": {"data": inputs["data"]}, "stages": content}, source="test")
    return recipe.with_settings(changes)


def run(inputs, out, kinds=PAPER, until=None, **changes):
    return execute(recipe_of(inputs, kinds, **changes), out, until=until, progress=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, inputs):
    """One run with every stage, looked at by several tests."""
    out = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch:
        copy_dense_exports(patch)
        return run(inputs, out, [*PAPER, "export", "baseline", "measure", "report"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory, inputs):
    """A run with the paper's stages; its folder is not changed."""
    return run(inputs, tmp_path_factory.mktemp("whole") / "run")


def test_a_run_leaves_everything_it_promises(finished):
    files = {path.name for path in finished.folder.iterdir()} - {".lock"}
    assert files == {
        "recipe.yaml", "head.safetensors", "importance.safetensors", "plan.json", "repaired.safetensors", "adapter",
        "model", "model.onnx", "metrics.json", "figures", "report.html", "report.md", "stages",
    }  # fmt: skip
    model = finished.load()
    assert model.prunelora_plan.architecture.total_heads == 6
    assert model.config.id2label == {0: "bad", 1: "good"}
    metrics = json.loads((finished.folder / "metrics.json").read_text())
    assert metrics["stages"]["measure"]["facts"]["test_rows"] == 12
    right = 12 * finished.results.facts("baseline")["test"]["accuracy"]
    assert right == pytest.approx(round(right))
    card = (finished.folder / "model" / "README.md").read_text()
    assert "| validation, most frequent class | 0.5000 |" in card
    assert RunFolder(finished.folder).recipe().without_paths().to_yaml() in card
    text = " ".join(finished.summary)
    assert "most frequent class: 50.0" in text
    assert finished.ran == (
        "linear_probe",
        "score",
        "plan",
        "prune",
        "finetune",
        "merge",
        "export",
        "baseline",
        "measure",
        "report",
    )


def test_a_budget_of_macs_and_the_repair_are_resumed_as_they_were(inputs, tmp_path):
    """A run stopped behind the cut goes on with the repaired weights, not with those that were only cut."""
    budget = {"plan.keep_macs": 0.5}
    stopped = run(inputs, tmp_path / "run", until="prune", **budget)
    before = stopped.results.facts("prune")
    assert before["repair"]["rows"] > 0
    assert len(before["repair"]["projections"]) == 2 * 3
    whole = run(inputs, tmp_path / "whole", **budget)
    resumed = run(inputs, tmp_path / "run", **budget)
    assert resumed.ran == ("finetune", "merge")
    assert largest_difference(logits(resumed.load(), BATCH), logits(whole.load(), BATCH)) == 0.0


def test_a_budget_of_time_keeps_what_it_was_planned_by(inputs, tmp_path, latency_asked):
    outcome = run(inputs, tmp_path / "run", until="plan", **{"plan.speedup": 1.2, "plan.tokens": 16})
    facts = outcome.results.facts("plan")
    assert facts["predicted_ms"] <= facts["dense_ms"] / 1.2 * (1 + 1e-9)
    assert LatencyModel.load(tmp_path / "run" / "latency.json").settings.tokens == 16
    assert [asked.tokens for asked in latency_asked] == [16]


def test_tuning_first_can_be_distilled(inputs, tmp_path):
    kinds = ["finetune", "merge", "score", "plan", "prune", "finetune", "merge"]
    changes = {"finetune.distillation": 0.5, "finetune.epochs": 2, "finetune-1.epochs": 1}
    outcome = run(inputs, tmp_path / "run", [*kinds, "baseline"], **changes)
    assert outcome.ran == ("finetune-1", "merge-1", "score", "plan", "prune", "finetune", "merge", "baseline")
    assert outcome.results.facts("baseline")["training"]["steps"] > 0  # As the longest, but without a teacher.
    with pytest.raises(RecipeError, match="needs a teacher, and no model was merged before"):
        run(inputs, tmp_path / "other", ["score", "plan", "prune", "finetune", "merge"], **{"finetune.distillation": 1})


def test_a_run_leaves_no_model_in_memory(inputs, tmp_path):
    """Comparisons run many in one process."""
    gc.collect()
    before = {id(one) for one in gc.get_objects() if isinstance(one, torch.nn.Module | Trainer)}
    gc.disable()  # What is left must go by itself, not when Python happens to look.
    try:
        run(inputs, tmp_path / "run", ["finetune", "merge"])
        after = [one for one in gc.get_objects() if isinstance(one, torch.nn.Module | Trainer)]
    finally:
        gc.enable()
    assert [type(one).__name__ for one in after if id(one) not in before] == []


def test_a_finished_run_does_nothing_again(finished, inputs):
    before = {
        path: path.stat().st_mtime_ns
        for path in finished.folder.rglob("*")
        if path.is_file() and "stages" in path.parts
    }
    again = run(inputs, finished.folder, [*PAPER, "export", "baseline", "measure", "report"])
    assert again.ran == ()
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert again.summary == finished.summary


def test_a_run_equals_the_api_called_stage_by_stage(inputs, whole):
    """command == API: the same scores, the same plan, the same weights."""
    recipe = recipe_of(inputs)
    task, tokenizer = load_task(recipe.task), load_tokenizer(inputs["model"])
    model = load_pretrained(inputs["model"], label_names=task.label_names, problem_type=task.problem_type)
    batches = calibration_batches(task, tokenizer, rows=32)
    train_linear_probe_(model, batches, steps=4)
    importance = pl.score(model, batches)
    plan = pl.make_plan(importance, keep_heads=0.5, keep_ffn=0.5)
    assert plan.id == pl.Plan.load(whole.folder / "plan.json").id
    rows_for_repair = calibration_batches(task, tokenizer, rows=1024)
    peft_model = pl.add_adapter(pl.prune_(model, plan, repair_with=rows_for_repair), plan)
    train, validation = (tokenise(rows, tokenizer, max_length=128) for rows in (task.train, task.validation))
    settings = FineTuneSettings(epochs=2, learning_rate=5e-3, batch_size=16)
    pl.finetune(peft_model, train, validation, tokenizer=tokenizer, settings=settings, progress=False)
    merged = pl.merge(peft_model)
    assert largest_difference(logits(merged, BATCH), logits(whole.load(), BATCH)) < 1e-6


def test_compress_is_the_same_in_one_call(inputs, whole, tmp_path):
    outcome = pl.compress(
        model=inputs["model"],
        data=inputs["data"],
        out=tmp_path / "two",
        recipe=recipe_of(inputs, model="elsewhere", **{"task.data": "nowhere.csv"}),
        progress=False,
        seed=0,
    )
    assert torch.equal(logits(outcome.load(), BATCH), logits(whole.load(), BATCH))


def stop_at_the_end_of(patch, kind: str) -> None:
    """Stop a stage after it has written its files and before its record."""
    work = BY_KIND[kind].run

    def stopped(*arguments):
        work(*arguments)
        raise KeyboardInterrupt

    patch.setattr(BY_KIND[kind], "run", stopped)


@pytest.mark.parametrize("stage", PAPER)
def test_a_run_stopped_in_any_stage_goes_on_where_it_stopped(inputs, whole, tmp_path, monkeypatch, stage):
    with monkeypatch.context() as patch:
        stop_at_the_end_of(patch, stage)  # As after kill -9 at the last moment.
        with pytest.raises(KeyboardInterrupt):
            run(inputs, tmp_path / "stopped")
    outcome = run(inputs, tmp_path / "stopped")
    assert outcome.ran == tuple(PAPER[PAPER.index(stage) :])
    assert torch.equal(logits(outcome.load(), BATCH), logits(whole.load(), BATCH))


@pytest.mark.parametrize("epochs", [0.4, 1.6, 2])
def test_a_training_killed_behind_its_last_step_takes_none_again(inputs, whole, tmp_path, monkeypatch, epochs):
    """Its checkpoints stay until its record is written; a schedule that ends in no 0 would show a step too many."""
    changes = {"finetune.epochs": epochs, "finetune.schedule": "constant_with_warmup"}
    shutil.copytree(whole.folder, tmp_path / "expected")  # Its stages before the fine-tuning are the same.
    expected = run(inputs, tmp_path / "expected", **changes)
    shutil.copytree(whole.folder, tmp_path / "stopped")
    with monkeypatch.context() as patch:

        def stopped(*_, **__):
            raise KeyboardInterrupt

        patch.setattr("prunelora.delivery.checkpoints.save", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(inputs, tmp_path / "stopped", until="finetune", **changes)
    steps = []

    class Counting(callbacks.StepClock):
        def on_step_end(self, args, state, control, **kwargs):
            steps.append(state.global_step)

    monkeypatch.setattr(training, "StepClock", Counting)
    outcome = run(inputs, tmp_path / "stopped", **changes)
    assert steps == []
    for name in ("history", "steps", "best", "best_step"):
        assert outcome.results.facts("finetune")[name] == expected.results.facts("finetune")[name], name
    assert torch.equal(logits(outcome.load(), BATCH), logits(expected.load(), BATCH))
    assert not list((tmp_path / "stopped").glob(".*checkpoints"))


def test_what_a_kill_left_half_written_is_swept_and_blocks_nothing(inputs, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".recipe.yaml.prunelora-abcd_123.yaml").write_text("format")
    run(inputs, folder, until="score")
    (folder / ".model.prunelora-0123abcd").mkdir()
    (folder / ".model.prunelora-0123abcd" / "model.safetensors").write_text("half")
    (folder / ".mine").write_text("kept")
    (folder / "stages" / ".score.json.prunelora-0123abcd.json").write_text("half")
    run(inputs, folder, until="score")
    assert not list((folder / "stages").glob(".*"))
    assert {path.name for path in folder.iterdir() if path.name.startswith(".")} == {".lock", ".mine"}


def stop_after(monkeypatch, steps: int) -> None:
    """Kill trainings at a step, until the patch is undone."""

    class Killing(callbacks.StepClock):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == steps:
                raise KeyboardInterrupt

    monkeypatch.setattr(training, "StepClock", Killing)


@pytest.mark.parametrize("kinds", [PAPER, [*PAPER, "baseline"]])
def test_a_training_that_was_stopped_is_not_gone_on_with_under_other_settings(inputs, tmp_path, monkeypatch, kinds):
    slow, fast = {"finetune.learning_rate": 1e-4}, {"finetune.learning_rate": 5e-3}
    expected = run(inputs, tmp_path / "whole", kinds, **fast)
    first = expected.results.facts("finetune")["steps"]
    if kinds[-1] == "baseline":
        run(inputs, tmp_path / "run", kinds[:-1], **slow)
    with monkeypatch.context() as patch:
        stop_after(patch, first - 1)
        with pytest.raises(KeyboardInterrupt):
            run(inputs, tmp_path / "run", kinds, **slow)
    left = list((tmp_path / "run").glob(".*checkpoints/checkpoint-*"))
    assert left, "nothing was there to go on from"
    outcome = run(inputs, tmp_path / "run", kinds, **fast)
    for name in ("finetune", "baseline")[: 2 if kinds[-1] == "baseline" else 1]:
        whole, found = (one.results.facts(name) for one in (expected, outcome))
        whole, found = (one.get("training", one)["history"] for one in (whole, found))
        assert found == whole, name
    assert torch.equal(logits(outcome.load(), BATCH), logits(expected.load(), BATCH))


def test_checkpoints_of_an_earlier_version_are_removed_and_the_training_begins_anew(
    inputs, whole, tmp_path, monkeypatch
):
    expected = whole.results.facts("finetune")
    with monkeypatch.context() as patch:
        stop_after(patch, expected["steps"] - 1)
        with pytest.raises(KeyboardInterrupt):
            run(inputs, tmp_path / "run", until="finetune")
    checkpoints = tmp_path / "run" / ".checkpoints"
    assert list(checkpoints.glob("checkpoint-*"))
    (checkpoints / "training.json").unlink()  # Earlier versions wrote none.
    told = []
    outcome = execute(recipe_of(inputs), tmp_path / "run", until="finetune", tell=told.append)
    assert any("earlier version" in line for line in told)
    assert outcome.results.facts("finetune")["history"] == expected["history"]


def test_files_of_a_stage_that_was_stopped_are_not_taken_for_those_of_before(inputs, whole, tmp_path, monkeypatch):
    """Back under the old settings, what a stopped stage has replaced is made again."""
    run(inputs, tmp_path / "run", until="prune")
    with monkeypatch.context() as patch:
        stop_at_the_end_of(patch, "prune")
        with pytest.raises(KeyboardInterrupt):
            run(inputs, tmp_path / "run", until="prune", **{"prune.repair_weights": "loss"})
    outcome = run(inputs, tmp_path / "run")
    assert outcome.ran == ("prune", "finetune", "merge")
    assert torch.equal(logits(outcome.load(), BATCH), logits(whole.load(), BATCH))


@pytest.mark.parametrize("kinds", [PAPER, ["finetune", "merge", *PAPER[1:]]])
def test_the_adapter_of_a_run_is_on_the_model_that_it_was_trained_on(inputs, tmp_path, kinds):
    """Its base was repaired, and where the recipe tunes first, tuned and merged."""
    outcome = run(inputs, tmp_path / "run", kinds, **{"finetune.epochs": 1})
    adapter = tmp_path / "run" / "adapter"
    assert largest_difference(logits(pl.load(adapter), BATCH), logits(outcome.load(), BATCH)) < 1e-5
    for name in ("repaired.safetensors", "model-1"):
        if (tmp_path / "run" / name).exists():
            (tmp_path / "run" / name).rename(tmp_path / name)
            with pytest.raises(CheckpointError, match=rf"\.\./{name}"):
                pl.load(adapter)
            (tmp_path / name).rename(tmp_path / "run" / name)


def test_rows_that_may_be_longer_than_the_model_can_read_are_an_error_before_any_work(inputs, tmp_path):
    rows = Path(inputs["data"]).read_text().splitlines()
    _, sign, label = rows[-1].rpartition(",")
    longer = tmp_path / "longer.csv"
    longer.write_text("\n".join([*rows, f"{' '.join(80 * ['good'])}{sign}{label}"]) + "\n")
    with pytest.raises(UnsupportedModelError, match=r"a \w+ row has 82 tokens.* positions for 64"):
        run(inputs, tmp_path / "run", **{"task.data": str(longer)})
    assert not (tmp_path / "run" / "head.safetensors").exists()
    outcome = run(inputs, tmp_path / "run", until="score", **{"task.data": str(longer), "task.max_length": 64})
    assert outcome.ran == ("linear_probe", "score")


def test_what_rows_are_padded_with_is_the_models_padding(tmp_path, inputs, monkeypatch):
    recipe, task = recipe_of(inputs), load_task(recipe_of(inputs).task)
    tokenizer = load_tokenizer(inputs["model"])
    tokenizer.pad_token = "[MASK]"
    assert context.pretrained(recipe, task).config.pad_token_id != tokenizer.pad_token_id
    assert context.pretrained(recipe, task, tokenizer).config.pad_token_id == tokenizer.pad_token_id


@pytest.mark.parametrize("version", [None, 2])
def test_a_stage_of_another_version_is_repeated_and_a_line_says_so(inputs, tmp_path, monkeypatch, version):
    run(inputs, tmp_path / "run", ["score", "plan"])
    path = tmp_path / "run" / "stages" / "plan.json"
    if version is None:  # Version 0.2 wrote none, and its keys were of the whole library.
        record = json.loads(path.read_text())
        path.write_text(json.dumps({name: record[name] for name in record if name != "version"} | {"key": "0"}))
    else:
        monkeypatch.setattr(BY_KIND["plan"], "version", version)
    told = []
    again = execute(recipe_of(inputs, ["score", "plan"]), tmp_path / "run", tell=told.append, progress=False)
    assert again.ran == ("plan",)
    assert any(line.startswith("plan: was finished by another version") for line in told)


def test_a_changed_recipe_repeats_what_depends_on_it(inputs, whole, tmp_path):
    shutil.copytree(whole.folder, tmp_path / "run")
    assert run(inputs, tmp_path / "run", **{"plan.keep_heads": "0.25"}).ran == ("plan", "prune", "finetune", "merge")
    assert run(inputs, tmp_path / "run", **{"plan.keep_heads": "0.25", "finetune.epochs": 1}).ran == (
        "finetune",
        "merge",
    )
    assert run(inputs, tmp_path / "run", seed=1).ran == tuple(PAPER)


def test_a_deleted_result_is_made_again(inputs, tmp_path):
    run(inputs, tmp_path / "run", until="plan")
    (tmp_path / "run" / "importance.safetensors").unlink()
    assert run(inputs, tmp_path / "run", until="plan").ran == ("score",)


def test_a_plan_edited_by_hand_is_used_as_it_is(inputs, whole, tmp_path):
    shutil.copytree(whole.folder, tmp_path / "run")
    path = tmp_path / "run" / "plan.json"
    plan = pl.Plan.load(path)
    fewer = plan.model_copy(update={"heads": (plan.heads[0][:1], (), plan.heads[2])})
    fewer.save(path)
    told = []
    outcome = execute(recipe_of(inputs), tmp_path / "run", tell=told.append, progress=False)
    assert outcome.ran == ("prune", "finetune", "merge")
    assert any("edited by hand" in line for line in told)
    assert outcome.load().prunelora_plan.id == fewer.id != whole.results.plan.id


def test_stages_can_be_repeated_tune_first(inputs, tmp_path):
    kinds = [
        "linear_probe", "score", "plan", "finetune", "merge", "score", "plan", "prune", "finetune", "merge", "measure",
    ]  # fmt: skip
    recipe = recipe_of(inputs, kinds, **{"plan-1.keep_heads": 1.0, "plan-1.keep_ffn": 1.0})
    outcome = execute(recipe, tmp_path / "run", progress=False)
    assert {"model-1", "model", "plan-1.json", "plan.json", "adapter-1", "adapter"} <= {
        p.name for p in outcome.folder.iterdir()
    }
    assert pl.load(outcome.folder / "model-1").prunelora_plan.keeps_everything
    assert outcome.load().prunelora_plan.architecture.total_heads == 6
    assert execute(recipe, tmp_path / "run", progress=False).ran == ()


@pytest.mark.parametrize(
    ("kinds", "pair", "criterion", "is_told"),
    [
        (PAPER, "second", "gradient", True),
        (PAPER, None, "gradient", False),
        (PAPER, "second", "features", False),
        (["finetune", "merge", *PAPER[1:]], "second", "gradient", False),
    ],
)
def test_who_cuts_before_tuning_is_told_what_pairs_want(inputs, tmp_path, kinds, pair, criterion, is_told):
    lines = Path(inputs["data"]).read_text(encoding="utf-8").splitlines()[1:]
    rows = [line.rsplit(",", 1) for line in lines]
    data = tmp_path / "pairs.csv"
    data.write_text("first,second,label\n" + "".join(f"{text},{text},{label}\n" for text, label in rows))
    changes = {"task.data": str(data), "task.text": "first", "task.text_pair": pair, "score.criterion": criterion}
    recipe = recipe_of(inputs, kinds).with_settings(changes | {"plan.normalise": "none", "plan.balance": "none"})
    told: list[str] = []
    execute(recipe, tmp_path / "run", until=recipe.names[0], tell=told.append, progress=False)
    assert (PAIRS in told) == is_told


def test_the_dense_baseline_is_trained_as_the_longest_fine_tuning_for_as_long_as_all_together(inputs, tmp_path):
    kinds = ["finetune", "merge", *PAPER[1:], "baseline"]
    changes = {"finetune-1.epochs": 2, "finetune.epochs": 1, "finetune-1.batch_size": 8, "finetune.batch_size": 8}
    rates = {"finetune-1.learning_rate": 4e-3, "finetune.learning_rate": 1e-3}
    results = run(inputs, tmp_path / "run", kinds, **changes, **rates).results
    steps = [results.facts(name)["steps"] for name in ("finetune-1", "finetune")]
    baseline = results.facts("baseline")["training"]
    assert baseline["steps"] == sum(steps)
    assert steps[0] == 2 * steps[1] > 0
    assert 1e-3 < max(entry.get("learning_rate", 0) for entry in baseline["history"]) <= 4e-3


def test_full_fine_tuning_is_a_recipe_too(inputs, tmp_path):
    content = [{"stage": "finetune", "trainable": "all", "epochs": 1}, {"stage": "merge"}]
    recipe = read_recipe({"model": inputs["model"], "task": {"data": inputs["data"]}, "stages": content}, source="test")
    outcome = execute(recipe, tmp_path / "run", progress=False)
    assert outcome.results.facts("finetune")["trainable"]["other"] > 0
    assert outcome.load().prunelora_plan.keeps_everything


def test_scores_and_training_never_see_test_rows(inputs, tmp_path, monkeypatch):
    """They are tokenised, to see whether the model can read them, and no more."""
    seen = []
    samples, training = context.calibration_batches, stage_training.finetune

    def sampled(*given, **options):
        batches = samples(*given, **options)
        seen.append([ids[mask.bool()].tolist() for batch in batches for ids, mask in _rows(batch)])
        return batches

    def trained(model, train, validation, **options):
        seen.extend([train["input_ids"], validation["input_ids"]])
        return training(model, train, validation, **options)

    monkeypatch.setattr(context, "calibration_batches", sampled)
    monkeypatch.setattr(stage_training, "finetune", trained)
    run(inputs, tmp_path / "run")
    task = load_task(recipe_of(inputs).task)
    tokenizer = load_tokenizer(inputs["model"])
    test = {tuple(ids) for ids in tokenise(task.test, tokenizer, max_length=128)["input_ids"]}
    assert sum(len(rows) == 32 for rows in seen) >= 2  # The samples of warm-up and scores.
    assert {len(task.train), len(task.validation)} <= {len(rows) for rows in seen}
    assert all(not test & {tuple(ids) for ids in rows} for rows in seen)
    assert test


def _rows(batch):
    return zip(batch["input_ids"], batch["attention_mask"], strict=True)


# Errors ---------------------------------------------------------------------------------------------------------------


def test_a_refused_setting_does_not_become_the_folders(inputs, tmp_path):
    first = run(inputs, tmp_path / "run", until="plan")
    recipe = (tmp_path / "run" / "recipe.yaml").read_text()
    with pytest.raises(PruneLoraError, match="cannot be met"):
        run(inputs, tmp_path / "run", until="plan", **{"plan.keep_params": 1e-5})
    assert (tmp_path / "run" / "recipe.yaml").read_text() == recipe
    assert run(inputs, tmp_path / "run", until="plan").results.plan == first.results.plan


def test_files_of_other_settings_are_named(inputs, tmp_path):
    def leftovers(kinds, **options) -> set[str]:
        notes = [note for note in run(inputs, tmp_path / "run", kinds, **options).notes if "last changes" in note]
        return {name for note in notes for name in note.partition("changes: ")[2].partition(". A run")[0].split(", ")}

    kinds = [*PAPER, "evaluate"]
    assert leftovers(kinds) == leftovers(kinds, until="plan") == set()
    changed = {"plan.keep_heads": 0.25}
    after_plan = {"repaired.safetensors", "adapter", "model", "answers.safetensors"}
    assert leftovers(kinds, until="plan", **changed) == after_plan
    assert leftovers(kinds, until="prune", **changed) == after_plan - {"repaired.safetensors"}
    assert leftovers(PAPER, **changed) == {"answers.safetensors"}


def test_a_folder_with_something_else_in_it_is_left_alone(inputs, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(RecipeError, match="is not empty and holds no run"):
        run(inputs, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_bad_input_is_an_error_before_any_work(inputs, tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        run(inputs, tmp_path / "run", **{"task.data": str(tmp_path / "nowhere.csv")})
    with pytest.raises(CheckpointError, match="does not exist"):
        run(inputs, tmp_path / "run", model=str(tmp_path / "nowhere"))
    assert not (tmp_path / "run").exists()


def test_a_missing_extra_is_told_before_any_work(inputs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # As if it were not installed.
    with pytest.raises(MissingExtraError, match=r'pip install "prunelora\[onnx\]"'):
        run(inputs, tmp_path / "run", [*PAPER, "export"])
    assert not (tmp_path / "run").exists()
    assert run(inputs, tmp_path / "run", [*PAPER, "export"], until="plan").ran == ("linear_probe", "score", "plan")


def test_a_second_process_is_kept_out(inputs, tmp_path):
    with locked(tmp_path / "run"), pytest.raises(RecipeError, match="another prunelora process works there"):
        run(inputs, tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"plan.keep_heads": 73}, "keep_heads=73 cannot be met"),
        ({"plan.keep_params": 0.1, "plan.count": "all"}, "Use keep_params >="),
        ({"score.criterion": "obs", "plan.normalise": "paper"}, "scores of 'obs' are in one unit"),
    ],
)
def test_a_budget_that_cannot_be_met_is_told_before_any_training(inputs, tmp_path, changes, message):
    kinds = ["finetune", "merge", "score", "plan", "prune", "finetune", "merge"]
    with pytest.raises(PruneLoraError, match=message):
        run(inputs, tmp_path / "run", kinds, **changes)
    assert not [path for path in (tmp_path / "run").glob("*") if path.suffix == ".safetensors" or path.is_dir()]
    assert not list((tmp_path / "run").rglob("finetune*"))


@pytest.mark.parametrize("what", ["repair", "export"])
def test_what_the_model_cannot_do_is_told_before_any_training(inputs, tmp_path, monkeypatch, minilm_path, what):
    kinds = ["finetune", "merge", "score", "plan", "prune", "finetune", "merge", "export"]
    if what == "repair":
        config = AlbertConfig(
            hidden_size=24, embedding_size=8, num_attention_heads=4, num_hidden_layers=3, intermediate_size=32
        )
        AlbertModel(config).save_pretrained(tmp_path / "albert")
        load_tokenizer(minilm_path).save_pretrained(tmp_path / "albert")
        inputs, message = inputs | {"model": str(tmp_path / "albert")}, "repair=False"
    else:
        no_export = dataclasses.replace(FAMILIES["bert"], onnx=False)
        monkeypatch.setattr(
            "prunelora.models.anatomy.dissect", lambda model: dataclasses.replace(dissect(model), family=no_export)
        )
        message = "BERT cannot be exported"
    with pytest.raises((UnsupportedModelError, ExportError), match=message):
        run(inputs, tmp_path / "run", kinds)
    assert not list((tmp_path / "run").rglob("finetune*"))
    assert run(inputs, tmp_path / "run", kinds[:5], until="plan", **{"prune.repair": False}).ran[-1] == "plan"


def test_the_dense_models_export_is_for_timing_and_refuses_no_difference(inputs, finished, tmp_path, monkeypatch):
    asked = []

    def export(_model, path, *, tolerance, **_):  # Another model's file is as good to time; an export takes seconds.
        asked.append(tolerance)
        shutil.copy(finished.folder / "model.onnx", path)
        return path

    monkeypatch.setattr(onnx, "export", export)
    run(inputs, tmp_path / "run", ["finetune", "merge", "export", "measure"], **{"export.tolerance": 0.5})
    assert asked == [0.5, math.inf]


def test_an_adapter_behind_a_second_cut_without_repair_is_on_the_first_ones_repair(inputs, tmp_path):
    kinds = ["score", "plan", "prune", "score", "plan", "prune", "finetune", "merge"]
    changes = {"plan-1.keep_heads": 0.75, "plan-1.keep_ffn": 0.75, "prune.repair": False}
    outcome = run(inputs, tmp_path / "run", kinds, **changes)
    adapter = pl.load(tmp_path / "run" / "adapter")
    assert largest_difference(logits(adapter, BATCH), logits(outcome.load(), BATCH)) < 1e-5
    assert RunFolder(tmp_path / "run").record("prune").files == ("repaired.safetensors",), "a store copies these"


def test_the_baseline_adapts_what_the_longest_fine_tuning_does(inputs, tmp_path):
    kinds = ["finetune", "merge", "score", "plan", "prune", "finetune", "merge", "baseline"]
    changes = {"finetune-1.lora_targets": "query,up", "plan.targets": "value", "finetune.epochs": 1}
    results = run(inputs, tmp_path / "run", kinds, **changes).results
    # Three layers of rank 8: 24 to 24, and 24 to 32.
    assert results.facts("baseline")["training"]["trainable"]["lora"] == 3 * 8 * (24 + 24 + 24 + 32)


def test_lora_without_a_plan_trains_the_same_rank_everywhere(inputs, tmp_path):
    outcome = run(
        inputs, tmp_path / "run", ["finetune", "merge"], **{"finetune.lora_rank": 2, "finetune.lora_targets": "query"}
    )
    assert outcome.results.facts("finetune")["trainable"]["lora"] == 3 * 2 * (24 + 24)
    assert outcome.load().prunelora_plan.architecture.total_heads == 12


def test_an_adapter_without_a_plan_is_restored_in_another_process(inputs, tmp_path):
    """Fine-tuned now, merged later: the adapter's folder knows its ranks."""
    kinds = ["finetune", "merge"]
    at_once = run(inputs, tmp_path / "once", kinds)
    run(inputs, tmp_path / "twice", kinds, until="finetune")
    later = run(inputs, tmp_path / "twice", kinds)
    assert later.ran == ("merge",)
    assert largest_difference(logits(at_once.load(), BATCH), logits(later.load(), BATCH)) == 0


def test_what_a_merged_model_replaces_is_not_restored(inputs, tmp_path, monkeypatch):
    kinds = [*PAPER, "evaluate"]
    run(inputs, tmp_path / "run", kinds, until="merge")
    whole = run(inputs, tmp_path / "whole", kinds)
    monkeypatch.setattr(context.Run, "pretrained", lambda _: pytest.fail("the pretrained model was loaded"))
    later = run(inputs, tmp_path / "run", kinds)
    assert later.ran == ("evaluate",)
    assert later.results.facts("evaluate") == whole.results.facts("evaluate")


def test_answers_are_kept_in_the_order_of_the_rows(inputs, tmp_path):
    from safetensors.torch import load_file

    outcome = run(inputs, tmp_path / "run", ["finetune", "merge", "evaluate"])
    answers = load_file(outcome.folder / "answers.safetensors")
    task = load_task(recipe_of(inputs).task)
    tokenizer = load_tokenizer(inputs["model"])
    assert answers["test.labels"].tolist() == list(task.test["label"])
    for row in (0, 5, 11):
        alone = tokenizer(task.test[row]["text"], return_tensors="pt")
        with torch.no_grad():
            assert torch.allclose(outcome.load()(**alone).logits[0], answers["test.logits"][row], atol=1e-5)
    right = (answers["test.logits"].argmax(-1) == answers["test.labels"]).float().mean()
    assert outcome.results.facts("evaluate")["quality"]["test"]["accuracy"] == pytest.approx(float(right))


def test_a_model_that_reads_images_is_refused_before_any_work(inputs, tmp_path):
    tiny_model("vit").save_pretrained(tmp_path / "vit")
    with pytest.raises(UnsupportedModelError, match=r"ViT.*reads images"):
        pl.compress(model=str(tmp_path / "vit"), data=inputs["data"], out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_rows_given_in_python_are_resumed_when_they_are_given_again(inputs, tmp_path):
    frame = pandas.read_csv(inputs["data"])
    first = execute(recipe_of(inputs | {"data": frame}, ["score", "plan"]), tmp_path / "run")
    again = execute(recipe_of(inputs | {"data": frame.copy()}, ["score", "plan"]), tmp_path / "run")
    assert (first.ran, again.ran) == (("score", "plan"), ())
    with pytest.raises(DataError, match="Call compress again with the same rows"):
        execute(RunFolder(tmp_path / "run").recipe(), tmp_path / "run")
    same = RunFolder(tmp_path / "run").recipe().with_options({"data": inputs["data"]})
    assert execute(same, tmp_path / "run").ran == ()
    changed = frame.assign(label=frame["label"].replace("bad", "awful"))
    assert execute(recipe_of(inputs | {"data": changed}, ["score", "plan"]), tmp_path / "run").ran == ("score", "plan")


def test_an_export_is_compared_on_validation_rows_as_the_run_judges_them(inputs, tmp_path, monkeypatch):
    given = []

    def export(model, path, *, batches, tolerance):
        given.extend(batches)
        path.write_bytes(b"")
        return path

    monkeypatch.setattr(onnx, "export", export)
    monkeypatch.setattr(onnx, "compared", lambda _: {})
    run(inputs, tmp_path / "run", [*PAPER, "export"])
    task = load_task(recipe_of(inputs).task)
    judged = tokenise(task.validation, load_tokenizer(inputs["model"]), max_length=128)
    lengths = sorted(map(len, judged["input_ids"]))
    first, *others = [batch["attention_mask"].sum(1).tolist() for batch in given]
    assert first == [lengths[-1]]
    several = [length for lengths_of_batch in others for length in lengths_of_batch]
    assert (min(several), max(several)) == (lengths[0], lengths[-1])
    assert max(map(len, others)) > 1


def test_what_a_run_delivers_holds_no_path_of_the_machine_that_made_it(finished, inputs):
    """Model and data were given by absolute paths; the run's own recipe has them, so that it goes on."""
    folder = Path(inputs["model"]).parent
    delivered = [finished.folder / name for name in ("plan.json", "model.onnx")]
    for name in ("model", "adapter"):
        delivered += [file for file in (finished.folder / name).rglob("*") if file.is_file()]
    assert len(delivered) > 10
    for file in delivered:
        content = file.read_bytes()
        assert str(folder).encode() not in content, file
        assert str(finished.folder).encode() not in content, file
        assert b"/site-packages/" not in content, file
    assert "reviews.csv" in (finished.folder / "model" / "README.md").read_text()
