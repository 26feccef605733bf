"""How much the loss depends on what a projection gives for each token of a row.

Repair fits a projection to many tokens, with fewer weights than before the cut. What a projection gives for one token
may matter to the answer, and for another not: a classifier reads the last layer's first token alone. With the
gradient g (D,) of a row's loss by what the dense model's projection gives for a token::

    w = FLOOR + (1 - FLOOR) * n * |g|^2 / sum over the row's tokens of |g|^2,    n = real tokens of the row

Every row weighs n in all: rows that the model has learnt already have small gradients, and are not to count for less.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from prunelora.importance.taps import Tap, listen
from prunelora.models.anatomy import Anatomy
from prunelora.models.padding import readable
from prunelora.pruning.layers import layers_of

# What a token weighs at least: gradients of one batch of labels do not say all that its hidden state is good for.
FLOOR = 0.3


def squared_gradients(anatomy: Anatomy, batch: Mapping[str, Any], number: int) -> dict[str, torch.Tensor]:
    """|g|^2 of every token (B, T), by the full name of the projection.

    Args:
        anatomy: Of the dense model, in eval mode with every weight frozen.
        batch: With labels.
        number: Of the batch, for messages.

    Raises:
        ScoreError: If the batch has no labels, or its loss is missing or not finite.
    """
    found: dict[str, torch.Tensor] = {}

    def heard(name: str, _: torch.Tensor, gradient: torch.Tensor) -> None:
        wide = torch.promote_types(gradient.dtype, torch.float32)
        found[name] = gradient.to(wide).square().sum(-1)

    projections = [one for layer in layers_of(anatomy) for one in layer.projections]
    taps = [Tap(one.full_name, one.module, partial(heard, one.full_name)) for one in projections]
    listen(anatomy.model, readable(batch, anatomy.model), number, taps)
    return found


def token_weights(squares: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Weights of all tokens (B, T), 0 for padding.

    Args:
        squares: |g|^2 (B, T).
        real: Which tokens are no padding (B, T), bool.
    """
    squares = torch.where(real, squares, 0)
    count, total = real.sum(1, keepdim=True), squares.sum(1, keepdim=True)
    # Where nothing matters all tokens are alike.
    share = torch.where(total > 0, count * squares / total.clamp_min(torch.finfo(squares.dtype).tiny), 1.0)
    return torch.where(real, FLOOR + (1 - FLOOR) * share, 0.0)
