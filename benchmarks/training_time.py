"""What training takes from beginning to end: the packaged recipes beside LoRA by PEFT alone, trained in turn.

All stages up to the merged model are counted: warm-up, scoring, repair and judging on the validation rows with the
tunings. LoRA is on every linear layer of the dense model, with nothing computed again; all train for as many epochs in
all. Nothing is shared between trainings, and every round (a task and a seed) trains each once, one after the other.

Rounds of other tasks and seeds that the result file has already, of the same machine, stay in it.

python -m benchmarks.training_time [--tasks sst2,mrpc,rte] [--seeds 0] [--out FILE]
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.tasks import FOUR, GLUE, NO_GLUE, TASKS, data_of

RESULT = Path(__file__).resolve().parent / "results" / "training_time.json"
REFERENCE = "lora"
METHODS = (REFERENCE, "cut-early", "tune-first", "cut-first")


def main(typed: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training_time", description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", default="sst2,mrpc,rte", help=f"tasks of {', '.join(FOUR)}, joined by commas")
    parser.add_argument("--seeds", default="0", help="seeds, joined by commas")
    parser.add_argument("--out", type=Path, default=RESULT, help="result file")
    arguments = parser.parse_args(typed)
    tasks, seeds = arguments.tasks.split(","), [int(seed) for seed in arguments.seeds.split(",")]
    unknown = [task for task in tasks if task not in FOUR]
    if unknown:
        parser.error(f"{unknown[0]} is not known; there are {', '.join(FOUR)}")
    asked = {(task, seed) for task in tasks for seed in seeds}
    if not GLUE.is_dir():
        print(NO_GLUE, file=sys.stderr)
        return 1
    from prunelora.evaluation.machine import describe_machine
    from prunelora.models.device import best_device
    from prunelora.storage import write_json

    _linear_probe(tasks[0])
    machine = describe_machine(best_device())
    rounds = [one for one in found_before(arguments.out, machine) if (one["task"], one["seed"]) not in asked]
    for seed in seeds:
        for task in tasks:
            rounds.append({"task": task, "seed": seed, "seconds": trained(task, seed)})
            # After each, so that a run that is stopped has what it found.
            write_json(
                arguments.out,
                {
                    "benchmark": "training_time",
                    "model": "minilm",
                    "epochs": {one["task"]: TASKS[one["task"]].epochs for one in rounds},
                    "rounds": rounds,
                    "machine": machine,
                },
            )
    print("\n".join(lines(rounds)))
    return 0


def found_before(path: Path, machine: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rounds in a result file; none of another machine, whose seconds say something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    return list(content["rounds"]) if content["machine"] == machine else []


def _linear_probe(task: str) -> None:
    """A few steps that are not counted: what is slow for the first time is not to be LoRA's."""
    from prunelora.pipeline import execute

    with tempfile.TemporaryDirectory() as folder:
        recipe = recipe_of(REFERENCE, task, 0).with_options({"epochs": 0.02})
        execute(recipe, Path(folder) / "run", until="merge", progress=False)


def trained(task: str, seed: int) -> dict[str, dict[str, float]]:
    """Seconds of every stage of each method, each trained in a folder of its own that does not stay."""
    from prunelora.data.load import load_task
    from prunelora.pipeline import execute

    rows = load_task(data_of(task))
    found = {}
    for method in METHODS:
        with tempfile.TemporaryDirectory() as folder:
            recipe = recipe_of(method, task, seed)
            outcome = execute(recipe, Path(folder) / "run", until="merge", task=rows, progress=False)
            found[method] = {name: stage["seconds"] for name, stage in outcome.results.stages.items()}
            print(f"{task}, seed {seed}, {method}: {sum(found[method].values()):.0f} s", flush=True)
    return found


def recipe_of(method: str, task: str, seed: int) -> Any:
    """A method as it is trained on a task."""
    from benchmarks.ablation.variants import VARIANTS
    from prunelora.recipe import load_recipe

    if method == REFERENCE:
        recipe = VARIANTS["lora-all"].for_task(task, 1.0)
    else:
        recipe = load_recipe(method).with_options({"epochs": TASKS[task].epochs})
    return recipe.model_copy(update={"model": "minilm", "task": data_of(task), "seed": seed})


def shares(rounds: Iterable[Mapping[str, Any]], method: str) -> list[float]:
    """What a method takes of LoRA's time, round by round."""
    return [sum(one["seconds"][method].values()) / sum(one["seconds"][REFERENCE].values()) for one in rounds]


def lines(rounds: Sequence[Mapping[str, Any]]) -> list[str]:
    """A row a method: median of the rounds' ratios, the smallest and the largest."""
    said = []
    for method in METHODS:
        found = shares(rounds, method)
        each = ", ".join(f"{one['task']} {share:.2f}" for one, share in zip(rounds, found, strict=True))
        said.append(
            f"{method:<12} {statistics.median(found):.2f} of LoRA's ({min(found):.2f} to {max(found):.2f}: {each})"
        )
    return said


if __name__ == "__main__":
    sys.exit(main())
