"""Rank-varied LoRA: higher ranks in the more important blocks (paper section 3.3)."""

from collections.abc import Sequence

import numpy as np

from prunelora.errors import PlanError, one_of, option
from prunelora.planning.normalise import normalise

PAPER_LAYERS = 12
PAPER_HIGH_BLOCKS = 4


def default_num_high(num_layers: int) -> int:
    """A third of the blocks, at least one: the paper's 4 of 12.

    >>> default_num_high(12), default_num_high(6), default_num_high(2)
    (4, 2, 1)
    """
    return max(1, round(num_layers * PAPER_HIGH_BLOCKS / PAPER_LAYERS))


def block_importance(units: Sequence[np.ndarray], *, how: str = "raw") -> list[float]:
    """Mean importance of the heads, or the neurons, of each block.

    Args:
        units: For every layer, unnormalised scores (H_l,) or (F_l,).
        how: "raw" averages the scores before the per-layer normalisation, after which every block has the same norm.
            "normalised" averages them after the paper's normalisation, the other reading of the paper.

    Returns:
        L numbers; 0 for a block without units.
    """
    if how not in ("raw", "normalised"):
        raise PlanError(f"{option('block_importance', how)} is unknown.{one_of(how, ('raw', 'normalised'))}")
    scores = list(units) if how == "raw" else normalise(units, "paper")
    return [float(layer.mean()) if layer.size else 0.0 for layer in scores]


def block_ranks(importance: Sequence[float], *, rank_high: int, rank_low: int, num_high: int | None) -> list[int]:
    """`rank_high` in the `num_high` most important blocks, `rank_low` in the others; the earlier block wins ties.

    Raises:
        PlanError: If a rank is negative, low exceeds high, or there are not `num_high` blocks.
    """
    layers = len(importance)
    num_high = default_num_high(layers) if num_high is None else num_high
    if not 0 <= num_high <= layers:
        raise PlanError(f"{option('num_high', num_high)}: the model has {layers} blocks. Use a number in 0..{layers}.")
    if rank_low < 0 or rank_high < rank_low:
        raise PlanError(
            f"{option('rank_high', rank_high)}, {option('rank_low', rank_low)}: expected {option('rank_high')} >= "
            f"{option('rank_low')} >= 0."
        )
    high = set(sorted(range(layers), key=lambda layer: -importance[layer])[:num_high])
    return [rank_high if layer in high else rank_low for layer in range(layers)]
