"""What a change of one setting says of the content of a recipe: what a typed value stands for, and what it replaces."""

from collections.abc import Mapping
from typing import Any

import yaml

from prunelora.data.settings import OF_OWN_DATA
from prunelora.errors import RecipeError, first_line, option
from prunelora.settings import number_in, read_yaml
from prunelora.stages.plan import BUDGETS


def leave_other_source(task: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Where `changes` name a task, forget the data that the recipe had, and the other way round."""
    data, name = changes.get("task.data"), changes.get("task.task")
    if data is not None and name is not None:
        raise RecipeError(f"{option('data', data)} and {option('task', name)} were both given. Give one of them.")
    if data is not None:
        task |= {"task": None, "data_dir": None}
    if name is not None:
        task |= {"data": None} | dict.fromkeys(OF_OWN_DATA) | {"task_type": "auto"}


def leave_other_budgets(stages: Mapping[str, dict[str, Any]], changes: Mapping[str, Any]) -> None:
    """Where `changes` give a plan a budget, forget those of other kinds that the recipe had."""
    for name, content in stages.items():
        given = [one for one in BUDGETS if changes.get(f"{name}.{one}") is not None]
        if content["stage"] == "plan" and given:
            counts = ("keep_heads", "keep_ffn")
            kept = counts if given[0] in counts else (given[0],)
            content |= {one: None for one in BUDGETS if one not in kept}


def value_of(key: str, value: str) -> Any:
    """What text stands for: a number, a list, none, or itself."""
    if not value.strip():
        raise RecipeError(f"{option(key)}: nothing was typed as its value. Type null for none, or leave it out.")
    try:
        return read_yaml(value)
    except yaml.YAMLError as error:
        what = first_line(error)
        raise RecipeError(
            f"{option(key, value)}: not a value ({what}). Type a number, a word, or a list: [query, value]."
        ) from error


def number_of(value: Any) -> float | None:
    """A number, typed or given; None for what is none, which the settings' own checks then say."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        return number_in(value)
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
