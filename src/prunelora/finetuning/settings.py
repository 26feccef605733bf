"""Settings of fine-tuning, described once for --help, recipes and docs."""

import math
from typing import ClassVar, Literal

from pydantic import Field

from prunelora.errors import check_installed
from prunelora.settings import Settings


class FineTuneSettings(Settings):
    """Settings of fine-tuning."""

    # Settings that change the cost and not the result: a finished training is not repeated for them.
    costs_alone: ClassVar[frozenset[str]] = frozenset({"selective_recomputation"})

    epochs: float = Field(3.0, gt=0, description="Passes over the training rows.")
    learning_rate: float = Field(1e-3, gt=0, description="Peak learning rate of AdamW.")
    batch_size: int = Field(32, ge=1, description="Rows in a batch on each device.")
    accumulation_steps: int = Field(
        1, ge=1, description="Batches in an optimiser step; it equals one step on all their rows."
    )
    warmup_fraction: float = Field(
        0.06, ge=0, le=1, description="Share of the steps during which the learning rate rises."
    )
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = Field(
        "linear", description="Learning rate after the warm-up."
    )
    weight_decay: float = Field(0.01, ge=0, description="Weight decay of AdamW.")
    max_grad_norm: float = Field(1.0, ge=0, description="Norm to which gradients are clipped; 0 for no clipping.")
    dropout: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="Dropout inside the model during training; if not given, that of its configuration. 0 is faster "
        "and needs less memory.",
    )
    distillation: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Weight of the distillation loss: 0 for none, 1 for no other loss. In a run the teacher is the "
        "model that was merged last.",
    )
    distillation_temperature: float = Field(
        2.0, gt=0, description="Temperature by which distillation divides the logits of teacher and student."
    )
    patience: int | None = Field(
        None, ge=1, description="Stop after this many evaluations without improvement; if not given, never."
    )
    keep_start: bool = Field(
        False,
        description="Evaluate the model before the first step too, and keep its weights if no checkpoint is better: "
        "for a model that is already trained on the task.",
    )
    evaluations_per_epoch: int = Field(
        1, ge=1, description="Evaluations on the validation rows in an epoch, each with a checkpoint."
    )
    selective_recomputation: bool = Field(
        True,
        description="Recompute the outputs of activation functions and norms in the backward pass instead of keeping "
        "them: less memory, the same gradients, hardly more time. Off with gradient_checkpointing.",
    )
    gradient_checkpointing: bool = Field(
        False, description="Recompute whole layers in the backward pass: least memory, more time."
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="bfloat16 mixed precision, or float32; auto is bfloat16 on a GPU that supports it."
    )
    group_by_length: bool = Field(True, description="Put rows of similar length into a batch, which saves padding.")
    tensorboard: bool = Field(
        False,
        description="Write TensorBoard logs, in a run to its folder tensorboard (needs the extra `tensorboard`).",
    )

    def check_installed(self) -> None:
        """Raises MissingExtraError if TensorBoard is asked for and not installed."""
        if self.tensorboard:
            check_installed(("tensorboard",), "tensorboard=True", "tensorboard")

    @property
    def recomputes(self) -> bool:
        """Whether training uses `recomputing`, which cannot be combined with gradient checkpointing."""
        return self.selective_recomputation and not self.gradient_checkpointing

    def updates_per_epoch(self, rows: int, *, processes: int = 1) -> int:
        """Optimiser steps in an epoch: 100 rows, batch_size 16, accumulation_steps 2 -> 4."""
        return math.ceil(math.ceil(rows / (self.batch_size * processes)) / self.accumulation_steps)

    def updates(self, rows: int, *, processes: int = 1) -> int:
        """Optimiser steps in all epochs."""
        return math.ceil(self.epochs * self.updates_per_epoch(rows, processes=processes))

    def updates_between_evaluations(self, rows: int, *, processes: int = 1) -> int:
        """Optimiser steps between evaluations, each of which writes a checkpoint."""
        steps = self.updates_per_epoch(rows, processes=processes) // self.evaluations_per_epoch
        return max(1, min(steps, self.updates(rows, processes=processes)))
