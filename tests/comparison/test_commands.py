"""The command that is given for a point builds the model of that point: it is read back as it would be typed."""

import json
import shlex
import subprocess

import pytest

from prunelora.comparison.budgets import load_methods_at
from prunelora.comparison.commands import command_of, in_lines
from prunelora.comparison.methods import LEFT_OUT
from prunelora.comparison.trials import trial_of
from prunelora.data.settings import DataSettings
from prunelora.run.recipe import Recipe, packaged_recipes

OWN = DataSettings(data="the reviews.csv", text="body", label="it's", max_length=64, test_fraction=0.2)
TUNE_CUT_TUNE = """\
format: prunelora-recipe-1
stages:
- stage: finetune
  epochs: 4
  learning_rate: 0.002
- stage: merge
- stage: score
- stage: plan
  keep_heads: 1.0
  keep_ffn: 0.5
- stage: prune
- stage: finetune
  epochs: 2
  learning_rate: 0.001
- stage: merge
- stage: measure
- stage: report
"""


def trial(name, *, keep_macs=(1, 0.5), rate=0.003, seed=2, task=OWN, out="out", budget=None, **changes):
    """One of the method's trials: the one at `budget`, the first if none is named."""
    base = Recipe(model="some/model", task=task)
    names = list(dict.fromkeys((name, "prune-lora")))  # A budget needs a method with a plan.
    methods = load_methods_at(keep_macs, names, base=base, changes=changes)
    chosen = next(method for method in methods if budget in (None, method.keep_macs))
    return trial_of(chosen, rate, seed, out=out)


def stages_of(recipe):
    return {
        name: stage.model_dump(mode="json", exclude={"stage"})
        for name, stage in zip(recipe.names, recipe.stages, strict=True)
        if stage.stage not in LEFT_OUT
    }


@pytest.fixture
def typed(prunelora, tmp_path, monkeypatch):
    """What a command would do, as the command line itself says."""
    monkeypatch.chdir(tmp_path)

    def read(command):
        program, *arguments = shlex.split(command)
        assert program == "prunelora"
        code, printed, err = prunelora(*arguments, "--dry-run", "--json")
        assert code == 0, err
        found = json.loads(printed)
        stages = {one["stage"]: one["settings"] for one in found["stages"]}
        found["stages"] = {name: content for name, content in stages.items() if name.split("-")[0] not in LEFT_OUT}
        return found

    return read


def check(trial, found):
    wanted = trial.recipe
    # As text: 1 and 1.0 are different budgets.
    assert json.dumps(found["stages"]) == json.dumps(stages_of(wanted))
    assert found["model"] == wanted.model
    assert DataSettings.model_validate(found["task"]) == wanted.task


@pytest.mark.parametrize("name", sorted(packaged_recipes()))
def test_the_command_of_a_packaged_method_gives_its_stages(name, tmp_path, typed):
    one = trial(name, out=tmp_path)
    command = command_of(one)
    assert command.startswith(f"prunelora run --recipe {name} --model some/model ")
    assert "--set" not in command
    assert command.endswith(f"-{one.method.name}'")  # The data's name has a space.
    check(one, typed(command))


@pytest.mark.parametrize("budget", [1, 0.5])
def test_the_budget_and_the_learning_rate_are_those_of_the_point(budget, tmp_path, typed):
    one = trial("prune-lora", budget=budget, out=tmp_path)
    found = typed(command_of(one))
    assert found["stages"]["plan"]["keep_macs"] == budget
    assert found["stages"]["finetune"]["learning_rate"] == 0.003
    assert f"--keep-macs {budget:g} " in command_of(one)


def test_what_the_comparison_was_given_is_in_the_command(tmp_path, typed):
    changes = {
        "epochs": "7", "rows": "256", "batch_size": 16, "finetune.weight_decay": "0.1", "finetune.dropout": "null",
        "plan.targets": "query,value", "finetune.train_norms": "false", "score.criterion": "fisher",
    }  # fmt: skip
    one = trial(
        "prune-lora", out=tmp_path, task=DataSettings(task="sst2", data_dir="glue", max_train_rows=99), **changes
    )
    command = command_of(one)
    for words in ("--task sst2", "--data-dir glue", "--max-train-rows 99", "--epochs 7", "--rows 256", "--seed 2"):
        assert f"{words} " in command
    assert "--set plan.targets=query,value" in command
    check(one, typed(command))


def test_a_recipe_file_with_two_fine_tunings_is_given_by_its_path(tmp_path, typed):
    path = tmp_path / "my method.yaml"
    path.write_text(TUNE_CUT_TUNE)
    for changes in ({}, {"epochs": "3"}, {"finetune-1.epochs": "1", "finetune-1.learning_rate": "0.5"}):
        one = trial(str(path), out=tmp_path, **changes)
        command = command_of(one)
        assert f"--recipe '{path}'" in command
        check(one, typed(command))
    assert "--set finetune-1.epochs=1 " in command


def test_counts_and_fractions_stay_what_they_are(tmp_path, typed):
    (tmp_path / "mine.yaml").write_text(TUNE_CUT_TUNE)
    for heads in ("1", "1.0"):
        one = trial(str(tmp_path / "mine.yaml"), keep_macs=(), out=tmp_path, keep_heads=heads)
        assert one.method.keep_macs is None
        check(one, typed(command_of(one)))


def test_where_no_options_do_the_cells_own_recipe_is_given(tmp_path, typed):
    """No option takes back a column that a recipe file names."""
    (tmp_path / "mine.yaml").write_text(f"task: {{data: other.csv, text: words}}\n{TUNE_CUT_TUNE}")
    one = trial(str(tmp_path / "mine.yaml"), out=tmp_path, task=DataSettings(data="reviews.csv"))
    one.folder.mkdir(parents=True)
    one.recipe.save(one.folder / "recipe.yaml")
    command = command_of(one)
    assert command == f"prunelora run --recipe {one.folder}/recipe.yaml --out runs/reviews-mine@1"
    check(one, typed(command))


def test_a_shell_reads_a_command_on_several_lines_alike():
    words = ["prunelora", "run", "--recipe", "my own.yaml", "--set", "plan.targets=query,value", "--note", "a --b 'c'"]
    words += ["--out", "x" * 80, "--data", "$HOME", "--flag"]
    text = in_lines(shlex.join(words))
    assert len(text.splitlines()) > 2
    assert max(len(line) for line in text.splitlines() if "x" * 80 not in line) <= 72 + len("     \\")
    printed = subprocess.run(["sh", "-c", f"printf '%s\\n' {text}"], capture_output=True, text=True, check=True)
    assert printed.stdout.splitlines() == words
    assert in_lines("prunelora run") == "prunelora run"
