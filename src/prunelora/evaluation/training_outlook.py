"""What training takes, dense and after a cut: a step of every way to train, on random weights of the model's shapes."""

import copy
import dataclasses
import math
from typing import Any

from peft import PeftModel
from torch import nn

from prunelora.evaluation.outlook import outlook_row
from prunelora.evaluation.training_cost import Training, TrainingCost, step_memory, training_costs
from prunelora.planning.plan import Plan
from prunelora.pruning.surgery import prune_

# Ways to train by the names that `prunelora compare` has for them where it has one, and for people.
_WAYS = {
    "full": "full fine-tuning",
    "lora": "dense LoRA",
    "prune-lora": "LoRA after cut",
    "prune-full": "all after cut",
}


@dataclasses.dataclass(frozen=True)
class StepMemory:
    """Memory of a training step.

    Attributes:
        rows: Of the step.
        memory_bytes: Counted from its tensors.
        way: "lora" or "full".
    """

    rows: int
    memory_bytes: int
    way: str


@dataclasses.dataclass(frozen=True)
class TrainingOutlook:
    """What training takes.

    Attributes:
        rows: Rows a step.
        memory_tokens: Length of the rows whose memory is counted.
        step_tokens: Length of those whose steps are timed: the data's median where there is data.
        steps_per_epoch: Of the data; None if none was given.
        ways: Costs by "full", "lora" (both of the dense model) and "prune-lora" (after the cut); where all weights are
            trained after it, by "full" and "prune-full".
        before_the_cut: What a step of the dense model's tuning before the cut takes; None without one.
    """

    rows: int
    memory_tokens: int
    step_tokens: int
    steps_per_epoch: int | None
    ways: dict[str, TrainingCost]
    before_the_cut: StepMemory | None = None

    def epoch_minutes(self, way: str) -> float | None:
        """Minutes of an epoch, evaluation left out."""
        return None if self.steps_per_epoch is None else self.steps_per_epoch * self.ways[way].step.median_ms / 60_000

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        sizes = {name: value for name, value in dataclasses.asdict(self).items() if name != "ways"}
        ways = {name: cost.to_dict() | {"epoch_minutes": self.epoch_minutes(name)} for name, cost in self.ways.items()}
        return sizes | {"weights": "random", "ways": ways}

    def lines(self) -> list[str]:
        """For people."""
        costs = self.ways.values()
        lines = [
            outlook_row(f"training step of {self.rows} rows, random weights", *(_WAYS[name] for name in self.ways)),
            outlook_row(
                f"memory at {self.memory_tokens} tokens, counted from tensors",
                *(f"{cost.memory.total / 1e6:,.0f} MB" for cost in costs),
            ),
            outlook_row(
                f"time at {self.step_tokens} tokens, measured here",
                *(f"{cost.step.median_ms:,.0f} ms" for cost in costs),
            ),
        ]
        if self.before_the_cut is not None:
            before = self.before_the_cut
            title = f"memory before the cut, {'LoRA' if before.way == 'lora' else 'all weights'}, {before.rows} rows"
            column = [""] * list(self.ways).index(before.way) if before.way in self.ways else []
            lines.insert(2, outlook_row(title, *column, f"{before.memory_bytes / 1e6:,.0f} MB"))
        if self.steps_per_epoch is not None:
            minutes = (f"{self.epoch_minutes(name):,.1f} min" for name in self.ways)
            lines.append(outlook_row(f"an epoch of {self.steps_per_epoch:,} such steps", *minutes))
        return lines


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
    before = None
    if training.before is not None:
        settings, ready = training.before.settings, training.before.ready
        tuned = ready(copy.deepcopy(dense), None)
        counted = step_memory(tuned, settings, tokens=tokens)
        before = StepMemory(settings.batch_size, counted.total, "lora" if isinstance(tuned, PeftModel) else "full")
    cut = training.ready(prune_(copy.deepcopy(dense), plan), plan)
    if isinstance(cut, PeftModel):
        models = {"lora": training.ready(copy.deepcopy(dense), None), "prune-lora": cut}
    else:
        models = {"prune-full": cut}
    models["full"] = dense.requires_grad_(True)
    costs = training_costs(models, training.settings, tokens=tokens, step_tokens=step_tokens)
    rows = training.settings.batch_size
    return TrainingOutlook(
        rows=rows,
        memory_tokens=tokens,
        step_tokens=step_tokens or tokens,
        steps_per_epoch=None if train_rows is None else math.ceil(train_rows / rows),
        ways={name: costs[name] for name in _WAYS if name in costs},
        before_the_cut=before,
    )
