"""Seconds of long work from seconds of short pieces of it, which are timed in turn."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from prunelora.evaluation.timing import Timing, interleaved

# Rounds that are timed, and one before.
ROUNDS, WARMUP = 3, 1

# A batch: rows, and tokens of its longest row.
Size = tuple[int, int]


@dataclass
class Pieces:
    """Pieces of work by name; all are timed in turn, so that whatever else the machine does hits all of them alike.

    Attributes:
        calls: What does a piece.
        timings: Of each, once `measure` has run.
    """

    calls: dict[str, Callable[[], object]] = field(default_factory=dict)
    timings: dict[str, Timing] = field(default_factory=dict)

    def add(self, name: str, call: Callable[[], object]) -> str:
        """Take a piece; a second one of the same name is the same."""
        self.calls.setdefault(name, call)
        return name

    def measure(self, synchronise: Callable[[], None] | None = None) -> None:
        """Time every piece."""
        self.timings = interleaved(self.calls, warmup=WARMUP, repeats=ROUNDS, synchronise=synchronise)

    def seconds(self, name: str) -> float:
        """Median of the rounds."""
        return self.timings[name].median_ms / 1000

    def noise(self) -> float:
        """How far rounds are from their median, on average over the time of all pieces: 0.1 is 10 %."""
        far = sum(max(timing.rounds_ms) - min(timing.rounds_ms) for timing in self.timings.values()) / 2
        whole = sum(timing.median_ms for timing in self.timings.values())
        return far / whole if whole else 0.0


@dataclass(frozen=True)
class Line:
    """Seconds of a batch by its number of tokens a row, from two lengths that were timed; proportional to its rows.

    Attributes:
        rows: Of the batches that were timed.
        lengths: The two lengths; of one length twice, seconds are the same for every length.
        names: Their pieces.
    """

    rows: int
    lengths: tuple[int, int]
    names: tuple[str, str]

    def total(self, pieces: Pieces, sizes: Sequence[Size]) -> float:
        """Seconds of all batches."""
        low, high = map(pieces.seconds, self.names)
        short, long = self.lengths
        slope = max(0.0, (high - low) / (long - short)) if long > short else 0.0
        # Nothing takes less than a tenth of the shorter one: below the lengths that were timed a line may end below 0.
        return sum(rows / self.rows * max(0.1 * low, low + slope * (length - short)) for rows, length in sizes)


def by_power(small: tuple[float, float], large: tuple[float, float], size: float) -> float:
    """Seconds at a size from those at two smaller ones: t = a * size^p.

    by_power((1, 1.0), (2, 8.0), 4) -> 64.0
    """
    (x0, t0), (x1, t1) = small, large
    power = math.log(t1 / t0) / math.log(x1 / x0)
    return t1 * (size / x1) ** power


def in_order(lengths: Sequence[int], rows: int) -> list[Size]:
    """Batches of rows as they stand, each as long as its longest: (5, 2, 9), 2 rows -> [(2, 5), (1, 9)]."""
    parts = (lengths[start : start + rows] for start in range(0, len(lengths), rows))
    return [(len(part), max(part)) for part in parts]
