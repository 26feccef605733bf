"""Plans as text for a terminal."""

from prunelora.models.family import PROJECTIONS
from prunelora.planning.plan import Plan

_BAR = 24


def draw_plan(plan: Plan) -> list[str]:
    """One line a layer: a square for every head (filled where it stays), a bar of neurons, ranks."""
    base = plan.base
    width, unit = max(base.num_heads, default=0), base.unit_of_heads.split()[-1]
    names = [name for name in PROJECTIONS if name in plan.ranks]
    lines = [
        f"plan {plan.id} for {base.describe()}",
        f"{plan.architecture.heads_of(base)} and {plan.architecture.total_neurons} of "
        f"{base.total_neurons} neurons stay",
        f"layer  {unit:<{2 * width}} {'neurons':<{_BAR + 12}} rank" + (f" ({' '.join(names)})" if names else ""),
    ]
    for layer in range(base.num_layers):
        heads = " ".join("■" if head in plan.heads[layer] else "□" for head in range(base.num_heads[layer]))
        kept, total = len(plan.neurons[layer]), base.num_neurons[layer]
        filled = round(_BAR * kept / total) if total else 0
        bar = "█" * filled + "░" * (_BAR - filled)
        ranks = " ".join(str(plan.rank(name, layer)) for name in names) or "none"
        lines.append(f"{layer:>5}  {heads:<{2 * width}} {bar} {kept:>5}/{total:<5} {ranks}")
    return lines


def draw_difference(first: Plan, second: Plan) -> list[str]:
    """One line a layer: what only the first plan keeps (-), only the second (+), both (■), neither (□)."""
    base = first.base
    width, unit = max(base.num_heads, default=0), base.unit_of_heads.split()[-1]
    lines = [
        f"- {first.id}: {first.architecture.heads_of(base)}, {first.architecture.total_neurons} neurons",
        f"+ {second.id}: {second.architecture.heads_of(base)}, {second.architecture.total_neurons} neurons",
    ]
    if first.id == second.id:
        return [*lines, "The plans are the same."]
    lines.append(f"layer  {unit:<{2 * width}} neurons")
    marks = {(True, True): "■", (True, False): "-", (False, True): "+", (False, False): "□"}
    for layer in range(base.num_layers):
        heads = " ".join(
            marks[head in first.heads[layer], head in second.heads[layer]] for head in range(base.num_heads[layer])
        )
        kept, kept_by_second = set(first.neurons[layer]), set(second.neurons[layer])
        ranks = [
            f"{name} rank {first.rank(name, layer)} -> {second.rank(name, layer)}"
            for name in PROJECTIONS
            if first.rank(name, layer) != second.rank(name, layer)
        ]
        counts = f"{len(kept)} -> {len(kept_by_second)}"
        neurons = f"{counts} (-{len(kept - kept_by_second)} +{len(kept_by_second - kept)})"
        lines.append(f"{layer:>5}  {heads:<{2 * width}} {neurons}{'; ' if ranks else ''}{', '.join(ranks)}")
    return lines
