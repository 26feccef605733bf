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

# Ways to train, named as the methods of `prunelora compare`, in the order of columns.
WAYS = ("full", "lora", "prune-lora", "prune-full")
_DENSE = ("full", "lora")
_BEFORE = "before the cut"


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
    """Memory of a training step, counted from its tensors, and its times."""

    memory: TrainingMemory
    step: Timing

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"memory_bytes": self.memory.total, **asdict(self.memory), "step": self.step.to_dict()}


@dataclass(frozen=True)
class BeforeTheCut:
    """The dense model's tuning before it is cut.

    Attributes:
        rows: Rows of a step; if fewer than after the cut, the gradients of several steps are averaged.
        epochs: Epochs of this tuning.
        way: "lora" or "full".
        cost: Cost of a step.
    """

    rows: int
    epochs: float
    way: str
    cost: TrainingCost


@dataclass(frozen=True)
class TrainingOutlook:
    """Cost of a recipe's training, dense and after the cut.

    Attributes:
        rows: Rows of a step.
        epochs: Epochs of the tuning after the cut.
        memory_tokens: Length of the rows whose memory is counted.
        step_tokens: Length of the rows whose steps are timed: the data's median if there is data.
        train_rows: Training rows of the data; None without data.
        ways: Costs by "full", "lora" (both of the dense model) and "prune-lora" (after the cut); by "full" and
            "prune-full" if all weights are trained after the cut.
        before_the_cut: The dense model's tuning before the cut; None without one.
    """

    rows: int
    epochs: float
    memory_tokens: int
    step_tokens: int
    train_rows: int | None
    ways: dict[str, TrainingCost]
    before_the_cut: BeforeTheCut | None = None

    @property
    def steps_per_epoch(self) -> int | None:
        """Steps of one epoch; None without data."""
        return None if self.train_rows is None else math.ceil(self.train_rows / self.rows)

    @property
    def all_epochs(self) -> float:
        """Epochs of the recipe, before and after the cut."""
        return self.epochs + (self.before_the_cut.epochs if self.before_the_cut is not None else 0)

    def epoch_minutes(self, way: str) -> float | None:
        """Minutes of an epoch without evaluation; None without data."""
        return self._minutes(self.ways[way], self.rows)

    def all_minutes(self, way: str) -> float | None:
        """Minutes of all the recipe's epochs, without evaluation, scoring and repair; None without data.

        A way after the cut begins with the recipe's epochs before the cut; the dense ways train for all epochs.
        """
        epoch, before = self.epoch_minutes(way), self.before_the_cut
        if epoch is None:
            return None
        if way in _DENSE or before is None:
            return self.all_epochs * epoch
        return self.epochs * epoch + before.epochs * (self._minutes(before.cost, before.rows) or 0.0)

    def _minutes(self, cost: TrainingCost, rows: int) -> float | None:
        return None if self.train_rows is None else math.ceil(self.train_rows / rows) * cost.step.median_ms / 60_000

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        before = self.before_the_cut
        minutes = {
            name: {"epoch_minutes": self.epoch_minutes(name), "all_epochs_minutes": self.all_minutes(name)}
            for name in self.ways
        }
        return {
            "rows": self.rows,
            "epochs": self.epochs,
            "memory_tokens": self.memory_tokens,
            "step_tokens": self.step_tokens,
            "steps_per_epoch": self.steps_per_epoch,
            "weights": "random",
            "ways": {name: cost.to_dict() | minutes[name] for name, cost in self.ways.items()},
            "before_the_cut": before
            and {"rows": before.rows, "epochs": before.epochs, "way": before.way, **before.cost.to_dict()},
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
    if isinstance(cut, PeftModel):
        models = {"lora": training.ready(copy.deepcopy(dense), None), "prune-lora": cut}
    else:
        models = {"prune-full": cut}
    if before is not None:
        models[_BEFORE] = before.ready(copy.deepcopy(dense), None)
    models["full"] = dense.requires_grad_(True)
    settings = dict.fromkeys(models, training.settings) | ({_BEFORE: before.settings} if before is not None else {})
    costs = _costs(models, settings, tokens=tokens, step_tokens=step_tokens or tokens)
    tuned_before = None
    if before is not None:
        way = "lora" if isinstance(models[_BEFORE], PeftModel) else "full"
        tuned_before = BeforeTheCut(before.settings.batch_size, before.settings.epochs, way, costs[_BEFORE])
    return TrainingOutlook(
        rows=training.settings.batch_size,
        epochs=training.settings.epochs,
        memory_tokens=tokens,
        step_tokens=step_tokens or tokens,
        train_rows=train_rows,
        ways={name: costs[name] for name in WAYS if name in costs},
        before_the_cut=tuned_before,
    )


def _costs(
    models: Mapping[str, nn.Module], settings: Mapping[str, FineTuneSettings], *, tokens: int, step_tokens: int
) -> dict[str, TrainingCost]:
    """Costs of a step of several models, timed in turn on random rows; steps hardly move the weights."""
    with contextlib.ExitStack() as stack:
        for name, model in models.items():
            stack.enter_context(left_as_found(model))
            stack.enter_context(dropout_of(model, settings[name].dropout))
        memory = {name: step_memory(model, settings[name], tokens=tokens) for name, model in models.items()}
        steps = {}
        for name, model in models.items():
            batch = random_batch(model, rows=settings[name].batch_size, tokens=step_tokens)
            steps[name] = training_step(model, [batch], settings[name])
        wait = synchronise(device_of(next(iter(models.values()))))
        timings = interleaved(steps, warmup=UNTIMED, repeats=ROUNDS, synchronise=wait)
    return {name: TrainingCost(memory[name], timings[name]) for name in models}
