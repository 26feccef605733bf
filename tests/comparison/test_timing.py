"""Times of training steps: of methods that fine-tune more than once, which begin alike."""

import contextlib
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch import nn

from prunelora.comparison import timing
from prunelora.evaluation.timing import Timing
from prunelora.stages.finetune import FineTuneStage

# Milliseconds of the made-up models' steps, by the plan that they are cut by; in the second round all take twice that.
TIMES = {None: 100.0, "half": 60.0, "quarter": 40.0}
SETTINGS = timing.TimingSettings()


@pytest.fixture
def timed(monkeypatch):
    """Which models were timed, by the plan they are cut by."""
    seen = []

    def as_trained(_trial, _task, _tuning, plan):
        model = nn.Linear(1, 1)
        model.plan = plan.id if plan else None
        return model

    def interleaved(calls, **_):
        seen.extend(calls.values())
        return {key: Timing((TIMES[plan], 2 * TIMES[plan])) for key, plan in calls.items()}

    monkeypatch.setattr(timing, "as_trained", as_trained)
    monkeypatch.setattr(timing, "tunings_of", lambda trial: iter(trial.tunings))
    monkeypatch.setattr(timing, "training_step", lambda model, *_: model.plan)
    monkeypatch.setattr(timing, "interleaved", interleaved)
    monkeypatch.setattr(timing, "dropout_of", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(timing, "load", lambda _: nn.Linear(1, 1))
    monkeypatch.setattr(timing, "pretrained", lambda *_: None)
    monkeypatch.setattr(timing, "forward_times", lambda models, *_: dict.fromkeys(models, ()))
    return seen


def trial(*tunings):
    with_plans = [(stage, SimpleNamespace(id=plan) if plan else None) for stage, plan in tunings]
    return SimpleNamespace(recipe=None, tunings=with_plans, folder=Path())


def test_the_step_of_several_fine_tunings_is_their_mean_by_epochs_and_what_is_common_is_timed_once(timed):
    first, last = FineTuneStage(epochs=3, learning_rate=1e-3), FineTuneStage(epochs=1)
    trials = {
        "half": trial((first, None), (last, "half")),
        "quarter": trial((first.model_copy(update={"learning_rate": 2e-3}), None), (last, "quarter")),
        "alone": trial((last, "half")),
    }
    found = timing._time_steps(trials, None, [], timing.TimingSettings())
    assert sorted(map(str, timed)) == ["None", "half", "quarter"]
    assert found["half"].rounds_ms == pytest.approx((90.0, 180.0))
    assert found["quarter"].rounds_ms == pytest.approx((85.0, 170.0))
    assert found["alone"].rounds_ms == pytest.approx((60.0, 120.0))


def test_steps_of_other_settings_are_timed_by_themselves(timed):
    first = FineTuneStage(epochs=1)
    other = first.model_copy(update={"trainable": "all"})
    timing._time_steps({"one": trial((first, None)), "other": trial((other, None))}, None, [], timing.TimingSettings())
    assert timed == [None, None]


def test_steps_are_held_against_full_fine_tuning_and_lora_round_by_round(timed, monkeypatch):
    rounds = {"full": (100.0, 300.0, 200.0), "lora": (50.0, 300.0, 100.0), "mine": (40.0, 30.0, 90.0)}
    trials = {name: trial((FineTuneStage(), None)) for name in rounds}
    monkeypatch.setattr(timing, "_time_steps", lambda *_: {name: Timing(rounds[name]) for name in rounds})
    mine = timing.time_methods(trials, None, [], SETTINGS)["mine"]
    assert mine.step_to_full.median == pytest.approx(0.4)
    # Of the ratios 0.8, 0.1 and 0.9; of the medians it would be 0.4.
    assert mine.step_to_lora.median == pytest.approx(0.8)
    monkeypatch.setattr(timing, "_time_steps", lambda *_: {"mine": Timing(rounds["mine"])})
    alone = timing.time_methods({"mine": trials["mine"]}, None, [], SETTINGS)["mine"]
    assert (alone.step_to_full, alone.step_to_lora) == (None, None)
