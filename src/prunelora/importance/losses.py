"""The loss that scores are gradients of: summed over the examples of a batch, and over how many it was a mean."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from prunelora.errors import ScoreError
from prunelora.models.problem_types import CAUSAL_LM, problem_type_of

Batch = Mapping[str, Any]

# What a model takes its loss from. Of a span the mean of both ends' losses is taken, each the mean over rows.
_TARGETS = ("labels", "start_positions")


def count_examples(batch: Batch, number: int) -> int:
    """Rows of a batch, B.

    Args:
        batch: As `model(**batch)` takes it.
        number: Of the batch, for the message.

    Raises:
        ScoreError: If it has no labels.
    """
    for name in _TARGETS:
        if batch.get(name) is not None:
            return len(batch[name])
    raise ScoreError(
        f"Batch {number} has no labels: its keys are {sorted(batch)}. Gradients of the task's loss are "
        "asked for, so every batch needs `labels` (for question answering `start_positions` and `end_positions`)."
    )


def summed_loss(model: nn.Module, batch: Batch, number: int) -> torch.Tensor:
    """Loss summed over the examples: the model gives the mean over those it counts.

    Raises:
        ScoreError: If the batch has no labels, there is no loss, or it is not finite.
    """
    examples = count_examples(batch, number)
    outputs = model(**batch)
    loss = getattr(outputs, "loss", None)
    if loss is None:
        raise ScoreError(
            f"{type(model).__name__} returned no loss for batch {number}. Scores need a model with a task head, "
            "such as AutoModelForSequenceClassification."
        )
    count = count_losses(model, batch, examples)
    if not count:
        return 0 * outputs.logits.sum()  # A mean over no label is not a number.
    if not torch.isfinite(loss).all():
        raise ScoreError(
            f"The loss of batch {number} is {loss.item()}. Check its rows and labels, and the model's dtype "
            f"({next(model.parameters()).dtype}): float16 overflows where bfloat16 and float32 do not."
        )
    return loss * count


def check_that_all_ran(silent: Sequence[str], *, any_ran: bool) -> None:
    """Hold the model to have passed through every projection that is scored.

    Args:
        silent: Names of those that it did not pass through.
        any_ran: Whether it passed through any.

    Raises:
        ScoreError: Naming them.
    """
    if silent or not any_ran:
        raise ScoreError(
            f"The model ran without passing through {', '.join(silent[:3]) or 'any head or neuron'}"
            f"{f' and {len(silent) - 3} more' if len(silent) > 3 else ''}. Gates there would score nothing: "
            "does the model's forward skip these layers?"
        )


def count_tokens(batch: Batch, examples: int, length: int) -> int:
    """Real tokens of a batch; padding does not count. Of images, which have none, `length` patches and tokens each."""
    if batch.get("attention_mask") is not None:
        return int(batch["attention_mask"].sum())
    return examples * length


def count_losses(model: nn.Module, batch: Batch, examples: int) -> torch.Tensor:
    """How many losses the model took the mean over, (): one a row, or one a token that has a label.

    Args:
        model: Whose loss it is.
        batch: As the model reads it.
        examples: Rows of the batch.
    """
    labels = batch.get("labels")
    if labels is None or labels.dtype != torch.long:
        return torch.tensor(examples)
    if labels.dim() > 1 and problem_type_of(model) == CAUSAL_LM:
        labels = labels[:, 1:]  # A token is told from those before it, so the first one has no loss.
    return (labels != -100).sum()
