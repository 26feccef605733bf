"""Making scores comparable: those of different layers (paper section 3.1, eq. 2), and those of heads and neurons."""

from collections.abc import Callable, Sequence

import numpy as np

from prunelora.errors import PlanError, one_of, option
from prunelora.planning.cost_tables import CostTable

Layers = Sequence[np.ndarray]

# Smaller than any gradient that float64 holds for a unit that does anything; keeps a layer of zeros at zero.
EPS = 1e-20


def paper(scores: Layers) -> list[np.ndarray]:
    """Divide by each layer's L2 norm, then stretch all layers together to 0..1.

    I'[l,h] = I[l,h] / (||I[l,:]||_2 + eps);  I'' = (I' - min I') / (max I' - min I'), min and max over all L x H.
    """
    divided = [layer / (np.linalg.norm(layer) + EPS) for layer in scores]
    everything = np.concatenate(divided) if divided else np.zeros(0)
    if not everything.size:
        return divided
    low, high = everything.min(), everything.max()
    return [(layer - low) / (high - low) if high > low else np.zeros_like(layer) for layer in divided]


def none(scores: Layers) -> list[np.ndarray]:
    """Leave the scores as they are: layers compete by their raw gradients."""
    return list(scores)


NORMALISATIONS: dict[str, Callable[[Layers], list[np.ndarray]]] = {"paper": paper, "none": none}


def normalise(scores: Layers, how: str) -> list[np.ndarray]:
    """Apply a normalisation by name: "paper" or "none".

    Raises:
        PlanError: If there is none of that name.
    """
    if how not in NORMALISATIONS:
        raise PlanError(f"{option('normalise', how)} is unknown.{one_of(how, NORMALISATIONS)}")
    return NORMALISATIONS[how](scores)


def by_cost(heads: Layers, neurons: Layers, table: CostTable) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Scale the neurons' scores so that a unit of cost is worth as much in heads as in neurons, on average.

    Which kind is cut more then follows from how unevenly its scores are spread, not from how they were measured: a
    head's gradient is summed over its channels before the absolute value is taken, a neuron has one channel. In a model
    that was cut before, worth and cost are those of what is left.
    """
    worth_of_heads, worth_of_neurons = _sum(heads), _sum(neurons)
    cost_of_heads, cost_of_neurons = _cost(table.heads, heads), _cost(table.neurons, neurons)
    if not (worth_of_heads and worth_of_neurons and cost_of_heads and cost_of_neurons):
        return list(heads), list(neurons)
    factor = worth_of_heads / cost_of_heads * cost_of_neurons / worth_of_neurons
    return list(heads), [factor * layer for layer in neurons]


def _cost(costs: Layers, scores: Layers) -> float:
    """Of as many units as have a score, in every layer."""
    return float(sum(layer[len(left)] for layer, left in zip(costs, scores, strict=True)))


def as_they_are(heads: Layers, neurons: Layers, _: CostTable) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Compare the scores of heads and neurons as they are: both are changes of the same loss."""
    return list(heads), list(neurons)


BALANCES: dict[str, Callable[[Layers, Layers, CostTable], tuple[list[np.ndarray], list[np.ndarray]]]] = {
    "cost": by_cost,
    "none": as_they_are,
}


def balanced(heads: Layers, neurons: Layers, table: CostTable, how: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Make scores of heads and neurons comparable by name: "cost" or "none".

    Raises:
        PlanError: If there is nothing of that name.
    """
    if how not in BALANCES:
        raise PlanError(f"{option('balance', how)} is unknown.{one_of(how, BALANCES)}")
    return BALANCES[how](heads, neurons, table)


def _sum(layers: Layers) -> float:
    return float(sum(layer.sum() for layer in layers))
