"""What training takes, dense and after a cut: a step of every way to train, on random weights of the model's shapes."""

import copy
import dataclasses
import math
from typing import Any

from peft import PeftModel
from torch import nn

from prunelora.evaluation.outlook import outlook_row
from prunelora.evaluation.training_cost import Training, TrainingCost, training_costs
from prunelora.planning.plan import Plan
from prunelora.pruning.surgery import prune_

# Ways to train by the names that `prunelora compare` has for them where it has one, and for people.
_WAYS = {
    "full": "full fine-tuning",
    "lora": "dense LoRA",
    "prune-lora": "LoRA after cut",
    "prune-full": "all after cut",
}
_DENSE = ("full", "lora")
_BEFORE = "before the cut"


@dataclasses.dataclass(frozen=True)
class BeforeTheCut:
    """The dense model's tuning before it is cut.

    Attributes:
        rows: Of a step. Where they are fewer than in the tuning after the cut, the gradients of several are averaged.
        epochs: Of it.
        way: "lora" or "full".
        cost: Of a step.
    """

    rows: int
    epochs: float
    way: str
    cost: TrainingCost

    @property
    def title(self) -> str:
        """As people read it."""
        return f"before the cut, {'LoRA' if self.way == 'lora' else 'all weights'}, {self.rows} rows"


@dataclasses.dataclass(frozen=True)
class TrainingOutlook:
    """What training takes.

    Attributes:
        rows: Rows a step.
        epochs: Of the tuning after the cut.
        memory_tokens: Length of the rows whose memory is counted.
        step_tokens: Length of those whose steps are timed: the data's median where there is data.
        train_rows: Of the data; None if none was given.
        ways: Costs by "full", "lora" (both of the dense model) and "prune-lora" (after the cut); where all weights are
            trained after it, by "full" and "prune-full".
        before_the_cut: What the dense model's tuning before the cut takes; None without one.
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
        """Of the data; None if none was given."""
        return None if self.train_rows is None else math.ceil(self.train_rows / self.rows)

    @property
    def all_epochs(self) -> float:
        """Of the recipe: before the cut and after it."""
        return self.epochs + (self.before_the_cut.epochs if self.before_the_cut is not None else 0)

    def epoch_minutes(self, way: str) -> float | None:
        """Minutes of an epoch, evaluation left out."""
        return self._minutes(self.ways[way], self.rows)

    def all_minutes(self, way: str) -> float | None:
        """Minutes of all the recipe's epochs, evaluation, scoring and repair left out.

        Those of a way after the cut are before it as long as the recipe says; the dense model is trained for all.
        """
        own, before = self.epoch_minutes(way), self.before_the_cut
        if own is None:
            return None
        if way in _DENSE or before is None:
            return self.all_epochs * own
        return self.epochs * own + before.epochs * (self._minutes(before.cost, before.rows) or 0.0)

    def _minutes(self, cost: TrainingCost, rows: int) -> float | None:
        return None if self.train_rows is None else math.ceil(self.train_rows / rows) * cost.step.median_ms / 60_000

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        before = self.before_the_cut
        return {
            "rows": self.rows,
            "epochs": self.epochs,
            "memory_tokens": self.memory_tokens,
            "step_tokens": self.step_tokens,
            "steps_per_epoch": self.steps_per_epoch,
            "weights": "random",
            "ways": {
                name: cost.to_dict()
                | {"epoch_minutes": self.epoch_minutes(name), "all_epochs_minutes": self.all_minutes(name)}
                for name, cost in self.ways.items()
            },
            "before_the_cut": None
            if before is None
            else {"rows": before.rows, "epochs": before.epochs, "way": before.way, **before.cost.to_dict()},
        }

    def lines(self) -> list[str]:
        """For people."""
        costs, before = self.ways.values(), self.before_the_cut

        def beside(text: str) -> list[str]:
            """In the column of the same way to train."""
            empty = list(self.ways).index(before.way) if before is not None and before.way in self.ways else 0
            return [*[""] * empty, text]

        memory = [
            outlook_row(
                f"memory at {self.memory_tokens} tokens, counted from tensors",
                *(f"{cost.memory.total / 1e6:,.0f} MB" for cost in costs),
            )
        ]
        time = [
            outlook_row(
                f"time at {self.step_tokens} tokens, measured here",
                *(f"{cost.step.median_ms:,.0f} ms" for cost in costs),
            )
        ]
        if before is not None:
            memory.append(outlook_row(f"memory {before.title}", *beside(f"{before.cost.memory.total / 1e6:,.0f} MB")))
            time.append(outlook_row(f"time {before.title}", *beside(f"{before.cost.step.median_ms:,.0f} ms")))
        if self.steps_per_epoch is not None:
            minutes = (f"{self.epoch_minutes(name):,.1f} min" for name in self.ways)
            time.append(outlook_row(f"an epoch of {self.steps_per_epoch:,} such steps", *minutes))
            if before is not None:
                title = f"all {self.all_epochs:g} epochs, {before.epochs:g} before the cut"
                time.append(outlook_row(title, *(f"{self.all_minutes(name):,.1f} min" for name in self.ways)))
        title = f"training step of {self.rows} rows, random weights"
        return [outlook_row(title, *(_WAYS[name] for name in self.ways)), *memory, *time]


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
        dense: The dense model, of any weights; all of them are to be trained afterwards.
        plan: What the cut leaves.
        training: How the model is trained.
        tokens: Length of the rows whose memory is counted.
        step_tokens: Length of those whose steps are timed; the same if not given.
        train_rows: Of the data; None if none was given.
    """
    cut = training.ready(prune_(copy.deepcopy(dense), plan), plan)
    if isinstance(cut, PeftModel):
        models = {"lora": training.ready(copy.deepcopy(dense), None), "prune-lora": cut}
    else:
        models = {"prune-full": cut}
    settings = dict.fromkeys((*models, "full"), training.settings)
    if training.before is not None:
        models[_BEFORE], settings[_BEFORE] = training.before.ready(copy.deepcopy(dense), None), training.before.settings
    models["full"] = dense.requires_grad_(True)
    costs = training_costs(models, settings, tokens=tokens, step_tokens=step_tokens)
    before = None
    if training.before is not None:
        own = training.before.settings
        way = "lora" if isinstance(models[_BEFORE], PeftModel) else "full"
        before = BeforeTheCut(own.batch_size, own.epochs, way, costs[_BEFORE])
    return TrainingOutlook(
        rows=training.settings.batch_size,
        epochs=training.settings.epochs,
        memory_tokens=tokens,
        step_tokens=step_tokens or tokens,
        train_rows=train_rows,
        ways={name: costs[name] for name in _WAYS if name in costs},
        before_the_cut=before,
    )
