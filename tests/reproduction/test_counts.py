"""The paper's parameter counts, to the last digit, from a configuration alone; and what our LoRA really has."""

import pytest
from transformers import BertConfig

from prunelora.models.anatomy import dissect
from prunelora.models.family import ATTENTION_PROJECTIONS
from prunelora.planning.costs import head_parameters, lora_parameters
from prunelora.reproduction.counts import (
    _empty,
    bert_base_counts,
    count,
    counts_of,
    evenly_pruned,
)


def lora_of(plan):
    """LoRA parameters of a plan's attention projections, by arithmetic: each is hidden size x heads' width."""
    return sum(
        lora_parameters(plan.base.hidden_size, len(heads) * plan.base.head_dim, plan.rank(projection, layer))
        for layer, heads in enumerate(plan.heads)
        for projection in ATTENTION_PROJECTIONS
    )


@pytest.fixture(scope="module")
def counts():
    return bert_base_counts()


def test_the_papers_counts_to_the_last_digit(counts):
    full, lora, pruned = (counts.of(method) for method in ("full", "lora", "prune-lora"))
    assert full.total == 109_482_240
    assert (lora.lora, lora.norms, lora.trained, lora.total) == (221_184, 38_400, 259_584, 109_703_424)
    assert (pruned.lora, pruned.norms, pruned.trained, pruned.total) == (270_336, 38_400, 308_736, 101_290_176)
    assert (pruned.heads, pruned.task_head) == (101, 0)


def test_with_the_texts_44_heads_the_papers_total_would_be_one_head_smaller(counts):
    by_text = next(row for row in counts.rows if row.way == "paper" and row.heads == 100)
    assert counts.of("prune-lora").total - by_text.total == 196_800 == head_parameters(counts.architecture)
    assert by_text.trained == 308_736


def test_our_counts_are_of_the_pruned_sizes(counts):
    without, with_head = (counts.of("prune-lora", "ours", task_head=head) for head in (False, True))
    assert (without.lora, without.norms, without.trained) == (335_872, 38_400, 374_272)
    assert without.total == 109_482_240 - 44 * 196_800 + 335_872
    # Pooler and classifier for two classes.
    assert with_head.trained - without.trained == (768 * 768 + 768) + (2 * 768 + 2)
    assert (without.heads, with_head.heads) == (100, 100)


def test_what_is_built_agrees_with_arithmetic(counts):
    anatomy = dissect(_empty(BertConfig()))
    plan = evenly_pruned(anatomy.lineage, 100)
    assert sum(map(len, plan.heads)) == 100
    assert lora_of(plan) == counts.of("prune-lora", "ours", task_head=False).lora
    # One head more in the first block, which has the high rank, and one fewer in the last.
    heads = (tuple(range(10)), *plan.heads[1:-1], tuple(range(7)))
    moved = plan.model_copy(update={"heads": heads})
    assert lora_of(moved) - lora_of(plan) == 4 * (8 - 4) * plan.base.head_dim == 1024


def test_the_published_codes_reading_gives_the_papers_number_too():
    """LoRA on q, k, v at the pruned sizes; five blocks of rank 8 that keep 47 of the 101 heads."""
    rest, high = 101 - 47, 47
    one = 3 * (lora_parameters(768, 0, 1) * 7 * 4 + lora_parameters(0, 64, 1) * rest * 4)
    two = 3 * (lora_parameters(768, 0, 1) * 5 * 8 + lora_parameters(0, 64, 1) * high * 8)
    assert one + two == 270_336


def test_the_same_table_is_made_for_another_model(minilm_path):
    counts = counts_of("minilm")
    assert counts.architecture.total_heads == 72
    assert counts.of("full").total == 22_713_216
    assert counts.of("prune-lora", "ours", task_head=True).heads == 50
    assert counts_of(str(minilm_path)).rows == counts.rows


def test_a_model_that_is_not_at_hand_has_no_counts(tmp_path):
    assert counts_of(str(tmp_path / "nowhere")) is None


def test_no_weights_are_made():
    model = _empty(BertConfig())
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    tiny = count(BertConfig(hidden_size=24, num_attention_heads=4, num_hidden_layers=3, intermediate_size=8), model="t")
    assert tiny.of("full").total == tiny.of("full").trained
