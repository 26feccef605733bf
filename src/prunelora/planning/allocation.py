"""Sharing a budget out between the heads and neurons of all layers: one knapsack problem, solved by its whole table.

Every layer offers two choices: how many of its best heads to keep, and how many of its best neurons. A choice has a
value (the scores of what stays, added up) and a cost (MACs, parameters or milliseconds, from a `CostTable`). Wanted are
the choices of highest value whose costs stay within a limit: the multiple-choice knapsack problem (Kellerer, Pferschy
and Pisinger 2004, chapter 11).

Costs are put on a grid, rounded up, and solved by dynamic programming. Where every cost is a whole number of some unit
that is not too small, as MACs are, the grid is that unit and the solution is exact; else the limit has `GRID` steps and
at most one step for every choice is lost. What rounding left of the limit is then spent on what is worth most.
`Allocation.bound` is an upper bound from Lagrangian duality, which says how near to the best a solution is.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prunelora.planning.cost_tables import CostTable

GRID = 32_768
# Of a limit that is reached exactly, and of sums of doubles: a budget must not be missed by rounding in the last digit.
_SLACK = 1e-9


@dataclass(frozen=True)
class Allocation:
    """How many heads and neurons stay in every layer.

    Attributes:
        heads: For every layer, how many of its best heads stay.
        neurons: For every layer, how many of its best neurons stay.
        cost: What these cost by the table; never above the limit.
        value: Their scores, added up.
        bound: No choice within the limit has a higher value than this.
    """

    heads: tuple[int, ...]
    neurons: tuple[int, ...]
    cost: float
    value: float
    bound: float


@dataclass(frozen=True)
class _Choice:
    """The options of one layer's heads, or neurons, cheapest first; the first keeps the least."""

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
    """Find what to keep so that the scores of what stays add up to most, at a cost of at most `limit`.

    Args:
        table: Costs of every layer.
        heads: For every layer, scores of its heads (H_l,), comparable with those of the neurons.
        neurons: For every layer, scores of its neurons (F_l,).
        limit: In the table's unit.
        round_to: Neurons stay in multiples of so many in every layer (or all of them do).

    Returns:
        The allocation; None if even keeping nothing costs more than the limit.
    """
    # A layer that was cut before offers fewer units than the table has costs for.
    choices = [_options(scores, costs, 1) for scores, costs in zip(heads, table.heads, strict=True)]
    choices += [_options(scores, costs, round_to) for scores, costs in zip(neurons, table.neurons, strict=True)]
    room = (limit - table.fixed) * (1 + _SLACK)
    if -_SLACK * limit <= room < 0:  # The limit is what stays, but for the rounding of a fraction's last digit.
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
    """Keep 0, `step`, 2 * `step`, ... or all units, always the best ones."""
    total = len(scores)
    counts = np.unique(np.append(np.arange(0, total + 1, step), total))
    best_first = np.sort(scores)[::-1]
    values = np.concatenate([[0.0], np.cumsum(best_first)])[counts]
    return _Choice(counts, values, np.asarray(costs, dtype=np.float64)[counts])


def _solve(choices: Sequence[_Choice], room: float) -> list[int]:
    """An option for every choice, by dynamic programming over the budget spent."""
    unit = _unit(choices, room)
    size = math.floor(room / unit) + 1
    # What does not fit alone is given the weight `size`, which no place of the table has.
    weights = [
        np.ceil(np.where(choice.costs <= room, choice.costs / unit * (1 - _SLACK), size)).astype(np.int64)
        for choice in choices
    ]
    # Highest value of the first i choices at a cost of at most 0, 1, ... units.
    worth = [np.zeros(size)]
    for choice, weight in zip(choices, weights, strict=True):
        before, better = worth[-1], np.full(size, -np.inf)
        for units, value in zip(weight, choice.values, strict=True):
            if units < size:
                np.maximum(better[units:], before[: size - units] + value, out=better[units:])
        worth.append(better)
    left = int(np.argmax(worth[-1]))
    picked = [0] * len(choices)
    for number in range(len(choices) - 1, -1, -1):
        # The option that gave the best value is the one that gives it again.
        fitting = weights[number] <= left
        totals = np.full(len(fitting), -np.inf)
        totals[fitting] = worth[number][left - weights[number][fitting]] + choices[number].values[fitting]
        picked[number] = int(np.argmax(totals))
        left -= int(weights[number][picked[number]])
    return picked


def _unit(choices: Sequence[_Choice], room: float) -> float:
    """The greatest common divisor of all costs where they are whole and it is large enough; else a fine step."""
    costs = np.concatenate([choice.costs for choice in choices])
    finest = room / GRID if room > 0 else 1.0
    if (costs == np.round(costs)).all() and costs.max(initial=0) < 2**62:
        divisor = int(np.gcd.reduce(costs.astype(np.int64)))
        if divisor >= finest:
            return float(divisor)
    return finest


def _spend_the_rest(choices: Sequence[_Choice], picked: list[int], room: float) -> None:
    """Use what rounding, or options worth nothing, left of the budget: again and again the best that still fits."""
    left = room - sum(float(choice.costs[option]) for choice, option in zip(choices, picked, strict=True))
    while True:
        steps = []
        for number, (choice, option) in enumerate(zip(choices, picked, strict=True)):
            if option + 1 < len(choice.counts):
                cost = float(choice.costs[option + 1] - choice.costs[option])
                if cost <= left:
                    gain = float(choice.values[option + 1] - choice.values[option])
                    steps.append((gain / cost if cost > 0 else math.inf, -number, cost))
        if not steps:
            return
        _, number, cost = max(steps)
        picked[-number] += 1
        left -= cost


def _bound(choices: Sequence[_Choice], room: float) -> float:
    """Minimum over prices p >= 0 of p * room + sum over choices of max over options of (value - p * cost)."""

    def dual(price: float) -> float:
        return price * room + sum(float((choice.values - price * choice.costs).max()) for choice in choices)

    # At the steepest slope that any option has from the cheapest one, every choice takes what costs least.
    rises = [
        (one.values - one.values[one.costs == one.costs.min()].max(), one.costs - one.costs.min()) for one in choices
    ]
    slopes = [float(gain / cost) for gains, costs in rises for gain, cost in zip(gains, costs, strict=True) if cost > 0]
    low, high = 0.0, max([0.0, *slopes])
    for _ in range(100):  # The dual is convex: a third of the interval goes every time.
        first, second = low + (high - low) / 3, high - (high - low) / 3
        if dual(first) <= dual(second):
            high = second
        else:
            low = first
    return min(dual(0.0), dual((low + high) / 2))
