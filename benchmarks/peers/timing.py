"""All contenders of a task, timed in turn in one run: steps of the last fine-tuning, and forward passes."""

import contextlib
from functools import partial
from typing import Any

import torch

from benchmarks.peers.benchmark import Benchmark
from benchmarks.peers.cells import as_tuned, load_plain
from benchmarks.peers.contenders import CONTENDERS, LORA, TORCH_PRUNING
from benchmarks.peers.facts import PeerTiming, TimedContender, save_facts, timing_file
from benchmarks.peers.present import models_of
from prunelora.comparison.results import LatencyFacts, Share
from prunelora.comparison.timing import DENSE, TimingSettings
from prunelora.data.embedded import model_source
from prunelora.data.task import TaskData
from prunelora.data.tokens import calibration_batches
from prunelora.delivery.processors import load_tokenizer
from prunelora.evaluation.latency import Timing, interleaved, ratio
from prunelora.evaluation.machine import describe_machine
from prunelora.evaluation.measurement import synchronise
from prunelora.evaluation.training_step import training_step
from prunelora.finetuning.training import dropout_of
from prunelora.models.device import best_device, on_device
from prunelora.models.inputs import longest_input, random_inputs
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
    latencies = _forward_times(models | {DENSE: pretrained(next(iter(cells.values())).recipe, task)}, settings)
    steps = _step_times(models, cells, task, settings)  # Afterwards: it puts adapters into the models.
    found = PeerTiming(
        seed=seed,
        models=sizes,
        contenders={
            one: TimedContender(
                step_ms=steps[one].median_ms,
                step_to_lora=_share(steps[one], steps[LORA]) if LORA in steps else None,
                latencies=latencies[one],
            )
            for one in models
        },
        settings=vars(settings),
        machine=describe_machine(best_device()),
    )
    save_facts(found, timing_file(benchmark.results, name))
    return found


def _forward_times(models: dict[str, Any], settings: TimingSettings) -> dict[str, tuple[LatencyFacts, ...]]:
    longest = min(longest_input(models[DENSE]) or SIZES[-1][1], SIZES[-1][1])
    found: dict[str, list[LatencyFacts]] = {name: [] for name in models}
    for batch_size, most_tokens in SIZES:
        tokens = min(most_tokens, longest)
        generator = torch.Generator().manual_seed(0)
        inputs = random_inputs(models[DENSE], batch_size=batch_size, tokens=tokens, generator=generator)
        ready = on_device(inputs, models[DENSE])
        calls = {name: partial(model, **ready) for name, model in models.items()}
        for model in models.values():
            model.eval()
        with torch.inference_mode():
            timings = interleaved(
                calls,
                warmup=settings.warmup,
                repeats=settings.forward_rounds,
                synchronise=synchronise(best_device()),
            )
        for name, timing in timings.items():
            found[name].append(
                LatencyFacts(
                    batch_size=batch_size,
                    tokens=tokens,
                    milliseconds=timing.median_ms,
                    to_dense=_share(timing, timings[DENSE]),
                )
            )
    return {name: tuple(facts) for name, facts in found.items()}


def _step_times(
    models: dict[str, Any], cells: dict[str, Any], task: TaskData, settings: TimingSettings
) -> dict[str, Timing]:
    first = next(iter(cells.values()))
    size = first.method.tuning.batch_size
    batches = calibration_batches(
        task,
        load_tokenizer(model_source(first.recipe.model)),
        rows=settings.step_batches * size,
        batch_size=size,
        max_length=first.recipe.task.max_length,
    )
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


def _share(timing: Timing, reference: Timing) -> Share:
    found = ratio(timing, reference)
    return Share(median=found.median, q25=found.q25, q75=found.q75)
