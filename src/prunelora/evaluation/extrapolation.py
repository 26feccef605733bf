"""Extrapolation of the seconds of long work from short pieces of it, which are timed in turn."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from prunelora.evaluation.timing import Timing, interleaved

# Timed and untimed rounds.
ROUNDS, UNTIMED = 3, 1

# A batch: rows, and tokens of its longest row.
Size = tuple[int, int]

# Returns seconds once all pieces are timed.
Seconds = Callable[[], float]


@dataclass
class Pieces:
    """Pieces of work by name, all timed in turn, so that other load affects them alike."""

    calls: dict[str, Callable[[], object]] = field(default_factory=dict)
    timings: dict[str, Timing] = field(default_factory=dict)

    def add(self, name: str, call: Callable[[], object]) -> Seconds:
        """Add a piece, unless one of this name is there; returns a function that gives the median of its rounds."""
        self.calls.setdefault(name, call)
        return lambda: self.timings[name].median_ms / 1000

    def measure(self, synchronise: Callable[[], None] | None = None) -> None:
        """Time every piece."""
        self.timings = interleaved(self.calls, warmup=UNTIMED, repeats=ROUNDS, synchronise=synchronise)

    def noise(self) -> float:
        """Mean distance of rounds from their median, weighted by time: 0.1 is 10 %."""
        distance = sum(max(timing.rounds_ms) - min(timing.rounds_ms) for timing in self.timings.values()) / 2
        total = sum(timing.median_ms for timing in self.timings.values())
        return distance / total if total else 0.0


def batch_seconds(rows: int, timed: Mapping[int, float], sizes: Sequence[Size]) -> float:
    """Seconds of batches, linear in their tokens a row through two timed lengths, and proportional to their rows.

    Args:
        rows: Rows of the timed batches.
        timed: Seconds of a batch by its length; if there is one length only, seconds do not depend on it.
        sizes: The batches.
    """
    (short, low), (long, high) = min(timed.items()), max(timed.items())
    slope = max(0.0, (high - low) / (long - short)) if long > short else 0.0
    # At least a tenth of the shorter length's seconds: extrapolated below it, the line may become negative.
    return sum(count / rows * max(0.1 * low, low + slope * (length - short)) for count, length in sizes)


def by_power(timed: Mapping[int, float], size: int) -> float:
    """Seconds at a size from those at two smaller sizes, t = a * size^p, or at that size itself.

    by_power({1: 1.0, 2: 8.0}, 4) -> 64.0
    """
    (small, few), (large, more) = min(timed.items()), max(timed.items())
    power = math.log(more / few) / math.log(large / small) if large > small else 0.0
    return more * (size / large) ** power


def in_order(lengths: Sequence[int], rows: int) -> list[Size]:
    """Batches of rows in their order, each as long as its longest: (5, 2, 9), 2 rows -> [(2, 5), (1, 9)]."""
    parts = (lengths[start : start + rows] for start in range(0, len(lengths), rows))
    return [(len(part), max(part)) for part in parts]
