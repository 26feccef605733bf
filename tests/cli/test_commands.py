"""The commands, as a person types them: in a process of their own, or through the same entry point."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import typer
from small_run import copy_dense_exports, make_data, make_model
from tiny import random_plan, tiny_model

import prunelora as pl
from prunelora.cli.app import app
from prunelora.data.settings import DataSettings
from prunelora.evaluation.extrapolation import Pieces
from prunelora.evaluation.timing import Timing
from prunelora.finetuning.adapter import trainable_parameters
from prunelora.models.anatomy import dissect
from prunelora.models.families import FAMILIES
from prunelora.models.family import PROJECTIONS
from prunelora.models.loading import load_pretrained
from prunelora.planning.plan import Plan
from prunelora.run.recipe import load_recipe
from prunelora.stages.plan import PlanStage

SMALL = ["--epochs", "1.5", "--rows", "32", "--learning-rate", "5e-3"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, minilm_path):
    folder = tmp_path_factory.mktemp("inputs")
    return [
        "--model", str(make_model(folder / "model", minilm_path)), "--data", str(make_data(folder / "reviews.csv")),
    ]  # fmt: skip


def test_stage_commands_do_one_stage_each_and_equal_the_whole_run(prunelora, inputs, tmp_path):
    one, whole = str(tmp_path / "one"), str(tmp_path / "whole")
    code, out, err = prunelora("score", one, *inputs, "--rows", "32", "--set", "finetune-1.epochs=1", "--json")
    assert code == 0, err
    assert json.loads(out)["ran"] == ["finetune-1", "merge-1", "score"]
    code, out, _ = prunelora("plan", one, "--keep-heads", "0.25", "--json")
    assert json.loads(out)["ran"] == ["plan"]
    code, out, _ = prunelora("prune", one, "--json")
    assert json.loads(out)["facts"]["parameters_after"] < json.loads(out)["facts"]["parameters_before"]
    _, out, _ = prunelora("prune", one)
    told = dict(line.split(": ") for line in out.splitlines())
    assert re.fullmatch(r"\d+\.\d %", told["validation.accuracy"])
    assert re.fullmatch(r"[\d,]+", told["parameters_after"])
    prunelora("finetune", one, "--epochs", "1", "--learning-rate", "5e-3", "--json")
    _, out, _ = prunelora("finetune", one)
    assert "truncation" not in out
    assert not re.search(r"\d\.\d{4}", out)
    code, out, _ = prunelora("merge", one, "--json")
    assert json.loads(out)["ran"] == ["merge"]
    code, _, err = prunelora(
        "merge",
        whole,
        *inputs,
        "--set",
        "score.rows=32",
        "--set",
        "finetune-1.epochs=1",
        "--set",
        "plan.keep_heads=0.25",
        "--set",
        "finetune.epochs=1",
        "--set",
        "finetune.learning_rate=5e-3",
        "--json",
    )
    assert code == 0, err
    first, second = pl.load(tmp_path / "one" / "model"), pl.load(tmp_path / "whole" / "model")
    assert first.prunelora_plan.architecture.total_heads == 3
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())


def test_killed_outright_the_same_command_goes_on(inputs, tmp_path):
    """kill -9 while it fine-tunes; afterwards what was done before it is not repeated."""
    command = [sys.executable, "-m", "prunelora.cli.main", "merge", str(tmp_path / "run"), *inputs,
               "--set", "score.rows=32", "--set", "finetune-1.epochs=1", "--set", "finetune.epochs=200"]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    checkpoints = tmp_path / "run" / ".checkpoints"
    deadline = time.monotonic() + 120
    while not list(checkpoints.glob("checkpoint-*/trainer_state.json")) and time.monotonic() < deadline:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.05)
    assert list(checkpoints.glob("checkpoint-*/trainer_state.json")), "it did not come to its fine-tuning"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "run" / "model").exists()
    again = subprocess.run(
        [*command, "--set", "merge.nothing=1"], capture_output=True, text=True, env=environment, check=False
    )
    assert again.returncode == 1  # A setting that does not exist is told before anything runs.
    assert "merge has: none" in again.stderr
    result = pl.Plan.load(tmp_path / "run" / "plan.json")
    before = (tmp_path / "run" / "plan.json").stat().st_mtime_ns
    from prunelora.run.execute import execute
    from prunelora.run.folder import RunFolder

    folder = RunFolder(tmp_path / "run")
    outcome = execute(folder.recipe().with_settings({}), tmp_path / "run", until="prune", progress=False)
    assert outcome.ran == ()
    assert (tmp_path / "run" / "plan.json").stat().st_mtime_ns == before
    assert outcome.results.plan == result


def test_interrupted_it_says_that_the_same_command_goes_on(prunelora, monkeypatch, inputs, tmp_path):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(PlanStage, "run", interrupted)
    code, out, err = prunelora(
        "plan", str(tmp_path / "run"), *inputs, "--set", "score.rows=32", "--set", "finetune-1.epochs=1"
    )
    assert code == 130
    assert "The same command goes on where it stopped" in err
    assert out == ""


def test_dry_run_prints_the_stages_and_writes_nothing(prunelora, inputs, tmp_path):
    code, out, _ = prunelora(
        "run", "--out", str(tmp_path / "run"), *inputs, "--keep-heads", "0.3", "--baseline", "--dry-run", "--json"
    )
    assert code == 0
    work = json.loads(out)["stages"]
    assert [one["stage"] for one in work] == [
        "finetune-1", "merge-1", "score", "plan", "prune", "finetune", "merge",
        "export", "baseline", "measure", "report",
    ]  # fmt: skip
    assert work[3]["settings"]["keep_heads"] == 0.3
    assert not (tmp_path / "run").exists()
    code, out, _ = prunelora(
        "run", "--dry-run", "--epochs", "1", "--seed", "0", "--criterion", "random", "--speedup", "2", "--json"
    )
    changes = json.loads(out)
    assert changes["options"] == {
        "seed": {"seed": None},
        "criterion": {"score.criterion": ["obs", "random"]},
        "speedup": {"plan.speedup": [None, 2.0]},
        "epochs": {"finetune-1.epochs": [2.7, 0.9], "finetune.epochs": [0.3, 0.1]},
    }
    assert changes["other_changes"] == {"plan.keep_macs": [0.5, None], "plan.balance": ["none", "cost"]}
    _, out, _ = prunelora("run", "--dry-run", "--epochs", "1")
    assert "--epochs 1: finetune-1.epochs 2.7 -> 0.9, finetune.epochs 0.3 -> 0.1" in out
    code, out, _ = prunelora("run", "--dry-run")
    assert "Changes" not in out
    assert "model minilm, data rotten-tomatoes" in out


def test_show_draws_a_plan_and_a_difference(prunelora, tmp_path):
    model = tiny_model()
    first, second = random_plan(model, seed=0), random_plan(model, seed=1)
    first.save(tmp_path / "first.json")
    second.save(tmp_path / "second.json")
    _, out, _ = prunelora("show", str(tmp_path / "first.json"))
    lines = out.splitlines()
    assert first.id in lines[0]
    assert sum(line.count("■") for line in lines[3:]) == first.architecture.total_heads
    assert sum(line.count("□") for line in lines[3:]) == 12 - first.architecture.total_heads
    _, out, _ = prunelora("show", str(tmp_path / "first.json"), "--diff", str(tmp_path / "second.json"))
    only_first = sum(len(set(a) - set(b)) for a, b in zip(first.heads, second.heads, strict=True))
    assert sum(line[7:15].count("-") for line in out.splitlines()[3:]) == only_first
    _, out, _ = prunelora("show", str(tmp_path / "first.json"), "--diff", str(tmp_path / "first.json"))
    assert "The plans are the same" in out
    _, out, _ = prunelora("show", str(tmp_path / "first.json"), "--json")
    assert json.loads(out)["id"] == first.id


def test_check_tells_sizes_speed_and_training_before_any_work(prunelora, inputs, latency_asked):
    code, out, err = prunelora(
        "check", *inputs, "--no-export", "--tokens", "32", "--keep-heads", "6", "--keep-ffn", "1.0", "--json"
    )
    assert code == 0, err
    found = json.loads(out)
    assert (found["heads_left"], found["neurons_left"]) == (6, 96)
    assert found["macs"]["left"] < found["macs"]["dense"]
    assert found["latency"]["left"] < found["latency"]["dense"]
    assert list(found["training"]["ways"]) == ["full", "lora", "before-the-cut", "prune-lora"]
    assert found["data"]["majority_rate"] == 0.5
    # LoRA as the default recipe has it: on every linear layer.
    model = load_pretrained(inputs[1], label_names=("bad", "good"), problem_type="single_label_classification")
    everywhere = Plan.whole(dissect(model).lineage, rank=8, targets=PROJECTIONS)
    trained = trainable_parameters(pl.add_adapter(model, everywhere))
    dense = found["training"]["ways"]["lora"]
    assert dense["gradients_bytes"] == 4 * sum(trained.values())
    # Before the cut the default recipe takes smaller steps: half of what a step keeps for its backward pass.
    before, after = (found["training"]["ways"][way] for way in ("before-the-cut", "prune-lora"))
    assert (before["rows"], after["rows"]) == (16, 32)
    assert before["memory_bytes"] == pytest.approx(dense["memory_bytes"] - dense["saved_bytes"] / 2, rel=0.05)
    # Nine tenths of the epochs are before it: all of them take what those take, and not what steps after it do.
    assert (before["epochs"], after["epochs"], dense["epochs"]) == pytest.approx((2.7, 0.3, 3))
    steps = math.ceil(found["data"]["rows"]["train"] / 16)
    expected = 0.3 * after["epoch_minutes"] + 2.7 * steps * before["step"]["median_ms"] / 60_000
    assert after["all_epochs_minutes"] == pytest.approx(expected)
    assert dense["all_epochs_minutes"] == pytest.approx(3 * dense["epoch_minutes"])


def test_check_reads_data_by_every_option_that_run_has(prunelora, inputs, tmp_path):
    rows = "".join(f"{'good' if i % 2 else 'bad'},1,a film of {i} words {'on ' * 30},{i}\n" for i in range(80))
    (tmp_path / "odd.csv").write_text("verdict,1,said,other\n" + rows)
    quick = "check", "--model", inputs[1], "--data", str(tmp_path / "odd.csv"), "--no-latency", "--no-training"
    code, _, err = prunelora(*quick)
    assert code == 1
    assert "--text" in err
    columns = "--text", "said", "--label", "verdict"
    code, out, err = prunelora(*quick, *columns, "--validation-fraction", "0.2", "--test-fraction", "0.2", "--json")
    assert code == 0, err
    assert json.loads(out)["data"]["rows"] == {"train": 48, "validation": 16, "test": 16}
    code, out, err = prunelora(*quick, *columns, "--max-train-rows", "20", "--json")
    assert code == 0, err
    rows = json.loads(out)["data"]["rows"]
    assert rows["train"] + rows["validation"] == 20
    run, checked = (typer.main.get_command(app).commands[name] for name in ("run", "check"))
    assert set(DataSettings.model_fields) <= {option.name for option in checked.params}
    assert set(DataSettings.model_fields) <= {option.name for option in run.params}


@pytest.mark.parametrize("typed", [["--max-length", "64"], ["--text", "said"]])
def test_check_takes_options_of_data_for_data_alone(prunelora, inputs, typed):
    code, _, err = prunelora("check", "--model", inputs[1], "--no-latency", "--no-training", *typed)
    assert code == 1
    assert f"{typed[0]} {typed[1]}: " in err


def test_check_measures_only_what_it_is_let(prunelora, inputs, latency_asked):
    quick = "check", "--model", inputs[1], "--no-latency", "--no-training"
    code, out, err = prunelora(*quick)
    assert (code, err) == (0, "")
    assert "plan.keep_macs=0.5 can be met: about 6 of 12 heads" in out
    assert "speed limit" in out
    assert "measured" not in out
    assert latency_asked == []
    _, out, _ = prunelora(*quick, "--keep-params", "0.4", "--json")
    assert json.loads(out)["budget"] == {"keep_params": 0.4}
    code, out, err = prunelora(*quick, "--speedup", "1.1", "--tokens", "32", "--latency-batch-size", "2", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["latency"]["left"] <= found["latency"]["dense"] / 1.1
    assert (found["latency_settings"]["tokens"], found["latency_settings"]["batch_size"]) == (32, 2)
    assert found["training"] is None


def test_check_asks_of_the_recipe_that_is_named(prunelora, inputs, tmp_path):
    recipe = load_recipe("cut-early").with_settings({"plan.keep_macs": 0.3})
    recipe.save(tmp_path / "mine.yaml")
    quick = "check", *inputs, "--no-latency", "--no-training", "--json"
    _, out, _ = prunelora(*quick, "--recipe", str(tmp_path / "mine.yaml"))
    assert json.loads(out)["budget"] == {"keep_macs": 0.3}
    _, out, _ = prunelora(*quick, "--recipe", str(tmp_path / "mine.yaml"), "--keep-params", "0.6")
    assert json.loads(out)["budget"] == {"keep_params": 0.6}
    # Nothing is trained before the cut.
    quickly = "check", "--model", inputs[1], "--no-latency", "--tokens", "32", "--json"
    _, out, _ = prunelora(*quickly, "--recipe", "cut-first")
    assert list(json.loads(out)["training"]["ways"]) == ["full", "lora", "prune-lora"]
    # Nor cut at all.
    code, out, err = prunelora(*quick, "--recipe", "lora")
    assert code == 0, err
    found = json.loads(out)
    assert (found["budget"], found["heads_left"], found["training"]) == ({}, 12, None)


@pytest.fixture
def second_each(monkeypatch):
    """Every piece of a training takes a second; nothing is timed."""
    second = Timing((1000.0,) * 3)
    monkeypatch.setattr(Pieces, "measure", lambda self, *_: self.timings.update(dict.fromkeys(self.calls, second)))


def test_check_foresees_every_stage_of_the_run(prunelora, inputs, second_each):
    quickly = "check", *inputs, "--no-latency", "--no-export", "--tokens", "32", "--recipe", "cut-early"
    code, out, err = prunelora(*quickly, "--json")
    assert code == 0, err
    foreseen = json.loads(out)["run"]
    _, out, _ = prunelora("run", *inputs, "--no-export", "--recipe", "cut-early", "--dry-run", "--json", "--out", "x")
    assert [stage["stage"] for stage in foreseen["stages"]] == [stage["stage"] for stage in json.loads(out)["stages"]]
    assert foreseen["seconds"] == pytest.approx(sum(stage["seconds"] for stage in foreseen["stages"]))
    code, out, err = prunelora(*quickly, "--baseline", "--set", "finetune.epochs=9")
    assert code == 0, err
    assert "baseline" in out
    assert "finetune-1" in out


def test_another_recipe_leaves_a_begun_run_its_model_and_data(prunelora, inputs, tmp_path):
    out = str(tmp_path / "run")
    assert prunelora("score", out, *inputs, "--recipe", "cut-first", "--rows", "32", "--seed", "3", "--json")[0] == 0
    ask = "run", "--out", out, "--dry-run", "--json"
    _, said, _ = prunelora(*ask, "--recipe", "cut-early")
    found = json.loads(said)
    assert (found["model"], found["task"]["data"]) == (inputs[1], inputs[3])
    assert found["stages"][0]["stage"] == "finetune-1"
    _, said, _ = prunelora(*ask, "--recipe", "cut-early", "--data", "rotten-tomatoes")
    assert (json.loads(said)["model"], json.loads(said)["task"]["data"]) == (inputs[1], "rotten-tomatoes")
    load_recipe("cut-early").with_settings({"model": "other", "task.data": "other.csv"}).save(tmp_path / "its-own.yaml")
    _, said, _ = prunelora(*ask, "--recipe", str(tmp_path / "its-own.yaml"))
    assert (json.loads(said)["model"], json.loads(said)["task"]["data"]) == ("other", "other.csv")


def test_check_takes_model_and_data_of_the_recipe_where_none_are_typed(prunelora, inputs, tmp_path):
    own = {"model": inputs[1], "task.data": inputs[3], "task.max_train_rows": 50}
    load_recipe("cut-early").with_settings(own).save(tmp_path / "a.yaml")
    quick = "check", "--recipe", str(tmp_path / "a.yaml"), "--no-latency", "--no-training", "--json"
    code, out, err = prunelora(*quick)
    assert code == 0, err
    found = json.loads(out)
    assert sum(found["architecture"]["num_heads"]) == 12
    assert found["data"]["rows"]["train"] + found["data"]["rows"]["validation"] == 50
    _, out, _ = prunelora(*quick, "--model", "minilm")
    assert sum(json.loads(out)["architecture"]["num_heads"]) == 72


def test_check_tunes_before_the_cut_as_the_recipe_says(prunelora, inputs, tmp_path, second_each):
    memory = {}
    for rank in (1, 16):
        settings = {"finetune-1.lora_rank": rank, "finetune-1.lora_targets": ["query"], "plan.rank_high": 8}
        load_recipe("cut-early").with_settings(settings).save(tmp_path / "mine.yaml")
        arguments = *inputs, "--recipe", str(tmp_path / "mine.yaml"), "--tokens", "8", "--no-latency", "--no-export"
        code, out, err = prunelora("check", *arguments, "--json")
        assert code == 0, err
        ways = json.loads(out)["training"]["ways"]
        memory[rank] = {way: cost["memory_bytes"] for way, cost in ways.items()}
    assert memory[1].pop("before-the-cut") < memory[16].pop("before-the-cut")
    assert memory[1] == memory[16]


def test_check_says_what_is_trained_where_a_recipe_trains_all_weights(prunelora, inputs, tmp_path, second_each):
    load_recipe("cut-first").with_settings({"finetune.trainable": "all"}).save(tmp_path / "mine.yaml")
    arguments = *inputs, "--recipe", str(tmp_path / "mine.yaml"), "--tokens", "8", "--no-latency", "--no-export"
    code, out, err = prunelora("check", *arguments)
    assert code == 0, err
    assert "fine-tuning" in out
    assert "LoRA" not in out


def test_families_lists_the_table(prunelora):
    _, out, _ = prunelora("families", "--json")
    rows = {row["family"]: row for row in json.loads(out)}
    assert rows.keys() == FAMILIES.keys()
    assert len(rows) >= 24
    assert rows["bert"]["tasks"] == ["sequence_classification", "token_classification"]
    assert rows["llama"]["tasks"] == ["sequence_classification", "token_classification", "causal_lm"]
    assert (rows["vit"]["tasks"], rows["t5"]["tasks"]) == (["image_classification"], ["sequence_classification"])
    assert rows["llama"]["grouped_queries"]
    assert [rows[name]["generates"] for name in ("llama", "bert", "t5")] == [True, False, True]
    assert {name for name, row in rows.items() if row["encoder_decoder"]} == {"bart", "mbart", "t5"}
    assert not rows["mbart"]["onnx"]
    _, out, _ = prunelora("families")
    assert "DistilBERT" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--model", "x", "--out", "y"], "--data missing: a run needs --data (or --task"),
        (["run", "--model", "x", "--recipe", "cut-first", "--out", "y"], "as cut-first does not set it"),
        (["plan", "nowhere", "--recipe", "cut-first"], "--data missing"),
        (["run", "--model", "x", "--data", "y"], "Add --out FOLDER"),
        (["run", "--dry-run", "--set", "plan.keep_heads"], "expected STAGE.SETTING=VALUE"),
        (["run", "--dry-run", "--keep-heads", "many"], "--keep-heads many: "),
        (["plan", "nowhere"], "--data missing"),
        (["show", "nowhere.json"], "nowhere.json: no plan there"),
        (["check", "--keep-heads", "73"], "--keep-heads 73 cannot be met: the model has 72"),
        (["check", "--keep-macs", "2"], "--keep-macs 2: Input should be less than or equal to 1"),
        (["check", "--keep-params", "0.1", "--count", "all"], "Use --keep-params >= 0.54, or --count encoder"),
        (["run", "--dry-run", "--keep-macs", "0.5", "--set", "plan.speedup=2"], "--set plan.speedup=2.0: two budgets"),
        (["plan", "a", "--model", "x", "--data", "y", "--keep-macs", "0.5", "--set", "plan.speedup=2"], "two budgets"),
        (["families", "--frobnicate"], "No such option"),
        (["frobnicate"], "No such command"),
    ],
)
def test_an_error_is_a_message_and_a_code_not_a_traceback(prunelora, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = prunelora(*arguments)
    assert code in (1, 2)
    assert message in err
    assert "Traceback" not in err
    assert out == ""


def test_a_whole_small_run_prints_what_was_gained_and_where_it_is(prunelora, inputs, tmp_path, monkeypatch):
    copy_dense_exports(monkeypatch)
    out_folder = tmp_path / "run"
    code, out, err = prunelora(
        "run", "--out", str(out_folder), *inputs, *SMALL, "--set", "measure.repeats=3", "--set", "measure.warmup=1"
    )
    assert code == 0, err
    assert "most frequent class" in out
    assert str(out_folder / "report.html") in out
    assert (out_folder / "report.html").exists()
    assert "dense" in out
    code, said, err = prunelora("run", "--out", str(out_folder), "--quiet")
    assert (code, err) == (0, "")
    assert said == out
    code, found, _ = prunelora("run", "--out", str(out_folder), "--json")
    found = json.loads(found)
    assert found["ran"] == []
    assert all(line in out for line in found["summary"] if line.startswith(("Report:", "Model:", "ONNX:")))
    assert found["warnings"]
    assert all(f"Warning: {line}" in found["summary"] for line in found["warnings"])
    assert "text column: review" in " ".join(found["notes"])
    assert found["paths"].keys() >= {"recipe", "plan", "adapter", "model", "export", "report", "metrics"}
    assert all(Path(path).exists() for path in found["paths"].values())
    # A stage's own command: what is up to date behind it alone.
    code, found, err = prunelora("plan", str(out_folder), "--keep-heads", "0.5", "--json", "--quiet")
    found = json.loads(found)
    assert (code, err) == (0, "")
    assert pl.Plan.from_json(json.dumps(found["plan"])).id == found["facts"]["plan_id"]
    assert found["paths"].keys() == {"recipe", "importance", "plan"}


def test_data_alone_is_run_with_the_documented_default_model_and_a_line_says_so(prunelora, inputs, tmp_path):
    data = inputs[3]
    out = str(tmp_path / "run")
    code, found, err = prunelora("run", "--data", data, "--out", out, "--dry-run", "--json")
    assert (code, json.loads(found)["model"]) == (0, "minilm")
    assert "model minilm, the default" in err
    assert prunelora("run", "--data", data, "--out", out, "--dry-run", "--quiet")[2] == ""
    assert "the default" not in prunelora("run", "--data", data, "--model", "minilm", "--out", out, "--dry-run")[2]
    code, _, err = prunelora("run", "--model", "minilm", "--out", out)
    assert code == 1
    assert "--data missing" in err


def test_a_model_that_is_not_there_is_said_with_the_folder_that_is_meant_and_leaves_nothing(
    prunelora, inputs, tmp_path, monkeypatch
):
    monkeypatch.chdir(Path(inputs[1]).parent)
    code, _, err = prunelora("run", "--model", "modell", "--data", inputs[3], "--out", str(tmp_path / "run"))
    assert code == 1
    assert "modell: no such folder here" in err
    assert "Did you mean 'model'?" in err
    assert not (tmp_path / "run").exists()


def test_without_the_packages_of_onnx_the_error_names_no_export_and_that_runs_to_the_report(
    prunelora, inputs, tmp_path, monkeypatch
):
    for name in ("onnx", "onnxruntime", "onnxscript"):
        monkeypatch.setitem(sys.modules, name, None)  # As if they were not installed.
    command = ["run", *inputs, "--out", str(tmp_path / "run"), *SMALL, "--set", "measure.repeats=3", "--json"]
    code, out, _ = prunelora(*command)
    message = json.loads(out)["error"]["message"]
    assert code != 0
    assert 'pip install "prunelora[onnx]"' in message
    assert "--no-export" in message
    code, out, err = prunelora(*command, "--no-export")
    assert code == 0, err
    assert "export" not in json.loads(out)["ran"]
    assert json.loads(out)["ran"][-2:] == ["measure", "report"]
    assert (tmp_path / "run" / "report.html").exists()
    assert not (tmp_path / "run" / "model.onnx").exists()
