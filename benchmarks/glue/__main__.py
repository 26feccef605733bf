"""Train what is missing, and make the page of results.

python -m benchmarks.glue [--tasks sst2,rte] [--seeds 0,1,2] [--page-only]

Trainings lie in runs/glue (one folder each; whatever is finished there is not repeated). Results lie in
benchmarks/glue/results, a folder a task: comparison.json with a row for every training, and the scores and the plan
that the heat maps are drawn from. A task whose results are complete is not run again, also where its trainings are not
there.
"""

import argparse
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.tasks import GLUE, NO_GLUE, STOCK_MEMORY, TASKS, data_of

ROOT = Path(__file__).resolve().parents[2]
RUNS = ROOT / "runs" / "glue"
RESULTS = Path(__file__).resolve().parent / "results"
METHODS = ("full", "lora", "prune-lora", "random-prune-lora")
FACTORS = (1.0, 3.0)
KEEP_HEADS = 50  # Of 72: 30 % of the heads are cut, as 44 of the paper's 144.
MAPPED = "prune-lora"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.glue", description="The GLUE benchmark.")
    parser.add_argument("--tasks", default=",".join(TASKS), help="tasks, joined by commas")
    parser.add_argument("--seeds", default="0,1,2", help="seeds, joined by commas; a task runs those it has")
    parser.add_argument("--page-only", action="store_true", help="only make the page from the results")
    arguments = parser.parse_args()
    if not arguments.page_only:
        if not GLUE.is_dir():
            print(NO_GLUE, file=sys.stderr)
            return 1
        asked = [int(seed) for seed in arguments.seeds.split(",")]
        for name, seeds, timing in schedule(arguments.tasks.split(","), asked):
            run_task(name, seeds, timing=timing)
    from benchmarks.glue.page import write_page

    for path in write_page(RESULTS, {name: task.note for name, task in TASKS.items() if task.note}):
        print(path)
    return 0


def schedule(names: Sequence[str], asked: Sequence[int]) -> Iterator[tuple[str, tuple[int, ...], bool]]:
    """Task, seeds, and whether to time, in order.

    One seed of every task before the next seed of any: what is there at any time says something about all tasks.
    Timing comes last, with all seeds.
    """
    for count in range(1, len(asked) + 1):
        for name in names:
            seeds = tuple(seed for seed in asked[:count] if seed in TASKS[name].seeds)
            last = count == len(asked)
            if seeds and (last or asked[count - 1] in seeds):
                yield name, seeds, last


def run_task(name: str, seeds: tuple[int, ...], *, timing: bool) -> None:
    """Run what is missing of a task, and write its results."""
    from prunelora.comparison.compare import compare
    from prunelora.recipe import Recipe

    task = TASKS[name]
    if have(name, seeds):
        return
    results = compare(
        base=Recipe(model="minilm", task=data_of(name)),
        out=RUNS / name,
        methods=METHODS,
        seeds=seeds,
        factors=FACTORS,
        changes={"epochs": task.epochs, "keep_heads": KEEP_HEADS, **STOCK_MEMORY},
        timing=timing,
        tell=lambda line: print(f"{name}: {line}", flush=True),
        progress=False,
    )
    results.save(RESULTS / name / "comparison.json")
    mapped = results.method(MAPPED)
    if mapped is not None:
        place = Path("cells") / MAPPED / f"lr-{mapped.learning_rate:g}" / f"seed-{seeds[0]}"
        shutil.rmtree(RESULTS / name / "cells", ignore_errors=True)
        (RESULTS / name / place).mkdir(parents=True)
        for file in ("importance.safetensors", "plan.json"):
            shutil.copyfile(RUNS / name / place / file, RESULTS / name / place / file)


def have(name: str, seeds: tuple[int, ...]) -> bool:
    """Whether the results of a task are there, for these seeds, methods and learning rates, and timed."""
    from prunelora.comparison.results import load_comparison
    from prunelora.errors import RecipeError

    try:
        found = load_comparison(RESULTS / name / "comparison.json")
    except RecipeError:
        return False
    epochs = {
        stage["epochs"] for cell in found.trials for stage in cell.recipe["stages"] if stage["stage"] == "finetune"
    }
    return (
        found.timing is not None
        and set(seeds) <= set(found.seeds)
        and [one.name for one in found.methods] == list(METHODS)
        and epochs == {TASKS[name].epochs}
        and all(len(one.tried) == len(FACTORS) for one in found.methods)
    )


if __name__ == "__main__":
    sys.exit(main())
