"""Tables of the cost of every layer by the numbers of heads and neurons kept, for budgets of every kind."""

from dataclasses import dataclass

import numpy as np

from prunelora.models.architecture import Architecture
from prunelora.planning.costs import head_macs, head_parameters, neuron_macs, neuron_parameters


@dataclass(frozen=True)
class CostTable:
    """Costs of a model, layer by layer, in any one unit.

    A model with h_l heads and f_l neurons in layer l costs fixed + sum over l of heads[l][h_l] + neurons[l][f_l].

    Attributes:
        unit: "MACs", "parameters" or "ms".
        heads: For every layer, the cost of keeping 0, 1, ... H_l heads, shape (H_l + 1,); it starts at 0.
        neurons: For every layer, the cost of keeping 0, 1, ... F_l neurons, shape (F_l + 1,); it starts at 0.
        fixed: Cost that pruning does not change.
        architecture: Sizes of the model; None if the table does not belong to one model.
    """

    unit: str
    heads: tuple[np.ndarray, ...]
    neurons: tuple[np.ndarray, ...]
    fixed: float = 0.0
    architecture: Architecture | None = None

    @property
    def whole(self) -> float:
        """Cost of the unpruned model."""
        return self.cost([len(costs) - 1 for costs in self.heads], [len(costs) - 1 for costs in self.neurons])

    def cost(self, heads: list[int] | tuple[int, ...], neurons: list[int] | tuple[int, ...]) -> float:
        """Cost with these numbers of heads and neurons in every layer."""
        pairs = [*zip(self.heads, heads, strict=True), *zip(self.neurons, neurons, strict=True)]
        return self.fixed + float(sum(costs[count] for costs, count in pairs))

    def of(self, architecture: Architecture) -> float:
        """Cost of a model of this architecture, pruned or not."""
        return self.cost(architecture.num_heads, architecture.num_neurons)


def macs_table(architecture: Architecture, *, tokens: int) -> CostTable:
    """MACs of the blocks for one example of `tokens` tokens; see `costs.block_macs`."""
    return _linear(
        "MACs", architecture, head_macs(architecture, tokens=tokens), neuron_macs(architecture, tokens=tokens)
    )


def parameters_table(architecture: Architecture, *, fixed: int = 0) -> CostTable:
    """Parameters of heads and neurons, and `fixed` parameters that pruning does not remove."""
    return _linear("parameters", architecture, head_parameters(architecture), neuron_parameters(architecture), fixed)


def _linear(unit: str, architecture: Architecture, head: int, neuron: int, fixed: int = 0) -> CostTable:
    return CostTable(
        unit=unit,
        heads=tuple(np.arange(count + 1) * float(head) for count in architecture.num_heads),
        neurons=tuple(np.arange(count + 1) * float(neuron) for count in architecture.num_neurons),
        fixed=float(fixed),
        architecture=architecture,
    )
