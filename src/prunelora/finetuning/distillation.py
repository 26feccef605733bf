"""Distillation: a loss that pulls the student's logits towards a teacher's (Hinton, Vinyals and Dean 2015)."""

from typing import Any

import torch
from datasets import Dataset
from torch.nn import functional

from prunelora.data.images import holds_images
from prunelora.errors import DataError
from prunelora.finetuning.trainer import Counts, ExactTrainer
from prunelora.models.problem_types import SINGLE_LABEL

TEACHER = "teacher_logits"


def check_task(train: Dataset, problem_type: str) -> None:
    """Check that a task supports distillation, before the teacher computes logits.

    Raises:
        DataError: If the rows are images, or the task is not single-label classification.
    """
    if holds_images(train):
        raise DataError("distillation needs texts, and the rows are images. Set distillation=0.")
    if problem_type != SINGLE_LABEL:
        raise DataError(f"distillation needs one label a row, and the task is {problem_type}. Set distillation=0.")


def check_teacher(train: Dataset, problem_type: str) -> None:
    """Check that the training rows have a teacher's logits and that the task supports distillation.

    Raises:
        DataError: If they have none, or `check_task` raises it.
    """
    if TEACHER not in train.column_names:
        raise DataError(
            f"distillation needs a column {TEACHER!r} with the teacher's logits of every training row; the columns are "
            f"{', '.join(train.column_names)}. Add it, or set distillation=0."
        )
    check_task(train, problem_type)


class DistillingTrainer(ExactTrainer):
    """A Trainer whose loss is (1 - w) * task loss + w * t^2 * KL(teacher || student) at temperature t."""

    def __init__(self, *args: Any, weight: float, temperature: float, **kwargs: Any) -> None:
        """Take the Trainer's arguments, the weight w and the temperature t."""
        super().__init__(*args, **kwargs)
        self.weight = weight
        self.temperature = temperature

    def shared_loss(self, model: Any, inputs: dict[str, Any], counts: Counts, total: Counts | None) -> tuple[Any, Any]:
        """Add the distillation loss; rows without a teacher's logits, as in evaluation, have the task's loss only."""
        teacher = inputs.pop(TEACHER, None)
        loss, outputs = super().shared_loss(model, inputs, counts, total)
        if teacher is not None:
            logits = outputs["logits"] if isinstance(outputs, dict) else outputs[1]
            divergence = distance(logits, teacher, self.temperature)
            divergence = self.share(divergence, counts.rows, None if total is None else total.rows)
            loss = (1 - self.weight) * loss + self.weight * divergence
        return loss, outputs


def distance(logits: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """t^2 * KL(softmax(teacher / t) || softmax(logits / t)), the mean over rows; both (B, C)."""
    student = functional.log_softmax(logits / temperature, dim=-1)
    target = functional.log_softmax(teacher.to(logits) / temperature, dim=-1)
    return temperature**2 * functional.kl_div(student, target, reduction="batchmean", log_target=True)
