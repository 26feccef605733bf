"""How commands end: exit codes, errors as JSON, and what goes to which stream."""

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import SafetensorError
from small_run import make_data, make_model

from prunelora.cli import app as commands
from prunelora.models.families import FAMILIES

COMMAND = [sys.executable, "-m", "prunelora.cli.main"]


@pytest.mark.parametrize(
    ("arguments", "code", "kind"),
    [
        (("show", "nowhere.json"), 1, "PlanError"),
        (("run", "--model", "x", "--out", "out"), 1, "RecipeError"),
        (("check", "--keep-macs", "2"), 1, "RecipeError"),
        (("families", "--frobnicate"), 2, "UsageError"),
        (("frobnicate",), 2, "UsageError"),
    ],
)
def test_an_error_ends_with_its_code_and_is_json_too_where_it_is_asked_for(
    prunelora, tmp_path, monkeypatch, arguments, code, kind
):
    monkeypatch.chdir(tmp_path)
    ended, out, err = prunelora(*arguments, "--json")
    error = json.loads(out)["error"]
    assert (ended, error["exit_code"], error["kind"]) == (code, code, kind)
    assert error["message"] in " ".join(err.split()) or kind == "UsageError"
    assert "Traceback" not in err
    ended, out, _ = prunelora(*arguments)
    assert (ended, out) == (code, "")


def test_a_fault_of_the_program_shows_its_traceback_and_asks_for_a_report(prunelora, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(commands.terminal, "give_table", broken)
    code, out, err = prunelora("families")
    assert (code, out) == (70, "")
    assert "Traceback" in err
    assert "Please report it" in err


@pytest.mark.parametrize("wrong", [ZeroDivisionError("by zero"), KeyError("x"), AttributeError("no such")])
def test_a_fault_is_json_too_where_it_is_asked_for(prunelora, monkeypatch, tmp_path, wrong):
    def broken(*_):
        raise wrong

    monkeypatch.setattr("prunelora.planning.plan.Plan.load", broken)
    (tmp_path / "plan.json").touch()
    code, out, err = prunelora("show", str(tmp_path), "--json")
    assert (code, json.loads(out)["error"]["kind"]) == (70, type(wrong).__name__)
    assert "Traceback" in err


def raising(error: BaseException):
    def broken(*_):
        raise error

    return broken


RUST = "Error while serializing: I/O error: No space left on device (os error 28)"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(28, "No space left on device", "model"), "No space left on device: model."),
        (PermissionError(13, "Permission denied", "runs"), "Permission denied: runs."),
        (SafetensorError(RUST), "No space left on device."),
        (RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"), "the disk may be full"),
        (MemoryError(), "The memory does not suffice"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), "The memory does not suffice"),
    ],
)
def test_an_error_of_the_system_is_no_fault_of_the_program(prunelora, monkeypatch, error, message):
    monkeypatch.setattr(commands.terminal, "give_table", raising(error))
    code, out, err = prunelora("families")
    assert (code, out) == (1, "")
    assert message in err
    assert "Traceback" not in err
    assert "fault" not in err


def test_a_caught_error_of_the_system_does_not_hide_a_fault(prunelora, monkeypatch):
    fault = ZeroDivisionError("by zero")
    fault.__context__ = OSError(28, "No space left on device")
    monkeypatch.setattr(commands.terminal, "give_table", raising(fault))
    assert prunelora("families")[0] == 70


def test_a_full_disk_ends_a_run_with_a_message(prunelora, tmp_path, minilm_path):
    model, data = make_model(tmp_path / "model", minilm_path), make_data(tmp_path / "data.csv", rows=40)
    words = ["finetune", tmp_path / "out", "--recipe", "lora", "--model", model, "--data", data, "--epochs", "1"]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        code, _, err = prunelora(*map(str, words))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (code, "Traceback" in err) == (1, False)
    assert "error: File too large" in err


@pytest.mark.parametrize("place", ["data.csv/run", "data.csv"])
def test_a_run_folder_that_cannot_be_made_is_refused(prunelora, tmp_path, place):
    (tmp_path / "data.csv").write_text("text,label\n")
    code, _, err = prunelora("run", "--model", "x", "--data", "y", "--out", str(tmp_path / place))
    assert code == 1
    assert "is a file. Give " in err


@pytest.mark.parametrize(("encoding", "text"), [("ascii", "é"), ("latin-1", "■"), ("utf-8", "\udcc3")])
def test_an_output_that_cannot_show_a_character_gets_an_escape(encoding, text):
    script = (
        "import sys; from prunelora.cli.terminal import *; escape_unknown_characters(); "
        "text = sys.argv[1].encode().decode('unicode_escape'); give_lines([text]) if sys.argv[2] else give_json([text])"
    )
    escaped = text.encode("unicode_escape").decode()
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    lines, content = (
        subprocess.run(
            [sys.executable, "-c", script, escaped, kind], capture_output=True, check=True, env=environment
        ).stdout.decode()
        for kind in ("lines", "")
    )
    assert lines.strip() == escaped
    assert json.loads(content) == [text]


def test_help_and_version_end_with_0_and_an_empty_command_line_with_2(prunelora):
    assert prunelora("--help")[0] == 0
    assert prunelora("--version")[0] == 0
    assert prunelora("check", "--help")[0] == 0
    assert prunelora()[0] == 2


@pytest.mark.parametrize("arguments", [("families",), ("families", "--json")])
def test_a_reader_that_leaves_is_no_error(arguments):
    read, write = os.pipe()
    os.close(read)
    ended = subprocess.run(
        [*COMMAND, *arguments], stdout=write, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(write)
    assert (ended.returncode, ended.stderr) == (141, "")


def test_a_table_in_a_pipe_has_every_value_whole(monkeypatch):
    environment = os.environ | {"COLUMNS": "40"}
    out = subprocess.run([*COMMAND, "families"], capture_output=True, text=True, check=True, env=environment).stdout
    for family in FAMILIES.values():
        rows = [line for line in out.splitlines() if line.strip().startswith(family.title)]
        assert any(", ".join(family.model_types) in row for row in rows)


TWICE = "[{stage: finetune}, {stage: merge}, {stage: score}, {stage: plan}, {stage: prune}, {stage: finetune}]"


@pytest.mark.parametrize(
    ("stages", "settings", "stage"),
    [
        (TWICE, ("--set", "finetune-1.trainable=all"), "finetune-1"),
        ("[{stage: score}, {stage: plan}, {stage: prune}, {stage: finetune}]", (), "finetune"),
        (TWICE, ("--set", "finetune-1.learning_rate=1e-3"), "finetune"),
    ],
)
def test_a_training_that_diverges_ends_the_run_and_other_settings_go_on_in_its_folder(
    prunelora, tmp_path, minilm_path, stages, settings, stage
):
    (tmp_path / "mine.yaml").write_text(f"stages: {stages}")
    model, data = make_model(tmp_path / "model", minilm_path), make_data(tmp_path / "data.csv", rows=60)
    words = ["run", "--recipe", tmp_path / "mine.yaml", "--model", model, "--data", data, "--out", tmp_path / "out"]
    words = [*map(str, words), "--epochs", "2", "--batch-size", "8", "--rows", "16", "--keep-heads", "8"]
    code, out, err = prunelora(*words, "--learning-rate", "1e30", *settings, "--quiet")
    assert (code, out) == (1, "")
    assert re.search(rf"error: {stage}: In step \d+ .* Try a lower --learning-rate than 1e\+30, or ", err)
    assert f"--set {stage}.warmup_fraction=0.1" in err
    before = {path.name for path in (tmp_path / "out" / "stages").glob("[a-z]*.json")}
    code, _, err = prunelora(*words, "--learning-rate", "1e-3", *settings)
    assert code == 0, err
    assert all(f"{Path(name).stem}: done before" in err for name in before)
    assert not list((tmp_path / "out").glob(".checkpoints*"))
