"""All contenders of a task, timed in turn in one run: steps of the last fine-tuning, and forward passes."""

import contextlib
from typing import Any

from benchmarks.peers.benchmark import Benchmark
from benchmarks.peers.cells import as_tuned, load_plain
from benchmarks.peers.contenders import CONTENDERS, LORA, TORCH_PRUNING
from benchmarks.peers.facts import PeerTiming, TimedContender, save_facts, timing_file
from benchmarks.peers.present import models_of
from prunelora.comparison.timing import TimingSettings, forward_times, share_of, step_batches
from prunelora.data.task import TaskData
from prunelora.evaluation.machine import describe_machine
from prunelora.evaluation.measurement import synchronise
from prunelora.evaluation.timing import Timing, interleaved
from prunelora.evaluation.training_step import training_step
from prunelora.finetuning.conditions import dropout_of
from prunelora.models.device import best_device
from prunelora.running import pretrained

SIZES = ((1, 128), (32, 128))


def time_contenders(
    benchmark: Benchmark, name: str, seed: int, task: TaskData, *, settings: TimingSettings | None = None
) -> PeerTiming:
    """Time every contender whose training is there, and write the times."""
    settings = settings or TimingSettings()
    sizes = models_of(benchmark, name, seed)
    cells = {one: benchmark.cell(name, CONTENDERS[one], seed) for one in sizes}
    models = {one: load_plain(cell, CONTENDERS[one], task) for one, cell in cells.items()}
    latencies = forward_times(models, pretrained(next(iter(cells.values())).recipe, task), settings, sizes=SIZES)
    steps = _step_times(models, cells, task, settings)  # Afterwards: it puts adapters into the models.
    found = PeerTiming(
        seed=seed,
        models=sizes,
        contenders={
            one: TimedContender(
                step_ms=steps[one].median_ms,
                step_to_lora=share_of(steps[one], steps[LORA]) if LORA in steps else None,
                latencies=tuple(latencies[one]),
            )
            for one in models
        },
        settings=vars(settings),
        machine=describe_machine(best_device()),
    )
    save_facts(found, timing_file(benchmark.results, name))
    return found


def _step_times(
    models: dict[str, Any], cells: dict[str, Any], task: TaskData, settings: TimingSettings
) -> dict[str, Timing]:
    batches = step_batches(next(iter(cells.values())), task, settings)
    calls = {}
    with contextlib.ExitStack() as stack:
        for name, cell in cells.items():
            by_another = CONTENDERS[name].cut_by == TORCH_PRUNING
            trained = as_tuned(cell, models[name], cell.method.tuning, by_another=by_another)
            stack.enter_context(dropout_of(trained, cell.method.tuning.dropout))
            calls[name] = training_step(trained, batches, cell.method.tuning)
        return interleaved(
            calls, warmup=settings.warmup, repeats=settings.step_rounds, synchronise=synchronise(best_device())
        )
