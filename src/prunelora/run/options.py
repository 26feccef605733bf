"""Options: which settings of a recipe a bare name on a command line changes, and to which values.

    --keep-heads 73   ->  plan.keep_heads=73
    --epochs 3        ->  finetune-1.epochs=2.7, finetune.epochs=0.3    by the `options` of the packaged tune-first

An option goes to the kind of stage that it matters most for: "batch_size" to fine-tuning, "rows" to scoring. An option
of fine-tuning goes to every fine-tuning, or, multiplied, to the stages that the recipe's `options` name for it.
"""

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import yaml

from prunelora.data.settings import OF_OWN_DATA, DataSettings
from prunelora.errors import RecipeError, advice, did_you_mean, first_line, option
from prunelora.planning.units import compared_as
from prunelora.settings import number_in, plain, read_yaml
from prunelora.stages.plan import BUDGETS, PlanStage
from prunelora.stages.score import ScoreStage

if TYPE_CHECKING:
    from prunelora.run.recipe import Recipe

# Fields of a recipe or a stage that no option and no setting changes.
NOT_SETTINGS = frozenset({"stage", "stages", "task", "format", "options"})
# Settings of a fine-tuning that an earlier plan replaces.
_PLANNED = frozenset({"lora_rank", "lora_targets"})
# The kinds of stages that come first where several have a setting of the same name.
_FIRST = ("finetune", "score")


def factors_of(recipe: "Recipe", bare: str) -> dict[str, float]:
    """The keys of the settings that an option changes, each with the factor of the option's value.

    "keep_heads" -> {"plan.keep_heads": 1}, "text" -> {"task.text": 1},
    "epochs" -> {"finetune-1.epochs": 0.9, "finetune.epochs": 0.1}

    Raises:
        RecipeError: If no stage of the recipe has such a setting.
    """
    # First: "task" is also the name of the recipe's section for data, which is no setting.
    if bare in DataSettings.model_fields:
        return {f"task.{bare}": 1}
    if bare in type(recipe).model_fields:
        return {bare: 1}
    if bare in recipe.options:
        return {f"{name}.{bare}": factor for name, factor in recipe.options[bare].items()}
    owners = [name for name, stage in recipe.by_name.items() if bare in type(stage).model_fields]
    if not owners:
        known = {*type(recipe).model_fields}.union(*(type(stage).model_fields for stage in recipe.stages))
        raise RecipeError(
            f"{option(bare)}: no stage of the recipe has such a setting."
            f"{did_you_mean(bare, {*DataSettings.model_fields, *known - NOT_SETTINGS})} It has: "
            f"{', '.join(recipe.names)}."
        )
    if bare in _PLANNED:
        owners = [name for name in owners if name not in recipe.after_plans]
        if not owners:
            raise planned(bare)
    tunings = [name for name in owners if name in recipe.tunings]
    chosen = tunings or [next((name for name in _FIRST if name in owners), owners[-1])]
    return {f"{name}.{bare}": 1 for name in chosen}


def key_of(recipe: "Recipe", bare: str, *, first: str | None = None) -> str:
    """The key of the last setting that gets an option's value unchanged: "keep_heads" -> "plan.keep_heads".

    Args:
        recipe: Has the setting.
        bare: The option.
        first: Name of a stage that is preferred, if it has such a setting.

    Raises:
        RecipeError: If no stage of the recipe has such a setting.
    """
    factors = factors_of(recipe, bare)
    if first in recipe.by_name and bare in type(recipe.by_name[first]).model_fields:
        return f"{first}.{bare}"
    keys = list(reversed(factors))
    return next((key for key in keys if factors[key] == 1), keys[0])


def changes_of(recipe: "Recipe", bare: str, value: Any) -> dict[str, Any]:
    """The settings that an option changes, by key, with their new values."""
    number = _number_of(value)
    return {
        key: value if factor == 1 or number is None else _scaled(number * factor, whole=_is_count(recipe, key))
        for key, factor in factors_of(recipe, bare).items()
    }


def _is_count(recipe: "Recipe", key: str) -> bool:
    owner, _, field = key.rpartition(".")
    return type(recipe.by_name[owner]).model_fields[field].annotation is int


def _scaled(number: float, *, whole: bool) -> float:
    rounded = float(f"{number:.6g}")
    return math.ceil(rounded) if whole else rounded


def _number_of(value: Any) -> float | None:
    """A typed or given number; None for other values, which the settings refuse."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        return number_in(value)
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def check_options(recipe: "Recipe") -> None:
    """Check that the `options` of a recipe name settings of its stages.

    Raises:
        RecipeError: Naming the entry.
    """
    stages = recipe.by_name
    for bare, factors in recipe.options.items():
        for name in factors:
            if name not in stages:
                raise RecipeError(
                    f"options.{bare}: the recipe has no stage {name!r}.{did_you_mean(name, stages)} It has: "
                    f"{', '.join(stages)}."
                )
            if bare not in set(type(stages[name]).model_fields) - NOT_SETTINGS:
                raise RecipeError(f"options.{bare}: the stage {name!r} has no such setting.")


def compared_by_criterion(recipe: "Recipe", changes: Mapping[str, Any]) -> dict[str, Any]:
    """How a plan compares heads with neurons, for scores by another criterion than the recipe's.

    Scores by obs are compared directly, others by cost: gradients of a tuned model, compared directly, leave hardly a
    head.
    """
    compared: dict[str, Any] = {}
    criterion = None
    for name, stage in recipe.by_name.items():
        if isinstance(stage, ScoreStage):
            asked = changes.get(f"{name}.criterion", stage.criterion)
            criterion = asked if asked != stage.criterion else None
        elif isinstance(stage, PlanStage) and criterion is not None:
            compared |= {f"{name}.{setting}": value for setting, value in compared_as(criterion).items()}
    return compared


def is_planned(recipe: "Recipe", key: str) -> bool:
    """Whether an earlier plan replaces a setting: the ranks and targets of LoRA."""
    owner, _, field = key.rpartition(".")
    return field in _PLANNED and owner in recipe.after_plans


def planned(key: str) -> RecipeError:
    """The error for a setting of a fine-tuning that an earlier plan replaces."""
    targets = key.rpartition(".")[2] == "lora_targets"
    instead = advice("plan.targets") if targets else f"{advice('plan.rank_high')} and {advice('plan.rank_low')}"
    return RecipeError(f"{option(key)}: an earlier plan replaces this setting. Set {instead}.")


def clear_other_source(task: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Remove the recipe's data where `changes` name a task, and the recipe's task where they name data."""
    data, name = changes.get("task.data"), changes.get("task.task")
    if data is not None and name is not None:
        raise RecipeError(f"{option('data', data)} and {option('task', name)} were both given. Give one of them.")
    if data is not None:
        task |= {"task": None, "data_dir": None}
    if name is not None:
        task |= {"data": None} | dict.fromkeys(OF_OWN_DATA) | {"task_type": "auto"}


def clear_other_budgets(stages: Mapping[str, dict[str, Any]], changes: Mapping[str, Any]) -> None:
    """Remove a plan's budgets of other kinds where `changes` give it a budget."""
    for name, content in stages.items():
        given = [budget for budget in BUDGETS if changes.get(f"{name}.{budget}") is not None]
        if content["stage"] == "plan" and given:
            counts = ("keep_heads", "keep_ffn")
            kept = counts if given[0] in counts else (given[0],)
            content |= {budget: None for budget in BUDGETS if budget not in kept}


def value_of(key: str, value: Any, *, as_text: bool) -> Any:
    """The value of a setting: a number, a list, none or a word that was typed; NumPy's numbers as Python's."""
    if not isinstance(value, str) or as_text:
        return plain(value)
    if not value.strip():
        raise RecipeError(f"{option(key)}: the value is empty. Type null for none, or leave the option out.")
    try:
        return read_yaml(value)
    except yaml.YAMLError as error:
        raise RecipeError(
            f"{option(key, value)}: not a value ({first_line(error)}). Type a number, a word, or a list: "
            "[query, value]."
        ) from error


def differences(recipe: "Recipe", changed: "Recipe") -> Iterator[tuple[str, Any, Any]]:
    """Key, present value and new value of every setting that differs between two recipes with the same stages."""
    present, new = _by_key(recipe), _by_key(changed)
    return ((key, present.get(key), value) for key, value in new.items() if value != present.get(key))


def _by_key(recipe: "Recipe") -> dict[str, Any]:
    content = recipe.model_dump(mode="json")
    settings = {"model": content["model"], "seed": content["seed"]}
    for owner, values in (("task", content["task"]), *zip(recipe.names, content["stages"], strict=True)):
        settings |= {f"{owner}.{name}": value for name, value in values.items()}
    return settings
