"""How sizes are said."""

import dataclasses

import pytest
from tiny import HEADS, LAYERS, tiny_model

import prunelora as pl
from prunelora.cli.drawing import draw_plan
from prunelora.errors import PlanError
from prunelora.models.anatomy import dissect


@pytest.mark.parametrize(
    ("family", "said"), [("bert", "6 of 12 heads"), ("llama", "6 of 12 key/value groups (12 of 24 heads)")]
)
def test_groups_and_heads_are_counted_apart(family, said):
    whole = dissect(tiny_model(family)).architecture
    left = dataclasses.replace(whole, num_heads=(2, 4, 0))
    assert whole.total_heads == LAYERS * HEADS
    assert left.heads_of(whole) == said
    plan = pl.make_plan(pl.score(tiny_model(family), criterion="magnitude"), keep_heads=6)
    assert said in str(plan)
    assert said in draw_plan(plan)[1]
    units = said.split("(")[0].split(" of 12 ")[1].strip()
    with pytest.raises(PlanError, match=f"the model has 12 {units}"):
        pl.make_plan(pl.score(tiny_model(family), criterion="magnitude"), keep_heads=13)
