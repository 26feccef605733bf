"""The one timing record, and timing several callables in turn on a machine that is never quite idle.

Callables that are compared run in turn within one run, round after round, so that other load hits all of them alike.
Their ratio is taken within each round, and the median of these ratios is reported.

    timings = interleaved({"dense": run_dense, "pruned": run_pruned}, warmup=3, repeats=15)
    timings["dense"].median_ms                      -> 11.0
    ratio(timings["pruned"], timings["dense"])      -> Spread(median=0.5, q25=0.48, q75=0.53)
"""

import operator
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from prunelora.progress import over

# With fewer rounds quartiles mean nothing, however long a round takes.
LEAST_REPEATS = 5


@dataclass(frozen=True)
class Spread:
    """Median and quartiles over rounds, of times or of ratios."""

    median: float
    q25: float
    q75: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Median and quartiles of numbers."""
        q25, median, q75 = np.quantile(values, [0.25, 0.5, 0.75])
        return cls(median=float(median), q25=float(q25), q75=float(q75))

    @classmethod
    def read(cls, content: Mapping[str, float]) -> "Spread":
        """Read the JSON of a timing ("median_ms", ...) or of a ratio ("median", ...)."""
        unit = "_ms" if "median_ms" in content else ""
        return cls(content[f"median{unit}"], content[f"q25{unit}"], content[f"q75{unit}"])

    @property
    def noise(self) -> float:
        """Distance of the quartiles as a share of the median."""
        return (self.q75 - self.q25) / self.median

    def inverse(self) -> "Spread":
        """Spread of the reciprocals: time over time -> how many times as fast."""
        return Spread(1 / self.median, 1 / self.q75, 1 / self.q25)


@dataclass(frozen=True)
class Timing:
    """Times of one callable, one a round, in milliseconds."""

    rounds_ms: tuple[float, ...]

    @property
    def repeats(self) -> int:
        """Number of timed rounds."""
        return len(self.rounds_ms)

    @property
    def spread_ms(self) -> Spread:
        """Median and quartiles of the rounds."""
        return Spread.of(self.rounds_ms)

    @property
    def median_ms(self) -> float:
        """Median of the rounds."""
        return self.spread_ms.median

    def to_dict(self) -> dict[str, float]:
        """For JSON, without the single rounds."""
        spread = self.spread_ms
        return {"median_ms": spread.median, "q25_ms": spread.q25, "q75_ms": spread.q75, "repeats": self.repeats}


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
        callables: Callables by name.
        warmup: Number of untimed rounds before the timed ones.
        repeats: Number of timed rounds.
        max_seconds: Seconds of timed rounds after which timing stops, though not before five rounds (or `repeats`, if
            fewer); untimed rounds stop after a quarter of it, though not before one round.
        synchronise: Waits until the device has finished; called before the clock is read.
        clock: Returns seconds.

    Returns:
        Timings by name; the i-th time of each is from the same round.
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
    """Weighted mean, round by round, of timings from the same rounds; the sum of the weights does not matter."""
    whole = sum(weight for _, weight in parts)
    rounds = zip(*(timing.rounds_ms for timing, _ in parts), strict=True)
    weights = [weight / whole for _, weight in parts]
    return Timing(tuple(sum(map(operator.mul, times, weights)) for times in rounds))


def ratio(first: Timing, second: Timing) -> Spread:
    """Time of the first over time of the second, round by round: 0.5 is twice as fast."""
    return Spread.of([a / b for a, b in zip(first.rounds_ms, second.rounds_ms, strict=True)])


def _order(names: Sequence[str], number: int) -> list[str]:
    """abc, cba, bca, acb, cab, bac, and again from the start."""
    turn = number // 2 % len(names) if names else 0
    turned = [*names[turn:], *names[:turn]]
    return turned if number % 2 == 0 else turned[::-1]
