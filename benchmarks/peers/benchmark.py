"""Torch-Pruning, random and magnitude cuts, LoRA and full fine-tuning beside prunelora, on four GLUE tasks."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness import RUNS, Benchmark, Option, Piece
from benchmarks.peers.methods import CONTENDERS, RESULTS, SEEDS, TORCH_PRUNING, Peers, learning_rate
from benchmarks.peers.page import write_peers
from benchmarks.tasks import FOUR, data_of
from benchmarks.trials import Record, train, trial_for

if TYPE_CHECKING:
    from prunelora.comparison.trials import Trial
    from prunelora.data.task import TaskData

OWN_RUNS = RUNS / "peers"


def work(settings: argparse.Namespace) -> Iterator[Piece]:
    """Trials, one seed of all before the next seed; then the times of a task's models with the first seed."""
    peers = Peers()
    for seed in settings.seeds:
        for task in settings.tasks:
            for name in settings.methods:
                rate = learning_rate(name, task)
                if settings.again or peers.find(task, name, seed, rate) is None:
                    title = f"{task}, {name}, seed {seed}"
                    yield Piece(title, lambda name=name, task=task, seed=seed: peers.add(run(name, task, seed)))
    for task in settings.tasks:
        path = RESULTS / f"timing-{task}.json"
        timed = json.loads(path.read_text(encoding="utf-8"))["models"] if path.exists() else {}
        if settings.again or timed != models_of(peers, task):
            yield Piece(f"{task}, timing", lambda task=task, path=path: write_timing(peers, task, path))


def models_of(peers: Peers, task: str) -> dict[str, list[int]]:
    """Parameters and MACs of the models of the first seed: which models were timed."""
    found = {name: peers.find(task, name, SEEDS[0], learning_rate(name, task)) for name in CONTENDERS}
    return {name: [one["parameters"], one["macs"]] for name, one in found.items() if one is not None}


# Trials ---------------------------------------------------------------------------------------------------------------


def run(name: str, task: str, seed: int) -> Record:
    from prunelora.data.load import load_task

    rows, contender = load_task(data_of(task)), CONTENDERS[name]
    trial = trial_for(contender, task, learning_rate=learning_rate(name, task), seed=seed, runs=OWN_RUNS)
    cut = replace_plan(trial, rows, OWN_RUNS) if contender.cut_by == TORCH_PRUNING else None
    record = train(trial, task, rows, runs=OWN_RUNS) | {"torch_pruning": cut, "saving": []}
    record["seconds"] |= cut["seconds"] if cut else {}
    return record


def replace_plan(trial: "Trial", rows: "TaskData", runs: Path) -> dict[str, Any]:
    """Run a trial up to its plan, and replace the plan by the units that Torch-Pruning keeps.

    The trial goes on with the same cut made by prunelora, which has the same logits, since a run saves its models.
    """
    from benchmarks.peers.torch_pruning_cut import as_plan, cut_with_torch_pruning
    from prunelora.data.embedded import model_source
    from prunelora.delivery.processors import load_processor
    from prunelora.run.execute import execute
    from prunelora.stages.context import Run

    recipe = trial.recipe
    execute(recipe, trial.folder, until="plan", task=rows, store=runs / "store", progress=False)
    run = Run(recipe, trial.folder, rows, load_processor(model_source(recipe.model), rows))
    run.model = run.pretrained()
    for name in recipe.names[: recipe.names.index("score")]:
        recipe.by_name[name].restore(run, name)
    score, plan = recipe.by_name["score"], recipe.by_name["plan"]
    plan.restore(run, "plan")
    batches = run.calibration(score.rows, score.batch_size)
    budget = {"keep_macs": plan.keep_macs, "tokens": plan.tokens, "round_to": plan.round_to}
    small, facts = cut_with_torch_pruning(run.model, batches, **budget)
    as_plan(run.model, small, run.plan).save(run.path("plan", "plan.json"))
    return facts


# Times ----------------------------------------------------------------------------------------------------------------


def write_timing(peers: Peers, task: str, path: Path) -> None:
    """Time a training step and forward passes of all methods in turn, from the run folders of the first seed."""
    from prunelora.comparison.timing import TimingSettings, step_batches, time_methods
    from prunelora.data.load import load_task
    from prunelora.evaluation.machine import describe_machine
    from prunelora.models.device import best_device
    from prunelora.storage import write_json

    settings = TimingSettings()
    trials = {
        name: trial_for(CONTENDERS[name], task, learning_rate=learning_rate(name, task), seed=SEEDS[0], runs=OWN_RUNS)
        for name in models_of(peers, task)
    }
    rows = load_task(data_of(task))
    batches = step_batches(next(iter(trials.values())), rows, settings)
    times = time_methods(trials, rows, batches, settings)
    contenders = {
        name: {
            "step_ms": timed.step_ms,
            "step_to_lora": timed.step_to_lora and vars(timed.step_to_lora),
            "latencies": [latency.model_dump() for latency in timed.latencies],
        }
        for name, timed in times.items()
    }
    content = {"seed": SEEDS[0], "models": models_of(peers, task), "contenders": contenders, "settings": vars(settings)}
    write_json(path, content | {"machine": describe_machine(best_device())})


BENCHMARK = Benchmark(
    measures=__doc__,
    work=work,
    pages=write_peers,
    options={
        "tasks": Option(FOUR, "tasks, joined by commas", FOUR),
        "methods": Option(tuple(CONTENDERS), "methods, joined by commas", tuple(CONTENDERS)),
        "seeds": Option(SEEDS, "seeds, joined by commas"),
    },
    needs_glue=True,
    packages=("torch_pruning",),
)
