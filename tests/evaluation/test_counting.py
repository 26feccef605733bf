import pytest
from tiny import random_plan, tiny_batch, tiny_model
from torch.utils.flop_counter import FlopCounterMode

import prunelora as pl
from prunelora.evaluation.counting import macs, parameters, weight_bytes
from prunelora.models.anatomy import dissect
from prunelora.models.families import FAMILIES
from prunelora.planning.plan import Plan


def plan_of(model, *, heads, neurons):
    base = pl.make_plan(pl.score(model, criterion="random")).base
    return Plan(base=base, heads=heads, neurons=neurons, ranks={}, provenance={})


def test_every_parameter_is_counted_in_one_place(make_tiny):
    model = make_tiny()
    count = parameters(model)
    assert count.total == sum(p.numel() for p in model.parameters()) == count.trainable
    assert count.embeddings == (40 + 32 + 2) * 16
    assert count.blocks == 2 * (2 * (4 * 8 * 16 + 3 * 8) + 24 * (2 * 16 + 1))
    # 5 LayerNorms, biases of 2 output and 2 down projections, pooler, classifier.
    assert count.other == 5 * 2 * 16 + 4 * 16 + (16 * 16 + 16) + (16 * 2 + 2)


def test_pruning_takes_from_the_blocks_alone(make_tiny):
    model = make_tiny()
    before, before_macs = parameters(model), macs(model, tokens=10)
    pl.prune_(model, plan_of(model, heads=((), (1,)), neurons=((0, 5), ())))
    after = parameters(model)
    assert (after.embeddings, after.other) == (before.embeddings, before.other)
    assert after.blocks == (4 * 8 * 16 + 3 * 8) + 2 * (2 * 16 + 1)
    assert after.total == sum(p.numel() for p in model.parameters())
    assert macs(model, tokens=10).attention == before_macs.attention // 4
    assert macs(model, tokens=10).neurons == before_macs.neurons * 2 // 48


def test_bytes_follow_the_dtype_and_frozen_weights_are_not_trainable(make_tiny):
    model = make_tiny()
    single = weight_bytes(model)
    assert single == 4 * parameters(model).total
    assert weight_bytes(model.bfloat16()) == single // 2
    model.classifier.requires_grad_(False)
    assert parameters(model).trainable == parameters(model).total - (16 * 2 + 2)


@pytest.mark.parametrize("cut", [False, True], ids=["dense", "cut"])
def test_macs_are_the_products_that_torch_is_seen_to_do(family, cut):
    model = tiny_model(family, attention="eager").requires_grad_(False)
    if cut:
        pl.prune_(model, random_plan(model))
    batch = tiny_batch(1, 9, family=family)
    inputs = {name: value for name, value in batch.items() if name not in ("labels", "attention_mask")}
    if FAMILIES[family].encoder_decoder:
        inputs["decoder_input_ids"] = batch["input_ids"]
    with FlopCounterMode(display=False) as counter:
        tokens = model.base_model(**inputs).last_hidden_state.shape[1]
    found = counter.get_flop_counts()
    name, prefix = type(model.base_model).__name__, model.base_model_prefix
    # A layer of a decoder that attends to an encoder is two blocks.
    blocks = {f"{name}{block.prefix.removeprefix(prefix)}" for block in dissect(model).blocks}
    seen = sum(sum(found[block].values()) for block in blocks)
    counted = 2 * macs(model, tokens=tokens).total  # A multiplication and an addition.
    assert seen == counted
