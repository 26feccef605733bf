"""Cost of a training before it is done: memory of a step, counted, and its time, measured on random weights."""

import contextlib
import copy
import math
from collections.abc import Callable
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

# The tuning of the dense model with which a recipe may begin, among the ways to train; the others are named as the
# methods of `prunelora compare`.
BEFORE = "before-the-cut"


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
        parts = [self.ways[way], *([self.ways[BEFORE]] if way.startswith("prune-") and BEFORE in self.ways else [])]
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
    settings, earlier = training.settings, training.before
    cut = training.ready(prune_(copy.deepcopy(dense), plan), plan)
    all_epochs = settings.epochs + (earlier.settings.epochs if earlier is not None else 0)
    ways = {"full": (dense.requires_grad_(True), settings, all_epochs)}
    if isinstance(cut, PeftModel):
        ways["lora"] = training.ready(copy.deepcopy(dense), None), settings, all_epochs
    if earlier is not None:
        ways[BEFORE] = earlier.ready(copy.deepcopy(dense), None), earlier.settings, earlier.settings.epochs
    ways["prune-lora" if isinstance(cut, PeftModel) else "prune-full"] = cut, settings, settings.epochs
    step_tokens = step_tokens or tokens
    memory, steps = {}, {}
    with contextlib.ExitStack() as stack:
        for name, (model, tuning, _) in ways.items():
            stack.enter_context(left_as_found(model))
            stack.enter_context(dropout_of(model, tuning.dropout))
            memory[name] = step_memory(model, tuning, tokens=tokens)
            batch = random_batch(model, rows=tuning.batch_size, tokens=step_tokens)
            steps[name] = training_step(model, [batch], tuning)
        # In turn; steps hardly move the weights.
        times = interleaved(steps, warmup=UNTIMED, repeats=ROUNDS, synchronise=synchronise(device_of(dense)))
    costs = {
        name: TrainingCost(tuning.batch_size, epochs, memory[name], times[name])
        for name, (_, tuning, epochs) in ways.items()
    }
    return TrainingOutlook(tokens, step_tokens, train_rows, costs)
