"""Plans: readable JSON that round-trips, errors that name the place, and composition."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import prunelora as pl
from prunelora.errors import PlanError
from prunelora.models.architecture import Architecture
from prunelora.models.lineage import Lineage
from prunelora.planning.ids import read_ids, write_ids
from prunelora.planning.plan import Plan

BASE = Architecture(family="bert", hidden_size=24, head_dim=6, num_heads=(4, 4, 4), num_neurons=(20, 20, 20))
BERT_BASE = Architecture(family="bert", hidden_size=768, head_dim=64, num_heads=(12,) * 12, num_neurons=(3072,) * 12)


def subsets(total: int) -> st.SearchStrategy[tuple[int, ...]]:
    return st.sets(st.integers(0, total - 1)).map(lambda ids: tuple(sorted(ids)))


def plans(base: Architecture) -> st.SearchStrategy[Plan]:
    return st.builds(
        lambda heads, neurons, rank: Plan(
            base=base, heads=heads, neurons=neurons, ranks={"query": (rank,) * base.num_layers}
        ),
        st.tuples(*(subsets(n) if n else st.just(()) for n in base.num_heads)),
        st.tuples(*(subsets(n) if n else st.just(()) for n in base.num_neurons)),
        st.integers(0, 8),
    )


def a_plan() -> Plan:
    return Plan(
        base=BASE, heads=((0, 2), (), (1, 2, 3)), neurons=(tuple(range(20)), (0, 5), ()), ranks={"query": (8, 4, 4)}
    )


def changed(**changes) -> str:
    content = json.loads(a_plan().to_json())
    return json.dumps(content | changes)


def based(**changes) -> str:
    return changed(base=json.loads(a_plan().to_json())["base"] | changes)


@settings(max_examples=40)
@given(plans(BASE))
def test_json_round_trips_exactly(plan):
    again = Plan.from_json(plan.to_json())
    assert again == plan
    assert again.id == plan.id
    assert again.to_json() == plan.to_json()


@given(subsets(37))
def test_ids_round_trip_as_ranges_or_bitmap(ids):
    assert read_ids(write_ids(ids, 37), 37, "here") == ids


def test_ids_are_written_as_people_write_them():
    assert write_ids([0, 1, 2, 3, 8], 3072) == "0-3,8"
    assert read_ids(" 0-3, 8 ", 20, "here") == (0, 1, 2, 3, 8)
    assert read_ids("", 20, "here") == ()


def test_a_plan_of_bert_base_is_short_enough_to_read():
    rng = np.random.default_rng(0)
    half = tuple(tuple(sorted(rng.choice(3072, 1536, replace=False).tolist())) for _ in range(12))
    text = Plan(base=BERT_BASE, heads=(tuple(range(12)),) * 12, neurons=half).to_json()
    assert len(text) < 12_000
    assert len(text.splitlines()) < 60


def test_editing_a_plan_by_hand_changes_its_id_and_nothing_else():
    text = a_plan().to_json().replace("[0, 2]", "[0, 1, 2]").replace('"0,5"', '"0,5-7"')
    edited = Plan.from_json(text)
    assert edited.heads[0] == (0, 1, 2)
    assert edited.neurons[1] == (0, 5, 6, 7)
    assert edited.id != a_plan().id


def test_provenance_is_not_part_of_the_identity():
    assert a_plan().model_copy(update={"provenance": {"model": "other"}}).id == a_plan().id


def test_a_rank_of_zero_is_the_same_as_no_adapter():
    plan = a_plan()
    assert plan.model_copy(update={"ranks": plan.ranks | {"key": (0, 0, 0)}}).id == plan.id
    assert plan.model_copy(update={"ranks": plan.ranks | {"key": (0, 0, 1)}}).id != plan.id


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (changed(extra=1), "unknown key 'extra'"),
        (changed(base={**json.loads(a_plan().to_json())["base"], "size": 1}), "unknown key 'base.size'"),
        (
            changed(format="prunelora-plan-9"),
            "'prunelora-plan-9'.* reads 'prunelora-plan-1'",
        ),
        (changed(heads=[[0, 2], []]), "heads: .* found 2; base has 3 layers"),
        (changed(heads=[[2, 0], [], [1]]), r"heads\[0\]: .* found 2 before 0"),
        (changed(heads=[[2, 2], [], [1]]), r"heads\[0\]: .* found 2 before 2"),
        (changed(heads=[[0, 4], [], [1]]), r"heads\[0\]: id 4 .* 0 to 3"),
        (changed(neurons=["0-19", "5,3", ""]), r"neurons\[1\]: .* found 5 before 3"),
        (changed(neurons=["0-20", "", ""]), r"neurons\[0\]: id 20 "),
        (changed(neurons=["19-0", "", ""]), r"neurons\[0\]: .*'19-0'.* Write it as '0-19'"),
        (changed(neurons=["", "0-3,15-10", ""]), r"neurons\[1\]: .*'15-10'"),
        (changed(neurons=["", "", "3-"]), r"neurons\[2\]: '3-'"),
        (changed(neurons=["", "", "1-2-3"]), r"neurons\[2\]: '1-2-3'"),
        # Long before any memory holds them.
        (changed(neurons=["0-99999999999", "", ""]), r"neurons\[0\]: id 99999999999 "),
        (changed(neurons=["all", "", ""]), r"neurons\[0\]: 'all'"),
        (changed(neurons=["bits:ff", "", ""]), r"neurons\[0\]: .* 8 ids, expected 20"),
        (changed(neurons=["bits:zz", "", ""]), r"neurons\[0\]: .*hexadecimal"),
        (changed(ranks={"query": [8, 4]}), r"ranks\.query: .* found 2"),
        (changed(ranks={"gate": [8, 4, 4]}), "ranks: 'gate'"),
        (changed(ranks={"query": [8, -4, 4]}), r"ranks\.query: .* found -4"),
        (changed(heads=[[0.5], [], [1]]), "heads.0.0"),
        (based(num_neurons=[20, 20]), "base: num_heads and num_neurons .* found 3 and 2"),
        (based(num_neurons=[-1, 20, 20]), r"base\.num_neurons: .* found -1"),
        (based(head_dim=0), r"base\.head_dim: .* found 0"),
        ("{", "plan: "),
        (json.dumps({"format": "prunelora-plan-1"}), "'base' is missing"),
    ],
)
def test_a_wrong_plan_is_an_error_that_names_the_place(text, message):
    with pytest.raises(PlanError, match=message):
        Plan.from_json(text)


def test_a_missing_file_is_an_error_with_its_name(tmp_path):
    with pytest.raises(PlanError, match=r"nowhere\.json: cannot be read as a plan"):
        Plan.load(tmp_path / "nowhere.json")


@settings(max_examples=40)
@given(plans(BASE), st.data())
def test_composition_goes_through_the_model_that_the_first_plan_leaves(first, data):
    second = data.draw(plans(first.architecture))
    both = first.then(second)
    assert both.base == BASE
    for layer in range(3):
        assert both.heads[layer] == tuple(first.heads[layer][i] for i in second.heads[layer])
        assert both.neurons[layer] == tuple(first.neurons[layer][i] for i in second.neurons[layer])


@settings(max_examples=20)
@given(plans(BASE), st.data())
def test_composition_is_associative(first, data):
    second = data.draw(plans(first.architecture))
    third = data.draw(plans(second.architecture))
    assert first.then(second).then(third).id == first.then(second.then(third)).id


def test_composition_in_base_coordinates_needs_what_the_first_left():
    first = a_plan()
    smaller = first.model_copy(update={"heads": ((0,), (), (1,))})
    assert first.then(smaller) == smaller
    bigger = first.model_copy(update={"heads": ((0, 1), (), (1,))})
    with pytest.raises(PlanError, match=r"heads\[0\]: the plan keeps \[1\]"):
        first.then(bigger)
    with pytest.raises(PlanError, match="bert, 12 layers"):
        first.then(Plan.whole(Lineage.whole(BERT_BASE)))


def test_a_plan_prints_as_a_table():
    lines = str(a_plan()).splitlines()
    assert "5 of 12 heads, 22 of 60 neurons" in lines[0]
    assert lines[2].split() == ["0", "2/4", "20/20", "8"]
    assert lines[3].split() == ["1", "0/4", "2/20", "0"]  # No head is left to adapt.


def test_public_names_are_the_documented_ones():
    documented = {
        "score", "make_plan", "prune_", "masked", "add_adapter", "finetune", "merge", "save", "load", "export",
        "measure", "compress", "Importance", "Plan", "PruneLoraError",
    }  # fmt: skip
    assert set(pl.__all__) == documented | {"__version__"}
    assert all(getattr(pl, name) is not None for name in documented)
