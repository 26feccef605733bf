"""Timing several things against each other on a machine that is never quite idle.

Things that are compared run in turn within one run, round after round, so that whatever else the machine does hits all
of them alike. Their ratio is taken within each round, and the median of these ratios is reported.
"""

import operator
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from prunelora.progress import over

# With fewer rounds quartiles mean nothing, however long one takes.
LEAST_REPEATS = 5


@dataclass(frozen=True)
class Spread:
    """Median and quartiles."""

    median: float
    q25: float
    q75: float


@dataclass(frozen=True)
class Timing:
    """Times of one thing, one a round, in milliseconds."""

    rounds_ms: tuple[float, ...]

    @property
    def repeats(self) -> int:
        """Rounds that were timed."""
        return len(self.rounds_ms)

    @property
    def median_ms(self) -> float:
        """Half of the rounds were faster."""
        return spread(self.rounds_ms).median

    @property
    def q25_ms(self) -> float:
        """A quarter of the rounds were faster."""
        return spread(self.rounds_ms).q25

    @property
    def q75_ms(self) -> float:
        """Three quarters of the rounds were faster."""
        return spread(self.rounds_ms).q75

    def to_dict(self) -> dict[str, float]:
        """For JSON, without the single rounds."""
        return {"median_ms": self.median_ms, "q25_ms": self.q25_ms, "q75_ms": self.q75_ms, "repeats": self.repeats}


def interleaved(
    callables: Mapping[str, Callable[[], object]],
    *,
    warmup: int,
    repeats: int,
    max_seconds: float | None = None,
    synchronise: Callable[[], None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Time callables in turn: each once in every round, in an order that changes from round to round.

    Over 2 * n rounds each of n callables stands in every place equally often, and equally often runs before and after
    each other one.

    Args:
        callables: What to time, by name.
        warmup: Rounds that are not timed.
        repeats: Rounds that are.
        max_seconds: Stop after so many seconds of timed rounds, though not before five of them (or `repeats`, if
            fewer); warm-up stops after a quarter of it, though not before one round.
        synchronise: Waits until the device has done its work; called before the clock is read.
        clock: Seconds.

    Returns:
        Timings by name; the i-th time of all of them is from the same round.
    """
    names = list(callables)

    def run_round(number: int) -> dict[str, float]:
        times = {}
        for name in _order(names, number):
            if synchronise is not None:
                synchronise()
            start = clock()
            callables[name]()
            if synchronise is not None:
                synchronise()
            times[name] = clock() - start
        return times

    start = clock()
    for number in range(warmup):
        run_round(number)
        if max_seconds is not None and clock() - start > max_seconds / 4:
            break
    rounds: list[dict[str, float]] = []
    start = clock()
    for number in over(range(repeats), "timing"):
        rounds.append(run_round(number))
        if max_seconds is not None and len(rounds) >= LEAST_REPEATS and clock() - start > max_seconds:
            break
    return {name: Timing(tuple(1000 * times[name] for times in rounds)) for name in names}


def weighted_mean(parts: Sequence[tuple[Timing, float]]) -> Timing:
    """Of things that were timed in the same rounds, round by round: each with its weight, whose sum does not matter."""
    whole = sum(weight for _, weight in parts)
    rounds = zip(*(timing.rounds_ms for timing, _ in parts), strict=True)
    weights = [weight / whole for _, weight in parts]
    return Timing(tuple(sum(map(operator.mul, times, weights)) for times in rounds))


def ratio(a: Timing, b: Timing) -> Spread:
    """Time of `a` over time of `b`, round by round: 0.5 is twice as fast."""
    return spread([first / second for first, second in zip(a.rounds_ms, b.rounds_ms, strict=True)])


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles of numbers."""
    q25, median, q75 = np.quantile(values, [0.25, 0.5, 0.75])
    return Spread(median=float(median), q25=float(q25), q75=float(q75))


def _order(names: Sequence[str], number: int) -> list[str]:
    """abc, cba, bca, acb, cab, bac, and again from the start."""
    turn = number // 2 % len(names) if names else 0
    turned = [*names[turn:], *names[:turn]]
    return turned if number % 2 == 0 else turned[::-1]
