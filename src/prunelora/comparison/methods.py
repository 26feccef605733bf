"""Methods of a comparison: each is a recipe, packaged or a file, perhaps at several budgets."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prunelora.data.settings import DataSettings
from prunelora.errors import RecipeError, advice, did_you_mean, option
from prunelora.run.recipe import Recipe, load_recipe, packaged_recipes
from prunelora.stages.evaluate import EvaluateStage
from prunelora.stages.finetune import FineTuneStage
from prunelora.stages.kinds import KINDS
from prunelora.stages.plan import BUDGETS, PlanStage

# The default: tune-first is the recipe of a run, prune-lora the paper's, with two controls.
METHODS = ("full", "lora", "tune-first", "prune-lora", "random-prune-lora", "magnitude-prune-lora")
# Stages that say nothing about the method itself, cost time, and are done once for all methods in a comparison.
LEFT_OUT = tuple(stage.kind() for stage in KINDS if not stage.makes_model)
# Settings of a recipe that are the comparison's, the same for all of its methods, by the options that give them.
_OPTIONS = {name: name for name in ("model", *DataSettings.model_fields)} | {"seed": "seeds"}


@dataclass(frozen=True)
class Method:
    """One row of a comparison.

    Attributes:
        name: Of the row.
        title: A sentence: the recipe file's first line, if that is a comment.
        recipe: Stages up to a plain model, then its evaluation. Model, task and seed are the comparison's.
        base: The method of which this is one of several budgets: prune-lora of prune-lora@0.5; else None.
    """

    name: str
    title: str
    recipe: Recipe
    base: str | None = None

    @property
    def tuning(self) -> FineTuneStage:
        """The last fine-tuning."""
        return self.recipe.tunings["finetune"]

    @property
    def learning_rate(self) -> float:
        """Of the recipe's longest fine-tuning."""
        return self.recipe.tunings[self.recipe.main_tuning].learning_rate

    @property
    def plan(self) -> PlanStage | None:
        """The last plan; None if nothing is cut."""
        plans = [stage for stage in self.recipe.stages if isinstance(stage, PlanStage)]
        return plans[-1] if plans else None

    @property
    def keep_macs(self) -> float | None:
        """Budget of its plan in MACs; None without a plan or with a budget of another kind."""
        return self.plan.keep_macs if self.plan is not None else None

    def learning_rates(self, factors: Sequence[float]) -> tuple[float, ...]:
        """The recipe's own learning rate times each factor."""
        return tuple(dict.fromkeys(float(f"{self.learning_rate * factor:.6g}") for factor in factors))

    def with_learning_rate(self, learning_rate: float) -> Recipe:
        """The recipe with this learning rate of the longest fine-tuning; the others change in proportion."""
        return self.recipe.in_proportion("learning_rate", learning_rate, of=self.learning_rate)


def load_methods(
    names: Sequence[str],
    *,
    base: Recipe,
    changes: Mapping[str, Any] | None = None,
    keep_macs: Sequence[float] = (),
) -> list[Method]:
    """Read the recipes of methods and put the comparison's model, task and settings into them.

    With several budgets, every method that has a plan becomes one method a budget, named METHOD@BUDGET, the largest
    budget first; a single budget keeps the names. Methods without a plan stay as they are.

    Args:
        names: Names of packaged methods, or paths of recipe files (.yaml, .yml, .json).
        base: Gives model and task.
        changes: Settings by bare name ("epochs", "keep_heads") or by stage ("finetune.batch_size"), for every method
            that has them.
        keep_macs: Budgets as fractions of the dense model's MACs, in any order; every recipe's own if empty.

    Raises:
        RecipeError: If a method or file does not exist, two methods have one name, a recipe trains nothing, or a change
            is a setting of the whole comparison, of a stage that is left out, or of no method; if a budget is not above
            0 and up to 1, is given twice or beside a budget of another kind, or no method has a plan.
    """
    changes = changes or {}
    if not names:
        raise RecipeError(f"No methods to compare. Name some of: {', '.join(METHODS)}; or recipe files.")
    methods = [_load_method(name) for name in names]
    counts = Counter(method.name for method in methods)
    if len(counts) < len(methods):
        raise RecipeError(f"Two methods are named {counts.most_common(1)[0][0]!r}. Give each recipe file its own name.")
    methods = [_fitted(method, base) for method in methods]
    for key in changes:
        _check_change(key, methods)
    methods = [_changed(method, changes) for method in methods]
    if not keep_macs:
        return methods
    _check_budgets(keep_macs, methods, changes)
    return [point for method in methods for point in _at(method, sorted(keep_macs, reverse=True))]


def _load_method(name: str) -> Method:
    packaged = packaged_recipes()
    path = packaged.get(name, Path(name))
    if name not in packaged and path.suffix not in (".yaml", ".yml", ".json"):
        raise RecipeError(
            f"{name}: no method of this name.{did_you_mean(name, packaged)} Use some of: {', '.join(packaged)}; or "
            "the path of a recipe file (.yaml, .yml, .json)."
        )
    recipe = load_recipe(path)
    if not recipe.tunings:
        raise RecipeError(f"{name}: the recipe has no stage 'finetune', so there is nothing to compare.")
    first = path.read_text(encoding="utf-8").splitlines()[0]
    title = first.removeprefix("#").strip() if first.startswith("#") else f"The recipe {path.name}."
    return Method(path.stem, title, recipe)


def _check_change(key: str, methods: Sequence[Method]) -> None:
    """Raises RecipeError if a change has no effect on any method."""
    owner, _, setting = key.rpartition(".")
    if owner in ("", "task") and setting in _OPTIONS:
        raise RecipeError(
            f"{option(key)}: model, data and seeds are the same for all methods, and no setting of one. "
            f"Give it as {advice(_OPTIONS[setting])}."
        )
    if any(_has(method.recipe, key) for method in methods):
        return
    those = ", ".join(method.name for method in methods)
    kind = owner.rstrip("0123456789").removesuffix("-")
    if kind in LEFT_OUT:
        raise RecipeError(
            f"{option(key)}: a comparison leaves the stage {kind!r} out of every recipe, so none of the methods "
            f"{those} has such a setting. Leave it out."
        )
    raise RecipeError(f"{option(key)}: none of the methods {those} has such a setting.")


def _has(recipe: Recipe, key: str) -> bool:
    owner = key.rpartition(".")[0]
    return owner in recipe.names and not recipe.is_planned(key) if owner else recipe.has_option(key)


def _fitted(method: Method, base: Recipe) -> Method:
    """With the comparison's model and task in place of the recipe's, and without the stages that are left out."""
    stages = tuple(stage for stage in method.recipe.stages if stage.stage not in LEFT_OUT)
    if stages[-1].stage != "merge":
        raise RecipeError(
            f"{method.name}: the recipe must come to a plain model: its last stage before measuring must be 'merge', "
            f"found {stages[-1].stage!r}."
        )
    return replace(
        method, recipe=base.model_copy(update={"stages": (*stages, EvaluateStage()), "options": method.recipe.options})
    )


def _changed(method: Method, changes: Mapping[str, Any]) -> Method:
    fitting = {key: value for key, value in changes.items() if _has(method.recipe, key)}
    bare = {key: value for key, value in fitting.items() if "." not in key}
    by_stage = {key: value for key, value in fitting.items() if "." in key}
    return replace(method, recipe=method.recipe.with_options(bare, by_stage))


def _check_budgets(budgets: Sequence[float], methods: Sequence[Method], changes: Mapping[str, Any]) -> None:
    asked = option("keep_macs", list(budgets))
    if len({f"{budget:g}" for budget in budgets}) < len(budgets) or not all(0 < budget <= 1 for budget in budgets):
        raise RecipeError(
            f"{asked}: expected one or more different fractions of the dense model's MACs, above 0 and up to 1."
        )
    for key, value in changes.items():
        if key.rpartition(".")[2] in BUDGETS:
            raise RecipeError(f"{asked} and {option(key, value)} were both given. Give one of them.")
    if all(method.plan is None for method in methods):
        those = ", ".join(method.name for method in methods)
        raise RecipeError(
            f"{asked}: none of the methods {those} has a plan, which a budget needs. Add one, such as prune-lora."
        )


def _at(method: Method, budgets: Sequence[float]) -> list[Method]:
    """The method at each budget; the method itself without a plan."""
    if method.plan is None:
        return [method]
    points = [replace(method, recipe=method.recipe.with_options({"keep_macs": budget})) for budget in budgets]
    if len(points) == 1:
        return points
    return [replace(point, name=f"{method.name}@{point.keep_macs:g}", base=method.name) for point in points]
