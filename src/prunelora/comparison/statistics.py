"""What is more than noise: spread over seeds, and paired tests over the rows that two methods both answered."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from prunelora.comparison.results import Figure

Judge = Callable[[np.ndarray, np.ndarray], float]
RowScores = Callable[[np.ndarray, np.ndarray], np.ndarray]


def right_answers(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """1.0 for every row (N,) whose largest logit is its label's, else 0.0: what accuracy is the mean of."""
    return (np.argmax(logits, axis=-1) == labels).astype(np.float64)


def figure(values: Sequence[float]) -> Figure:
    """Mean and sample standard deviation of one value a seed."""
    return Figure(
        mean=statistics.fmean(values),
        sd=statistics.stdev(values) if len(values) > 1 else None,
        values=tuple(float(value) for value in values),
    )


@dataclass(frozen=True)
class PairedTest:
    """A difference between two methods on the same rows.

    Attributes:
        by_seed: First's metric minus second's, seed by seed.
        low: Lower end of the 95 % bootstrap interval of the mean over seeds.
        high: Upper end.
        p_value: Two-sided, of the randomisation test.
    """

    by_seed: tuple[float, ...]
    low: float
    high: float
    p_value: float

    @property
    def difference(self) -> float:
        """Mean over seeds."""
        return statistics.fmean(self.by_seed)


def paired_test(
    first: Sequence[np.ndarray],
    second: Sequence[np.ndarray],
    labels: np.ndarray,
    *,
    judge: Judge,
    row_scores: RowScores | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> PairedTest:
    """Test whether two methods differ on such rows by more than the choice of the rows explains.

    Approximate randomisation (Noreen 1989): if the methods were alike, a row's answers could as well have come from the
    other one. The answers of a random half of the rows are swapped, those of all seeds together, since seeds share the
    rows; p is how often the difference is then at least as large as the one found. The interval is the percentile
    bootstrap over rows. Neither knows of the choice of the seeds: `by_seed` shows that.

    Args:
        first: Logits (N, C) of the first method, one array a seed.
        second: Of the second, for the same seeds.
        labels: (N,).
        judge: Metric of logits and labels; higher is better.
        row_scores: Where the metric is a mean over rows (accuracy): what each row adds to it, (N,), which is quicker.
        draws: Of the randomisation, and of the bootstrap.
        seed: Of both.
    """
    found = tuple(judge(a, labels) - judge(b, labels) for a, b in zip(first, second, strict=True))
    generator = np.random.default_rng(seed)
    if row_scores is not None:
        scores = [row_scores(a, labels) - row_scores(b, labels) for a, b in zip(first, second, strict=True)]
        swapped, resampled = _draws_of_mean(np.mean(scores, axis=0), draws, generator)
    else:
        swapped, resampled = _draws_of_any(first, second, labels, judge, draws, generator)
    # A hair's breadth, so that a draw that gives the same difference counts whatever the order of its sums.
    extreme = int(np.sum(np.abs(swapped) >= abs(statistics.fmean(found)) - 1e-12))
    low, high = np.quantile(resampled, [0.025, 0.975])
    return PairedTest(found, float(low), float(high), (extreme + 1) / (draws + 1))


def _draws_of_mean(difference: np.ndarray, draws: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Both kinds of draws from the differences (N,) of the rows."""
    rows = len(difference)
    # Rows on which both answer alike add nothing to either sum.
    differing = difference[difference != 0]
    swapped, resampled = np.empty(draws), np.empty(draws)
    for draw in range(draws):
        swapped[draw] = np.sum(differing * generator.choice((-1.0, 1.0), size=len(differing))) / rows
        resampled[draw] = np.mean(difference[generator.integers(0, rows, size=rows)])
    return swapped, resampled


def _draws_of_any(
    first: Sequence[np.ndarray],
    second: Sequence[np.ndarray],
    labels: np.ndarray,
    judge: Judge,
    draws: int,
    generator: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    rows = len(labels)
    swapped, resampled = np.empty(draws), np.empty(draws)
    for draw in range(draws):
        swap = generator.random(rows) < 0.5
        chosen = generator.integers(0, rows, size=rows)
        by_swap, by_choice = [], []
        for a, b in zip(first, second, strict=True):
            mask = swap.reshape(-1, *(1,) * (a.ndim - 1))
            by_swap.append(judge(np.where(mask, b, a), labels) - judge(np.where(mask, a, b), labels))
            by_choice.append(judge(a[chosen], labels[chosen]) - judge(b[chosen], labels[chosen]))
        swapped[draw], resampled[draw] = statistics.fmean(by_swap), statistics.fmean(by_choice)
    return swapped, resampled
