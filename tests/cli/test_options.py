"""Options that are made from settings: what their texts say of defaults."""

import inspect
import typing

import pytest

from prunelora.cli.app import app
from prunelora.cli.options import with_settings_of
from prunelora.recipe import Recipe
from prunelora.stage_settings import FineTuneStage

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
