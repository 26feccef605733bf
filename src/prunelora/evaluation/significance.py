"""Uncertainty of metrics: differences of two methods over seeds and rows, and intervals of proportions."""

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binomtest
from scipy.stats import t as student_t

Judge = Callable[[np.ndarray, np.ndarray], float]
RowScores = Callable[[np.ndarray, np.ndarray], np.ndarray]

LEVEL = 0.05
# Smaller differences are rounding errors of a sum that cancels.
ROUNDING = 1e-12
# Smaller p values depend on tails of distributions that hold only approximately.
_SMALLEST = 1e-12


def right_answers(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """1.0 for every row (N,) whose largest logit is its label's, otherwise 0.0; accuracy is their mean."""
    return (np.argmax(logits, axis=-1) == labels).astype(np.float64)


@dataclass(frozen=True)
class Difference:
    """A difference of two methods that were trained with the same seeds and evaluated on the same rows.

    Seeds and rows are both samples. Half the width of the interval is

        reach^2 = (t[k-1] s_seed / sqrt(k))^2 + (t[N-1] s_row)^2

    for k seeds and N rows, where s_seed is the standard deviation of the differences over seeds and s_row the standard
    error over rows of their mean: Howe's limits for the sum of two means (1974, JASA 69:789-794). The noise that seeds
    and rows share counts in both parts, so the interval errs on the wide side. Satterthwaite's degrees of freedom
    (Clark's min F', 1973) give up to 7.7 % false positives at a level of 5 % and three seeds; these limits do not
    exceed the level. The p value is the level at which the interval ends at 0.

    If all rows differ alike, their standard error is 0, yet other rows may differ otherwise: up to a share
    u = 1 - (level/2)^(1/N) of them (Clopper and Pearson 1934, for 0 of N). As a row's difference lies between -1 and 1,
    the rows' part is then (1 + |mean|) u.

    With one seed, interval and p value are of these two trainings on other rows; other seeds are unknown.

    Attributes:
        by_seed: Metric of the first method minus that of the second, seed by seed.
        row_error: Standard error over rows of the mean over seeds; None if `by_seed` contains the noise of rows.
        rows: Number of rows, N.
    """

    by_seed: tuple[float, ...]
    row_error: float | None
    rows: int

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return statistics.fmean(self.by_seed)

    @property
    def seed_error(self) -> float | None:
        """Standard error of the mean over seeds; None for one seed."""
        seeds = len(self.by_seed)
        return statistics.stdev(self.by_seed) / math.sqrt(seeds) if seeds > 1 else None

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Both ends of the interval that misses the difference with probability `level`: 0.05 for 95 %."""
        reach = self._reach(level)
        return self.mean - reach, self.mean + reach

    @cached_property
    def p_value(self) -> float:
        """Two-sided probability of a difference as large between two equal methods."""
        size = abs(self.mean)
        if size <= ROUNDING:
            return 1.0
        if self._reach(LEVEL) == 0:  # No variation is known.
            return 1.0
        if self._reach(_SMALLEST) <= size:
            return _SMALLEST
        if self._reach(1.0) >= size:
            return 1.0
        return float(brentq(lambda level: self._reach(level) - size, _SMALLEST, 1.0, xtol=1e-15, rtol=1e-10))

    def _reach(self, level: float) -> float:
        of_seeds = 0.0
        if self.seed_error:
            of_seeds = self.seed_error * float(student_t.isf(level / 2, len(self.by_seed) - 1))
        if self.row_error is None:
            of_rows = 0.0
        elif self.row_error > ROUNDING:
            of_rows = self.row_error * float(student_t.isf(level / 2, self.rows - 1))
        else:
            of_rows = (1 + abs(self.mean)) * (1 - (level / 2) ** (1 / self.rows))
        return math.hypot(of_seeds, of_rows)


def compare_answers(
    first: Sequence[np.ndarray],
    second: Sequence[np.ndarray],
    labels: np.ndarray,
    *,
    judge: Judge,
    row_scores: RowScores | None = None,
    draws: int = 500,
    seed: int = 0,
) -> Difference:
    """Compare two methods by their answers to the same rows.

    Args:
        first: Answers of the first method as `judge` takes them, such as logits (N, C), one array a seed.
        second: Answers of the second method, for the same seeds.
        labels: (N, ...).
        judge: Metric of answers and labels; higher is better.
        row_scores: For a metric that is a mean over rows (accuracy), the values of the rows (N,), from which its
            standard error is computed; otherwise it is the standard deviation over bootstrap samples of rows.
        draws: Number of bootstrap samples; samples on which the metric is undefined are left out.
        seed: Seed of the bootstrap.
    """
    by_seed = tuple(judge(a, labels) - judge(b, labels) for a, b in zip(first, second, strict=True))
    if row_scores is not None:
        scores = [row_scores(a, labels) - row_scores(b, labels) for a, b in zip(first, second, strict=True)]
        return Difference(by_seed, error_of_mean(np.mean(scores, axis=0)), len(labels))
    means = [
        statistics.fmean(
            judge(a[rows], labels[rows]) - judge(b[rows], labels[rows]) for a, b in zip(first, second, strict=True)
        )
        for rows in _samples(len(labels), draws, seed)
    ]
    defined = [mean for mean in means if math.isfinite(mean)]
    return Difference(by_seed, statistics.stdev(defined) if len(defined) > 1 else 0.0, len(labels))


def bootstrap(
    judge: Callable[[np.ndarray, np.ndarray], Mapping[str, float]],
    answers: np.ndarray,
    labels: np.ndarray,
    *,
    draws: int = 200,
    seed: int = 0,
) -> list[Mapping[str, float]]:
    """Metrics on samples of the rows, drawn with replacement.

    The samples depend only on the number of rows: two models' values on the i-th sample are of the same rows, and the
    standard deviation of their differences is the standard error of the difference.
    """
    return [judge(answers[rows], labels[rows]) for rows in _samples(len(labels), draws, seed)]


def _samples(rows: int, draws: int, seed: int) -> Iterator[np.ndarray]:
    """Bootstrap samples: numbers of rows, drawn with replacement."""
    generator = np.random.default_rng(seed)
    for _ in range(draws):
        yield generator.integers(0, rows, size=rows)


def error_of_mean(values: np.ndarray) -> float:
    """Standard error of the mean of values (N,); 0 for a single value."""
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 0.0


def holm(p_values: Sequence[float]) -> list[float]:
    """P values of several tests, adjusted for their number: the smallest times m, the next times m - 1, ...

    The probability that any test of equal methods falls below a level is then at most that level (Holm 1979,
    Scandinavian Journal of Statistics 6:65-70), whatever the dependence between the tests.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for place, which in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[which]))
        adjusted[which] = largest
    return adjusted


def wilson(share: float, rows: int) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson 1927), which stays within 0 and 1: 8 of 8 rows -> (0.676, 1.0)."""
    interval = binomtest(round(share * rows), rows).proportion_ci(confidence_level=1 - LEVEL, method="wilson")
    return float(interval.low), float(interval.high)
