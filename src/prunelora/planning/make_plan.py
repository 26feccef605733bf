"""Plans from scores and a budget."""

from typing import Any

from prunelora.errors import PlanError, advice, check_count, one_of, option
from prunelora.importance.importance import Importance
from prunelora.models.architecture import Architecture
from prunelora.models.family import ATTENTION_PROJECTIONS, PROJECTIONS
from prunelora.planning import budgets
from prunelora.planning.allocation import allocate
from prunelora.planning.budgets import Budget
from prunelora.planning.cost_tables import CostTable, macs_table, parameters_table
from prunelora.planning.costs import block_parameters
from prunelora.planning.normalise import balanced
from prunelora.planning.normalise import normalise as normalised
from prunelora.planning.plan import Plan, base_ids
from prunelora.planning.ranks import block_importance as mean_of_units
from prunelora.planning.ranks import block_ranks
from prunelora.planning.selection import best, best_of_each, check_some_kept, count_to_keep
from prunelora.planning.units import check_normalise
from prunelora.settings import plain

Positions = list[list[int]]


def make_plan(
    importance: Importance,
    *,
    keep_heads: int | float | None = None,
    keep_ffn: int | float | None = None,
    keep_macs: float | None = None,
    keep_params: float | None = None,
    max_latency_ms: float | None = None,
    speedup: float | None = None,
    count: str = "encoder",
    tokens: int = 128,
    latency: CostTable | None = None,
    normalise: str = "paper",
    balance: str = "cost",
    round_to: int = 8,
    rank_high: int = 8,
    rank_low: int = 4,
    num_high: int | None = None,
    block_importance: str = "raw",
    rank_by: str = "heads",
    targets: tuple[str, ...] = ATTENTION_PROJECTIONS,
) -> Plan:
    """Choose the heads and neurons to keep, and a LoRA rank for every matrix.

    There are five kinds of budget. With `keep_heads` and `keep_ffn` (feed-forward neurons), heads compete with the
    heads of all layers, and neurons with the neurons of all layers (paper section 3.2). With any other budget, heads
    and neurons compete with each other: those with the highest sum of scores within the budget are kept (see
    `allocation`). Without a budget, everything is kept.

    Args:
        importance: Scores, from `score`.
        keep_heads: Heads to keep in all layers together: a count (100 of 144 in the paper) or a fraction of the scored
            heads (0.5). Fractions are rounded down. 1 is one head, 1.0 all heads; 0 keeps none.
        keep_ffn: Neurons to keep in all layers together, likewise; rounded down to groups of `round_to`.
        keep_macs: Fraction of the MACs of the base model's blocks to keep, for inputs of `tokens` tokens.
        keep_params: Fraction of the base model's parameters to keep, of the total that `count` selects.
        max_latency_ms: Maximum time of one forward pass, by the table `latency`.
        speedup: Speed relative to the base model, by the table `latency`: 2 is half the time.
        count: Total that keep_params is a fraction of: "encoder", the parameters of heads and neurons; "all", all
            parameters of the model, embeddings and task head included.
        tokens: Length of the inputs for which MACs are counted.
        latency: Milliseconds by kept heads and neurons of every layer: `measure_latency_model(model).table()`.
        normalise: "paper": divide by each layer's L2 norm, then min-max over all layers (eq. 2). "none": raw scores.
        balance: How scores of heads and neurons are made comparable if they compete: "cost" gives both the same mean
            score per unit of cost, "none" leaves them unchanged.
        round_to: Neurons are kept in groups of this size in every layer, for efficient matrix products. With groups
            above 1, fewer neurons than the budget may be kept, never more.
        rank_high: LoRA rank in the `num_high` most important blocks.
        rank_low: LoRA rank in the other blocks.
        num_high: Number of blocks with `rank_high`; by default a third of the blocks, as the paper's 4 of 12.
        block_importance: "raw" ranks blocks by the mean of their heads' scores before the per-layer normalisation;
            "normalised" after it.
        rank_by: "heads": the importance of a block's heads determines the rank of all its matrices, as in the paper.
            "parts": the mean score of a block's neurons determines the rank of its up and down projections.
        targets: Projections with LoRA, of "query", "key", "value", "output", "up", "down".

    Returns:
        A plan in the base model's coordinates, even if a pruned model was scored.

    Raises:
        PlanError: If an option is not valid for this model, two budgets are given, or one cannot be met; the message
            then says which values can. A budget above 0 that would keep no head and no neuron cannot be met.
    """
    lineage = importance.lineage
    unknown = [name for name in targets if name not in PROJECTIONS]
    if unknown:
        raise PlanError(f"{option('targets', unknown[0])} is unknown.{one_of(unknown[0], PROJECTIONS)}")
    tokens, round_to, rank_high, rank_low = map(plain, (tokens, round_to, rank_high, rank_low))
    num_high = plain(num_high)
    for name, value in (("tokens", tokens), ("round_to", round_to)):
        check_count(PlanError, name, value)
    for name, value in (("rank_high", rank_high), ("rank_low", rank_low), ("num_high", num_high)):
        if name != "num_high" or value is not None:
            check_count(PlanError, name, value, at_least=0)
    given = {
        "keep_heads": plain(keep_heads),
        "keep_ffn": plain(keep_ffn),
        "keep_macs": plain(keep_macs),
        "keep_params": plain(keep_params),
        "max_latency_ms": plain(max_latency_ms),
        "speedup": plain(speedup),
    }
    kind = budgets.only_one(given)
    check_normalise(importance.provenance.get("criterion"), normalise)
    scores = normalised(importance.heads, normalise), normalised(importance.neurons, normalise)
    budget_facts: dict[str, Any] = {}
    if kind is None or kind == "counts":
        num_heads, num_neurons = (sum(map(len, ids)) for ids in (lineage.heads, lineage.neurons))
        units = lineage.base.unit_of_heads
        kept_heads = best(scores[0], count_to_keep(given["keep_heads"], num_heads, "keep_heads", units=units))
        kept_neurons = best(scores[1], count_to_keep(given["keep_ffn"], num_neurons, "keep_ffn"), round_to=round_to)
        check_some_kept(given["keep_ffn"], scores[1], kept_neurons, round_to)
    else:
        budget = _budget(kind, given[kind], importance, count=count, tokens=tokens, latency=latency)
        balanced_scores = balanced(*scores, budget.table, balance)
        unit = lineage.base.unit_of_heads.removesuffix("s")
        kept_heads, kept_neurons, budget_facts = _within(budget, *balanced_scores, round_to, count, unit)
    heads, neurons = base_ids(lineage.heads, kept_heads), base_ids(lineage.neurons, kept_neurons)
    of_heads, of_neurons = _ranks(
        importance, block_importance, rank_by, rank_high=rank_high, rank_low=rank_low, num_high=num_high
    )
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None} | {
        "normalise": normalise,
        "round_to": round_to,
        "block_importance": block_importance,
        "rank_by": rank_by,
    }
    if budget_facts:
        options |= {"balance": balance} | ({"tokens": tokens} if kind == "keep_macs" else {})
        options |= {"count": count} if kind == "keep_params" else {}
    return Plan(
        base=lineage.base,
        heads=heads,
        neurons=neurons,
        ranks={
            name: tuple(
                rank if kept else 0
                for rank, kept in (
                    zip(of_heads, heads, strict=True)
                    if name in ATTENTION_PROJECTIONS
                    else zip(of_neurons, neurons, strict=True)
                )
            )
            for name in PROJECTIONS
            if name in targets
        },
        provenance={"scores": importance.provenance, "options": options}
        | ({"budget": budget_facts} if budget_facts else {}),
    )


def _ranks(importance: Importance, how: str, rank_by: str, **options: Any) -> tuple[list[int], list[int]]:
    """For every layer, the rank of its attention matrices, and the rank of its up and down projections."""
    if rank_by not in ("heads", "parts"):
        raise PlanError(f"{option('rank_by', rank_by)} is unknown.{one_of(rank_by, ('heads', 'parts'))}")
    of_heads = block_ranks(mean_of_units(importance.heads, how=how), **options)
    if rank_by == "heads":
        return of_heads, of_heads
    return of_heads, block_ranks(mean_of_units(importance.neurons, how=how), **options)


def _budget(
    kind: str, value: Any, importance: Importance, *, count: str, tokens: int, latency: CostTable | None
) -> Budget:
    base = importance.lineage.base
    if kind == "keep_macs":
        return budgets.share(kind, value, macs_table(base, tokens=tokens))
    if kind == "keep_params":
        return budgets.share(kind, value, parameters_table(base, fixed=_fixed_parameters(importance, count)))
    if latency is None:
        raise PlanError(
            f"{option(kind, value)} needs latencies of this device: pass latency=measure_latency_model(model).table(), "
            f"or use {advice('keep_macs')}, which needs none."
        )
    _check_measured(latency, base)
    return (budgets.at_most if kind == "max_latency_ms" else budgets.times_as_fast)(kind, value, latency)


def _check_measured(latency: CostTable, base: Architecture) -> None:
    """Check that a latency table is of the scored model, by its counts alone if it has no architecture."""
    counts = [[len(costs) - 1 for costs in layers] for layers in (latency.heads, latency.neurons)]
    differing = base.differences(latency.architecture) if latency.architecture is not None else []
    if differing or counts != [list(base.num_heads), list(base.num_neurons)]:
        measured = latency.architecture
        sizes = f"heads {counts[0]}, neurons {counts[1]}" if measured is None else measured.describe()
        raise PlanError(
            f"latency= was measured for another model ({sizes}) than the scored model ({base.describe()})"
            f"{': ' + ', '.join(differing) if differing else ''}. Measure the scored model: "
            "latency=measure_latency_model(model).table()."
        )


def _fixed_parameters(importance: Importance, count: str) -> int:
    if count not in ("encoder", "all"):
        raise PlanError(f"{option('count', count)} is unknown.{one_of(count, ('encoder', 'all'))}")
    if count == "encoder":
        return 0
    if importance.num_parameters is None:
        raise PlanError(
            f"{option('count', count)} needs the model's number of parameters, which the scores do not hold. Score "
            f"again, or use {advice('count', 'encoder')}."
        )
    present = Plan.whole(importance.lineage).architecture
    return importance.num_parameters - block_parameters(present)


def _within(
    budget: Budget, heads: Any, neurons: Any, round_to: int, count: str, unit: str
) -> tuple[Positions, Positions, dict[str, Any]]:
    """Kept positions in every layer, and the facts of the allocation: its cost, value, and the upper bounds of both."""
    table = budget.table
    allocation = allocate(table, heads, neurons, limit=budget.limit, round_to=round_to)
    kinds = [*zip(table.heads, heads, strict=True)], [*zip(table.neurons, neurons, strict=True)]
    smallest = [
        float(costs[min(step, len(values))])
        for step, layers in zip((1, round_to), kinds, strict=True)
        for costs, values in layers
        if len(values)
    ]
    if allocation is None or (smallest and not any((*allocation.heads, *allocation.neurons))):
        least = table.fixed + min(smallest, default=0.0)
        raise budgets.infeasible(budget, least, round_to=round_to, count=count, unit=unit)
    facts = {
        "unit": table.unit,
        "base": table.whole,
        "limit": budget.limit,
        "cost": allocation.cost,
        "value": allocation.value,
        "upper_bound_of_value": allocation.bound,
    }
    return best_of_each(heads, allocation.heads), best_of_each(neurons, allocation.neurons), facts
