"""Train what is missing, time it, and make the page of results.

python -m benchmarks.peers [--tasks sst2,rte] [--methods cut-first,torch-pruning-cut-first] [--seeds 0,1,2]

Needs the extra bench (Torch-Pruning). Trainings lie in runs/peers, results in benchmarks/peers/results: a file for
every cell (task, method, seed), one of times for every task, and one of what Torch-Pruning leaves of the heads. A cell
whose result is there is not run again, also where its training is not there.
"""

import argparse
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.tasks import FOUR, GLUE, NO_GLUE, TASKS, data_of

if TYPE_CHECKING:
    from benchmarks.peers.benchmark import Benchmark

ROOT = Path(__file__).resolve().parents[2]
ABLATION = ROOT / "runs" / "ablation"
GLUE_RUNS = ROOT / "runs" / "glue"
RESULTS = Path(__file__).resolve().parent / "results"
SEEDS = (0, 1, 2)


def main() -> int:
    arguments = parsed()
    if not arguments.page_only:
        lacking = missing_means()
        if lacking:
            print(lacking, file=sys.stderr)
            return 1
    from benchmarks.peers.page import write_page

    benchmark = the_benchmark()
    if not arguments.page_only:
        import transformers

        # What it would say of models that cannot be loaded is in the results.
        transformers.utils.logging.set_verbosity_error()
        run(benchmark, arguments)
    print(write_page(benchmark, seeds=SEEDS, notes={name: TASKS[name].note for name in FOUR if TASKS[name].note}))
    return 0


def parsed(words: Sequence[str] | None = None) -> argparse.Namespace:
    from benchmarks.peers.contenders import CONTENDERS

    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description="prunelora beside its peers.")
    parser.add_argument("--tasks", type=_some_of(FOUR), default=list(FOUR), help="joined by commas")
    parser.add_argument("--methods", type=_some_of(CONTENDERS), default=list(CONTENDERS), help="joined by commas")
    parser.add_argument("--seeds", type=lambda text: [int(one) for one in text.split(",")], default=list(SEEDS))
    parser.add_argument("--timing", action="store_true", help="time what is there, also where methods are missing")
    parser.add_argument("--head-counts", action="store_true", help="only try what every way to cut leaves of the heads")
    parser.add_argument("--page-only", action="store_true", help="only make the page from the results")
    return parser.parse_args(words)


def _some_of(known: Sequence[str] | dict[str, Any]) -> Any:
    def names(text: str) -> list[str]:
        asked = text.split(",")
        unknown = [one for one in asked if one not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not one of {', '.join(known)}")
        return asked

    return names


def missing_means() -> str | None:
    """What is not here that trainings need; None if all is."""
    if importlib.util.find_spec("torch_pruning") is None:
        return 'Torch-Pruning is not installed. Run: pip install -c constraints.txt -e ".[bench]"'
    if not GLUE.is_dir():
        return NO_GLUE
    return None


def the_benchmark() -> "Benchmark":
    from benchmarks.peers.benchmark import Benchmark

    return Benchmark(
        model="minilm",
        tasks={name: data_of(name) for name in FOUR},
        epochs={name: TASKS[name].epochs for name in FOUR},
        runs=ROOT / "runs" / "peers",
        results=RESULTS,
        rates=chosen_rates(),
        donors={name: [*sorted(ABLATION.glob(f"{name}/*")), GLUE_RUNS / name] for name in FOUR},
    )


def chosen_rates() -> dict[tuple[str, str], float]:
    """Learning rates that the ablation has chosen on validation rows, by task and packaged recipe."""
    from benchmarks.ablation.__main__ import RESULTS as ABLATED
    from benchmarks.ablation.results import read_all
    from benchmarks.ablation.variants import PACKAGED, VARIANTS
    from benchmarks.peers.contenders import LORA

    found, rates = read_all(ABLATED), {}
    for recipe, name in {"full": "full", LORA: "lora-all", **PACKAGED}.items():
        variant = VARIANTS[name]
        for task in FOUR:
            factor = found.factor(variant, task)
            if factor is not None:
                rates[task, recipe] = variant.rate_at(factor)
    return rates


def run(benchmark: "Benchmark", arguments: argparse.Namespace) -> None:
    """Do what is missing of what was asked for."""
    from benchmarks.peers.cells import is_here, run_contender
    from benchmarks.peers.contenders import CONTENDERS
    from benchmarks.peers.head_counts import run_head_counts
    from benchmarks.peers.present import have_cell, have_head_counts, have_timing, models_of
    from benchmarks.peers.timing import time_contenders
    from prunelora.data.load import load_task

    tasks = {name: load_task(benchmark.tasks[name]) for name in arguments.tasks}
    if not have_head_counts(benchmark) or arguments.head_counts:
        first = arguments.tasks[0]
        print(f"{first}: what every way to cut leaves of the heads ...", flush=True)
        run_head_counts(benchmark, first, tasks[first])
    if arguments.head_counts:
        return
    for seed, task, method in schedule(arguments.tasks, arguments.methods, arguments.seeds):
        if have_cell(benchmark, task, CONTENDERS[method], seed) is None:
            before = f"{task}, {method}, seed {seed}"
            print(before, flush=True)
            run_contender(
                benchmark, task, CONTENDERS[method], seed, tasks[task],
                tell=lambda line, before=before: print(f"{before}: {line}", flush=True),
            )  # fmt: skip
    for task in arguments.tasks:
        seed = SEEDS[0]  # Whose models are timed, whichever seed was trained now.
        there = models_of(benchmark, task, seed)
        timed = have_timing(benchmark, task, seed)
        complete = len(there) == len(CONTENDERS)
        if not there or not (complete or arguments.timing) or (timed is not None and timed.models == there):
            continue
        gone = [one for one in there if not is_here(benchmark.cell(task, CONTENDERS[one], seed), CONTENDERS[one])]
        if gone:
            print(f"{task}: not timed, as trainings are not here: {', '.join(gone)}", flush=True)
            continue
        print(f"{task}: timing {len(there)} methods in turn ...", flush=True)
        time_contenders(benchmark, task, seed, tasks[task])


def schedule(tasks: Sequence[str], methods: Sequence[str], seeds: Sequence[int]) -> Iterator[tuple[int, str, str]]:
    """Seed, task and method of every cell: one seed of all before the next seed of any."""
    return ((seed, task, method) for seed in seeds for task in tasks for method in methods)


if __name__ == "__main__":
    sys.exit(main())
