"""Time of a whole training, all stages up to the merged model: the packaged recipes beside LoRA by PEFT alone."""

import argparse
import statistics
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.tasks import FOUR, STOCK_MEMORY, TASKS, data_of

LORA = "lora"
METHODS = (LORA, "cut-early", "tune-first", "cut-first")


def work(settings: argparse.Namespace) -> Iterator[harness.Piece]:
    """One round a task and a seed: every method is trained once, one after the other, with nothing shared."""
    for seed in settings.seeds:
        for task in settings.tasks:
            yield from harness.measurement(
                "training_time", f"{task}-{seed}", settings, lambda task=task, seed=seed: measure(task, seed)
            )


def measure(task: str, seed: int) -> dict[str, Any]:
    train(recipe_of(LORA, task, 0).with_options({"epochs": 0.02}))  # What is slow for the first time is not counted.
    seconds = {method: train(recipe_of(method, task, seed)) for method in METHODS}
    return {"model": "minilm", "task": task, "seed": seed, "epochs": TASKS[task].epochs, "seconds": seconds}


def train(recipe: Any) -> dict[str, float]:
    """Seconds of every stage up to the merged model."""
    from prunelora.run.execute import execute

    with tempfile.TemporaryDirectory() as folder:
        outcome = execute(recipe, Path(folder) / "run", until="merge", progress=False)
        return {name: stage["seconds"] for name, stage in outcome.results.stages.items()}


def recipe_of(method: str, task: str, seed: int) -> Any:
    """A method as it is trained on a task; LoRA without recomputation, as PEFT alone trains it."""
    from prunelora.run.recipe import load_recipe

    options = {"epochs": TASKS[task].epochs}
    if method == LORA:
        path = harness.FOLDER / "training_time" / "recipes" / f"{LORA}.yaml"
        recipe = load_recipe(path).with_options(options | STOCK_MEMORY)
    else:
        recipe = load_recipe(method).with_options(options)
    return recipe.model_copy(update={"model": "minilm", "task": data_of(task), "seed": seed})


def shares(rounds: Iterable[Mapping[str, Any]], method: str) -> list[float]:
    """Time of a method over LoRA's, round by round."""
    return [sum(one["seconds"][method].values()) / sum(one["seconds"][LORA].values()) for one in rounds]


def table(rounds: Iterable[Mapping[str, Any]]) -> str:
    rounds = list(rounds)
    rows = []
    for method in METHODS:
        ratios = shares(rounds, method)
        seconds = (sum(one["seconds"][method].values()) for one in rounds)
        rows.append(
            (
                method,
                f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
                *(f"{ratio:.2f} ({total:.0f} s)" for ratio, total in zip(ratios, seconds, strict=True)),
            )
        )
    columns = ("method", "time, of LoRA's", *(f"{one['task']}, seed {one['seed']}" for one in rounds))
    return harness.markdown(columns, rows)


def pages() -> list[Path]:
    rounds = list(harness.read_results("training_time").values())
    return [harness.write_page("training_time", {"table": table(rounds), "where": harness.where(rounds)})]


BENCHMARK = harness.Benchmark(
    measures=__doc__,
    work=work,
    pages=pages,
    options={
        "tasks": harness.Option(("sst2", "mrpc", "rte"), "GLUE tasks, joined by commas", FOUR),
        "seeds": harness.Option((0,), "seeds, joined by commas"),
    },
    needs_glue=True,
)
