"""Costs of a model after a cut, by arithmetic, before it is scored; and the record of a whole run's costs.

Before scoring nobody knows which heads and neurons a task needs, but the cost of a budget is already known.
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
    """One cost of a model.

    Attributes:
        unit: "parameters", "MACs" or "ms".
        dense: Cost with nothing cut.
        left: Cost after the cut.
        no_heads: Cost with every head cut and no neuron, the least of any plan for heads alone.
        nothing: Cost with every head and neuron cut, the least of any plan.
    """

    unit: str
    dense: float
    left: float
    no_heads: float
    nothing: float

    @property
    def cuts(self) -> tuple[float, float, float]:
        """Costs after the cut, and at the two bounds."""
        return self.left, self.no_heads, self.nothing

    def share(self, cost: float) -> float:
        """Share of the dense model's cost, 0..1."""
        return cost / self.dense

    def times_as_fast(self, cost: float) -> float | None:
        """Dense cost over `cost`; None, without bound, for no cost."""
        return self.dense / cost if cost > 0 else None

    def to_dict(self) -> dict[str, Any]:
        """For JSON: costs, and the speeds that follow from them."""
        speeds = zip(("left", "no_heads", "nothing"), map(self.times_as_fast, self.cuts), strict=True)
        return asdict(self) | {"share_left": self.share(self.left), "times_as_fast": dict(speeds)}


@dataclass(frozen=True)
class StageOutlook:
    """Wall time of a stage, and its most memory at once, counted from tensors; None if not counted."""

    stage: str
    seconds: float
    memory_bytes: int | None = None


@dataclass(frozen=True)
class RunOutlook:
    """Expected cost of a run; `noise` is the mean distance of timed rounds from their medians: 0.1 is 10 %."""

    stages: tuple[StageOutlook, ...]
    noise: float
    seconds_of_check: float

    @property
    def seconds(self) -> float:
        """Wall time of all stages."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def memory_bytes(self) -> int | None:
        """Most memory of any stage; None if none was counted."""
        return max((stage.memory_bytes for stage in self.stages if stage.memory_bytes is not None), default=None)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"seconds": self.seconds, "memory_bytes": self.memory_bytes}


def outlook(table: CostTable, left: Architecture) -> Outlook:
    """A cost by the table of the dense model, for the architecture that a plan leaves."""
    neurons = [len(costs) - 1 for costs in table.neurons]
    none = [0] * len(neurons)
    return Outlook(table.unit, table.whole, table.of(left), table.cost(none, neurons), table.cost(none, none))


def made_up_scores(architecture: Architecture, *, num_parameters: int) -> Importance:
    """Scores for a plan before scoring: equal in every layer, falling evenly from its first unit to its last.

    All layers keep about the same share, which real scores distribute differently. `num_parameters` counts
    embeddings and task head.
    """
    return Importance(
        heads=tuple(map(_falling, architecture.num_heads)),
        neurons=tuple(map(_falling, architecture.num_neurons)),
        lineage=Lineage.whole(architecture),
        num_parameters=num_parameters,
        provenance={"criterion": "made up"},
    )


def early_plan(architecture: Architecture, *, num_parameters: int, **options: Any) -> Plan:
    """The plan for a budget by made-up scores; real scores cut other units at nearly the same cost.

    Args:
        architecture: Of the dense model.
        num_parameters: Of the whole model.
        options: Of `make_plan`, without `normalise` and `balance`.

    Raises:
        PlanError: If the budget has no meaning for this model or cannot be met; the message names a feasible one.
    """
    scores = made_up_scores(architecture, num_parameters=num_parameters)
    return make_plan(scores, **options | {"normalise": "none", "balance": "cost"})


def _falling(count: int) -> np.ndarray:
    """4 -> 0.875, 0.625, 0.375, 0.125."""
    return 1 - (np.arange(count) + 0.5) / max(count, 1)
