"""From scores to plans: the paper's ranking, budgets that are never exceeded, ranks and counts of the paper."""

import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import prunelora as pl
from prunelora.errors import PlanError
from prunelora.importance.importance import Importance
from prunelora.models.architecture import Architecture
from prunelora.models.lineage import Lineage
from prunelora.planning import costs
from prunelora.planning.normalise import normalise
from prunelora.planning.ranks import block_importance, default_num_high
from prunelora.planning.selection import best

BERT_BASE = Architecture(family="bert", hidden_size=768, head_dim=64, num_heads=(12,) * 12, num_neurons=(3072,) * 12)


def importance_of(heads, neurons=None) -> Importance:
    heads = tuple(np.asarray(layer, dtype=np.float64) for layer in heads)
    neurons = tuple(
        np.asarray(layer, dtype=np.float64) for layer in (neurons if neurons is not None else [np.ones(4)] * len(heads))
    )
    base = Architecture(
        family="bert",
        hidden_size=24,
        head_dim=6,
        num_heads=tuple(map(len, heads)),
        num_neurons=tuple(map(len, neurons)),
    )
    return Importance(heads, neurons, Lineage.whole(base))


scores = arrays(np.float64, (3, 4), elements=st.floats(0.0, 1.0), unique=True)
neuron_scores = arrays(np.float64, (3, 10), elements=st.floats(0.0, 1.0), unique=True)


def test_normalisation_is_the_papers():
    scaled = normalise([np.array([3.0, 4.0]), np.array([0.0, 2.0])], "paper")
    # Divided by 5 and 2: [0.6, 0.8], [0, 1]; smallest 0, largest 1.
    np.testing.assert_allclose(scaled[0], [0.6, 0.8])
    np.testing.assert_allclose(scaled[1], [0.0, 1.0])


def test_normalisation_of_nothing_and_of_equals_stays_finite():
    assert [layer.tolist() for layer in normalise([np.zeros(2), np.zeros(0)], "paper")] == [[0.0, 0.0], []]


@settings(max_examples=50)
@given(scores, neuron_scores, st.integers(0, 12), st.integers(5, 30), st.integers(1, 5))
def test_a_budget_is_never_exceeded_and_the_best_stay(heads, neurons, keep_heads, keep_ffn, round_to):
    plan = pl.make_plan(
        importance_of(heads, neurons), keep_heads=keep_heads, keep_ffn=keep_ffn, round_to=round_to, normalise="none"
    )
    assert plan.architecture.total_heads == keep_heads
    assert plan.architecture.total_neurons <= keep_ffn
    assert all(len(ids) % round_to == 0 or len(ids) == 10 for ids in plan.neurons)
    kept = {(layer, head) for layer, ids in enumerate(plan.heads) for head in ids}
    cut = {(layer, head) for layer in range(3) for head in range(4)} - kept
    if kept and cut:
        assert min(heads[place] for place in kept) > max(heads[place] for place in cut)
    for layer, ids in enumerate(plan.neurons):
        gone = sorted(set(range(10)) - set(ids))
        if ids and gone:
            assert neurons[layer][list(ids)].min() > neurons[layer][gone].max()


@settings(max_examples=50)
@given(scores, st.integers(0, 12), st.permutations(range(4)), st.sampled_from(["paper", "none"]))
def test_permuting_heads_permutes_the_plan(heads, keep, order, normalise):
    # Sums of the same numbers in another order may differ in the last bit; round scores keep the order of ranks.
    heads = np.round(heads, 3) + np.arange(12).reshape(3, 4) * 1e-6
    plain = pl.make_plan(importance_of(heads), keep_heads=keep, normalise=normalise)
    shuffled = pl.make_plan(importance_of(heads[:, list(order)]), keep_heads=keep, normalise=normalise)
    for layer in range(3):
        assert {order[head] for head in shuffled.heads[layer]} == set(plain.heads[layer])


@pytest.mark.parametrize("round_to", [1, 2, 3])
def test_selection_equals_brute_force_over_groups(round_to):
    """Among all ways to keep best-first groups of each layer within the count, none has a larger worst group."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        layers = [rng.random(6), rng.random(6)]
        keep = int(rng.integers(0, 13))
        kept = best(layers, keep, round_to=round_to)
        total = sum(layers[layer][ids].sum() for layer, ids in enumerate(kept))
        options = [(a, b) for a in range(0, 7, round_to) for b in range(0, 7, round_to) if a + b <= keep]
        ordered = [np.sort(layer)[::-1] for layer in layers]
        assert total == pytest.approx(max(ordered[0][:a].sum() + ordered[1][:b].sum() for a, b in options))


def test_of_equal_scores_the_first_stay_however_means_are_rounded():
    """The mean of three 0.1 is above that of eight in the last digit."""
    assert best([np.full(11, 0.1)], 8, round_to=8) == [list(range(8))]
    assert best([np.full(11, 0.1), np.full(8, 0.1)], 16, round_to=8) == [list(range(11)), []]


def test_no_budget_keeps_everything():
    assert pl.make_plan(importance_of(np.random.default_rng(0).random((3, 4)))).keeps_everything


@pytest.mark.parametrize(("keep", "kept"), [(0.5, 6), (0.7, 8), (0.0, 0), (1.0, 12), (1, 1), (12, 12), (0.99, 11)])
def test_counts_and_fractions(keep, kept):
    plan = pl.make_plan(importance_of(np.random.default_rng(0).random((3, 4))), keep_heads=keep)
    assert plan.architecture.total_heads == kept


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"keep_heads": 13}, "keep_heads=13 cannot be met: the model has 12"),
        ({"keep_heads": -1}, "keep_heads=-1"),
        ({"keep_heads": 1.5}, "keep_heads=1.5"),
        ({"keep_ffn": float("nan")}, "keep_ffn=nan"),
        ({"keep_heads": True}, "keep_heads=True"),
        ({"normalise": "max"}, "normalise='max' is unknown. Use one of: paper, none"),
        ({"num_high": 4}, "num_high=4: the model has 3 blocks"),
        ({"rank_high": 2, "rank_low": 4}, "rank_high=2, rank_low=4"),
        ({"block_importance": "mean"}, "block_importance='mean'"),
        ({"targets": ("query", "gate")}, "targets='gate'"),
        ({"round_to": 0}, "round_to=0"),
        ({"round_to": 2.0}, "round_to=2.0: expected a whole number, at least 1"),
        ({"keep_macs": 0.5, "tokens": 0}, "tokens=0"),
        ({"keep_macs": 0.5, "tokens": -128}, "tokens=-128"),
        ({"tokens": "128"}, "tokens='128'"),
        ({"rank_high": 8.0}, "rank_high=8.0"),
        ({"rank_high": None}, "rank_high=None"),
        ({"rank_low": "4"}, "rank_low='4'"),
        ({"rank_low": -1}, "rank_low=-1"),
        ({"num_high": 1.5}, "num_high=1.5"),
        ({"num_high": True}, "num_high=True"),
        ({"keep_heads": np.int64(13)}, "keep_heads=13 cannot be met: the model has 12"),
        ({"keep_heads": np.True_}, "keep_heads="),
        ({"keep_heads": 0.08}, "keep_heads=0.08 of 12 would keep none. Use keep_heads=1"),
    ],
)
def test_an_option_without_meaning_is_an_error_that_names_it(options, named):
    with pytest.raises(PlanError, match=re.escape(named)):
        pl.make_plan(importance_of(np.random.default_rng(0).random((3, 4))), **options)


@pytest.mark.parametrize(
    ("options", "plain"),
    [
        ({"keep_heads": np.int64(4)}, {"keep_heads": 4}),
        ({"keep_heads": np.uint8(4), "keep_ffn": np.float64(0.5)}, {"keep_heads": 4, "keep_ffn": 0.5}),
        ({"keep_heads": np.float32(0.75)}, {"keep_heads": 0.75}),
        # As a float64 it is 0.699999988, which of 120 heads would keep 83.
        ({"keep_heads": np.float32(0.7)}, {"keep_heads": 0.7}),
        ({"keep_heads": Fraction(1, 2)}, {"keep_heads": 0.5}),
        ({"keep_macs": np.float32(0.5), "tokens": np.int32(16)}, {"keep_macs": 0.5, "tokens": 16}),
        ({"rank_high": np.int64(16), "num_high": np.int64(1)}, {"rank_high": 16, "num_high": 1}),
    ],
)
def test_numbers_of_numpy_are_numbers(options, plain):
    scores = importance_of(np.random.default_rng(0).random((3, 40)))
    plan, expected = (pl.make_plan(scores, round_to=np.int64(2), **chosen) for chosen in (options, plain))
    assert plan.id == expected.id
    # What was asked is kept as plain JSON.
    assert pl.Plan.from_json(plan.to_json()).provenance == expected.provenance


@pytest.mark.parametrize("keep", [1, 7, 0.1, 0.2])
def test_a_count_of_neurons_never_becomes_none(keep):
    scores = importance_of(np.random.default_rng(0).random((3, 4)), np.random.default_rng(1).random((3, 12)))
    with pytest.raises(PlanError, match=rf"keep_ffn={keep} would keep no neuron") as raised:
        pl.make_plan(scores, keep_ffn=keep)
    least = int(re.search(r"Use keep_ffn=(\d+)", str(raised.value))[1])
    assert pl.make_plan(scores, keep_ffn=least).architecture.total_neurons == least
    assert pl.make_plan(scores, keep_ffn=0).architecture.total_neurons == 0


def test_a_layer_with_fewer_neurons_than_a_group_is_a_group():
    scores = importance_of(np.random.default_rng(0).random((2, 4)), [np.ones(5), np.ones(12)])
    assert pl.make_plan(scores, keep_ffn=7).architecture.num_neurons == (5, 0)
    with pytest.raises(PlanError, match="Use keep_ffn=5 or more"):
        pl.make_plan(scores, keep_ffn=4)


def test_scores_in_units_of_the_loss_are_not_normalised():
    scores = importance_of(np.random.default_rng(0).random((3, 4)))
    scores.provenance["criterion"] = "obs"
    with pytest.raises(PlanError, match=r"normalise='paper' .* Use normalise='none'"):
        pl.make_plan(scores, keep_macs=0.5)
    assert pl.make_plan(scores, keep_macs=0.5, normalise="none", balance="none").architecture.total_heads < 12


def test_ranks_are_high_in_the_most_important_blocks():
    heads = np.array([[0.1, 0.1], [0.9, 0.9], [0.2, 0.2], [0.5, 0.4], [0.0, 0.1], [0.8, 0.1]])
    plan = pl.make_plan(importance_of(heads), keep_heads=11, normalise="none")
    assert default_num_high(6) == 2
    assert plan.ranks["query"] == (4, 8, 4, 8, 4, 4)  # Means 0.9 and 0.45; 0.45 again comes later.
    assert set(plan.ranks) == {"query", "key", "value", "output"}


def test_a_block_without_heads_gets_no_rank_on_attention_but_on_its_neurons():
    heads = np.array([[0.1, 0.1], [0.9, 0.9], [0.2, 0.2]])
    plan = pl.make_plan(importance_of(heads), keep_heads=2, targets=("query", "up"), normalise="none")
    assert plan.ranks == {"query": (0, 8, 0), "up": (4, 8, 4)}


def test_block_importance_has_two_readings():
    heads = [np.array([1.0, 0.0]), np.array([0.5, 0.5])]
    assert block_importance(heads, how="raw") == [0.5, 0.5]
    after = block_importance(heads, how="normalised")
    assert after[1] > after[0]  # Divided by its norm, the even layer has the larger mean.


def test_the_papers_numbers_of_parameters_of_heads_and_lora():
    """A head of BERT-base; 12 rank units a layer of plain LoRA; 8 more in the 4 most important blocks."""
    assert costs.head_parameters(BERT_BASE) == 196_800
    assert costs.neuron_parameters(BERT_BASE) == 2 * 768 + 1
    assert 12 * costs.lora_parameters(768, 768, 12) == 221_184
    assert 4 * costs.lora_parameters(768, 768, 8) == 49_152


def test_macs_bound_the_speed_that_cutting_heads_can_give():
    bound = costs.speed_bound(BERT_BASE, tokens=128, keep_heads=100 / 144, keep_ffn=1.0)
    assert bound == pytest.approx(1.12, abs=0.005)
    macs = costs.block_macs(BERT_BASE, tokens=128)
    assert macs.attention == 12 * 12 * (4 * 128 * 768 * 64 + 2 * 128 * 128 * 64)
    assert macs.neurons == 12 * 3072 * 2 * 128 * 768
