"""Full fine-tuning, LoRA, Prune-LoRA with 30 % of the heads cut, and random pruning, on the paper's six GLUE tasks."""

import argparse
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from benchmarks.glue.page import RESULTS, write_glue
from benchmarks.harness import RUNS, Benchmark, Option, Piece
from benchmarks.tasks import STOCK_MEMORY, TASKS, data_of
from prunelora.comparison.results import load_comparison, trial_folder
from prunelora.errors import RecipeError
from prunelora.run.recipe import Recipe

METHODS = ("full", "lora", "prune-lora", "random-prune-lora")
FACTORS = (1.0, 3.0)
KEEP_HEADS = 50  # Of 72: 30 % of the heads are cut, as 44 of the paper's 144.
MAPPED = "prune-lora"  # Its scores and plan of the first seed are kept for the heat map.


def work(settings: argparse.Namespace) -> Iterator[Piece]:
    for task, seeds, timing in schedule(settings.tasks, settings.seeds):
        if settings.again or not is_complete(RESULTS, task, seeds):
            title = f"{task}, seeds {', '.join(map(str, seeds))}"
            yield Piece(title, partial(run_task, task, seeds, timing=timing))


def schedule(tasks: Sequence[str], asked: Sequence[int]) -> Iterator[tuple[str, tuple[int, ...], bool]]:
    """Task, seeds, and whether to time: one seed of every task before the next seed; timing last, with all seeds."""
    for count in range(1, len(asked) + 1):
        for task in tasks:
            seeds = tuple(seed for seed in asked[:count] if seed in TASKS[task].seeds)
            last = count == len(asked)
            if seeds and (last or asked[count - 1] in seeds):
                yield task, seeds, last


def is_complete(results: Path, task: str, seeds: Sequence[int]) -> bool:
    """Whether the results of a task have these seeds, all methods and learning rates, and times."""
    try:
        comparison = load_comparison(results / task / "comparison.json")
    except RecipeError:
        return False
    tries = {method.name: len(method.tried) for method in comparison.methods}
    complete = comparison.timing is not None and tries == dict.fromkeys(METHODS, len(FACTORS))
    return complete and set(seeds) <= set(comparison.seeds)


def run_task(task: str, seeds: Sequence[int], *, timing: bool) -> None:
    from prunelora.comparison.compare import compare

    runs, results = RUNS / "glue" / task, RESULTS / task
    comparison = compare(
        base=Recipe(model="minilm", task=data_of(task)),
        out=runs,
        methods=METHODS,
        seeds=seeds,
        factors=FACTORS,
        changes={"epochs": TASKS[task].epochs, "keep_heads": KEEP_HEADS, **STOCK_MEMORY},
        timing=timing,
        tell=print,
        progress=False,
    )
    comparison.save(results / "comparison.json")
    rate = next(method.learning_rate for method in comparison.methods if method.name == MAPPED)
    trial = trial_folder(MAPPED, rate, seeds[0])
    shutil.rmtree(results / "trials", ignore_errors=True)
    (results / trial).mkdir(parents=True)
    for file in ("importance.safetensors", "plan.json"):
        shutil.copyfile(runs / trial / file, results / trial / file)


BENCHMARK = Benchmark(
    measures=__doc__,
    work=work,
    pages=write_glue,
    options={
        "tasks": Option(tuple(TASKS), "tasks, joined by commas", tuple(TASKS)),
        "seeds": Option((0, 1, 2), "seeds, joined by commas; a task trains those that it has"),
    },
    needs_glue=True,
)
