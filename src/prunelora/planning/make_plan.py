"""From scores and a budget to a plan."""

from typing import Any

from prunelora.errors import PlanError
from prunelora.importance.importance import Importance
from prunelora.models.families import ATTENTION_PROJECTIONS, PROJECTIONS
from prunelora.planning.normalise import normalise as normalised
from prunelora.planning.plan import Plan
from prunelora.planning.ranks import block_importance as mean_of_heads
from prunelora.planning.ranks import block_ranks
from prunelora.planning.selection import best, count_to_keep


def make_plan(
    importance: Importance,
    *,
    keep_heads: int | float | None = None,
    keep_ffn: int | float | None = None,
    normalise: str = "paper",
    round_to: int = 8,
    rank_high: int = 8,
    rank_low: int = 4,
    num_high: int | None = None,
    block_importance: str = "raw",
    targets: tuple[str, ...] = ATTENTION_PROJECTIONS,
) -> Plan:
    """Choose the heads and neurons that stay, and a LoRA rank for every matrix.

    Heads compete with the heads of all layers, neurons with the neurons of all layers (paper section 3.2). With no
    budget everything stays.

    Args:
        importance: What `score` gave.
        keep_heads: Heads that stay in all layers together: a count (100 of 144 in the paper) or a fraction of the heads
            that were scored (0.5). Fractions are rounded down.
        keep_ffn: Neurons that stay in all layers together, likewise.
        normalise: "paper": divide by each layer's L2 norm, then min-max over all layers (eq. 2). "none": raw scores.
        round_to: Neurons stay or go in groups of so many in every layer, a width that matrix products like. 1 takes
            them one by one. With groups fewer neurons than the budget may stay, never more.
        rank_high: LoRA rank in the `num_high` most important blocks.
        rank_low: LoRA rank in the others.
        num_high: The paper's 4 of 12, scaled to a third of the blocks, if not given.
        block_importance: "raw" ranks blocks by the mean of their heads' scores before the per-layer normalisation;
            "normalised" after it.
        targets: Which projections get LoRA, of "query", "key", "value", "output", "up", "down".

    Returns:
        A plan in the base model's coordinates, also when an already pruned model was scored.

    Raises:
        PlanError: If an option has no meaning for this model; the message says which values have.
    """
    lineage = importance.lineage
    unknown = [name for name in targets if name not in PROJECTIONS]
    if unknown:
        raise PlanError(f"targets: {unknown[0]!r} is no projection. Use: {', '.join(PROJECTIONS)}.")
    if round_to < 1:
        raise PlanError(f"round_to={round_to}: expected 1 or more neurons a group.")
    num_heads = sum(map(len, lineage.heads))
    num_neurons = sum(map(len, lineage.neurons))
    heads_left = best(normalised(importance.heads, normalise), count_to_keep(keep_heads, num_heads, "keep_heads"))
    neurons_left = best(
        normalised(importance.ffn, normalise), count_to_keep(keep_ffn, num_neurons, "keep_ffn"), round_to=round_to
    )
    heads = tuple(tuple(ids[i] for i in kept) for ids, kept in zip(lineage.heads, heads_left, strict=True))
    neurons = tuple(tuple(ids[i] for i in kept) for ids, kept in zip(lineage.neurons, neurons_left, strict=True))
    ranks = block_ranks(
        mean_of_heads(importance.heads, how=block_importance), rank_high=rank_high, rank_low=rank_low, num_high=num_high
    )
    options: dict[str, Any] = {
        "keep_heads": keep_heads,
        "keep_ffn": keep_ffn,
        "normalise": normalise,
        "round_to": round_to,
        "block_importance": block_importance,
    }
    return Plan(
        base=lineage.base,
        heads=heads,
        neurons=neurons,
        ranks={
            name: tuple(
                rank if left else 0
                for rank, left in zip(ranks, heads if name in ATTENTION_PROJECTIONS else neurons, strict=True)
            )
            for name in PROJECTIONS
            if name in targets
        },
        provenance={"scores": importance.provenance, "options": options},
    )
