"""What a criterion differentiates: the task's loss, or the vectors that the task head reads.

A new task head says nothing about the task yet, and neither do gradients of its loss. The vectors f(x) that it reads,
(R, D) for a row x, are there before any head is. Their distance to the vectors f'(x) of a pruned model is, to second
order, a quadratic form in the change of a projection's outputs y, whose matrix is estimated by random projections
(Hutchinson 1990), one a row::

    E_s[ g g^T ] = J^T J,    g = d/dy sum(s * f(x)),    J = df/dy,    s in {-1, 1}^(R x D)

These gradients take the place of the loss's in `curvature` and `token_weights`. They need no labels and no task head.
The signs of a row depend on its contents alone, so scores do not depend on batches, padding or order.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from prunelora.errors import ScoreError
from prunelora.importance.head_inputs import head_inputs, last_hidden_state, reads_every_token
from prunelora.importance.losses import Batch, count_examples, summed_loss
from prunelora.models.anatomy import Anatomy
from prunelora.models.padding import real_tokens

# Large and even, so that the factor of each place is odd: different tokens of a row give different keys.
_STEP = 0x1E3779B97F4A7C14


@dataclass(frozen=True)
class Objective:
    """A number of each batch, the sum over its examples, whose gradients are taken.

    Attributes:
        value: Shape (), from the anatomy, the batch on the model's device, and the batch's number for messages.
        count: Number of examples of a batch, from the batch and its number.
    """

    value: Callable[[Anatomy, Batch, int], torch.Tensor]
    count: Callable[[Batch, int], int]


def projected_features(anatomy: Anatomy, batch: Batch, number: int) -> torch.Tensor:
    """The sum over rows of sum(s * f(x)), with random signs s (R, D) for every row.

    Raises:
        ScoreError: If the vectors are not finite.
    """
    hidden = last_hidden_state(anatomy, anatomy.base, batch)
    vectors = head_inputs(anatomy, hidden, batch)
    real = torch.ones(vectors.shape[:2], dtype=torch.bool, device=vectors.device)
    if reads_every_token(anatomy.model):
        real = real_tokens(batch, hidden, decoder=anatomy.family.encoder_decoder)
    if not vectors[real].isfinite().all():
        raise ScoreError(
            f"The outputs of the encoder for batch {number} are not finite. Check its rows, and the model's dtype "
            f"({vectors.dtype}): float16 overflows where bfloat16 and float32 do not."
        )
    return (vectors * _signs(_row_keys(batch, len(vectors)), real, vectors)).sum()


def count_rows(batch: Batch, number: int) -> int:
    """Number of examples of a batch, which needs no labels.

    Raises:
        ScoreError: If it has no tensor.
    """
    tensors = [value for value in batch.values() if torch.is_tensor(value)]
    if not tensors:
        raise ScoreError(f"Batch {number} has no tensors: its keys are {sorted(batch)}.")
    return len(tensors[0])


LOSS = Objective(lambda anatomy, batch, number: summed_loss(anatomy.model, batch, number), count_examples)
FEATURES = Objective(projected_features, count_rows)


def _signs(keys: torch.Tensor, real: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """Random signs of the real vectors, and 0 of padding, (B, R, D), from a key (B,) for every row."""
    signs = torch.zeros(vectors.shape)
    for row, key in enumerate(keys.tolist()):
        generator = torch.Generator().manual_seed(key)
        drawn = torch.randint(0, 2, (int(real[row].sum()), vectors.shape[-1]), generator=generator)
        signs[row, real[row].cpu()] = 2.0 * drawn - 1
    return signs.to(vectors)


def _row_keys(batch: Mapping[str, Any], rows: int) -> torch.Tensor:
    """A number (rows,) from the contents of every row: of its tokens without padding, or of its image."""
    ids, mask = batch.get("input_ids"), batch.get("attention_mask")
    if ids is None:
        name = next(name for name in ("pixel_values", "inputs_embeds") if name in batch)
        # Exact sums of the bits: sums of the numbers would depend on the order of addition.
        ids = batch[name].detach().float().contiguous().view(torch.int32)
        mask = None if mask is None else mask[..., None].expand(ids.shape)
    ids = ids.reshape(rows, -1).cpu().long()
    real = torch.ones_like(ids) if mask is None else mask.reshape(rows, -1).cpu().long()
    # Integers wrap around: a token counts by its id and its place, padding not at all.
    return ((ids + 1) * (real.cumsum(1) * _STEP + 1) * real).sum(1).abs()
