"""Methods at several budgets, for the trade-off of quality and speed."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from prunelora.comparison.methods import Method, load_methods
from prunelora.errors import RecipeError, option
from prunelora.run.recipe import Recipe
from prunelora.stages.plan import BUDGETS, PlanStage

# Learning rates are tried at the budget nearest to this one, which is far from both ends of most curves.
TRIED_NEAR = 0.5


def load_methods_at(
    keep_macs: Sequence[float], names: Sequence[str], *, base: Recipe, changes: Mapping[str, Any] | None = None
) -> list[Method]:
    """Read methods with `load_methods`, and put every method that has a plan at each budget.

    With several budgets, every method with a plan becomes one method a budget, named METHOD@BUDGET; a single budget
    keeps the names. Methods without a plan stay as they are.

    Args:
        keep_macs: Fractions of the dense model's MACs, in any order; empty to keep every recipe's own budget.
        names: As for `load_methods`.
        base: As for `load_methods`.
        changes: As for `load_methods`.

    Raises:
        RecipeError: If a budget is not above 0 and up to 1, is given twice or beside a budget of another kind, or no
            method has a plan; and as `load_methods`.
    """
    methods = load_methods(names, base=base, changes=changes)
    if not keep_macs:
        return methods
    asked = option("keep_macs", list(keep_macs))
    if len({f"{budget:g}" for budget in keep_macs}) < len(keep_macs) or not all(0 < each <= 1 for each in keep_macs):
        raise RecipeError(
            f"{asked}: expected one or more different fractions of the dense model's MACs, above 0 and up to 1."
        )
    others = [key for key in changes or {} if key.rpartition(".")[2] in BUDGETS]
    if others:
        raise RecipeError(
            f"{asked} and {option(others[0], (changes or {})[others[0]])} were both given. Give one of them."
        )
    if not any(_has_plan(method) for method in methods):
        names_given = ", ".join(method.name for method in methods)
        raise RecipeError(
            f"{asked}: none of the methods {names_given} has a plan, which a budget needs. Add one, such as prune-lora."
        )
    return [point for method in methods for point in _at(method, sorted(keep_macs, reverse=True))]


def _at(method: Method, budgets: Sequence[float]) -> list[Method]:
    if not _has_plan(method):
        return [method]
    points = [replace(method, recipe=method.recipe.with_options({"keep_macs": budget})) for budget in budgets]
    if len(budgets) == 1:
        return points
    return [
        replace(point, name=f"{method.name}@{budget:g}", base=method.name)
        for point, budget in zip(points, budgets, strict=True)
    ]


def tried_on(methods: Sequence[Method]) -> dict[str, Method]:
    """By the name of every method, the method on which its learning rate is tried: itself, or its base at one budget.

    This is the budget nearest to a half of those at which something is cut; of two equally near the larger.
    """
    tried = {}
    for method in methods:
        points = [other for other in methods if method.base is not None and other.base == method.base] or [method]
        tried[method.name] = min(points, key=_distance_from_a_half)
    return tried


def to_be_paired(methods: Sequence[Method]) -> list[tuple[Method, Method]]:
    """Pairs of methods to be tested, the later method first: without several budgets all pairs.

    A method at a budget is tested against every method without one, against others at the same budget, and against
    itself at its largest budget. All pairs of 6 budgets of 3 methods would be 190 tests, of which ten would be
    significant by chance.
    """
    return [
        (later, earlier)
        for place, earlier in enumerate(methods)
        for later in methods[place + 1 :]
        if earlier.base is None
        or later.base is None
        or earlier.keep_macs == later.keep_macs
        or (earlier.base == later.base and earlier is _largest(methods, earlier.base))
    ]


def _largest(methods: Sequence[Method], base: str) -> Method:
    return max((method for method in methods if method.base == base), key=lambda method: method.keep_macs or 0)


def _distance_from_a_half(method: Method) -> tuple[bool, float, float]:
    budget = method.keep_macs or 1.0
    # 0.8 - 0.5 and 0.5 - 0.2 differ in the last digit.
    return budget == 1, round(abs(budget - TRIED_NEAR), 9), -budget


def _has_plan(method: Method) -> bool:
    return any(isinstance(stage, PlanStage) for stage in method.recipe.stages)
