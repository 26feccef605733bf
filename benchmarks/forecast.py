"""How near `check` comes to what a run then takes: predicted and real seconds of every stage, in turn.

Every round predicts a recipe, runs it, and predicts it again, each in a process of its own, since a run pays for the
imports of its stages. A stage's prediction is the mean of the two, as a machine that does other work too is not equally
busy all the time.

Rounds of other recipes that the result file has already, of the same machine, stay in it.

On a machine that does other work, --cpu counts the seconds that each process works, on one thread: without that other
work they are seconds of the clock.

python -m benchmarks.forecast [--recipes tune-first,cut-first] [--train-rows 800] [--rounds 3] [--cpu] [--out FILE]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.training_time import found_before

ROOT = Path(__file__).resolve().parents[1]
RESULT = Path(__file__).resolve().parent / "results" / "forecast.json"
# Stages that take less of the whole are not held to a ratio of their own.
SMALL = 0.05


def main(typed: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.forecast", description=__doc__.splitlines()[0])
    parser.add_argument("--recipes", default="tune-first,cut-first", help="packaged recipes, joined by commas")
    parser.add_argument("--train-rows", type=int, default=800, help="rows of the embedded reviews to train on")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each recipe")
    parser.add_argument("--cpu", action="store_true", help="count the seconds that processes work, on one thread")
    parser.add_argument("--out", type=Path, default=RESULT, help="result file")
    parser.add_argument("--one", choices=["check", "run"], help=argparse.SUPPRESS)
    arguments = parser.parse_args(typed)
    recipes = arguments.recipes.split(",")
    if arguments.one:
        if arguments.cpu:
            _count_work()
        work = {"check": checked, "run": ran}[arguments.one]
        print(json.dumps(work(recipes[0], arguments.train_rows)))
        return 0
    from prunelora.evaluation.machine import describe_machine
    from prunelora.models.device import best_device
    from prunelora.storage import write_json

    machine = describe_machine(best_device())
    rounds = [one for one in found_before(arguments.out, machine) if one["recipe"] not in recipes]
    for _ in range(arguments.rounds):
        for recipe in recipes:
            before, real, after = (
                _alone(work, recipe, arguments.train_rows, arguments.cpu) for work in ("check", "run", "check")
            )
            rounds.append(
                {
                    "recipe": recipe,
                    "train_rows": arguments.train_rows,
                    "clock": "work of the process, one thread" if arguments.cpu else "wall",
                    "load": list(os.getloadavg()),
                    "predictions": [before, after],
                    "real": real,
                }
            )
            # After each, so that a benchmark that is stopped has what it found.
            write_json(
                arguments.out, {"benchmark": "forecast", "model": "minilm", "rounds": rounds, "machine": machine}
            )
            print("\n".join(lines(rounds[-1:])), flush=True)
    print("\n".join(lines(rounds)))
    return 0


def _count_work() -> None:
    """Let all that is timed in this process be timed by how long the process works."""
    time.perf_counter = time.process_time
    from prunelora.evaluation import timing

    timing.interleaved.__kwdefaults__["clock"] = time.process_time


def _alone(work: str, recipe: str, train_rows: int, cpu: bool) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.forecast", "--one", work]
    command += ["--recipes", recipe, "--train-rows", str(train_rows)]
    command += ["--cpu"] if cpu else []
    threads = {"OMP_NUM_THREADS": "1"} if cpu else {}
    done = subprocess.run(command, cwd=ROOT, env=os.environ | threads, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def checked(recipe: str, train_rows: int) -> dict[str, Any]:
    """What `check` says."""
    from prunelora.checking import check_run

    outlook = check_run(_recipe(recipe, train_rows), latency=False).run
    assert outlook is not None
    return outlook.to_dict()


def ran(recipe: str, train_rows: int) -> dict[str, float]:
    """Seconds of every stage of a run."""
    from prunelora.pipeline import execute

    with tempfile.TemporaryDirectory() as folder:
        outcome = execute(_recipe(recipe, train_rows), Path(folder) / "run", progress=False)
        return {name: stage["seconds"] for name, stage in outcome.results.stages.items()}


def _recipe(name: str, train_rows: int) -> Any:
    from prunelora.recipe import load_recipe

    options = {"model": "minilm", "data": "rotten-tomatoes", "max_train_rows": train_rows}
    return load_recipe(name).with_options(options)


def predicted(one: Mapping[str, Any]) -> dict[str, float]:
    """Seconds of every stage: the mean of the predictions before and after the run."""
    both = [{stage["stage"]: stage["seconds"] for stage in found["stages"]} for found in one["predictions"]]
    return {stage: statistics.mean(found[stage] for found in both) for stage in both[0]}


def ratios(one: Mapping[str, Any]) -> dict[str, float]:
    """Predicted over real: of the whole ("all"), and of every stage that is more than a twentieth of it."""
    foreseen, real = predicted(one), one["real"]
    whole = sum(real.values())
    large = {stage: foreseen[stage] / seconds for stage, seconds in real.items() if seconds > SMALL * whole}
    return {"all": sum(foreseen.values()) / whole, **large}


def lines(rounds: Iterable[Mapping[str, Any]]) -> list[str]:
    """A row a recipe and stage: medians of the rounds, and the smallest and the largest ratio."""
    rounds = list(rounds)
    said = []
    for recipe in dict.fromkeys(one["recipe"] for one in rounds):
        own = [one for one in rounds if one["recipe"] == recipe]
        found = [ratios(one) for one in own]
        cost = statistics.median(of["seconds_of_check"] for one in own for of in one["predictions"])
        whole = statistics.median(sum(one["real"].values()) for one in own)
        said.append(f"{recipe}: {whole:.0f} s, foreseen in {cost:.0f} s")
        for stage in dict.fromkeys(stage for one in found for stage in one):
            each = [one[stage] for one in found if stage in one]
            said.append(
                f"  {stage:<12} predicted / real {statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f})"
            )
    return said


if __name__ == "__main__":
    sys.exit(main())
