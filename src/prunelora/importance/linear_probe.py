"""The linear probe: training of the task head alone, on features that the frozen encoder computes once.

A new task head gives random gradients, and so random scores. The head is small, and its inputs are constant while the
encoder is frozen, so a few hundred steps cost little more than one forward pass.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from prunelora.errors import DivergenceError, ScoreError, check_count
from prunelora.importance.features import Features, encoder_replaced
from prunelora.models.anatomy import dissect
from prunelora.models.state import left_as_found
from prunelora.progress import over

LEARNING_RATE = 1e-3
WEIGHT_DECAY = 0.01


def train_linear_probe_(
    model: nn.Module,
    batches: Sequence[Mapping[str, Any]],
    *,
    steps: int,
    seed: int = 0,
    learning_rate: float = LEARNING_RATE,
) -> float:
    """Train the task head of `model` in place; all other weights stay unchanged.

    The encoder runs once over every batch, in eval mode and without gradients, and only the vectors that the head reads
    are cached: (B, 1, D) for a head that labels rows, (B, T, D) for a head that labels tokens. Batches beyond
    `features.MAX_BYTES` run through the encoder again in every step.

    Args:
        model: A model of a supported family with a head that labels sequences, tokens or images.
        batches: Dicts as `model(**batch)` takes them, with `labels`; training rows only.
        steps: Optimiser steps (AdamW, one batch each), in a seeded random order of the batches.
        seed: Seed of that order.
        learning_rate: Learning rate of AdamW.

    Returns:
        Mean loss over the last tenth of the steps.

    Raises:
        ScoreError: If there is no batch, a batch has no labels, or `steps` or `learning_rate` is out of range.
        DivergenceError: If a loss is not finite; the task head is then restored.
    """
    check_count(ScoreError, "steps", steps)
    if not 0 < learning_rate < math.inf:
        raise ScoreError(f"learning_rate={learning_rate!r}: expected a number above 0, such as {LEARNING_RATE}.")
    if not batches:
        raise ScoreError("No batch to train the task head with: `batches` was empty.")
    anatomy = dissect(model)
    names = anatomy.task_head_names()
    if anatomy.base is model or not names:
        raise ScoreError(
            f"{type(model).__name__} has no task head to train. Use a model such as AutoModelForSequenceClassification."
        )
    features = Features(anatomy, batches)
    if not len(features):
        raise ScoreError(f"No label to train the task head with, in {len(batches)} batches.")
    parameters = [parameter for name in names for parameter in model.get_submodule(name).parameters()]
    losses = []
    with left_as_found(model), torch.enable_grad(), head_restored(model, after_errors_only=True):
        model.requires_grad_(False)
        for parameter in parameters:
            parameter.requires_grad_(True)
        model.eval()
        optimiser = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=WEIGHT_DECAY)
        order = torch.Generator().manual_seed(seed)
        with encoder_replaced(anatomy) as loss_of:
            queue: list[int] = []
            for _ in over(range(steps), "training the head"):
                queue = queue or torch.randperm(len(features), generator=order).tolist()
                loss = loss_of(*features.of(queue.pop()))
                losses.append(float(loss.detach()))
                if not math.isfinite(losses[-1]):
                    raise DivergenceError(
                        f"Linear probe: in step {len(losses)} the loss is {losses[-1]:.4g}. Use a lower learning_rate "
                        f"than {learning_rate:g}, and check that the model's weights and inputs are finite."
                    )
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if not all(bool(parameter.isfinite().all()) for parameter in parameters):
            raise DivergenceError(
                f"Linear probe: after step {steps} weights of the task head are not finite. Use a lower learning_rate "
                f"than {learning_rate:g}."
            )
    tail = losses[-max(1, len(losses) // 10) :]
    return sum(tail) / len(tail)


@contextlib.contextmanager
def head_restored(model: nn.Module, *, after_errors_only: bool = False) -> Iterator[None]:
    """Restore the task head's weights after the `with` block, or only if it raises an error."""
    names = dissect(model).task_head_names()
    states = {name: {k: v.clone() for k, v in model.get_submodule(name).state_dict().items()} for name in names}
    restore = not after_errors_only
    try:
        yield
    except BaseException:
        restore = True
        raise
    finally:
        for name, state in states.items() if restore else ():
            model.get_submodule(name).load_state_dict(state)
