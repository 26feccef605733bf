"""The same method at several budgets: what is trained, where its learning rate comes from, what is tested."""

import pytest

from prunelora.comparison.budgets import to_be_paired, tried_on
from prunelora.comparison.methods import load_methods
from prunelora.data.settings import DataSettings
from prunelora.errors import RecipeError
from prunelora.run.recipe import Recipe
from prunelora.stages.plan import BUDGETS

BASE = Recipe(model="a-model", task=DataSettings(data="a-file.csv"))


def methods_at(*keep_macs, names=("full", "lora", "prune-lora", "random-prune-lora"), **changes):
    return load_methods(names, base=BASE, changes=changes, keep_macs=keep_macs)


def plan_of(method):
    return next(stage for stage in method.recipe.stages if stage.stage == "plan")


def test_without_budgets_methods_are_as_their_recipes_have_them():
    assert methods_at() == load_methods(("full", "lora", "prune-lora", "random-prune-lora"), base=BASE)


def test_every_method_with_a_plan_is_there_at_every_budget_the_largest_first():
    methods = methods_at(0.5, 1, 0.25)
    assert [one.name for one in methods] == [
        "full", "lora", "prune-lora@1", "prune-lora@0.5", "prune-lora@0.25",
        "random-prune-lora@1", "random-prune-lora@0.5", "random-prune-lora@0.25",
    ]  # fmt: skip
    assert [(one.base, one.keep_macs) for one in methods[:4]] == [
        (None, None), (None, None), ("prune-lora", 1), ("prune-lora", 0.5),
    ]  # fmt: skip


def test_a_budget_takes_the_place_of_the_recipes_own_and_changes_nothing_else():
    (plain,) = load_methods(["prune-lora"], base=BASE)
    for method in methods_at(0.5, 0.25, names=["prune-lora"]):
        plan = plan_of(method)
        given = {name: getattr(plan, name) for name in BUDGETS if getattr(plan, name) is not None}
        assert given == {"keep_macs": method.keep_macs}
        assert plan.model_copy(update=dict.fromkeys(BUDGETS)) == plan_of(plain).model_copy(
            update=dict.fromkeys(BUDGETS)
        )
        assert [one for one in method.recipe.stages if one.stage != "plan"] == [
            one for one in plain.recipe.stages if one.stage != "plan"
        ]


def test_a_single_budget_leaves_the_names_as_they_are():
    methods = methods_at(0.4)
    assert [one.name for one in methods] == ["full", "lora", "prune-lora", "random-prune-lora"]
    assert [one.keep_macs for one in methods] == [None, None, 0.4, 0.4]
    assert {one.base for one in methods} == {None}


@pytest.mark.parametrize(
    ("budgets", "expected"),
    [
        ((1, 0.75, 0.5, 0.25), 0.5),
        ((1, 0.75, 0.35), 0.35),
        ((1, 0.75), 0.75),
        ((1, 0.6, 0.4), 0.6),
        ((0.8, 0.2), 0.8),
        ((1, 0.1), 0.1),
    ],
)
def test_learning_rates_are_tried_near_a_half_and_where_something_is_cut(budgets, expected):
    methods = methods_at(*budgets)
    tuned = tried_on(methods)
    for base in ("prune-lora", "random-prune-lora"):
        assert {tuned[one.name].name for one in methods if one.base == base} == {f"{base}@{expected:g}"}
    assert [tuned[name].name for name in ("full", "lora")] == ["full", "lora"]


def test_methods_without_budgets_are_all_tested_against_each_other():
    names = ["full", "lora", "prune-lora", "random-prune-lora"]
    pairs = [(later.name, earlier.name) for later, earlier in to_be_paired(methods_at(0.5))]
    assert pairs == [(later, earlier) for place, earlier in enumerate(names) for later in names[place + 1 :]]


def test_points_are_tested_where_a_reader_looks():
    pairs = {(later.name, earlier.name) for later, earlier in to_be_paired(methods_at(1, 0.5, 0.25))}
    assert ("prune-lora@0.25", "lora") in pairs
    assert ("random-prune-lora@0.5", "prune-lora@0.5") in pairs
    assert ("prune-lora@0.25", "prune-lora@1") in pairs
    assert ("prune-lora@0.25", "prune-lora@0.5") not in pairs
    assert ("random-prune-lora@0.5", "prune-lora@0.25") not in pairs
    assert len(pairs) == 1 + 6 * 2 + 3 + 2 * 2


@pytest.mark.parametrize("budgets", [(0,), (1.2,), (0.5, 0.5), (-1, 0.5)])
def test_budgets_that_are_none_are_refused(budgets):
    with pytest.raises(RecipeError, match=r"keep_macs=\[.*\]: expected one or more different fractions"):
        methods_at(*budgets)


@pytest.mark.parametrize("other", ["keep_heads", "plan.keep_ffn", "plan.keep_macs"])
def test_a_budget_of_another_kind_beside_them_is_refused(other):
    with pytest.raises(RecipeError, match=rf"keep_macs=\[1, 0.5\] and {other}=0.7 were both given"):
        methods_at(1, 0.5, **{other: 0.7})


def test_budgets_for_methods_that_cut_nothing_are_refused():
    with pytest.raises(RecipeError, match=r"none of the methods full, lora has a plan"):
        methods_at(0.5, names=("full", "lora"))
