"""Seconds of long work from pieces: exact where the work is what it is taken for."""

import numpy as np
import pytest
import torch
from small_run import make_data
from tiny import tiny_batch, tiny_model

from prunelora.data.load import load_task
from prunelora.data.settings import DataSettings
from prunelora.evaluation.extrapolation import Pieces, batch_seconds, by_power, in_order
from prunelora.evaluation.work import first_layers, num_layers, shallow
from prunelora.finetuning.arguments import training_arguments
from prunelora.finetuning.settings import FineTuneSettings
from prunelora.models.anatomy import dissect
from prunelora.planning.plan import Plan


def test_a_line_gives_the_seconds_of_work_that_is_one():
    # 0.2 s and 0.01 s a token, for four rows.
    seconds = batch_seconds(4, {10: 0.3, 30: 0.5}, [(4, 10), (4, 30), (4, 50), (1, 20)])
    assert seconds == pytest.approx(0.3 + 0.5 + 0.7 + 0.4 / 4)
    assert batch_seconds(4, {10: 0.3}, [(4, 10), (8, 99)]) == pytest.approx(0.3 + 0.6)


def test_shorter_rows_never_take_less_than_nothing():
    assert batch_seconds(1, {50: 0.1, 60: 0.9}, [(1, 1)]) > 0


@pytest.mark.parametrize("power", [0.5, 2.0, 3.0])
def test_a_power_gives_the_seconds_of_work_that_is_one(power):
    assert by_power({2: 0.3 * 2**power, 4: 0.3 * 4**power}, 8) == pytest.approx(0.3 * 8**power)
    assert by_power({8: 0.3}, 8) == 0.3


def test_batches_are_as_long_as_their_longest_row():
    assert in_order([5, 2, 9], 2) == [(2, 5), (1, 9)]
    assert in_order([], 2) == []


def test_a_piece_of_one_name_is_timed_once_a_round():
    done = []
    pieces = Pieces()
    first, second = (pieces.add("one", lambda: done.append("one")) for _ in range(2))
    pieces.measure()
    assert first() == second() == pieces.timings["one"].median_ms / 1000
    assert len(done) == pieces.timings["one"].repeats + 1
    assert pieces.noise() >= 0


@pytest.mark.parametrize("rows", [7, 96, 100])
@pytest.mark.parametrize("settings", [{}, {"accumulation_steps": 3}, {"epochs": 0.3}, {"evaluations_per_epoch": 4}])
def test_updates_and_evaluations_are_those_of_the_trainer(tmp_path, rows, settings):
    own = FineTuneSettings(batch_size=8, **settings)
    train = load_task(DataSettings(data=str(make_data(tmp_path / "d.csv", rows=200)))).train.select(range(rows))
    arguments = training_arguments(own, tmp_path, "accuracy", train, 0, False)
    assert arguments.eval_steps == own.updates_between_evaluations(rows)
    batches = -(-rows // 8)
    assert own.updates(rows) == int(np.ceil(own.epochs * -(-batches // own.accumulation_steps)))


def test_first_layers_alone_are_those_of_the_model(family):
    model = tiny_model(family).eval()
    count = num_layers(model)
    assert count >= 1
    first = shallow(model, 1)
    assert num_layers(first) == 1
    assert num_layers(model) == count
    batch = {name: value for name, value in tiny_batch(family=family).items() if name != "labels"}
    with torch.no_grad():
        assert first(**batch).logits.isfinite().all()


@pytest.mark.parametrize("count", [0, 1, 2])
def test_of_a_plan_for_the_first_layers_the_others_are_empty(count):
    model = tiny_model()
    thin = dissect(first_layers(model, Plan.whole(dissect(model).lineage), count)).architecture
    whole = dissect(model).architecture
    empty = (0,) * (whole.num_layers - count)
    assert thin.num_heads == (*whole.num_heads[:count], *empty)
    assert thin.num_neurons == (*whole.num_neurons[:count], *empty)
