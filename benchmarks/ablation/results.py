"""What the records of the ablation say: chosen learning rates and paired differences."""

import math
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.ablation.variants import EVERYTHING, SCREENING_SEED, Variant
from benchmarks.tasks import FOUR
from benchmarks.trials import METRIC, Record, Trials, means_by_task
from prunelora.evaluation import significance

RESULTS = Path(__file__).resolve().parent / "results"


class Ablation(Trials):
    """The records of the ablation."""

    results = RESULTS

    def tried(self, variant: Variant, task: str) -> dict[float, Record]:
        """The records that tried a variant's learning rates, by multiple of its own."""
        found = {
            factor: self.find(task, variant.name, SCREENING_SEED, variant.rate_at(factor)) for factor in variant.factors
        }
        return {factor: record for factor, record in found.items() if record is not None}

    def factor(self, variant: Variant, task: str) -> float | None:
        """The chosen multiple of a variant's learning rate; None while one was not tried.

        It has the highest accuracy on the validation rows; of equal ones, the smaller loss.
        """
        if not variant.factors:
            return self.factor(EVERYTHING[str(variant.rate_of)], task)
        tried = self.tried(variant, task)
        if len(tried) < len(variant.factors):
            return None

        def merit(factor: float) -> tuple[float, float]:
            return tried[factor]["validation"][METRIC], -tried[factor]["validation"]["loss"]

        return max(tried, key=merit)

    def record(self, variant: Variant, task: str, seed: int) -> Record | None:
        """The record of a variant at its chosen learning rate."""
        factor = self.factor(variant, task)
        return None if factor is None else self.find(task, variant.name, seed, variant.rate_at(factor))

    def all_of(self, variant: Variant) -> Iterator[Record]:
        """A variant's records at its chosen learning rates."""
        seeds = sorted({record["seed"] for record in self.records})
        found = (self.record(variant, task, seed) for task in FOUR for seed in seeds)
        return (record for record in found if record is not None)

    def against(self, variant: Variant, value: Callable[[Record], float], base: str | None = None) -> "Difference":
        """Differences of a variant to what it is compared with, or another base, paired by task and seed."""
        other = EVERYTHING[str(base or variant.against)]
        return Difference(
            tuple(
                (record["task"], record["seed"], value(record) - value(paired))
                for record in self.all_of(variant)
                if (paired := self.record(other, record["task"], record["seed"])) is not None
            )
        )


@dataclass(frozen=True)
class Difference:
    """Differences of trainings on the same task with the same seed: task, seed, difference."""

    pairs: tuple[tuple[str, int, float], ...]

    @property
    def mean(self) -> float:
        """Mean over tasks of the means over seeds; nan without pairs."""
        means = means_by_task((task, value) for task, _, value in self.pairs)
        return statistics.fmean(means) if means else math.nan

    @property
    def test(self) -> significance.Difference:
        """Over tasks: seeds of one task share its rows, so they are averaged first."""
        return significance.Difference(tuple(means_by_task((task, value) for task, _, value in self.pairs)), None, 1)

    @property
    def error(self) -> float | None:
        """Standard error over tasks; None of a single task."""
        return self.test.seed_error

    def without(self, task: str) -> "Difference":
        return Difference(tuple(pair for pair in self.pairs if pair[0] != task))


def clear(differences: Mapping[str, Difference]) -> set[str]:
    """Names of the differences with p < 0.05, adjusted for their number (Holm); single tasks have no test."""
    p_values = {name: one.test.p_value for name, one in differences.items() if one.error is not None}
    return {name for name, p in zip(p_values, significance.holm([*p_values.values()]), strict=True) if p < 0.05}


def loss(record: Record) -> float:
    """Loss on the validation rows."""
    return record["validation"]["loss"]
