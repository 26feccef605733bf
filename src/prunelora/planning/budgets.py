"""Budgets: options such as keep_macs, checked and converted to limits on costs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunelora.errors import PlanError, advice, option

if TYPE_CHECKING:  # At run time, --help would import numpy.
    from prunelora.planning.cost_tables import CostTable

# The total that keep_params is a fraction of, by `count`, for messages.
_COUNTED = {"encoder": "the parameters of all heads and neurons", "all": "all parameters of the model"}


@dataclass(frozen=True)
class Budget:
    """A limit on the cost of the pruned model.

    Attributes:
        option: Name of the option: "keep_macs".
        value: Value of the option: 0.5.
        table: Costs of the base model, layer by layer.
        limit: Maximum cost in the table's unit.
    """

    option: str
    value: float
    table: "CostTable"
    limit: float


def only_one(options: Mapping[str, object]) -> str | None:
    """The kind of budget that is given: "counts" for keep_heads and keep_ffn, else the option's name; None if none is.

    Raises:
        PlanError: If two kinds are given.
    """
    given = [name for name, value in options.items() if value is not None]
    kinds = list(dict.fromkeys("counts" if name in ("keep_heads", "keep_ffn") else name for name in given))
    if len(kinds) > 1:
        shown = ", ".join(option(name, options[name]) for name in given)
        shares = ", ".join(map(advice, ("keep_macs", "keep_params", "max_latency_ms", "speedup")))
        raise PlanError(
            f"{shown}: two budgets. Give one of {shares}, or {advice('keep_heads')} and {advice('keep_ffn')}."
        )
    return kinds[0] if kinds else None


def share(name: str, value: float, table: "CostTable") -> Budget:
    """A fraction of the base model's cost: `keep_macs`, `keep_params`.

    Raises:
        PlanError: If the value is not a fraction above 0.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value) or not 0 < value <= 1:
        raise PlanError(f"{option(name, value)}: expected a fraction above 0 and at most 1, such as 0.5.")
    return Budget(name, value, table, value * table.whole)


def at_most(name: str, value: float, table: "CostTable") -> Budget:
    """A latency in milliseconds: `max_latency_ms`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise PlanError(f"{option(name, value)}: expected milliseconds, a number above 0.")
    return Budget(name, value, table, float(value))


def times_as_fast(name: str, value: float, table: "CostTable") -> Budget:
    """The base model's latency divided by a number: `speedup`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value < math.inf:
        raise PlanError(f"{option(name, value)}: expected a number of 1 or more, such as 2 for twice as fast.")
    return Budget(name, value, table, table.whole / value)


def infeasible(budget: Budget, least: float, *, round_to: int, count: str, unit: str) -> PlanError:
    """The error for a limit below the cost of the smallest possible model.

    Args:
        budget: The budget.
        least: Cost of the smallest model: the fixed cost, and the cheapest head or group of neurons.
        round_to: Number of neurons in a group.
        count: The total that keep_params is a fraction of.
        unit: The unit of pruning in attention: "head" or "key/value group".
    """
    table, asked, name = budget.table, option(budget.option, budget.value), budget.option
    share, smallest = least / table.whole, f"the smallest part to keep (a {unit}, or {round_to} neurons of a layer)"
    nothing = f"To keep nothing, use {advice('keep_heads', 0)} and {advice('keep_ffn', 0)}."
    if name in ("keep_params", "keep_macs"):
        nearest = math.ceil(100 * share) / 100 if share >= 0.01 else _rounded_up(share)
        fixed, part = table.fixed / table.whole, (least - table.fixed) / table.whole
        counted = _COUNTED[count] if name == "keep_params" else "the MACs of all heads and neurons"
        why = f"embeddings, norms and task head are {fixed:.3g} of {counted}, and " if fixed else ""
        why += f"{smallest} is {part:.3g}{'' if fixed else f' of {counted}'}"
        other = f", or {advice('count', 'encoder')}" if fixed and count == "all" else ""
        return PlanError(f"{asked} cannot be met: {why}. Use {advice(name)} >= {min(nearest, 1.0):g}{other}. {nothing}")
    if name == "speedup":
        nearest = math.floor(100 / share) / 100
        faster = f"Use {advice('speedup')} below {nearest:g}."
        other = faster if nearest > 1 else "Pruning does not make this model faster: use another budget."
        return PlanError(
            f"{asked} cannot be met: with {smallest} alone the model would be {1 / share:.2f} times as fast (the dense "
            f"model takes {table.whole:.3g} ms). {other} {nothing}"
        )
    return PlanError(
        f"{asked} cannot be met: with {smallest} alone the model takes {least:.3g} {table.unit}, dense "
        f"{table.whole:.3g}. Use {advice(name)} >= {_rounded_up(least):g}. {nothing}"
    )


def _rounded_up(value: float) -> float:
    """Rounded up to three digits, so that the value in a message is feasible."""
    if value <= 0:
        return 0.0
    step = 10.0 ** (math.floor(math.log10(value)) - 2)
    return math.ceil(value / step) * step
