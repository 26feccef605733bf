"""Distillation: a loss that pulls a model's answers towards those of a teacher (Hinton, Vinyals and Dean 2015)."""

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
    """Hold a task to be one whose answers can be distilled; a run asks before its teacher answers every row.

    Raises:
        DataError: If the rows are images, or the task is no single-label classification.
    """
    if holds_images(train):
        raise DataError("distillation is for texts; these rows are images. Set distillation=0.")
    if problem_type != SINGLE_LABEL:
        raise DataError(f"distillation is for one label a row; this task is {problem_type}. Set distillation=0.")


def check_teacher(train: Dataset, problem_type: str) -> None:
    """Hold the training rows to have a teacher's answers, of a kind that can be distilled.

    Raises:
        DataError: If they have none, or `check_task` says so.
    """
    if TEACHER not in train.column_names:
        raise DataError(
            f"distillation needs a teacher's logits for every training row: a column {TEACHER!r}, found "
            f"{', '.join(train.column_names)}. Add it, or set distillation=0."
        )
    check_task(train, problem_type)


class DistillingTrainer(ExactTrainer):
    """A Trainer whose loss is (1 - w) * task loss + w * t^2 * KL(teacher || student), both softened by t."""

    def __init__(self, *args: Any, weight: float, temperature: float, **kwargs: Any) -> None:
        """Take the Trainer's arguments, the weight w and the temperature t."""
        super().__init__(*args, **kwargs)
        self.weight = weight
        self.temperature = temperature

    def shared_loss(self, model: Any, inputs: dict[str, Any], counts: Counts, total: Counts | None) -> tuple[Any, Any]:
        """Add the teacher's part; rows without a teacher's answers, as in evaluation, have the task's loss alone."""
        teacher = inputs.pop(TEACHER, None)
        loss, outputs = super().shared_loss(model, inputs, counts, total)
        if teacher is not None:
            logits = outputs["logits"] if isinstance(outputs, dict) else outputs[1]
            towards = distance(logits, teacher, self.temperature)
            towards = self.share(towards, counts.rows, None if total is None else total.rows)
            loss = (1 - self.weight) * loss + self.weight * towards
        return loss, outputs


def distance(logits: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """t^2 * KL(softmax(teacher / t) || softmax(logits / t)), the mean over rows; both (B, C)."""
    student = functional.log_softmax(logits / temperature, dim=-1)
    wanted = functional.log_softmax(teacher.to(logits) / temperature, dim=-1)
    return temperature**2 * functional.kl_div(student, wanted, reduction="batchmean", log_target=True)
