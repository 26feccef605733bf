"""Weights of tokens in repair, by how much the loss or the features depend on the projection's output for each token.

After the cut a projection has fewer weights and cannot fit every token equally well, and not every token matters: a
classifier reads only the first token of the last layer. With the gradient g (D,) of a row's loss, or of a random
projection of its features (`objectives`), with respect to the output of the dense model's projection::

    w = FLOOR + (1 - FLOOR) * n * |g|^2 / sum over the row's tokens of |g|^2,    n = real tokens of the row

The weights of a row add up to n. Otherwise rows that the model has already learnt would count less, because their
gradients are small.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from prunelora.importance.hooks import GradientHook, run_with_hooks
from prunelora.importance.objectives import Objective
from prunelora.models.anatomy import Anatomy
from prunelora.models.padding import prepare_batch
from prunelora.pruning.layers import layers_of

# Least weight of a token: the labels of one batch do not show every use of a hidden state.
FLOOR = 0.3


def squared_gradients(
    anatomy: Anatomy, batch: Mapping[str, Any], number: int, objective: Objective
) -> dict[str, torch.Tensor]:
    """Compute |g|^2 of every token (B, T), by the full name of the projection.

    Args:
        anatomy: The dense model, in eval mode with every weight frozen.
        batch: With labels, if the objective is the loss.
        number: Number of the batch, for messages.
        objective: The loss or the features.

    Raises:
        ScoreError: As the objective raises it.
    """
    squares: dict[str, torch.Tensor] = {}

    def add(name: str, _: torch.Tensor, gradient: torch.Tensor) -> None:
        dtype = torch.promote_types(gradient.dtype, torch.float32)
        squares[name] = gradient.to(dtype).square().sum(-1)

    projections = [projection for layer in layers_of(anatomy) for projection in layer.projections]
    hooks = [
        GradientHook(projection.full_name, projection.module, partial(add, projection.full_name))
        for projection in projections
    ]
    run_with_hooks(anatomy, prepare_batch(batch, anatomy.model), number, hooks, objective)
    return squares


def token_weights(squares: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Weights of all tokens (B, T), 0 for padding.

    Args:
        squares: |g|^2 (B, T).
        real: Which tokens are not padding (B, T), bool.
    """
    squares = torch.where(real, squares, 0)
    count, total = real.sum(1, keepdim=True), squares.sum(1, keepdim=True)
    # Equal weights for a row without any gradient.
    share = torch.where(total > 0, count * squares / total.clamp_min(torch.finfo(squares.dtype).tiny), 1.0)
    return torch.where(real, FLOOR + (1 - FLOOR) * share, 0.0)
