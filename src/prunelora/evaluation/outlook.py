"""What cutting gives, by arithmetic: a cost of the dense model, after a cut, and where cutting ends; and an early plan.

Before a model was scored nobody knows which heads and neurons a task needs, but what a budget costs is known already.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from prunelora.importance.importance import Importance
from prunelora.models.architecture import Architecture
from prunelora.models.lineage import Lineage
from prunelora.planning.cost_tables import CostTable
from prunelora.planning.make_plan import make_plan
from prunelora.planning.plan import Plan


@dataclass(frozen=True)
class Outlook:
    """One cost of a model, in one unit.

    Attributes:
        unit: "parameters", "MACs" or "ms".
        dense: With nothing cut.
        left: After the cut that was asked for.
        no_heads: With every head cut and no neuron: no plan for heads alone costs less.
        nothing: With every head and every neuron cut: no plan costs less.
    """

    unit: str
    dense: float
    left: float
    no_heads: float
    nothing: float

    def share(self, cost: float) -> float:
        """Part of the dense model's cost, 0..1."""
        return cost / self.dense

    def times_as_fast(self, cost: float) -> float | None:
        """How many times a cost goes into the dense model's; None, without bound, for no cost."""
        return self.dense / cost if cost > 0 else None

    def to_dict(self) -> dict[str, Any]:
        """For JSON: costs, and the speed they come to."""
        costs = {"left": self.left, "no_heads": self.no_heads, "nothing": self.nothing}
        return asdict(self) | {
            "share_left": self.share(self.left),
            "times_as_fast": {name: self.times_as_fast(cost) for name, cost in costs.items()},
        }


def outlook(table: CostTable, left: Architecture) -> Outlook:
    """A cost by the table of the dense model, for what a plan leaves of it."""
    neurons = [len(costs) - 1 for costs in table.neurons]
    none = [0] * len(neurons)
    return Outlook(
        unit=table.unit,
        dense=table.whole,
        left=table.of(left),
        no_heads=table.cost(none, neurons),
        nothing=table.cost(none, none),
    )


def outlook_row(title: str, *cells: str) -> str:
    """A row of the table that costs are shown in, for a terminal."""
    return (f"{title:<47}" + "".join(f" {cell:>17}" for cell in cells)).rstrip()


def made_up_scores(architecture: Architecture, *, num_parameters: int) -> Importance:
    """Scores for a plan before there are any: the same in every layer, falling evenly from its first unit to its last.

    No layer is preferred, so that all keep about the same share. Real scores share a budget out in another way.

    Args:
        architecture: Of the dense model.
        num_parameters: Of the whole model, embeddings and task head included.
    """
    return Importance(
        heads=tuple(map(_falling, architecture.num_heads)),
        neurons=tuple(map(_falling, architecture.num_neurons)),
        lineage=Lineage.whole(architecture),
        num_parameters=num_parameters,
        provenance={"criterion": "made up"},
    )


def early_plan(architecture: Architecture, *, num_parameters: int, **options: Any) -> Plan:
    """The plan for a budget by made-up scores: what stays of which layer will differ, what it costs will hardly.

    Args:
        architecture: Of the dense model.
        num_parameters: Of the whole model.
        options: Of `make_plan`; how scores are made comparable is not among them, as these are.

    Raises:
        PlanError: If the budget has no meaning for this model or cannot be met; the message says which can.
    """
    scores = made_up_scores(architecture, num_parameters=num_parameters)
    return make_plan(scores, **options | {"normalise": "none", "balance": "cost"})


def _falling(count: int) -> np.ndarray:
    """4 -> 0.875, 0.625, 0.375, 0.125."""
    return 1 - (np.arange(count) + 0.5) / max(count, 1)
