"""Options that are made from settings: what their texts say of defaults."""

import inspect
import re
import typing

import pytest

from prunelora.cli.app import app
from prunelora.cli.options import with_settings_of
from prunelora.run.recipe import Recipe, load_recipe
from prunelora.stages.finetune import FineTuneStage
from prunelora.stages.kinds import BY_KIND

COMMANDS = {one.name or one.callback.__name__: one.callback for one in app.registered_commands}


def text_of(command, name):
    return typing.get_args(inspect.signature(command).parameters[name].annotation)[1].help


@pytest.mark.parametrize(
    ("command", "name", "default"),
    [
        ("run", "learning_rate", "the recipe's, else 0.001"),
        ("check", "tokens", "the recipe's, else 128"),
        ("compare", "rows", "the recipe's, else 1024"),
        ("prune", "repair", "the recipe's, else True"),
        ("run", "targets", "the recipe's, else query,key,value,output"),
        ("run", "max_length", "the recipe's, else 128"),
        ("run", "seed", "the recipe's, else 0"),
        ("compare", "max_length", "128"),
    ],
)
def test_what_a_recipe_says_comes_before_the_default_of_its_stages_settings(command, name, default):
    assert text_of(COMMANDS[command], name).endswith(f" [default: {default}]")


def test_that_is_needed_as_a_runs_recipe_has_another_default():
    recipe = Recipe()
    assert recipe.tunings[recipe.main_tuning].learning_rate != FineTuneStage().learning_rate


def test_without_a_recipe_behind_it_the_default_stands_alone():
    def command(*, settings): ...

    made = with_settings_of((FineTuneStage, None), not_of_recipe=(FineTuneStage,))(command)
    assert text_of(made, "learning_rate").endswith(" [default: 0.001]")


class Stopped(Exception):
    """In place of the work of a command."""


def commands_with_a_recipe():
    return ["run", "check", *(name for name in COMMANDS if name in BY_KIND)]


@pytest.fixture
def recipe_of(prunelora, monkeypatch, tmp_path):
    """The recipe that a command would run, of a file that says nothing but its stages."""
    kinds = ["linear_probe", "score", "plan", "prune", "finetune", "merge", "evaluate", "export", "baseline", "measure"]
    (tmp_path / "bare.yaml").write_text(f"stages: [{', '.join(f'{{stage: {kind}}}' for kind in [*kinds, 'report'])}]")

    def call(command, *typed):
        taken = []

        def execute(recipe, *_, **__):
            taken.append(recipe)
            raise Stopped

        monkeypatch.setattr("prunelora.run.execute.execute", execute)
        monkeypatch.setattr("prunelora.run.check.check_run", execute)
        out = {"run": ["--out", str(tmp_path / "out")], "check": []}.get(command, [str(tmp_path / "out")])
        _, _, err = prunelora(command, *out, "--recipe", str(tmp_path / "bare.yaml"), *typed)
        assert taken, err
        return taken[0]

    return call


def test_every_default_in_help_is_what_happens_where_the_recipe_says_nothing(recipe_of):
    """Typing a default changes nothing."""
    seen = 0
    for command in commands_with_a_recipe():
        as_it_is = recipe_of(command, "--data", "rotten-tomatoes")
        options = inspect.signature(COMMANDS[command]).parameters
        typed = []
        for name, parameter in options.items():
            made = typing.get_args(parameter.annotation)[1:]
            stated = re.search(r"\[default: the recipe's, else (.*)\]$", (made[0].help if made else "") or "")
            if stated is None or as_it_is.is_planned(f"finetune.{name}"):
                continue
            seen += 1
            flag, no_flag, value = f"--{name.replace('_', '-')}", f"--no-{name.replace('_', '-')}", stated[1]
            typed += {"True": [flag], "False": [no_flag]}.get(value, [flag, value])
        assert recipe_of(command, "--data", "rotten-tomatoes", *typed) == as_it_is
    assert seen >= 130


def test_every_default_in_help_gives_way_to_the_recipes_own(recipe_of, tmp_path):
    own = {
        "model": "m", "seed": 7, "task.data": "a.csv", "task.max_length": 64,
        "score.criterion": "fisher", "score.rows": 5, "plan.rank_high": 16, "prune.repair": False,
        "finetune.epochs": 2, "finetune.batch_size": 4,
    }  # fmt: skip
    recipe = load_recipe("cut-first").with_settings(own)
    recipe.save(tmp_path / "bare.yaml")
    for command in commands_with_a_recipe():
        assert recipe_of(command) == recipe


def test_typing_a_default_of_compare_is_as_typing_nothing(prunelora, monkeypatch):
    taken = []

    def instead(*given, **options):
        taken.append((given, {name: value for name, value in options.items() if name != "tell"}))
        raise Stopped

    monkeypatch.setattr("prunelora.comparison.compare.compare", instead)
    typed = []
    for name, parameter in inspect.signature(COMMANDS["compare"]).parameters.items():
        made = typing.get_args(parameter.annotation)[1:]
        stated = re.search(r"\[default: (?!the recipe's)([^ ]*)\]$", (made[0].help if made else "") or "")
        if stated is not None:
            flag, no_flag = f"--{name.replace('_', '-')}", f"--no-{name.replace('_', '-')}"
            typed.append({"True": [flag], "False": [no_flag]}.get(stated[1], [flag, stated[1]]))
    assert len(typed) >= 6
    for words in ([], [word for option in typed for word in option]):
        assert prunelora("compare", "--data", "rotten-tomatoes", "--out", "out", *words)[0] == 70
    assert taken[0] == taken[1]
