"""Normalisation of scores across layers (paper section 3.1, eq. 2), and their balance between heads and neurons."""

from collections.abc import Sequence

import numpy as np

from prunelora.errors import PlanError, one_of, option
from prunelora.planning.cost_tables import CostTable

Layers = Sequence[np.ndarray]

NORMALISATIONS = ("paper", "none")
BALANCES = ("cost", "none")

# Smaller than the float64 gradient of any unit with an effect; keeps a layer of zeros at zero.
EPS = 1e-20


def normalise(scores: Layers, how: str) -> list[np.ndarray]:
    """Normalise scores across layers, or return them unchanged with "none".

    "paper" divides by each layer's L2 norm, then scales all layers together to 0..1::

        I'[l,h] = I[l,h] / (||I[l,:]||_2 + eps);  I'' = (I' - min I') / (max I' - min I'), min and max over all L x H

    Raises:
        PlanError: If `how` is neither.
    """
    if how not in NORMALISATIONS:
        raise PlanError(f"{option('normalise', how)} is unknown.{one_of(how, NORMALISATIONS)}")
    if how == "none" or not sum(map(len, scores)):
        return list(scores)
    divided = [layer / (np.linalg.norm(layer) + EPS) for layer in scores]
    values = np.concatenate(divided)
    low, high = values.min(), values.max()
    return [(layer - low) / (high - low) if high > low else np.zeros_like(layer) for layer in divided]


def balanced(heads: Layers, neurons: Layers, table: CostTable, how: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Make scores of heads and neurons comparable, or return them unchanged with "none".

    "cost" scales the neurons' scores so that, on average, heads and neurons have the same score per unit of cost. The
    spread of the scores then decides which kind is pruned more, and not their scale: a head's gradient is summed over
    its channels before the absolute value, and a neuron has one channel. In a pruned model, the averages are over the
    present heads and neurons.

    Raises:
        PlanError: If `how` is neither.
    """
    if how not in BALANCES:
        raise PlanError(f"{option('balance', how)} is unknown.{one_of(how, BALANCES)}")
    totals = (_sum(heads), _sum(neurons), _cost(table.heads, heads), _cost(table.neurons, neurons))
    if how == "none" or not all(totals):
        return list(heads), list(neurons)
    score_of_heads, score_of_neurons, cost_of_heads, cost_of_neurons = totals
    factor = score_of_heads / cost_of_heads * cost_of_neurons / score_of_neurons
    return list(heads), [factor * layer for layer in neurons]


def _cost(costs: Layers, scores: Layers) -> float:
    """Cost of all units that have a score."""
    return float(sum(layer[len(values)] for layer, values in zip(costs, scores, strict=True)))


def _sum(layers: Layers) -> float:
    return float(sum(layer.sum() for layer in layers))
