"""Times of training steps: of methods that fine-tune more than once, which begin alike."""

import contextlib
from types import SimpleNamespace

import pytest
from torch import nn

from prunelora.comparison import timing
from prunelora.evaluation.latency import Timing
from prunelora.stage_settings import FineTuneStage

# Milliseconds of the made-up models' steps, by the plan that they are cut by; in the second round all take twice that.
TIMES = {None: 100.0, "half": 60.0, "quarter": 40.0}


@pytest.fixture
def timed(monkeypatch):
    """Which models were timed, by the plan they are cut by."""
    seen = []

    def as_trained(_cell, _task, _tuning, plan):
        model = nn.Linear(1, 1)
        model.plan = plan.id if plan else None
        return model

    def interleaved(calls, **_):
        seen.extend(calls.values())
        return {key: Timing((TIMES[plan], 2 * TIMES[plan])) for key, plan in calls.items()}

    monkeypatch.setattr(timing, "as_trained", as_trained)
    monkeypatch.setattr(timing, "tunings_of", lambda cell: iter(cell.tunings))
    monkeypatch.setattr(timing, "training_step", lambda model, *_: model.plan)
    monkeypatch.setattr(timing, "interleaved", interleaved)
    monkeypatch.setattr(timing, "dropout_of", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(timing, "calibration_batches", lambda *_, **__: [])
    monkeypatch.setattr(timing, "load_processor", lambda *_: None)
    return seen


def cell(*tunings):
    recipe = SimpleNamespace(model="minilm", task=SimpleNamespace(max_length=32))
    found = [(stage, SimpleNamespace(id=plan) if plan else None) for stage, plan in tunings]
    return SimpleNamespace(recipe=recipe, tunings=found, method=SimpleNamespace(tuning=tunings[-1][0]))


def test_the_step_of_several_fine_tunings_is_their_mean_by_epochs_and_what_is_common_is_timed_once(timed):
    first, last = FineTuneStage(epochs=3, learning_rate=1e-3), FineTuneStage(epochs=1)
    cells = {
        "half": cell((first, None), (last, "half")),
        "quarter": cell((first.model_copy(update={"learning_rate": 2e-3}), None), (last, "quarter")),
        "alone": cell((last, "half")),
    }
    found = timing._time_steps(cells, None, timing.TimingSettings())
    assert sorted(map(str, timed)) == ["None", "half", "quarter"]
    assert found["half"].rounds_ms == pytest.approx((90.0, 180.0))
    assert found["quarter"].rounds_ms == pytest.approx((85.0, 170.0))
    assert found["alone"].rounds_ms == pytest.approx((60.0, 120.0))


def test_steps_of_other_settings_are_timed_by_themselves(timed):
    first = FineTuneStage(epochs=1)
    other = first.model_copy(update={"trainable": "all"})
    timing._time_steps({"one": cell((first, None)), "other": cell((other, None))}, None, timing.TimingSettings())
    assert timed == [None, None]
