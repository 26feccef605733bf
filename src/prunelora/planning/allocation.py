"""Allocation of a budget to the heads and neurons of all layers, as a multiple-choice knapsack problem.

Every layer has two choices: how many of its best heads to keep, and how many of its best neurons. An option has a value
(the sum of the kept scores) and a cost (MACs, parameters or milliseconds, from a `CostTable`). The optimal allocation
has the highest total value at a total cost within the limit (Kellerer, Pferschy and Pisinger 2004, chapter 11).

Costs are rounded up to a grid, and dynamic programming solves the rounded problem. If all costs are multiples of a unit
that is not too small, as for MACs, the grid is that unit and the solution is exact. Otherwise the limit is divided into
`GRID` steps, and rounding loses at most one step per choice; the unspent budget is then spent greedily.
`Allocation.bound` is an upper bound on the value, from Lagrangian duality.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prunelora.planning.cost_tables import CostTable

GRID = 32_768
# Relative tolerance, so that rounding of sums does not exclude a solution that meets the limit exactly.
_SLACK = 1e-9


@dataclass(frozen=True)
class Allocation:
    """Numbers of heads and neurons to keep in every layer.

    Attributes:
        heads: For every layer, number of heads to keep, the best first.
        neurons: For every layer, number of neurons to keep, the best first.
        cost: Their cost by the table, at most the limit.
        value: Sum of their scores.
        bound: Upper bound on the value of any allocation within the limit.
    """

    heads: tuple[int, ...]
    neurons: tuple[int, ...]
    cost: float
    value: float
    bound: float


@dataclass(frozen=True)
class _Choice:
    """The options for one layer's heads, or neurons, in increasing number kept."""

    counts: NDArray[np.int64]
    values: NDArray[np.float64]
    costs: NDArray[np.float64]


def allocate(
    table: CostTable,
    heads: Sequence[NDArray[np.float64]],
    neurons: Sequence[NDArray[np.float64]],
    *,
    limit: float,
    round_to: int = 1,
) -> Allocation | None:
    """Maximise the sum of the kept scores at a cost of at most `limit`.

    Args:
        table: Costs of every layer.
        heads: For every layer, scores of its heads (H_l,), comparable with those of the neurons.
        neurons: For every layer, scores of its neurons (F_l,).
        limit: Maximum cost in the table's unit.
        round_to: The number of neurons kept in a layer is a multiple of this, or all of them.

    Returns:
        The allocation; None if keeping nothing already costs more than the limit.
    """
    # A pruned layer has fewer heads or neurons than the table has costs for.
    choices = [_options(scores, costs, 1) for scores, costs in zip(heads, table.heads, strict=True)]
    choices += [_options(scores, costs, round_to) for scores, costs in zip(neurons, table.neurons, strict=True)]
    room = (limit - table.fixed) * (1 + _SLACK)
    if -_SLACK * limit <= room < 0:  # The limit equals the fixed cost up to rounding.
        room = 0.0
    if room < sum(float(choice.costs.min()) for choice in choices):
        return None
    picked = _solve(choices, room)
    _spend_the_rest(choices, picked, room)
    counts = [int(choice.counts[option]) for choice, option in zip(choices, picked, strict=True)]
    kept_heads, kept_neurons = tuple(counts[: len(heads)]), tuple(counts[len(heads) :])
    return Allocation(
        heads=kept_heads,
        neurons=kept_neurons,
        cost=table.cost(kept_heads, kept_neurons),
        value=sum(float(choice.values[option]) for choice, option in zip(choices, picked, strict=True)),
        bound=_bound(choices, room),
    )


def _options(scores: NDArray[np.float64], costs: NDArray[np.float64], step: int) -> _Choice:
    """Keep the best 0, `step`, 2 * `step`, ... or all units."""
    total = len(scores)
    counts = np.unique(np.append(np.arange(0, total + 1, step), total))
    best_first = np.sort(scores)[::-1]
    values = np.concatenate([[0.0], np.cumsum(best_first)])[counts]
    return _Choice(counts, values, np.asarray(costs, dtype=np.float64)[counts])


def _solve(choices: Sequence[_Choice], room: float) -> list[int]:
    """Index of the optimal option for every choice, by dynamic programming over the spent budget."""
    unit = _unit(choices, room)
    size = math.floor(room / unit) + 1
    # An option that exceeds the budget on its own has the weight `size`, which is beyond the table.
    weights = [
        np.ceil(np.where(choice.costs <= room, choice.costs / unit * (1 - _SLACK), size)).astype(np.int64)
        for choice in choices
    ]
    # Highest value of the first i choices at a cost of at most 0, 1, ... units.
    best_values = [np.zeros(size)]
    for choice, weight in zip(choices, weights, strict=True):
        previous, values = best_values[-1], np.full(size, -np.inf)
        for units, value in zip(weight, choice.values, strict=True):
            if units < size:
                np.maximum(values[units:], previous[: size - units] + value, out=values[units:])
        best_values.append(values)
    budget = int(np.argmax(best_values[-1]))
    picked = [0] * len(choices)
    for number in range(len(choices) - 1, -1, -1):  # Backtrack: find the option that gave the best value.
        fitting = weights[number] <= budget
        totals = np.full(len(fitting), -np.inf)
        totals[fitting] = best_values[number][budget - weights[number][fitting]] + choices[number].values[fitting]
        picked[number] = int(np.argmax(totals))
        budget -= int(weights[number][picked[number]])
    return picked


def _unit(choices: Sequence[_Choice], room: float) -> float:
    """Grid step: the greatest common divisor of costs if they are whole and it is large enough, else room / GRID."""
    costs = np.concatenate([choice.costs for choice in choices])
    finest = room / GRID if room > 0 else 1.0
    if (costs == np.round(costs)).all() and costs.max(initial=0) < 2**62:
        divisor = int(np.gcd.reduce(costs.astype(np.int64)))
        if divisor >= finest:
            return float(divisor)
    return finest


def _spend_the_rest(choices: Sequence[_Choice], picked: list[int], room: float) -> None:
    """Spend the unspent budget greedily: repeatedly keep the unit of highest value per cost that still fits."""
    unspent = room - sum(float(choice.costs[option]) for choice, option in zip(choices, picked, strict=True))
    while True:
        steps = []
        for number, (choice, option) in enumerate(zip(choices, picked, strict=True)):
            if option + 1 < len(choice.counts):
                cost = float(choice.costs[option + 1] - choice.costs[option])
                if cost <= unspent:
                    gain = float(choice.values[option + 1] - choice.values[option])
                    steps.append((gain / cost if cost > 0 else math.inf, -number, cost))
        if not steps:
            return
        _, number, cost = max(steps)
        picked[-number] += 1
        unspent -= cost


def _bound(choices: Sequence[_Choice], room: float) -> float:
    """Minimum over prices p >= 0 of p * room + sum over choices of max over options of (value - p * cost)."""

    def dual(price: float) -> float:
        return price * room + sum(float((choice.values - price * choice.costs).max()) for choice in choices)

    # At the steepest slope from a cheapest option, every choice takes its cheapest option.
    rises = [
        (
            choice.values - choice.values[choice.costs == choice.costs.min()].max(),
            choice.costs - choice.costs.min(),
        )
        for choice in choices
    ]
    slopes = [float(gain / cost) for gains, costs in rises for gain, cost in zip(gains, costs, strict=True) if cost > 0]
    low, high = 0.0, max([0.0, *slopes])
    for _ in range(100):  # Ternary search, since the dual is convex.
        first, second = low + (high - low) / 3, high - (high - low) / 3
        if dual(first) <= dual(second):
            high = second
        else:
            low = first
    return min(dual(0.0), dual((low + high) / 2))
