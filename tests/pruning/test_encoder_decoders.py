"""Encoder-decoders: kinds of blocks, gated and plain feed-forward layers, and models that are not supported."""

import copy

import pytest
import torch
from tiny import (
    END,
    LAYERS,
    NEURONS,
    largest_difference,
    logits,
    random_plan,
    stir,
    tiny_batch,
    tiny_config,
    tiny_model,
)
from transformers import BartForCausalLM, BartModel, T5EncoderModel

import prunelora as pl
from prunelora.errors import UnsupportedModelError
from prunelora.models.anatomy import dissect
from prunelora.models.inputs import longest_input, random_inputs
from prunelora.planning.costs import neuron_parameters
from prunelora.planning.plan import Plan

RELU = {"feed_forward_proj": "relu"}


@pytest.mark.parametrize(("family", "layer"), [("bart", "layers.0"), ("t5", "block.0")])
def test_a_layer_of_the_decoder_is_two_blocks(family, layer):
    blocks = dissect(tiny_model(family)).blocks
    assert len(blocks) == LAYERS + 2 * 2
    assert [block.index for block in blocks] == list(range(len(blocks)))
    itself, other = blocks[LAYERS], blocks[LAYERS + 1]
    assert itself.prefix == other.prefix
    assert itself.prefix.endswith(f"decoder.{layer}")
    assert itself.part("attention") is not other.part("attention")
    assert [itself.num_neurons, other.num_neurons > 0] == [0, True]


def test_the_first_t5_has_no_gates_and_the_same_row():
    gated, plain = dissect(tiny_model("t5")).architecture, dissect(tiny_model("t5", **RELU)).architecture
    assert [gated.gated, plain.gated] == [True, False]
    assert neuron_parameters(gated) * 2 == neuron_parameters(plain) * 3
    assert gated.num_neurons == plain.num_neurons


def test_t5_without_gates_is_cut_adapted_merged_saved_and_loaded(tmp_path):
    model, batch = tiny_model("t5", **RELU), tiny_batch(family="t5")
    plan = random_plan(model)
    with pl.masked(model, plan):
        expected = logits(model, batch)
    pruned = pl.prune_(copy.deepcopy(model), plan)
    assert largest_difference(logits(pruned, batch), expected) < 1e-12
    assert dissect(pruned).architecture == plan.architecture
    adapted = pl.add_adapter(pruned, Plan.whole(plan.lineage, rank=2, targets=("query", "up", "down")))
    stir(adapted)
    tuned = logits(adapted.eval(), batch)
    assert largest_difference(tuned, expected) > 1e-3
    merged = pl.merge(adapted)
    for form in ("pruned", "dense"):
        pl.save(merged, tmp_path / form, format=form)
        assert largest_difference(logits(pl.load(tmp_path / form), batch), tuned) < 1e-10


@pytest.mark.parametrize("kept", [(), (1, 3)], ids=["no head", "two heads"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("where", ["encoder", "decoder"])
def test_a_cut_first_layer_still_gives_later_layers_its_position_bias(kept, attention, where):
    model, batch = tiny_model("t5", attention=attention), tiny_batch(family="t5")
    whole = Plan.whole(dissect(model).lineage)
    layer = 0 if where == "encoder" else LAYERS
    plan = whole.model_copy(update={"heads": (*whole.heads[:layer], kept, *whole.heads[layer + 1 :])})
    with pl.masked(model, plan):
        expected = logits(model, batch)
    table = f"transformer.{where}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    before = model.get_parameter(table).clone()
    pl.prune_(model, plan)
    assert torch.equal(model.get_parameter(table), before)
    assert largest_difference(logits(model, batch), expected) < 1e-12
    with torch.no_grad():
        model.get_parameter(table).zero_()
    assert largest_difference(logits(model, batch), expected) > 1e-3  # It is this table that is read.


def test_a_copy_of_a_cut_model_has_its_own_table():
    model, batch = tiny_model("t5"), tiny_batch(family="t5")
    pruned = pl.prune_(model, random_plan(model))
    before, copied = logits(pruned, batch), copy.deepcopy(pruned)
    with torch.no_grad():
        for name, parameter in copied.named_parameters():
            if "relative_attention_bias" in name:
                parameter.zero_()
    assert torch.equal(logits(pruned, batch), before)
    assert largest_difference(logits(copied, batch), before) > 1e-3


def test_a_decoder_with_fewer_neurons_than_the_encoder_is_cut_alike():
    model, batch = tiny_model("bart", decoder_ffn_dim=NEURONS - 4), tiny_batch(family="bart")
    plan = random_plan(model)
    assert plan.base.num_neurons == (NEURONS,) * LAYERS + (0, NEURONS - 4) * 2
    with pl.masked(model, plan):
        expected = logits(model, batch)
    assert largest_difference(logits(pl.prune_(model, plan), batch), expected) < 1e-12


def test_heads_of_two_sizes_are_an_error():
    config = tiny_config("bart", decoder_attention_heads=2)
    with pytest.raises(UnsupportedModelError, match="6, 12"):
        pl.score(BartModel(config), criterion="magnitude")


def test_halves_of_an_encoder_decoder_are_an_error():
    with pytest.raises(UnsupportedModelError, match="BART"):
        pl.score(BartForCausalLM(tiny_config("bart")), criterion="magnitude")
    with pytest.raises(UnsupportedModelError, match=r"decoder\.block"):
        pl.score(T5EncoderModel(tiny_config("t5")), criterion="magnitude")


@pytest.mark.parametrize(("family", "longest"), [("bart", 40), ("t5", None)])
def test_random_inputs_end_once_and_positions_are_counted(family, longest):
    model = tiny_model(family)
    inputs = random_inputs(model, batch_size=5, tokens=11, generator=torch.Generator().manual_seed(0), padded=True)
    ends = inputs["input_ids"] == END
    assert (ends.sum(1) == 1).all()
    assert torch.equal(ends.int().argmax(1), inputs["attention_mask"].sum(1) - 1)
    assert len(set(inputs["attention_mask"].sum(1).tolist())) > 1
    assert longest_input(model) == longest
