"""The same method at several budgets: what is trained to see the trade-off of quality and speed."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from prunelora.comparison.methods import Method, load_methods
from prunelora.errors import RecipeError, option
from prunelora.run.recipe import Recipe
from prunelora.stages.plan import BUDGETS, PlanStage

# Learning rates are tried at the budget nearest to this one: far from both ends of most curves.
TRIED_NEAR = 0.5


def load_methods_at(
    keep_macs: Sequence[float], names: Sequence[str], *, base: Recipe, changes: Mapping[str, Any] | None = None
) -> list[Method]:
    """Read methods as `load_methods` does, and put every one that has a plan at each of some budgets.

    Several budgets make a method of every method with a plan and budget, called METHOD@BUDGET; a single one only
    changes the budget of each. Methods without a plan stay as they are: what the others are seen against.

    Args:
        keep_macs: Fractions of the dense model's MACs, in any order; empty to leave every recipe its own budget.
        names: As for `load_methods`.
        base: As for `load_methods`.
        changes: As for `load_methods`.

    Raises:
        RecipeError: If a budget is not above 0 and up to 1, is given twice or beside one of another kind, or no method
            has a plan; and as `load_methods`.
    """
    methods = load_methods(names, base=base, changes=changes)
    if not keep_macs:
        return methods
    asked = option("keep_macs", list(keep_macs))
    if len({_text(budget) for budget in keep_macs}) < len(keep_macs) or not all(0 < one <= 1 for one in keep_macs):
        raise RecipeError(
            f"{asked}: expected one or more different fractions of the dense model's MACs, above 0 and up to 1."
        )
    others = [key for key in changes or {} if key.rpartition(".")[2] in BUDGETS]
    if others:
        raise RecipeError(
            f"{asked} and {option(others[0], (changes or {})[others[0]])} were both given. Give one of them."
        )
    if not any(_has_plan(method) for method in methods):
        raise RecipeError(
            f"{asked}: none of the methods {', '.join(one.name for one in methods)} has a plan "
            "that a budget could be given to. Add one, such as prune-lora."
        )
    if len(keep_macs) == 1:
        return [_at(method, keep_macs[0]) if _has_plan(method) else method for method in methods]
    budgets = sorted(keep_macs, reverse=True)
    return [
        one
        for method in methods
        for one in (
            [
                replace(_at(method, budget), name=f"{method.name}@{_text(budget)}", base=method.name)
                for budget in budgets
            ]
            if _has_plan(method)
            else [method]
        )
    ]


def tried_on(methods: Sequence[Method]) -> dict[str, Method]:
    """By the name of every method, the one that its learning rate is tried on: itself, or its base at one budget.

    That is the budget nearest to a half, of those at which something is cut; of two as near the larger.
    """
    found = {}
    for method in methods:
        same = [one for one in methods if method.base is not None and one.base == method.base] or [method]
        found[method.name] = min(same, key=_how_far_from_a_half)
    return found


def to_be_paired(methods: Sequence[Method]) -> list[tuple[Method, Method]]:
    """Which methods are tested against each other, the later one first: all with all, where none is at several budgets.

    Of those that are, a method is tested against every one without a budget, against others at the same budget, and
    against itself at its largest budget: 6 budgets of 3 methods would otherwise be 190 tests, of which by chance ten
    would mark a difference.
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
    return max((one for one in methods if one.base == base), key=lambda one: one.keep_macs or 0)


def _how_far_from_a_half(method: Method) -> tuple[bool, float, float]:
    budget = method.keep_macs or 1.0
    # 0.8 - 0.5 and 0.5 - 0.2 differ in the last digit.
    return budget == 1, round(abs(budget - TRIED_NEAR), 9), -budget


def _has_plan(method: Method) -> bool:
    return any(isinstance(stage, PlanStage) for stage in method.recipe.stages)


def _at(method: Method, budget: float) -> Method:
    return replace(method, recipe=method.recipe.with_options({"keep_macs": budget}))


def _text(budget: float) -> str:
    return f"{budget:g}"
