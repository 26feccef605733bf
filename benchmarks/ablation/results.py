"""Result files: what every training found; which learning rate was chosen, what came out best, what is missing."""

import json
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from benchmarks.ablation.variants import (
    BUDGETS,
    EVERYTHING,
    GROUPS,
    PACKAGED,
    SCREENING_SEED,
    SCREENING_TASKS,
    TASKS,
    TIGHT_GROUP,
    VARIANTS,
    WALKS,
    Variant,
)
from prunelora.comparison.results import TrialFacts
from prunelora.evaluation import significance
from prunelora.storage import write_json

METRIC = "accuracy"
FINALISTS = 1  # Of each way to walk, beside the way itself.
# Screened on all tasks: how long to learn before the cut, and which tokens matter, depends on the task.
EVERY_TASK = ("splits", "weights", "start")


class Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CutFacts(Facts):
    """Accuracy on the validation rows around the last cut.

    Attributes:
        before: Of the model that was scored, where a stage before took it.
        cut: Right after the cut.
        repaired: After repair; None without one.
    """

    before: float | None
    cut: float
    repaired: float | None


class Row(Facts):
    """One training.

    Attributes:
        task: Name of the task.
        definition: Of the variant, as it was when this was trained.
        keep_macs: Share of the MACs that was asked for.
        heads: Left, and of how many; None where nothing was cut.
        neurons: Likewise.
        parameters: Of the merged model.
        training_memory: Bytes of a step of the fine-tuning that needs most: weights, gradients, optimiser, saved for
            backward.
        cut: Around the last cut; None where nothing was cut.
        cell: Method (the variant's name), learning rate, seed, metrics, steps, seconds by stage, plan, recipe, version
            and machine.
    """

    task: str
    definition: str
    keep_macs: float
    heads: tuple[int, int] | None
    neurons: tuple[int, int] | None
    parameters: int
    training_memory: int
    cut: CutFacts | None
    cell: TrialFacts


class Failure(Facts):
    """A training that ended in an error.

    Attributes:
        task: Name of the task.
        variant: Name of the variant.
        seed: Of the run.
        definition: Of the variant, as it was.
        message: The error's.
    """

    task: str
    variant: str
    seed: int
    definition: str
    message: str


class GroupResults(Facts):
    """A result file, TASK-GROUP.json."""

    format: Literal["prunelora-ablation-1"] = "prunelora-ablation-1"
    task: str
    group: str
    rows: tuple[Row, ...] = ()
    failures: tuple[Failure, ...] = ()


def path_of(folder: Path, task: str, group: str) -> Path:
    return folder / f"{task}-{group}.json"


def read_group(folder: Path, task: str, group: str) -> GroupResults:
    """What is in a result file, without what was found under another definition; empty if there is none."""
    path = path_of(folder, task, group)
    if not path.exists():
        return GroupResults(task=task, group=group)
    found = GroupResults.model_validate(json.loads(path.read_text(encoding="utf-8")))
    rows = tuple(row for row in found.rows if _is_current(row.cell.method, task, row.definition))
    failures = tuple(one for one in found.failures if _is_current(one.variant, task, one.definition))
    return found.model_copy(update={"rows": rows, "failures": failures})


def _is_current(variant: str, task: str, definition: str) -> bool:
    return variant in EVERYTHING and EVERYTHING[variant].definition(task) == definition


def add(folder: Path, task: str, group: str, rows: Iterable[Row], failures: Iterable[Failure] = ()) -> None:
    """Put trainings into a result file; what was there of the same training is replaced."""
    before = read_group(folder, task, group)

    def place(row: Row) -> tuple[str, float, int]:
        return row.cell.method, row.cell.learning_rate, row.cell.seed

    merged = {place(row): row for row in (*before.rows, *rows)}
    done = {(method, seed) for method, _, seed in merged}
    failed = {(one.variant, one.seed): one for one in (*before.failures, *failures)}
    content = GroupResults(
        task=task,
        group=group,
        rows=tuple(merged[one] for one in sorted(merged)),
        failures=tuple(failed[one] for one in sorted(failed) if one not in done),
    )
    write_json(path_of(folder, task, group), content.model_dump(mode="json"))


@dataclass(frozen=True)
class Found:
    """All results there are.

    Attributes:
        rows: By variant, task, learning rate and seed.
        failures: What ended in an error.
    """

    rows: dict[tuple[str, str, float, int], Row]
    failures: tuple[Failure, ...]

    def trials(self, variant: Variant, task: str) -> dict[float, Row]:
        """The trainings that tried a variant's learning rates, by multiple of its own."""
        places = {
            factor: (variant.name, task, variant.rate_at(factor), SCREENING_SEED) for factor in variant.trials
        }  # fmt: skip
        return {factor: self.rows[place] for factor, place in places.items() if place in self.rows}

    def factor(self, variant: Variant, task: str) -> float | None:
        """The chosen multiple of a variant's own learning rate; None while a trial is missing.

        Highest accuracy on the validation rows; of equals the smaller loss there.
        """
        if not variant.trials:
            return self.factor(EVERYTHING[str(variant.rate_of)], task)
        tried = self.trials(variant, task)
        if len(tried) < len(variant.trials):
            return None

        def merit(factor: float) -> tuple[float, float]:
            validation = tried[factor].cell.validation
            return validation[METRIC], -validation["loss"]

        return max(tried, key=merit)

    def row(self, variant: Variant, task: str, seed: int) -> Row | None:
        """The training of a variant at its chosen learning rate."""
        factor = self.factor(variant, task)
        return None if factor is None else self.rows.get((variant.name, task, variant.rate_at(factor), seed))

    def all_of(self, variant: Variant) -> Iterator[Row]:
        """A variant's trainings at its chosen learning rates."""
        seeds = sorted({seed for *_, seed in self.rows})
        return (row for task in TASKS for seed in seeds if (row := self.row(variant, task, seed)) is not None)

    def against(self, variant: Variant, value: Callable[[Row], float]) -> "Difference":
        """What a variant has more than what it is held against, task by task and seed by seed."""
        base = EVERYTHING[str(variant.against)]
        pairs = [
            (row.task, row.cell.seed, value(row) - value(other))
            for row in self.all_of(variant)
            if (other := self.row(base, row.task, row.cell.seed)) is not None
        ]
        return Difference(tuple(pairs))


@dataclass(frozen=True)
class Difference:
    """Differences of pairs of trainings on the same task with the same seed.

    Attributes:
        pairs: Task, seed and difference.
    """

    pairs: tuple[tuple[str, int, float], ...]

    @property
    def mean(self) -> float:
        """Over tasks, of the means over seeds: every task counts the same."""
        return mean_over_tasks((task, value) for task, _, value in self.pairs)

    @property
    def test(self) -> significance.Difference:
        """Over tasks, which are drawn apart: a task's mean has its seeds' noise and its rows' in it."""
        return significance.Difference(tuple(means_by_task((task, value) for task, _, value in self.pairs)), None, 1)

    @property
    def error(self) -> float | None:
        """Standard error over tasks; None of a single one."""
        return self.test.seed_error

    def without(self, task: str) -> "Difference":
        """The same without a task."""
        return Difference(tuple(pair for pair in self.pairs if pair[0] != task))


def clear(differences: Mapping[str, Difference]) -> set[str]:
    """Names of the differences that are more than chance: p below 0.05, adjusted for their number (Holm).

    Differences on a single task have no test and are not counted.
    """
    p_values = {name: one.test.p_value for name, one in differences.items() if one.error is not None}
    return {name for name, p in zip(p_values, significance.holm([*p_values.values()]), strict=True) if p < 0.05}


def means_by_task(values: Iterable[tuple[str, float]]) -> list[float]:
    """Mean of each task's values."""
    by_task: dict[str, list[float]] = {}
    for task, value in values:
        by_task.setdefault(task, []).append(value)
    return [statistics.fmean(one) for one in by_task.values()]


def mean_over_tasks(values: Iterable[tuple[str, float]]) -> float:
    """Mean over tasks of the means of each task's values; nan of nothing."""
    means = means_by_task(values)
    return statistics.fmean(means) if means else math.nan


def read_all(folder: Path) -> Found:
    """All result files of a folder."""
    groups = [read_group(folder, task, group) for task in TASKS for group in (*GROUPS, "tight")]
    rows = [row for one in groups for row in one.rows]
    return Found(
        rows={(row.cell.method, row.task, row.cell.learning_rate, row.cell.seed): row for row in rows},
        failures=tuple(failure for one in groups for failure in one.failures),
    )


def accuracy(row: Row) -> float:
    """On the validation rows, in points."""
    return 100 * row.cell.validation[METRIC]


def loss(row: Row) -> float:
    """On the validation rows."""
    return row.cell.validation["loss"]


def tested(row: Row) -> float:
    """Accuracy on the reported rows, in points."""
    return 100 * row.cell.test["test"][METRIC]


def finalists(found: Found) -> list[Variant]:
    """The best variants of each way to walk: by how far they are above the way itself on the validation rows.

    Mean over the tasks of the screening, over all seeds that both were trained with: who was ahead by luck with the
    first falls back with the others. Of equals the one with the smaller loss. Only those count that were trained on
    all tasks of the screening with the first seed.
    """

    def lead(variant: Variant, value: Callable[[Row], float]) -> float:
        pairs = [pair for pair in found.against(variant, value).pairs if pair[0] in SCREENING_TASKS]
        screened = {task for task, seed, _ in pairs if seed == SCREENING_SEED}
        return Difference(tuple(pairs)).mean if screened == set(SCREENING_TASKS) else -math.inf

    chosen = []
    for walk in WALKS:
        leads = {one.name: lead(one, accuracy) for one in VARIANTS.values() if one.may_win and one.against == walk}
        ahead = [name for name, value in leads.items() if value > 0]
        ahead.sort(key=lambda name: (-leads[name], lead(VARIANTS[name], loss)))
        chosen += ahead[:FINALISTS]
    return [VARIANTS[name] for name in chosen]


def members(group: str, best: Sequence[Variant], *, task: str, seed: int) -> list[Variant]:
    """Variants of a group that are trained on a task with a seed: all in the screening, then what came out best.

    At the smaller shares of the MACs the ways themselves are there to see others against, with the first seed alone;
    the packaged recipes go with what came out best.
    """
    if group == "tight":
        ways = GROUPS["bases"] if seed == SCREENING_SEED else ()
        packaged = [VARIANTS[name] for name in PACKAGED.values() if name not in WALKS and VARIANTS[name] not in best]
        names = [f"{variant.name}@{budget:g}" for budget in BUDGETS for variant in (*ways, *best, *packaged)]
        return [TIGHT_GROUP[name] for name in names if name in TIGHT_GROUP]
    screened = seed == SCREENING_SEED and (task in SCREENING_TASKS or group in EVERY_TASK)
    if group in ("references", "bases") or screened:
        return list(GROUPS[group])
    return [variant for variant in GROUPS[group] if variant in best]
