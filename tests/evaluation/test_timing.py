import itertools
from collections import Counter

import pytest

from prunelora.evaluation.timing import Spread, Timing, interleaved, ratio


class Clock:
    """A clock that only the callables move."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def order_of(names, *, warmup=0, repeats):
    calls = []
    interleaved({name: lambda name=name: calls.append(name) for name in names}, warmup=warmup, repeats=repeats)
    return [calls[i : i + len(names)] for i in range(0, len(calls), len(names))]


@pytest.mark.parametrize("names", ["ab", "abc", "abcd"])
def test_over_a_cycle_everything_stands_in_every_place_equally_often(names):
    rounds = order_of(names, repeats=2 * len(names))
    assert len(rounds) == 2 * len(names)
    for place in range(len(names)):
        assert Counter(one[place] for one in rounds) == dict.fromkeys(names, 2)
    for a, b in itertools.permutations(names, 2):
        before = sum(one.index(a) < one.index(b) for one in rounds)
        assert before == len(names)


def test_every_round_runs_everything_once_and_warm_up_is_not_timed():
    clock = Clock()
    calls = []

    def take(name, seconds):
        calls.append(name)
        clock.now += seconds

    timings = interleaved(
        {"slow": lambda: take("slow", 0.5), "fast": lambda: take("fast", 0.25)}, warmup=2, repeats=7, clock=clock
    )
    assert Counter(calls) == {"slow": 9, "fast": 9}
    assert timings["slow"].rounds_ms == (500.0,) * 7
    assert timings["fast"].to_dict() == {"median_ms": 250.0, "q25_ms": 250.0, "q75_ms": 250.0, "repeats": 7}


def test_the_ratio_is_taken_within_rounds_so_that_drift_cancels():
    clock = Clock()
    load = itertools.count(1)
    factor = {"now": 1}

    def take(seconds):
        factor["calls"] = factor.get("calls", 0) + 1
        if factor["calls"] % 2 == 1:
            factor["now"] = next(load)  # the machine is slower in every round than in the one before
        clock.now += seconds * factor["now"]

    timings = interleaved({"a": lambda: take(1.0), "b": lambda: take(4.0)}, warmup=0, repeats=9, clock=clock)
    assert timings["a"].spread_ms.q25 < timings["a"].median_ms < timings["a"].spread_ms.q75
    found = ratio(timings["a"], timings["b"])
    assert (found.median, found.q25, found.q75) == pytest.approx((0.25, 0.25, 0.25))
    with pytest.raises(ValueError, match="longer"):
        ratio(Timing((1.0,)), Timing((1.0, 2.0)))


def test_the_median_ratio_is_not_the_ratio_of_medians():
    a, b = Timing((1.0, 10.0, 3.0)), Timing((1.0, 2.0, 30.0))
    assert ratio(a, b).median == 1.0
    assert a.median_ms / b.median_ms == 1.5
    assert Spread.of([1.0, 2.0, 3.0, 4.0, 5.0]).q25 == 2.0


def test_a_slow_thing_gets_fewer_rounds_but_never_fewer_than_five():
    clock = Clock()

    def take():
        clock.now += 1.0

    def rounds(**options):
        return interleaved({"one": take}, clock=clock, **options)["one"].repeats

    assert rounds(warmup=0, repeats=20, max_seconds=8) == 9
    assert rounds(warmup=0, repeats=20, max_seconds=1) == 5
    assert rounds(warmup=0, repeats=3, max_seconds=1) == 3
    assert rounds(warmup=0, repeats=20) == 20
    before = clock.now
    rounds(warmup=10, repeats=1, max_seconds=8)
    assert clock.now - before == 3 + 1


def test_the_device_has_finished_before_the_clock_is_read():
    clock = Clock()
    pending = []

    def wait():
        clock.now += sum(pending)
        pending.clear()

    timings = interleaved({"queued": lambda: pending.append(2.0)}, warmup=1, repeats=2, clock=clock, synchronise=wait)
    assert timings["queued"].rounds_ms == (2000.0, 2000.0)
