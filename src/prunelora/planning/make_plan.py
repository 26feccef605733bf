"""From scores and a budget to a plan."""

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
from prunelora.planning.plan import Plan
from prunelora.planning.ranks import block_importance as mean_of_units
from prunelora.planning.ranks import block_ranks
from prunelora.planning.selection import best, best_of_each, check_not_all_gone, count_to_keep
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
    """Choose the heads and neurons that stay, and a LoRA rank for every matrix.

    A budget is given in one of five ways. With `keep_heads` and `keep_ffn` heads compete with the heads of all layers,
    neurons with the neurons of all layers (paper section 3.2). With the others heads and neurons compete in one
    problem: what stays has the highest scores, added up, of all choices within the budget (see `allocation`). With no
    budget everything stays.

    Args:
        importance: What `score` gave.
        keep_heads: Heads that stay in all layers together: a count (100 of 144 in the paper) or a fraction of the heads
            that were scored (0.5). Fractions are rounded down. 1 is one head, 1.0 all of them; 0 keeps none.
        keep_ffn: Neurons that stay in all layers together, likewise; rounded down to groups of `round_to`.
        keep_macs: Fraction of the base model's MACs in its blocks that stays, for inputs of `tokens` tokens.
        keep_params: Fraction of the base model's parameters that stays; of which, says `count`.
        max_latency_ms: Time of one forward pass, by the table `latency`.
        speedup: How many times as fast as the base model, by the table `latency`: 2 is half the time.
        count: What keep_params is a fraction of: "encoder", the parameters that go with heads and neurons; "all", every
            parameter of the model, embeddings and task head included.
        tokens: Length of the inputs that MACs are counted for.
        latency: Milliseconds by what stays in every layer: `measure_latency_model(model).table()`.
        normalise: "paper": divide by each layer's L2 norm, then min-max over all layers (eq. 2). "none": raw scores.
        balance: How scores of heads and neurons are made comparable where they compete: "cost" scales them so that both
            are worth the same for a unit of cost on average, "none" takes them as they are.
        round_to: Neurons stay or go in groups of so many in every layer, a width that matrix products like. 1 takes
            them one by one. With groups fewer neurons than the budget may stay, never more.
        rank_high: LoRA rank in the `num_high` most important blocks.
        rank_low: LoRA rank in the others.
        num_high: The paper's 4 of 12, scaled to a third of the blocks, if not given.
        block_importance: "raw" ranks blocks by the mean of their heads' scores before the per-layer normalisation;
            "normalised" after it.
        rank_by: "heads": every matrix of a block has the rank its heads give it, as in the paper. "parts": up and down
            projections are ranked by the mean of their neurons' scores, apart from the heads.
        targets: Which projections get LoRA, of "query", "key", "value", "output", "up", "down".

    Returns:
        A plan in the base model's coordinates, also when an already pruned model was scored.

    Raises:
        PlanError: If an option has no meaning for this model, two budgets are given, or one cannot be met; the message
            says which values can. A budget above 0 that would keep no head and no neuron cannot be met.
    """
    lineage = importance.lineage
    unknown = [name for name in targets if name not in PROJECTIONS]
    if unknown:
        raise PlanError(f"{option('targets', unknown[0])}: no projection.{one_of(unknown[0], PROJECTIONS)}")
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
    facts: dict[str, Any] = {}
    if kind is None or kind == "counts":
        num_heads, num_neurons = (sum(map(len, ids)) for ids in (lineage.heads, lineage.neurons))
        units = lineage.base.unit_of_heads
        heads_left = best(scores[0], count_to_keep(given["keep_heads"], num_heads, "keep_heads", units=units))
        neurons_left = best(scores[1], count_to_keep(given["keep_ffn"], num_neurons, "keep_ffn"), round_to=round_to)
        check_not_all_gone(given["keep_ffn"], scores[1], neurons_left, round_to)
    else:
        budget = _budget(kind, given[kind], importance, count=count, tokens=tokens, latency=latency)
        balanced_scores = balanced(*scores, budget.table, balance)
        unit = lineage.base.unit_of_heads.removesuffix("s")
        heads_left, neurons_left, facts = _within(budget, *balanced_scores, round_to, count, unit)
    heads = tuple(tuple(ids[i] for i in kept) for ids, kept in zip(lineage.heads, heads_left, strict=True))
    neurons = tuple(tuple(ids[i] for i in kept) for ids, kept in zip(lineage.neurons, neurons_left, strict=True))
    of_heads, of_neurons = _ranks(
        importance, block_importance, rank_by, rank_high=rank_high, rank_low=rank_low, num_high=num_high
    )
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None} | {
        "normalise": normalise,
        "round_to": round_to,
        "block_importance": block_importance,
        "rank_by": rank_by,
    }
    if facts:
        options |= {"balance": balance} | ({"tokens": tokens} if kind == "keep_macs" else {})
        options |= {"count": count} if kind == "keep_params" else {}
    return Plan(
        base=lineage.base,
        heads=heads,
        neurons=neurons,
        ranks={
            name: tuple(
                rank if left else 0
                for rank, left in (
                    zip(of_heads, heads, strict=True)
                    if name in ATTENTION_PROJECTIONS
                    else zip(of_neurons, neurons, strict=True)
                )
            )
            for name in PROJECTIONS
            if name in targets
        },
        provenance={"scores": importance.provenance, "options": options} | ({"budget": facts} if facts else {}),
    )


def _ranks(importance: Importance, how: str, rank_by: str, **options: Any) -> tuple[list[int], list[int]]:
    """Ranks of the attention matrices of every layer, and of its feed-forward matrices."""
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
            f"{option(kind, value)} needs times of this device: pass latency=measure_latency_model(model).table(), or "
            f"use {advice('keep_macs')}, which needs none."
        )
    _check_measured(latency, base)
    return (budgets.at_most if kind == "max_latency_ms" else budgets.times_as_fast)(kind, value, latency)


def _check_measured(latency: CostTable, base: Architecture) -> None:
    """Hold a table of times to be of the scored model; one that somebody made up says counts alone."""
    counts = [[len(one) - 1 for one in of_layers] for of_layers in (latency.heads, latency.neurons)]
    differing = base.differences(latency.architecture) if latency.architecture is not None else []
    if differing or counts != [list(base.num_heads), list(base.num_neurons)]:
        measured = latency.architecture
        shown = f"heads {counts[0]}, neurons {counts[1]}" if measured is None else measured.describe()
        raise PlanError(
            f"latency= was measured for another model ({shown}) than the scored one ({base.describe()})"
            f"{': ' + ', '.join(differing) if differing else ''}. Measure the scored one: "
            "latency=measure_latency_model(model).table()."
        )


def _fixed_parameters(importance: Importance, count: str) -> int:
    if count not in ("encoder", "all"):
        raise PlanError(f"{option('count', count)} is unknown.{one_of(count, ('encoder', 'all'))}")
    if count == "encoder":
        return 0
    if importance.num_parameters is None:
        raise PlanError(
            f"{option('count', count)}: the scores do not say how many parameters the model has. Score again, or use "
            f"{advice('count', 'encoder')}."
        )
    present = Plan.whole(importance.lineage).architecture
    return importance.num_parameters - block_parameters(present)


def _within(
    budget: Budget, heads: Any, neurons: Any, round_to: int, count: str, unit: str
) -> tuple[Positions, Positions, dict[str, Any]]:
    """Positions of what stays in every layer, and how near to the budget, and to the best choice, that is."""
    table = budget.table
    found = allocate(table, heads, neurons, limit=budget.limit, round_to=round_to)
    offered = [*zip(table.heads, heads, strict=True)], [*zip(table.neurons, neurons, strict=True)]
    smallest = [
        float(costs[min(step, len(values))])
        for step, of_kind in zip((1, round_to), offered, strict=True)
        for costs, values in of_kind
        if len(values)
    ]
    if found is None or (smallest and not any((*found.heads, *found.neurons))):
        least = table.fixed + min(smallest, default=0.0)
        raise budgets.infeasible(budget, least, round_to=round_to, count=count, unit=unit)
    facts = {
        "unit": table.unit,
        "base": table.whole,
        "limit": budget.limit,
        "cost": found.cost,
        "value": found.value,
        "upper_bound_of_value": found.bound,
    }
    return best_of_each(heads, found.heads), best_of_each(neurons, found.neurons), facts
