"""Choosing what stays: the best units of all layers together, within a count that is never exceeded."""

import math
from collections.abc import Sequence

import numpy as np

from prunelora.errors import PlanError, advice, option


def count_to_keep(keep: int | float | None, total: int, name: str, *, units: str = "") -> int:
    """Turn a count or a fraction into a count; `None` keeps everything.

    A fraction is rounded down, so that the budget is never exceeded: 0.5 of 9 heads keeps 4.

    Args:
        keep: A count, a fraction, or None.
        total: Units of the model.
        name: Of the option, for messages.
        units: What is counted, for messages.

    Raises:
        PlanError: If it is neither a count in 0..total nor a fraction in 0..1, or a fraction above 0 that keeps none.
    """
    if keep is None:
        return total
    if isinstance(keep, bool) or not isinstance(keep, int | float):
        raise PlanError(f"{option(name, keep)}: expected a count (int) or a fraction (float in 0..1).")
    if isinstance(keep, int):
        if not 0 <= keep <= total:
            found = f"{total} {units}".strip()
            raise PlanError(
                f"{option(name, keep)} cannot be met: the model has {found}. Use a count in 0..{total}, or a fraction "
                "such as 0.5."
            )
        return keep
    if not 0.0 <= keep <= 1.0 or math.isnan(keep):
        raise PlanError(
            f"{option(name, keep)} is not a fraction in 0..1. Use a fraction such as 0.5, or a count such as "
            f"{total // 2}."
        )
    # A fraction typed in decimals must not lose a unit to binary rounding: 0.7 of 10 is 7, not 6.
    count = math.floor(round(keep * total, 6))
    if keep and total and not count:
        raise PlanError(
            f"{option(name, keep)} of {total} would keep none. Use {advice(name, 1)} to keep one, {advice(name, 0)} to "
            f"keep none, or a fraction of {math.ceil(1e6 / total) / 1e6:g} or more."
        )
    return count


def check_not_all_gone(
    keep: int | float | None, scores: Sequence[np.ndarray], kept: Sequence[Sequence[int]], round_to: int
) -> None:
    """See that groups of neurons do not turn a count into nothing.

    Args:
        keep: `keep_ffn` as it was given.
        scores: For every layer, shape (F_l,).
        kept: For every layer, positions of those that stay.
        round_to: Size of a group.

    Raises:
        PlanError: If some were to stay and none do.
    """
    if not keep or any(kept) or not any(map(len, scores)):
        return
    smallest = min(min(round_to, len(layer)) for layer in scores if len(layer))
    raise PlanError(
        f"{option('keep_ffn', keep)} would keep no neuron: they stay in groups of {option('round_to', round_to)} in "
        f"every layer. Use {advice('keep_ffn', smallest)} or more, {advice('round_to', 1)}, or {advice('keep_ffn', 0)} "
        "to keep none." + (" 1 is a count, 1.0 keeps all." if keep == 1 and isinstance(keep, int) else "")
    )


def best(scores: Sequence[np.ndarray], keep: int, *, round_to: int = 1) -> list[list[int]]:
    """Positions of the best `keep` units of all layers together, sorted, for every layer.

    With `round_to` units stand or fall in groups of neighbours in their layer's own ranking, so that every layer keeps
    a multiple of `round_to` (or all it has); a group's score is its mean. Equal scores keep the earlier layer's, then
    the earlier unit.

    Args:
        scores: For every layer, shape (U_l,).
        keep: How many units may stay in all; fewer do where the groups do not fill it.
        round_to: Size of a group.
    """
    groups: list[tuple[float, int, list[int]]] = []
    for layer, values in enumerate(scores):
        order = np.argsort(-values, kind="stable")
        mean = math.inf
        for start in range(0, len(order), round_to):
            members = order[start : start + round_to]
            # Of equal scores the mean of 3 may be rounded to more than that of the 8 before them.
            mean = min(mean, float(values[members].mean()))
            groups.append((mean, layer, members.tolist()))
    groups.sort(key=lambda group: -group[0])  # Stable: layers stay in order among equals.
    kept: list[list[int]] = [[] for _ in scores]
    left = keep
    closed: set[int] = set()
    for _, layer, ids in groups:
        # A layer's groups come best first: once one does not fit, no worse one of that layer may take its place.
        if layer in closed:
            continue
        if len(ids) > left:
            closed.add(layer)
            continue
        kept[layer] += ids
        left -= len(ids)
    return [sorted(layer) for layer in kept]


def best_of_each(scores: Sequence[np.ndarray], counts: Sequence[int]) -> list[list[int]]:
    """Positions of the best `counts[l]` units of every layer, sorted; of equals the earlier ones."""
    return [
        sorted(np.argsort(-values, kind="stable")[:count].tolist())
        for values, count in zip(scores, counts, strict=True)
    ]
