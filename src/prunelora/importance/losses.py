"""The loss whose gradients are scored: the sum over a batch's examples, from the mean that the model returns."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from prunelora.errors import ScoreError
from prunelora.models.problem_types import CAUSAL_LM, problem_type_of

Batch = Mapping[str, Any]

# Inputs that a model computes its loss from. For a span, the loss is the mean over rows of both ends' losses.
_TARGETS = ("labels", "start_positions")


def count_examples(batch: Batch, number: int) -> int:
    """Number of examples of a batch, B.

    Args:
        batch: As `model(**batch)` takes it.
        number: Number of the batch, for messages.

    Raises:
        ScoreError: If it has no labels.
    """
    for name in _TARGETS:
        if batch.get(name) is not None:
            return len(batch[name])
    raise ScoreError(
        f"Batch {number} has no labels: its keys are {sorted(batch)}. Gradients of the task's loss need `labels` in "
        "every batch (for question answering `start_positions` and `end_positions`)."
    )


def summed_loss(model: nn.Module, batch: Batch, number: int) -> torch.Tensor:
    """Loss summed over the examples, from the mean that the model returns.

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
        return 0 * outputs.logits.sum()  # The mean over no labels is NaN.
    if not torch.isfinite(loss).all():
        raise ScoreError(
            f"The loss of batch {number} is {loss.item()}. Check its rows and labels, and the model's dtype "
            f"({next(model.parameters()).dtype}): float16 overflows where bfloat16 and float32 do not."
        )
    return loss * count


def check_that_all_ran(silent: Sequence[str], *, any_ran: bool) -> None:
    """Check that the model ran every projection that is scored.

    Args:
        silent: Names of the projections that did not run.
        any_ran: Whether any projection ran.

    Raises:
        ScoreError: Naming the projections that did not run.
    """
    if silent or not any_ran:
        raise ScoreError(
            f"The model ran without passing through {', '.join(silent[:3]) or 'any head or neuron'}"
            f"{f' and {len(silent) - 3} more' if len(silent) > 3 else ''}, which can therefore not be scored. Does its "
            "forward skip these layers?"
        )


def count_tokens(batch: Batch, examples: int, length: int) -> int:
    """Number of tokens of a batch without padding; without a mask, as for images, `length` per example."""
    if batch.get("attention_mask") is not None:
        return int(batch["attention_mask"].sum())
    return examples * length


def count_losses(model: nn.Module, batch: Batch, examples: int) -> torch.Tensor:
    """Number of losses that the model's mean is over, shape (): one per row, or one per labelled token.

    Args:
        model: The model.
        batch: The batch, with padding on the right.
        examples: Number of examples of the batch.
    """
    labels = batch.get("labels")
    if labels is None or labels.dtype != torch.long:
        return torch.tensor(examples)
    if labels.dim() > 1 and problem_type_of(model) == CAUSAL_LM:
        labels = labels[:, 1:]  # A token is predicted from those before it, so the first has no loss.
    return (labels != -100).sum()
