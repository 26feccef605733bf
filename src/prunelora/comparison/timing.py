"""Costs of every method on this machine: times of training steps and forward passes, and memory.

Methods are timed in turn on identical batches, after the trainings, so that other load hits all of them alike.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from prunelora.comparison.results import LatencyFacts, MemoryFacts, MethodTimes
from prunelora.comparison.trials import Trial
from prunelora.data.embedded import model_source
from prunelora.data.task import TaskData
from prunelora.data.tokens import calibration_batches
from prunelora.delivery.checkpoints import load
from prunelora.delivery.processors import load_processor
from prunelora.evaluation.measurement import sizes_for, synchronise, timed_passes
from prunelora.evaluation.memory import TrainingMemory, inference_memory
from prunelora.evaluation.timing import Timing, interleaved, ratio, weighted_mean
from prunelora.evaluation.training_cost import step_memory
from prunelora.evaluation.training_step import random_batch, training_step
from prunelora.finetuning.contexts import dropout_of
from prunelora.models.device import best_device, device_of
from prunelora.models.inputs import image_tokens, reads_images
from prunelora.planning.plan import Plan
from prunelora.pruning.surgery import prune_
from prunelora.run.keys import digest
from prunelora.stages.base import stage_file
from prunelora.stages.context import pretrained
from prunelora.stages.finetune import FineTuneStage
from prunelora.stages.plan import PlanStage
from prunelora.stages.training import ready_to_train

SIZES = ((1, 32), (1, 128), (32, 128))
MEMORY_ROWS, MEMORY_TOKENS = 32, 128
# Name of the dense model among the forward passes; no recipe file can have it.
DENSE = "(dense)"


@dataclass(frozen=True)
class TimingSettings:
    """Rounds and batches of the timing.

    Attributes:
        step_batches: Different batches of training rows, used in turn.
        step_rounds: Timed rounds of training steps.
        forward_rounds: Timed rounds of forward passes of each size.
        warmup: Untimed rounds before them.
    """

    step_batches: int = 8
    step_rounds: int = 24
    forward_rounds: int = 15
    warmup: int = 3


def tunings_of(trial: Trial) -> Iterator[tuple[FineTuneStage, Plan | None]]:
    """Every fine-tuning of a finished trial, with the plan of the model at its start; None while dense."""
    plan = None
    for name, stage in trial.recipe.by_name.items():
        if isinstance(stage, PlanStage):
            plan = Plan.load(trial.folder / stage_file(name, "plan.json"))
        elif isinstance(stage, FineTuneStage):
            yield stage, plan


def as_trained(trial: Trial, task: TaskData, tuning: FineTuneStage, plan: Plan | None) -> nn.Module:
    """The model at the start of a trial's fine-tuning, pruned and with its adapter, but with pretrained weights.

    Time and memory do not depend on the weights.
    """
    model = pretrained(trial.recipe, task)
    if plan is not None:
        prune_(model, plan)
    return ready_to_train(model, plan, tuning, seed=trial.recipe.seed)


def measure_memory(trial: Trial, task: TaskData) -> MemoryFacts:
    """Count the memory of a training step of the fine-tuning that needs most, and of a forward pass of 32 rows.

    A model that is tuned before it is pruned needs the dense model's memory once. Rows have 128 tokens, or as many as
    the model has positions for, or as an image has patches.
    """
    steps = [_step_memory(trial, task, tuning, plan) for tuning, plan in tunings_of(trial)]
    training, device_peak, step_rows = max(steps, key=lambda step: step[0].total)
    merged = load(trial.folder / "model").to(best_device())
    batch = random_batch(merged, rows=MEMORY_ROWS, tokens=MEMORY_TOKENS)
    return MemoryFacts(
        weights=training.weights_bytes,
        gradients=training.gradients_bytes,
        optimizer=training.optimizer_bytes,
        saved=training.saved_bytes,
        device_peak=device_peak,
        inference=inference_memory(merged, batch),
        step_rows=step_rows,
        inference_rows=MEMORY_ROWS,
        tokens=image_tokens(merged) if reads_images(merged) else batch["input_ids"].shape[1],
    )


def _step_memory(
    trial: Trial, task: TaskData, tuning: FineTuneStage, plan: Plan | None
) -> tuple[TrainingMemory, int | None, int]:
    """Counted memory of a step of one fine-tuning, the peak of the device's own counter in it, and its rows."""
    model, rows = as_trained(trial, task, tuning, plan), tuning.batch_size
    counted, device = step_memory(model, tuning, tokens=MEMORY_TOKENS), device_of(model)
    if device.type != "cuda":
        return counted, None, rows
    with dropout_of(model, tuning.dropout):
        step = training_step(model, [random_batch(model, rows=rows, tokens=MEMORY_TOKENS)], tuning)
        step()  # Allocates the optimiser's state.
        torch.cuda.reset_peak_memory_stats(device)
        step()
    return counted, int(torch.cuda.max_memory_allocated(device)), rows


def time_methods(
    trials: Mapping[str, Trial], task: TaskData, batches: Sequence[Mapping[str, Any]], settings: TimingSettings
) -> dict[str, MethodTimes]:
    """Time training steps and forward passes of one finished trial of every method, in turn.

    Args:
        trials: By the names of their methods.
        task: Its data.
        batches: Of training rows, as `step_batches` makes them.
        settings: Numbers of rounds.
    """
    steps = _time_steps(trials, task, batches, settings)
    models: dict[str, nn.Module] = {
        name: load(trial.folder / "model").to(best_device()) for name, trial in trials.items()
    }
    latencies = forward_times(models, pretrained(next(iter(trials.values())).recipe, task), settings)
    return {
        name: MethodTimes(
            name=name,
            step_ms=timing.median_ms,
            step_to_full=ratio(timing, steps["full"]) if "full" in steps else None,
            step_to_lora=ratio(timing, steps["lora"]) if "lora" in steps else None,
            latencies=tuple(latencies[name]),
        )
        for name, timing in steps.items()
    }


def _time_steps(
    trials: Mapping[str, Trial], task: TaskData, batches: Sequence[Mapping[str, Any]], settings: TimingSettings
) -> dict[str, Timing]:
    models: dict[str, nn.Module] = {}
    calls: dict[str, Callable[[], None]] = {}
    shares: dict[str, dict[str, float]] = {name: {} for name in trials}  # A method's epochs by timed step.
    with contextlib.ExitStack() as stack:
        for name, trial in trials.items():
            for tuning, plan in tunings_of(trial):
                key = _work_of_a_step(tuning, plan)
                if key not in models:  # Methods with the same first stages share it.
                    models[key] = as_trained(trial, task, tuning, plan)
                    calls[key] = training_step(models[key], batches, tuning)
                    stack.enter_context(dropout_of(models[key], tuning.dropout))
                shares[name][key] = shares[name].get(key, 0.0) + tuning.epochs
        timings = interleaved(
            calls,
            warmup=settings.warmup,
            repeats=settings.step_rounds,
            synchronise=synchronise(device_of(models[next(iter(models))])),
        )
    return {
        name: weighted_mean([(timings[key], epochs) for key, epochs in parts.items()]) for name, parts in shares.items()
    }


def _work_of_a_step(tuning: FineTuneStage, plan: Plan | None) -> str:
    """A key that is equal for fine-tunings whose steps do the same work, given the same rows."""
    settings = tuning.model_dump(mode="json", exclude={"epochs", "learning_rate"})
    return digest({"settings": settings, "plan": plan.id if plan is not None else None})


def step_batches(trial: Trial, task: TaskData, settings: TimingSettings) -> Sequence[Mapping[str, Any]]:
    """Batches of training rows for timing, with as many rows as a step of the trial."""
    rows = trial.method.tuning.batch_size
    return calibration_batches(
        task,
        load_processor(model_source(trial.recipe.model), task),
        rows=settings.step_batches * rows,
        batch_size=rows,
        max_length=trial.recipe.task.max_length,
    )


def forward_times(
    models: Mapping[str, nn.Module], dense: nn.Module, settings: TimingSettings
) -> dict[str, list[LatencyFacts]]:
    """Time forward passes of models in turn with the dense model, on random tokens of every size that it can read."""
    latencies: dict[str, list[LatencyFacts]] = {name: [] for name in models}
    for size in sizes_for(dense, SIZES):
        timings = timed_passes({**models, DENSE: dense}, size, warmup=settings.warmup, repeats=settings.forward_rounds)
        for name in models:
            latency = LatencyFacts(
                batch_size=size[0],
                tokens=size[1],
                milliseconds=timings[name].median_ms,
                to_dense=ratio(timings[name], timings[DENSE]),
            )
            latencies[name].append(latency)
    return latencies
