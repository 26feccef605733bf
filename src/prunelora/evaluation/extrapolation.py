"""Extrapolation of the seconds of long work from short pieces of it, which are timed in turn."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from prunelora.evaluation.timing import Timing, interleaved

# Timed and untimed rounds.
ROUNDS, UNTIMED = 3, 1

# A batch: rows, and tokens of its longest row.
Size = tuple[int, int]


@dataclass
class Pieces:
    """Pieces of work by name, all timed in turn, so that other load affects them alike."""

    calls: dict[str, Callable[[], object]] = field(default_factory=dict)
    timings: dict[str, Timing] = field(default_factory=dict)

    def add(self, name: str, call: Callable[[], object]) -> str:
        """Add a piece; a second piece of the same name is ignored."""
        self.calls.setdefault(name, call)
        return name

    def measure(self, synchronise: Callable[[], None] | None = None) -> None:
        """Time every piece."""
        self.timings = interleaved(self.calls, warmup=UNTIMED, repeats=ROUNDS, synchronise=synchronise)

    def seconds(self, name: str) -> float:
        """Median of the rounds."""
        return self.timings[name].median_ms / 1000

    def noise(self) -> float:
        """Mean distance of rounds from their median, weighted by time: 0.1 is 10 %."""
        distance = sum(max(timing.rounds_ms) - min(timing.rounds_ms) for timing in self.timings.values()) / 2
        total = sum(timing.median_ms for timing in self.timings.values())
        return distance / total if total else 0.0


@dataclass(frozen=True)
class Line:
    """Seconds of a batch, linear in its tokens a row through two timed lengths, and proportional to its rows.

    Attributes:
        rows: Rows of the timed batches.
        lengths: The two lengths; if equal, seconds do not depend on the length.
        names: Names of their pieces.
    """

    rows: int
    lengths: tuple[int, int]
    names: tuple[str, str]

    def total(self, pieces: Pieces, sizes: Sequence[Size]) -> float:
        """Seconds of all batches."""
        low, high = map(pieces.seconds, self.names)
        short, long = self.lengths
        slope = max(0.0, (high - low) / (long - short)) if long > short else 0.0
        # At least a tenth of the shorter length's seconds: extrapolated below it, the line may become negative.
        return sum(rows / self.rows * max(0.1 * low, low + slope * (length - short)) for rows, length in sizes)


def by_power(small: tuple[float, float], large: tuple[float, float], size: float) -> float:
    """Seconds at a size from those at two smaller sizes: t = a * size^p.

    by_power((1, 1.0), (2, 8.0), 4) -> 64.0
    """
    (x0, t0), (x1, t1) = small, large
    power = math.log(t1 / t0) / math.log(x1 / x0)
    return t1 * (size / x1) ** power


def in_order(lengths: Sequence[int], rows: int) -> list[Size]:
    """Batches of rows in their order, each as long as its longest: (5, 2, 9), 2 rows -> [(2, 5), (1, 9)]."""
    parts = (lengths[start : start + rows] for start in range(0, len(lengths), rows))
    return [(len(part), max(part)) for part in parts]
