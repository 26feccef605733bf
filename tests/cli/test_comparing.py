"""The commands that train several methods, as a person types them."""

import json

import pytest
from reproduction.made_up_reproduction import write_task
from small_run import make_data, make_model

from prunelora.comparison.methods import METHODS
from prunelora.comparison.results import load_comparison


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, minilm_path):
    folder = tmp_path_factory.mktemp("inputs")
    return [
        "--model", str(make_model(folder / "model", minilm_path)), "--data", str(make_data(folder / "reviews.csv")),
        "--max-length", "24",
    ]  # fmt: skip


def test_a_comparison_prints_what_it_writes(prunelora, inputs, tmp_path):
    out = tmp_path / "out"
    arguments = [
        "compare", *inputs, "--out", str(out), "--methods", "lora,prune-lora", "--seeds", "3", "--factors", "1",
        "--epochs", "1", "--keep-heads", "6", "--set", "linear_probe.steps=2", "--no-timing",
    ]  # fmt: skip
    code, printed, err = prunelora(*arguments, "--json")
    assert code == 0, err
    results = load_comparison(out / "comparison.json")
    given, written = json.loads(printed), results.model_dump(mode="json")
    assert {name: given[name] for name in written} == written
    assert given.keys() - written.keys() == {"tables", "summary", "paths"}
    assert given["paths"]["report"] == str(out / "report.html")
    assert [row[0] for row in given["tables"][0]["rows"]][-2:] == ["lora", "prune-lora"]
    assert [(trial.method, trial.seed) for trial in results.trials] == [("lora", 3), ("prune-lora", 3)]
    assert results.method("prune-lora").heads == (6, 12)
    assert "trial 2 of 2: prune-lora, learning rate 0.001, seed 3" in err
    code, printed, err = prunelora(*arguments)
    assert code == 0, err
    assert "prune-lora" in printed
    assert "50.0" in printed  # the most frequent class
    assert str(out / "report.html") in printed


def test_a_dry_run_prints_every_training_and_does_nothing(prunelora, inputs, tmp_path):
    code, printed, _ = prunelora("compare", *inputs, "--out", str(tmp_path / "out"), "--dry-run", "--json")
    assert code == 0
    lines = json.loads(printed)
    assert len(lines) == len(METHODS) * (2 + 2)
    assert {line.partition(",")[0] for line in lines} == set(METHODS)
    assert not (tmp_path / "out").exists()


def test_a_dry_run_at_several_budgets_prints_every_point(prunelora, inputs, tmp_path):
    code, printed, _ = prunelora(
        "compare", *inputs, "--out", str(tmp_path / "out"), "--dry-run", "--json", "--methods", "full,lora,prune-lora",
        "--keep-macs", "1, 0.5,0.25",
    )  # fmt: skip
    assert code == 0
    lines = json.loads(printed)
    assert len(lines) == 2 * (2 + 2) + (2 + 2) + 2 * 3
    assert {line.partition(",")[0] for line in lines} == {
        "full", "lora", "prune-lora@1", "prune-lora@0.5", "prune-lora@0.25",
    }  # fmt: skip


def test_with_no_arguments_the_example_is_compared(prunelora):
    code, printed, _ = prunelora("compare", "--dry-run")
    assert code == 0
    assert printed.splitlines()[0].startswith("full, learning rate 5e-05, seed 0")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--seeds", "one"], "--seeds one: expected numbers"),
        (["--keep-macs", "half"], "--keep-macs half: expected numbers"),
        (["--keep-macs", "0.5,50"], "--keep-macs 0.5,50.0: expected one or more different fractions"),
        (["--keep-macs", "1,0.5", "--keep-heads", "3"], "--keep-macs 1.0,0.5 and --keep-heads 3 were both given"),
        (["--factors", "1,-2"], "--factors 1.0,-2.0: expected one or more numbers above 0"),
        (["--seeds", "1,1"], "--seeds 1,1: expected one or more different numbers"),
        (["--methods", "full,lora", "--keep-heads", "3"], "--keep-heads: none of the methods full, lora has"),
        (["--set", "task.text=x"], "--set task.text: model, data and seeds are the same for all methods"),
        (["--factors", "1;2"], "--factors 1;2: expected numbers"),
        (["--methods", "lorra"], "lorra: no method of this name"),
        (["--set", "epochs"], "--set epochs: expected STAGE.SETTING=VALUE"),
        (
            ["--set", "max_train_rows=50"],
            "same for all methods, and no setting of one. Give it as --max-train-rows.",
        ),
        (["--model", "minilm"], "Add --out FOLDER"),
        (["--model", "minilm", "--out", "x"], "A comparison needs --data"),
    ],
)
def test_what_was_typed_wrongly_is_said(prunelora, arguments, complaint):
    code, _, err = prunelora("compare", "--dry-run", *arguments)
    assert code == 1
    assert complaint in err.replace("\n", " ")


def test_a_model_that_is_not_to_be_had_is_said(prunelora, inputs, tmp_path):
    typed = [*inputs[2:], "--model", "no-such/model", "--out", str(tmp_path / "out"), "--methods", "lora,prune-lora"]
    code, out, err = prunelora("compare", *typed, "--seeds", "0", "--factors", "1", "--json")
    assert code == 1
    assert "not available from the Hugging Face hub" in json.loads(out)["error"]["message"]
    assert "Traceback" not in err


def test_a_reproduction_asks_for_what_was_typed(prunelora, tmp_path, monkeypatch):
    from prunelora.errors import RecipeError
    from prunelora.reproduction import reproduce

    monkeypatch.chdir(tmp_path)
    (tmp_path / "glue").mkdir()
    asked = {}

    def stop(**options):
        asked.update(options)
        raise RecipeError("stopped here")

    monkeypatch.setattr(reproduce, "reproduce", stop)
    code, _, err = prunelora(
        "reproduce", "--out", str(tmp_path), "--data-dir", "glue", "--preset", "paper", "--tasks", "rte, wnli",
        "--seeds", "4,5", "--epochs", "rte=3,wnli=2.5", "--max-train-rows", "rte=100", "--note", "rte=a part, of it",
        "--no-train-head", "--no-timing",
    )  # fmt: skip
    assert (code, "stopped here" in err) == (1, True)
    shown = {name: value for name, value in asked.items() if name not in ("out", "tell", "progress")}
    assert shown == {
        "model": "minilm", "data_dir": "glue", "preset": "paper", "train_head": False, "tasks": ["rte", "wnli"],
        "seeds": (4, 5), "epochs": {"rte": 3.0, "wnli": 2.5}, "max_train_rows": {"rte": 100},
        "notes": {"rte": "a part, of it"}, "timing": False,
    }  # fmt: skip


def test_a_note_typed_when_only_reading_is_shown(prunelora, tmp_path):
    write_task(tmp_path, "rte")
    code, _, err = prunelora("reproduce", "--out", str(tmp_path), "--read-only", "--note", "rte=made up by hand")
    assert code == 0, err
    assert "made up by hand" in (tmp_path / "reproduction.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--epochs", "many"], "--epochs many: expected a number, or TASK=NUMBER"),
        (["--max-train-rows", "100"], "--max-train-rows 100: expected TASK=VALUE"),
        (["--note", "rte"], "--note rte: expected TASK=VALUE"),
        (["--tasks", "cola"], "cola"),
        (["--preset", "worst"], "worst"),
        (["--read-only"], "no finished comparison there"),
    ],
)
def test_what_cannot_be_reproduced_is_said(prunelora, tmp_path, arguments, complaint):
    code, _, err = prunelora("reproduce", "--out", str(tmp_path / "out"), *arguments)
    assert code == 1
    assert complaint in err.replace("\n", " ")
