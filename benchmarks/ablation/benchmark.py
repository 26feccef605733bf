"""Parts of the method, alone and together: variants of the packaged recipes on four GLUE tasks."""

import argparse
from collections.abc import Iterator
from typing import Any

from benchmarks.ablation.page import write_ablation
from benchmarks.ablation.results import Ablation
from benchmarks.ablation.variants import EVERYTHING, GROUPS, SCREENING_SEED, SEEDS, Variant, members
from benchmarks.harness import RUNS, Benchmark, Option, Piece
from benchmarks.tasks import FOUR, data_of
from benchmarks.trials import train, trial_for

OWN_RUNS = RUNS / "ablation"


def work(settings: argparse.Namespace) -> Iterator[Piece]:
    """Trainings without a record, in the order of `schedule`."""
    ablation = Ablation()
    for seed, group, task, variants in schedule(settings):
        for variant in variants:
            if variant.name in settings.variants or settings.variants == ("",):
                yield from trainings(ablation, variant, f"{task}, {group}, {variant.name}", task, seed)


def schedule(settings: argparse.Namespace) -> Iterator[tuple[int, str, str, list[Variant]]]:
    """Seed, group, task and variants, in order: one seed of everything before the next seed.

    The bases, which other groups are compared with, are always trained first.
    """
    groups = [group for group in GROUPS if group in settings.groups]
    if set(groups) - {"references", "bases"}:
        groups = sorted({*groups, "bases"}, key=list(GROUPS).index)
    for seed in settings.seeds:
        for group in groups:
            for task in settings.tasks:
                variants = members(group, task=task, seed=seed)
                if variants:
                    yield seed, group, task, variants


def trainings(ablation: Ablation, variant: Variant, title: str, task: str, seed: int) -> Iterator[Piece]:
    """The trials of a variant's learning rates, then its training at the chosen one."""

    def piece(rate: float, seed: int) -> Piece:
        return Piece(
            f"{title}, learning rate {rate:g}, seed {seed}",
            lambda: ablation.add(train_variant(variant, task, rate, seed)),
        )

    for rate in map(variant.rate_at, variant.factors):
        if ablation.find(task, variant.name, SCREENING_SEED, rate) is None:
            yield piece(rate, SCREENING_SEED)
    factor = ablation.factor(variant, task)
    if factor is None:
        print(f"{title}: left out, no learning rate was chosen for {variant.rate_of or variant.name}")
    elif ablation.find(task, variant.name, seed, variant.rate_at(factor)) is None:
        yield piece(variant.rate_at(factor), seed)


def train_variant(variant: Variant, task: str, rate: float, seed: int) -> dict[str, Any]:
    from prunelora.data.load import load_task

    trial = trial_for(variant, task, learning_rate=rate, seed=seed, runs=OWN_RUNS)
    record = train(trial, task, load_task(data_of(task)), runs=OWN_RUNS)
    return record | {"keep_macs": variant.keep_macs}


BENCHMARK = Benchmark(
    measures=__doc__,
    work=work,
    pages=lambda: [write_ablation()],
    options={
        "tasks": Option(FOUR, "tasks, joined by commas", FOUR),
        "groups": Option(tuple(GROUPS), "groups of variants, joined by commas", tuple(GROUPS)),
        "variants": Option(("",), "variants, joined by commas; all of the groups if empty", ("", *EVERYTHING)),
        "seeds": Option(SEEDS, "seeds, joined by commas", SEEDS),
    },
    needs_glue=True,
)
