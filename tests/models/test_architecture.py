"""Phrases for the sizes of a model."""

import dataclasses

import pytest
from tiny import HEADS, LAYERS, tiny_model

import prunelora as pl
from prunelora.cli.drawing import draw_plan
from prunelora.errors import PlanError
from prunelora.models.anatomy import dissect


@pytest.mark.parametrize(
    ("family", "phrase"), [("bert", "6 of 12 heads"), ("llama", "6 of 12 key/value groups (12 of 24 heads)")]
)
def test_groups_and_heads_are_counted_apart(family, phrase):
    whole = dissect(tiny_model(family)).architecture
    pruned = dataclasses.replace(whole, num_heads=(2, 4, 0))
    assert whole.total_heads == LAYERS * HEADS
    assert pruned.heads_of(whole) == phrase
    plan = pl.make_plan(pl.score(tiny_model(family), criterion="magnitude"), keep_heads=6)
    assert phrase in str(plan)
    assert phrase in draw_plan(plan)[1]
    units = phrase.split("(")[0].split(" of 12 ")[1].strip()
    with pytest.raises(PlanError, match=f"the model has 12 {units}"):
        pl.make_plan(pl.score(tiny_model(family), criterion="magnitude"), keep_heads=13)
