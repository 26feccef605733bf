"""Seconds that `prunelora check` predicts for every stage of a run, against the run."""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks import harness

SMALL = 0.05  # Stages below this fraction of the whole time have no ratio of their own.


def work(settings: argparse.Namespace) -> Iterator[harness.Piece]:
    for number in range(settings.rounds):
        for recipe in settings.recipes:
            yield from harness.measurement(
                "forecast", f"{recipe}-{number}", settings, lambda recipe=recipe: measure(settings, recipe)
            )


def measure(settings: argparse.Namespace, recipe: str) -> dict[str, Any]:
    """Predict, run, and predict again, each in a process of its own: a run pays for the imports of its stages."""
    threads = {"OMP_NUM_THREADS": "1"} if settings.cpu else {}
    asked = (f"check {recipe}", f"run {recipe}", f"check {recipe}")
    first, real, second = (harness.in_fresh_process("forecast", settings, what, threads) for what in asked)
    return {
        "model": "minilm",
        "recipe": recipe,
        "train_rows": settings.train_rows,
        "clock": "work of the process, one thread" if settings.cpu else "wall",
        "load": list(os.getloadavg()),
        "predictions": [first, second],
        "real": real,
    }


def alone(settings: argparse.Namespace, what: str) -> dict[str, Any]:
    """A prediction ("check RECIPE"), or the seconds of every stage of a run ("run RECIPE")."""
    from prunelora.run.recipe import load_recipe

    if settings.cpu:
        count_work()
    kind, name = what.split()
    options = {"model": "minilm", "data": "rotten-tomatoes", "max_train_rows": settings.train_rows}
    recipe = load_recipe(name).with_options(options)
    if kind == "check":
        from prunelora.run.check import check_run

        outlook = check_run(recipe, latency=False).run
        assert outlook is not None
        return outlook.to_dict()
    from prunelora.run.execute import execute

    with tempfile.TemporaryDirectory() as folder:
        outcome = execute(recipe, Path(folder) / "run", progress=False)
        return {name: stage["seconds"] for name, stage in outcome.results.stages.items()}


def count_work() -> None:
    """Replace the clocks of this process by the time that it works."""
    from prunelora.evaluation import timing

    time.perf_counter = time.process_time
    timing.interleaved.__kwdefaults__["clock"] = time.process_time


def predicted(result: Mapping[str, Any]) -> dict[str, float]:
    """Seconds of every stage: the mean of the predictions."""
    predictions = [{one["stage"]: one["seconds"] for one in found["stages"]} for found in result["predictions"]]
    return {stage: statistics.mean(one[stage] for one in predictions) for stage in predictions[0]}


def ratios(result: Mapping[str, Any]) -> dict[str, float]:
    """Predicted over real: of the whole ("all"), and of every stage above a twentieth of it."""
    forecast, real = predicted(result), result["real"]
    whole = sum(real.values())
    large = {stage: forecast[stage] / seconds for stage, seconds in real.items() if seconds > SMALL * whole}
    return {"all": sum(forecast.values()) / whole, **large}


def table(results: Iterable[Mapping[str, Any]]) -> str:
    """A row for every recipe and stage: medians over rounds, with the smallest and the largest ratio."""
    by_recipe: dict[str, list[Mapping[str, Any]]] = {}
    for result in results:
        by_recipe.setdefault(result["recipe"], []).append(result)
    rows = []
    for recipe, rounds in by_recipe.items():
        found = [ratios(one) for one in rounds]
        for stage in dict.fromkeys(stage for one in found for stage in one):
            values = [one[stage] for one in found if stage in one]
            seconds = statistics.median(
                sum(one["real"].values()) if stage == "all" else one["real"][stage] for one in rounds
            )
            text = f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
            rows.append((recipe, stage, f"{seconds:.1f} s", text))
        check = statistics.median(one["seconds_of_check"] for result in rounds for one in result["predictions"])
        rows.append((recipe, "the check itself", f"{check:.1f} s", ""))
    return harness.markdown(("recipe", "stage", "real", "predicted / real"), rows)


def pages() -> list[Path]:
    results = list(harness.read_results("forecast").values())
    conditions = {f"{one['train_rows']} training rows, clock: {one['clock']}" for one in results}
    texts = {"table": table(results), "where": harness.where(results), "conditions": "; ".join(sorted(conditions))}
    return [harness.write_page("forecast", texts)]


OPTIONS = {
    "recipes": harness.Option(("tune-first", "cut-first"), "packaged recipes, joined by commas"),
    "train_rows": harness.Option(300, "rows of the embedded reviews to train on"),
    "rounds": harness.Option(1, "rounds of each recipe"),
    "cpu": harness.Option(1, "1: count the seconds that each process works, on one thread; 0: count wall time"),
}
BENCHMARK = harness.Benchmark(measures=__doc__, work=work, pages=pages, options=OPTIONS, alone=alone)
