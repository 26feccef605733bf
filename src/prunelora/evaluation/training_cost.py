"""What a training costs on this device before it is done: memory of a step, counted, and its time, measured."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from prunelora.evaluation.measurement import synchronise
from prunelora.evaluation.memory import TrainingMemory, training_memory
from prunelora.evaluation.timing import Timing, interleaved
from prunelora.evaluation.training_step import random_batch, training_step
from prunelora.finetuning.contexts import checkpointing_of, dropout_of, precision_of
from prunelora.finetuning.settings import FineTuneSettings
from prunelora.models.device import device_of
from prunelora.models.state import left_as_found
from prunelora.planning.plan import Plan

# Enough to tell what a training takes, in the time of a dozen steps of it.
ROUNDS, WARMUP = 3, 1


@dataclass(frozen=True)
class Training:
    """How a model is trained.

    Attributes:
        settings: Of the fine-tuning.
        ready: Makes a model, cut by a plan or dense (None), ready for it: adds the adapter, says what is trained.
        before: How the dense model is trained before it is cut; None where it is not.
    """

    settings: FineTuneSettings
    ready: Callable[[Any, Plan | None], Any]
    before: "Training | None" = None


@dataclass(frozen=True)
class TrainingCost:
    """Of one way to train.

    Attributes:
        memory: Of a step, counted from its tensors.
        step: Times of a step.
    """

    memory: TrainingMemory
    step: Timing

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"memory_bytes": self.memory.total, **asdict(self.memory), "step": self.step.to_dict()}


def step_memory(model: nn.Module, settings: FineTuneSettings, *, tokens: int) -> TrainingMemory:
    """Of a step on a model as it is trained, of as many random rows as a step has, each of `tokens` tokens.

    With gradient checkpointing that is what is kept between the passes; what one layer needs while it is computed
    again comes on top.
    """
    batch = random_batch(model, rows=settings.batch_size, tokens=tokens)
    with dropout_of(model, settings.dropout), checkpointing_of(model, settings), precision_of(model, settings):
        return training_memory(model, batch, recompute=settings.recomputes)


def training_costs(
    models: Mapping[str, nn.Module],
    settings: FineTuneSettings | Mapping[str, FineTuneSettings],
    *,
    tokens: int,
    step_tokens: int | None = None,
    rounds: int = ROUNDS,
    warmup: int = WARMUP,
) -> dict[str, TrainingCost]:
    """Count the memory of a training step of several models, and time their steps in turn, on random rows.

    Neither depends on what the weights are.

    Args:
        models: As they are trained, by name: with adapters, and `requires_grad` set. Steps hardly move their weights.
        settings: Of the fine-tuning: rows a step, dropout, what is computed again; one for all, or each model's own.
        tokens: Length of the rows whose memory is counted; of the longest ones, where rows differ.
        step_tokens: Length of the rows of the steps that are timed: of an average one; `tokens` if not given.
        rounds: Rounds that are timed; in each, every model takes a step.
        warmup: Rounds before, that are not.
    """
    own = settings if isinstance(settings, Mapping) else dict.fromkeys(models, settings)
    with contextlib.ExitStack() as stack:
        for name, model in models.items():
            stack.enter_context(left_as_found(model))
            stack.enter_context(dropout_of(model, own[name].dropout))
        memory = {name: step_memory(model, own[name], tokens=tokens) for name, model in models.items()}
        steps = {
            name: training_step(
                model, [random_batch(model, rows=own[name].batch_size, tokens=step_tokens or tokens)], own[name]
            )
            for name, model in models.items()
        }
        wait = synchronise(device_of(next(iter(models.values()))))
        timings = interleaved(steps, warmup=warmup, repeats=rounds, synchronise=wait)
    return {name: TrainingCost(memory[name], timings[name]) for name in models}
