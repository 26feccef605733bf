"""Cost of a training before it is done: memory of a step, counted, and its time, measured on random weights."""

import contextlib
import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from peft import PeftModel
from torch import nn

from prunelora.evaluation.extrapolation import ROUNDS, UNTIMED
from prunelora.evaluation.measurement import synchronise
from prunelora.evaluation.memory import TrainingMemory, training_memory
from prunelora.evaluation.timing import Timing, interleaved
from prunelora.evaluation.training_step import random_batch, training_step
from prunelora.finetuning.contexts import checkpointing_of, dropout_of, precision_of
from prunelora.finetuning.settings import FineTuneSettings
from prunelora.models.device import device_of
from prunelora.models.state import left_as_found
from prunelora.planning.plan import Plan
from prunelora.pruning.surgery import prune_

# Ways to train, named as the methods of `prunelora compare`, in the order of columns. Before the cut is the dense
# model's tuning with which a recipe may begin.
BEFORE = "before-the-cut"
WAYS = ("full", "lora", BEFORE, "prune-lora", "prune-full")
_AFTER = ("prune-lora", "prune-full")


@dataclass(frozen=True)
class Training:
    """How a model is trained.

    Attributes:
        settings: Settings of the fine-tuning.
        ready: Makes a model, cut by a plan or dense (None), ready for it: adds the adapter and sets `requires_grad`.
        before: Training of the dense model before the cut; None without one.
    """

    settings: FineTuneSettings
    ready: Callable[[Any, Plan | None], Any]
    before: "Training | None" = None


@dataclass(frozen=True)
class TrainingCost:
    """Cost of one way to train.

    Attributes:
        rows: Rows of a step; if gradients are accumulated, of one forward and backward pass.
        epochs: Epochs of the recipe that are trained this way.
        memory: Memory of a step, counted from its tensors.
        step: Times of a step.
    """

    rows: int
    epochs: float
    memory: TrainingMemory
    step: Timing

    def epoch_minutes(self, train_rows: int) -> float:
        """Minutes of an epoch without evaluation."""
        return math.ceil(train_rows / self.rows) * self.step.median_ms / 60_000


@dataclass(frozen=True)
class TrainingOutlook:
    """Cost of a recipe's training, dense and after the cut.

    Attributes:
        memory_tokens: Length of the rows whose memory is counted.
        step_tokens: Length of the rows whose steps are timed: the data's median if there is data.
        train_rows: Training rows of the data; None without data.
        ways: Costs by "full", "lora" (both of the dense model) and "prune-lora" (after the cut); by "full" and
            "prune-full" if all weights are trained after the cut; and by "before-the-cut" if the recipe tunes there.
    """

    memory_tokens: int
    step_tokens: int
    train_rows: int | None
    ways: dict[str, TrainingCost]

    def epoch_minutes(self, way: str) -> float | None:
        """Minutes of an epoch without evaluation; None without data."""
        return None if self.train_rows is None else self.ways[way].epoch_minutes(self.train_rows)

    def all_minutes(self, way: str) -> float | None:
        """Minutes of all the recipe's epochs, without evaluation, scoring and repair; None without data.

        A way after the cut begins with the recipe's epochs before the cut; the dense ways train for all epochs.
        """
        if self.train_rows is None:
            return None
        parts = [self.ways[way], *([self.ways[BEFORE]] if way in _AFTER and BEFORE in self.ways else [])]
        return sum(part.epochs * part.epoch_minutes(self.train_rows) for part in parts)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "memory_tokens": self.memory_tokens,
            "step_tokens": self.step_tokens,
            "weights": "random",
            "ways": {
                name: {
                    "rows": cost.rows,
                    "epochs": cost.epochs,
                    "memory_bytes": cost.memory.total,
                    **asdict(cost.memory),
                    "step": cost.step.to_dict(),
                    "epoch_minutes": self.epoch_minutes(name),
                    "all_epochs_minutes": self.all_minutes(name),
                }
                for name, cost in self.ways.items()
            },
        }


def step_memory(model: nn.Module, settings: FineTuneSettings, *, tokens: int) -> TrainingMemory:
    """Count the memory of a training step with random rows of `tokens` tokens.

    With gradient checkpointing it is the memory kept between the passes; recomputing one layer adds to it.
    """
    batch = random_batch(model, rows=settings.batch_size, tokens=tokens)
    with dropout_of(model, settings.dropout), checkpointing_of(model, settings), precision_of(model, settings):
        return training_memory(model, batch, recompute=settings.recomputes)


def training_outlook(
    dense: nn.Module,
    plan: Plan,
    training: Training,
    *,
    tokens: int,
    step_tokens: int | None = None,
    train_rows: int | None = None,
) -> TrainingOutlook:
    """Count and time the steps of every way to train: all weights, LoRA on the dense model, and after the cut.

    Args:
        dense: The dense model, of any weights; all of them require gradients afterwards.
        plan: The cut.
        training: How the model is trained.
        tokens: Length of the rows whose memory is counted.
        step_tokens: Length of the rows whose steps are timed; `tokens` if not given.
        train_rows: Training rows of the data; None without data.
    """
    cut, before = training.ready(prune_(copy.deepcopy(dense), plan), plan), training.before
    models, trainings = {}, dict.fromkeys(WAYS, training)
    if before is not None:
        models[BEFORE], trainings[BEFORE] = before.ready(copy.deepcopy(dense), None), before
    if isinstance(cut, PeftModel):
        models |= {"lora": training.ready(copy.deepcopy(dense), None), "prune-lora": cut}
    else:
        models["prune-full"] = cut
    models["full"] = dense.requires_grad_(True)
    ordered = {name: (models[name], trainings[name].settings) for name in WAYS if name in models}
    memory, steps = _costs(ordered, tokens=tokens, step_tokens=step_tokens or tokens)
    all_epochs = training.settings.epochs + (before.settings.epochs if before is not None else 0)
    return TrainingOutlook(
        memory_tokens=tokens,
        step_tokens=step_tokens or tokens,
        train_rows=train_rows,
        ways={
            name: TrainingCost(
                settings.batch_size,
                settings.epochs if name in (BEFORE, *_AFTER) else all_epochs,
                memory[name],
                steps[name],
            )
            for name, (_, settings) in ordered.items()
        },
    )


def _costs(
    models: Mapping[str, tuple[nn.Module, FineTuneSettings]], *, tokens: int, step_tokens: int
) -> tuple[dict[str, TrainingMemory], dict[str, Timing]]:
    """Memory and times of a step of several models, timed in turn on random rows; steps hardly move the weights."""
    with contextlib.ExitStack() as stack:
        for model, settings in models.values():
            stack.enter_context(left_as_found(model))
            stack.enter_context(dropout_of(model, settings.dropout))
        memory = {name: step_memory(model, settings, tokens=tokens) for name, (model, settings) in models.items()}
        steps = {
            name: training_step(model, [random_batch(model, rows=settings.batch_size, tokens=step_tokens)], settings)
            for name, (model, settings) in models.items()
        }
        wait = synchronise(device_of(models["full"][0]))
        return memory, interleaved(steps, warmup=UNTIMED, repeats=ROUNDS, synchronise=wait)
