"""Settings of a fine-tuning, described in one place for --help, recipes and docs."""

import math
from typing import ClassVar, Literal

from pydantic import Field

from prunelora.settings import Settings


class FineTuneSettings(Settings):
    """How to fine-tune."""

    # Settings that change what a training costs, and nothing that it gives: it is not repeated for them.
    costs_alone: ClassVar[frozenset[str]] = frozenset({"selective_recomputation"})

    epochs: float = Field(3.0, gt=0, description="Passes over the training rows.")
    learning_rate: float = Field(1e-3, gt=0, description="Peak learning rate of AdamW.")
    batch_size: int = Field(32, ge=1, description="Rows a step and device, before accumulation.")
    accumulation_steps: int = Field(1, ge=1, description="Batches to an update, as of all their rows in one.")
    warmup_fraction: float = Field(0.06, ge=0, le=1, description="Share of the steps in which the learning rate rises.")
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = Field(
        "linear", description="How the learning rate falls after that."
    )
    weight_decay: float = Field(0.01, ge=0, description="Of AdamW.")
    max_grad_norm: float = Field(1.0, ge=0, description="Gradients are clipped to this norm; 0 for never.")
    dropout: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="Dropout inside the model while it trains; as its configuration says if not given. 0 is faster and "
        "needs less memory.",
    )
    distillation: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Weight of the loss that pulls the answers towards a teacher's: 0 for none, 1 for it alone. In a "
        "run the teacher is the model that was last merged.",
    )
    distillation_temperature: float = Field(
        2.0, gt=0, description="Teacher's and student's logits are divided by it before they are compared."
    )
    patience: int | None = Field(
        None, ge=1, description="Stop after so many evaluations without a better one; never if not given."
    )
    keep_start: bool = Field(
        False,
        description="Evaluate the model before the first step too, and leave it as it was where no checkpoint is "
        "better: for a model that knows the task already.",
    )
    evaluations_per_epoch: int = Field(
        1, ge=1, description="Evaluations on the validation rows, each with a checkpoint to go on from, in an epoch."
    )
    selective_recomputation: bool = Field(
        True,
        description="Compute what activation functions and norms give a second time in the backward pass, from what is "
        "kept anyway: less memory, the same gradients, hardly more time. Gives way to gradient_checkpointing.",
    )
    gradient_checkpointing: bool = Field(
        False, description="Compute whole layers a second time in the backward pass: least memory, more time."
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="bfloat16 mixed precision, or float32; auto takes bfloat16 where a GPU has it."
    )
    group_by_length: bool = Field(True, description="Put rows of like length into a batch, so that less is padding.")
    tensorboard: bool = Field(
        False,
        description="Write TensorBoard logs, in a run into its folder tensorboard (needs the extra `tensorboard`).",
    )

    @property
    def recomputes(self) -> bool:
        """Whether training runs under `recomputing`: a checkpointed layer's own way of keeping less is another one."""
        return self.selective_recomputation and not self.gradient_checkpointing

    def updates_per_epoch(self, rows: int, *, processes: int = 1) -> int:
        """Optimiser steps in a pass over the training rows: 100 rows, batch_size 16, accumulation_steps 2 -> 4."""
        return math.ceil(math.ceil(rows / (self.batch_size * processes)) / self.accumulation_steps)

    def updates(self, rows: int, *, processes: int = 1) -> int:
        """Optimiser steps in all epochs."""
        return math.ceil(self.epochs * self.updates_per_epoch(rows, processes=processes))

    def updates_between_evaluations(self, rows: int, *, processes: int = 1) -> int:
        """Optimiser steps after which the validation rows are judged and a checkpoint is kept."""
        each = self.updates_per_epoch(rows, processes=processes) // self.evaluations_per_epoch
        return max(1, min(each, self.updates(rows, processes=processes)))
