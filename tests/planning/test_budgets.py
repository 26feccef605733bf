"""Budgets in MACs, parameters and milliseconds are met by the best allocation, or refused with one that can be met."""

import dataclasses
import itertools
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import prunelora as pl
from prunelora.errors import PlanError
from prunelora.importance.importance import Importance
from prunelora.models.architecture import Architecture
from prunelora.models.lineage import Lineage
from prunelora.planning.allocation import Allocation, allocate
from prunelora.planning.cost_tables import CostTable, macs_table, parameters_table
from prunelora.planning.costs import block_macs, block_parameters
from prunelora.planning.normalise import balanced

BERT_BASE = Architecture(family="bert", hidden_size=768, head_dim=64, num_heads=(12,) * 12, num_neurons=(3072,) * 12)
SMALL = Architecture(family="bert", hidden_size=24, head_dim=6, num_heads=(4, 4, 4), num_neurons=(40, 40, 40))


def random_scores(architecture: Architecture, seed: int = 0) -> Importance:
    rng = np.random.default_rng(seed)
    return Importance(
        heads=tuple(rng.random(count) ** 2 for count in architecture.num_heads),
        neurons=tuple(rng.random(count) ** 4 for count in architecture.num_neurons),
        lineage=Lineage.whole(architecture),
        num_parameters=block_parameters(architecture) + 5_000,
    )


def milliseconds(architecture: Architecture, *, fixed: float = 3.0) -> CostTable:
    """Made-up times that grow in uneven steps, as those of a device do."""
    return CostTable(
        unit="ms",
        heads=tuple(0.7 * np.ceil(np.arange(count + 1) / 2) for count in architecture.num_heads),
        neurons=tuple(0.5 * np.ceil(np.arange(count + 1) / 16) for count in architecture.num_neurons),
        fixed=fixed,
    )


# The solver -----------------------------------------------------------------------------------------------------------


def best_by_trying_all(table: CostTable, heads, neurons, limit: float, round_to: int) -> float:
    """Highest value of all choices within the limit: the independent reference."""
    options = [range(len(scores) + 1) for scores in heads]
    options += [sorted({*range(0, len(scores) + 1, round_to), len(scores)}) for scores in neurons]
    sums = [[0.0, *itertools.accumulate(sorted(scores, reverse=True))] for scores in [*heads, *neurons]]
    return max(
        sum(values[count] for values, count in zip(sums, counts, strict=True))
        for counts in itertools.product(*options)
        if table.cost(counts[: len(heads)], counts[len(heads) :]) <= limit * (1 + 1e-9)
    )


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 3), st.floats(0.0, 1.0), st.booleans())
def test_no_choice_within_the_limit_is_better(seed, round_to, share, whole_numbers):
    rng = np.random.default_rng(seed)
    heads, neurons = [rng.random(3) for _ in range(2)], [rng.random(5) / 2 for _ in range(2)]
    steps = [rng.integers(1, 9, size=n).astype(float) if whole_numbers else rng.random(n) for n in (3, 3, 5, 5)]
    costs = [np.concatenate([[0.0], np.cumsum(step_costs)]) for step_costs in steps]
    table = CostTable("ms", heads=tuple(costs[:2]), neurons=tuple(costs[2:]), fixed=1.0)
    limit = table.fixed + share * (table.whole - table.fixed)
    allocation = allocate(table, heads, neurons, limit=limit, round_to=round_to)
    assert allocation is not None
    best = best_by_trying_all(table, heads, neurons, limit, round_to)
    assert allocation.cost <= limit * (1 + 1e-9)
    assert allocation.value <= best + 1e-9 <= allocation.bound + 2e-9
    # Whole costs are solved exactly, others on a grid of tens of thousands of steps.
    assert allocation.value == pytest.approx(best, rel=1e-9 if whole_numbers else 1e-3)


@pytest.mark.parametrize("keep", [0.7, 0.35, 0.1])
@pytest.mark.parametrize("of", ["MACs", "parameters", "ms"])
def test_a_real_size_is_solved_to_within_a_thousandth_of_the_bound(keep, of):
    table = {
        "MACs": macs_table(BERT_BASE, tokens=128),
        "parameters": parameters_table(BERT_BASE),
        "ms": milliseconds(BERT_BASE, fixed=0.0),
    }[of]
    scores = random_scores(BERT_BASE)
    heads, neurons = balanced(scores.heads, scores.neurons, table, "cost")
    allocation = allocate(table, heads, neurons, limit=keep * table.whole, round_to=8)
    assert isinstance(allocation, Allocation)
    assert 0.995 * keep < allocation.cost / table.whole <= keep * (1 + 1e-9)
    # The made-up times have steps of 16 neurons and 2 heads: more lies between what is whole and what is not.
    assert 1 - allocation.value / allocation.bound < (0.01 if of == "ms" else 0.001)


def test_what_is_worth_nothing_still_stays_where_there_is_room():
    table = macs_table(SMALL, tokens=16)
    zeros = [np.zeros(4)] * 3, [np.zeros(40)] * 3
    allocation = allocate(table, *zeros, limit=table.whole, round_to=8)
    assert (allocation.heads, allocation.neurons) == (SMALL.num_heads, SMALL.num_neurons)


def test_a_limit_below_what_no_cut_removes_has_no_allocation():
    table = milliseconds(SMALL)
    scores = random_scores(SMALL)
    assert allocate(table, scores.heads, scores.neurons, limit=2.99) is None
    nothing = allocate(table, scores.heads, scores.neurons, limit=3.0)
    assert (nothing.heads, nothing.neurons, nothing.cost) == ((0, 0, 0), (0, 0, 0), 3.0)


# Plans ----------------------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(st.floats(0.06, 1.0), st.integers(0, 1000), st.sampled_from([1, 3, 8]), st.sampled_from(["paper", "none"]))
def test_a_share_of_macs_or_parameters_is_never_exceeded(keep, seed, round_to, normalise):
    scores = random_scores(SMALL, seed)
    options = {"round_to": round_to, "normalise": normalise}
    by_macs = pl.make_plan(scores, keep_macs=keep, tokens=16, **options).architecture
    by_parameters = pl.make_plan(scores, keep_params=keep, **options).architecture
    assert block_macs(by_macs, tokens=16).total <= keep * block_macs(SMALL, tokens=16).total * (1 + 1e-9)
    assert block_parameters(by_parameters) <= keep * block_parameters(SMALL) * (1 + 1e-9)
    for architecture in (by_macs, by_parameters):
        assert all(count % round_to == 0 or count == 40 for count in architecture.num_neurons)


def test_the_best_of_every_layer_stay():
    scores = random_scores(SMALL)
    plan = pl.make_plan(scores, keep_macs=0.5, round_to=1)
    for units, kept in ((scores.heads, plan.heads), (scores.neurons, plan.neurons)):
        for values, ids in zip(units, kept, strict=True):
            gone = np.delete(values, ids)
            if len(ids) and len(gone):
                assert values[list(ids)].min() >= gone.max()
    assert not plan.keeps_everything


def test_all_parameters_count_the_embeddings_too():
    scores = random_scores(SMALL)
    whole = block_parameters(SMALL) + 5_000
    plan = pl.make_plan(scores, keep_params=0.8, count="all")
    kept = block_parameters(plan.architecture) + 5_000
    assert 0.75 * whole < kept <= 0.8 * whole
    assert plan.architecture != pl.make_plan(scores, keep_params=0.8).architecture


def test_times_are_held_by_the_table_of_the_device():
    scores, table = random_scores(SMALL), milliseconds(SMALL)
    by_speed = pl.make_plan(scores, speedup=2, latency=table)
    by_time = pl.make_plan(scores, max_latency_ms=table.whole / 2, latency=table)
    assert by_speed.id == by_time.id
    assert 0.8 * table.whole / 2 < table.of(by_speed.architecture) <= table.whole / 2
    assert by_speed.provenance["budget"]["unit"] == "ms"


def test_a_budget_is_of_the_base_model_also_after_a_cut():
    """Half of a model that was cut to three quarters is half of the base, and keeps nothing that is gone."""
    whole = random_scores(SMALL)
    first = pl.make_plan(whole, keep_macs=0.75)
    remaining = Importance(
        heads=tuple(values[list(ids)] for values, ids in zip(whole.heads, first.heads, strict=True)),
        neurons=tuple(values[list(ids)] for values, ids in zip(whole.neurons, first.neurons, strict=True)),
        lineage=first.lineage,
    )
    second = pl.make_plan(remaining, keep_macs=0.5)
    share = block_macs(second.architecture, tokens=128).total / block_macs(SMALL, tokens=128).total
    assert 0.45 < share <= 0.5
    assert first.then(second) == second
    assert pl.make_plan(remaining, keep_macs=1.0).lineage == first.lineage


def test_more_worth_per_cost_in_heads_keeps_more_heads():
    scores = random_scores(SMALL)
    plenty = Importance(tuple(100 * layer for layer in scores.heads), scores.neurons, scores.lineage)
    raw = {"keep_macs": 0.4, "normalise": "none", "balance": "none"}
    assert pl.make_plan(plenty, **raw).architecture.total_heads > pl.make_plan(scores, **raw).architecture.total_heads
    # With balance, the scale of one kind has no effect.
    even = raw | {"balance": "cost"}
    assert pl.make_plan(plenty, **even).id == pl.make_plan(scores, **even).id


def test_heads_and_neurons_of_a_model_that_was_cut_before_are_worth_the_same_per_cost():
    left = Lineage(SMALL, tuple(tuple(range(1)) for _ in SMALL.num_heads), Lineage.whole(SMALL).neurons)
    heads = [np.ones(len(ids)) for ids in left.heads]
    neurons = [np.ones(len(ids)) for ids in left.neurons]
    table = macs_table(SMALL, tokens=16)
    heads, neurons = balanced(heads, neurons, table, "cost")
    costs_of_heads = sum(costs[len(scores)] for costs, scores in zip(table.heads, heads, strict=True))
    costs_of_neurons = sum(costs[len(scores)] for costs, scores in zip(table.neurons, neurons, strict=True))
    assert sum(map(sum, heads)) / costs_of_heads == pytest.approx(sum(map(sum, neurons)) / costs_of_neurons)


def test_a_limit_of_what_no_cut_removes_has_an_allocation_also_where_its_share_is_rounded_down():
    scores, fixed = random_scores(SMALL), 43_360 - block_parameters(SMALL)
    table = parameters_table(SMALL, fixed=fixed)
    for share in (fixed / 43_360, math.nextafter(fixed / 43_360, 0)):
        allocation = allocate(table, scores.heads, scores.neurons, limit=share * table.whole)
        assert allocation is not None
        assert not any((*allocation.heads, *allocation.neurons))


@pytest.mark.parametrize("round_to", [1, 8, 40])
@pytest.mark.parametrize("option", ["keep_macs", "keep_params", "speedup", "max_latency_ms"])
def test_a_budget_that_leaves_nothing_is_an_error_and_the_least_that_it_names_leaves_something(option, round_to):
    scores, table = random_scores(SMALL), dataclasses.replace(milliseconds(SMALL), architecture=SMALL)
    # Of milliseconds, 3 are no head's and no neuron's.
    asked = {"keep_macs": 1e-4, "keep_params": 1e-4, "speedup": table.whole / 3.01, "max_latency_ms": 3.01}[option]
    options = {"round_to": round_to, "latency": table}
    with pytest.raises(PlanError, match=rf"{option}={asked} cannot be met.*keep_heads=0 and keep_ffn=0") as raised:
        pl.make_plan(scores, **options, **{option: asked})
    least = float(re.search(rf"Use (?:{option} >=|speedup below) ([\d.e-]+)\.", str(raised.value))[1])
    kept = pl.make_plan(scores, **options, **{option: least}).architecture
    assert kept.total_heads + kept.total_neurons > 0
    nothing = pl.make_plan(scores, keep_heads=0, keep_ffn=0).architecture
    assert nothing.total_heads + nothing.total_neurons == 0


@pytest.mark.parametrize("change", [{"hidden_size": 32}, {"family": "roberta"}, {"gated": True}, {"repeats": 2}])
def test_times_of_a_model_with_as_many_heads_and_neurons_but_another_are_refused(change):
    scores = random_scores(SMALL)
    table = dataclasses.replace(milliseconds(SMALL), architecture=SMALL)
    assert (
        pl.make_plan(scores, speedup=2, latency=table).id
        == pl.make_plan(scores, speedup=2, latency=milliseconds(SMALL)).id
    )
    other = dataclasses.replace(table, architecture=dataclasses.replace(SMALL, **change))
    ((name, value),) = change.items()
    with pytest.raises(
        PlanError, match=rf"another model .*: {name} is {value}, not {getattr(SMALL, name)}. Measure the"
    ):
        pl.make_plan(scores, speedup=2, latency=other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep_macs": 0.5, "keep_heads": 3}, r"keep_heads=3, keep_macs=0\.5: two budgets"),
        ({"keep_macs": 0.5, "speedup": 2}, "two budgets"),
        ({"keep_macs": 0}, "keep_macs=0"),
        ({"keep_macs": 1.5}, r"keep_macs=1\.5"),
        ({"keep_params": math.nan}, "keep_params=nan"),
        ({"keep_params": True}, "keep_params=True"),
        ({"keep_params": 0.5, "count": "some"}, "count='some'"),
        ({"speedup": 0.5, "latency": milliseconds(SMALL)}, r"speedup=0\.5"),
        ({"speedup": 2}, "speedup=2 .*latency=measure_latency_model"),
        ({"max_latency_ms": -1, "latency": milliseconds(SMALL)}, "max_latency_ms=-1"),
        ({"speedup": 2, "latency": milliseconds(BERT_BASE)}, "latency="),
        ({"speedup": 2, "latency": milliseconds(SMALL, fixed=2_000.0)}, "speedup=2 cannot be met"),
        ({"keep_macs": 0.5, "balance": "even"}, "balance='even'"),
        ({"rank_by": "neurons"}, "rank_by='neurons'"),
    ],
)
def test_a_budget_that_has_no_meaning_is_an_error(options, message):
    with pytest.raises(PlanError, match=message):
        pl.make_plan(random_scores(SMALL), **options)


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        ({"keep_params": 0.15, "count": "all"}, r"Use keep_params >= ([\d.]+), or count='encoder'"),
        ({"max_latency_ms": 1.0, "latency": milliseconds(SMALL)}, r"Use max_latency_ms >= ([\d.]+)"),
        ({"speedup": 20, "latency": milliseconds(SMALL)}, r"Use speedup below ([\d.]+)"),
    ],
)
def test_a_budget_that_cannot_be_met_names_one_that_can(options, pattern):
    scores = random_scores(SMALL)
    with pytest.raises(PlanError, match=pattern) as raised:
        pl.make_plan(scores, **options)
    nearest = float(re.search(pattern, str(raised.value))[1].rstrip("."))
    name = next(iter(options))
    feasible = pl.make_plan(scores, **(options | {name: nearest}))
    assert feasible.architecture.total_heads + feasible.architecture.total_neurons > 0


def test_scores_that_do_not_count_parameters_cannot_count_all():
    scores = random_scores(SMALL)
    uncounted = Importance(scores.heads, scores.neurons, scores.lineage)
    with pytest.raises(PlanError, match="count='all'"):
        pl.make_plan(uncounted, keep_params=0.9, count="all")


def test_feed_forward_ranks_can_follow_the_neurons():
    heads = [np.full(4, value) for value in (3.0, 2.0, 1.0)]
    neurons = [np.full(40, value) for value in (1.0, 2.0, 3.0)]
    scores = Importance(tuple(heads), tuple(neurons), Lineage.whole(SMALL))
    options = {"targets": ("query", "up"), "num_high": 1}
    assert pl.make_plan(scores, **options).ranks == {"query": (8, 4, 4), "up": (8, 4, 4)}
    assert pl.make_plan(scores, rank_by="parts", **options).ranks == {"query": (8, 4, 4), "up": (4, 4, 8)}
