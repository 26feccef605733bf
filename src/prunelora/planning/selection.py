"""Selection of the best units of all layers together, within a count."""

import math
from collections.abc import Sequence

import numpy as np

from prunelora.errors import PlanError, advice, option


def count_to_keep(keep: int | float | None, total: int, name: str, *, units: str = "") -> int:
    """Convert a count or a fraction to a count; `None` keeps everything.

    A fraction is rounded down, so that the budget is never exceeded: 0.5 of 9 heads keeps 4.

    Args:
        keep: A count, a fraction, or None.
        total: Number of units in the model.
        name: Name of the option, for messages.
        units: Noun for the units, for messages.

    Raises:
        PlanError: If it is neither a count in 0..total nor a fraction in 0..1, or a fraction above 0 that keeps none.
    """
    if keep is None:
        return total
    if isinstance(keep, bool) or not isinstance(keep, int | float):
        raise PlanError(f"{option(name, keep)}: expected a count (int) or a fraction (float in 0..1).")
    if isinstance(keep, int):
        if not 0 <= keep <= total:
            raise PlanError(
                f"{option(name, keep)} cannot be met: the model has {f'{total} {units}'.strip()}. Use a count in "
                f"0..{total}, or a fraction such as 0.5."
            )
        return keep
    if not 0.0 <= keep <= 1.0 or math.isnan(keep):
        raise PlanError(
            f"{option(name, keep)} is not a fraction in 0..1. Use a fraction such as 0.5, or a count such as "
            f"{total // 2}."
        )
    # Binary rounding of a decimal fraction must not lose a unit: 0.7 of 10 is 7, not 6.
    count = math.floor(round(keep * total, 6))
    if keep and total and not count:
        raise PlanError(
            f"{option(name, keep)} of {total} would keep none. Use {advice(name, 1)} to keep one, {advice(name, 0)} to "
            f"keep none, or a fraction of {math.ceil(1e6 / total) / 1e6:g} or more."
        )
    return count


def check_some_kept(
    keep: int | float | None, scores: Sequence[np.ndarray], kept: Sequence[Sequence[int]], round_to: int
) -> None:
    """Check that rounding to groups of neurons keeps some if `keep_ffn` is above 0.

    Args:
        keep: Value of `keep_ffn`.
        scores: For every layer, shape (F_l,).
        kept: For every layer, positions of the kept neurons.
        round_to: Size of a group.

    Raises:
        PlanError: If none are kept.
    """
    if not keep or any(kept) or not any(map(len, scores)):
        return
    smallest = min(min(round_to, len(layer)) for layer in scores if len(layer))
    raise PlanError(
        f"{option('keep_ffn', keep)} would keep no neuron: neurons are kept in groups of "
        f"{option('round_to', round_to)} in every layer. Use {advice('keep_ffn', smallest)} or more, "
        f"{advice('round_to', 1)}, or {advice('keep_ffn', 0)} to keep none."
        + (" 1 is a count, 1.0 keeps all." if keep == 1 and isinstance(keep, int) else "")
    )


def best(scores: Sequence[np.ndarray], keep: int, *, round_to: int = 1) -> list[list[int]]:
    """For every layer, sorted positions of its units among the best `keep` of all layers together.

    With `round_to`, units are kept in groups of neighbours in their layer's ranking, so that every layer keeps a
    multiple of `round_to` units (or all); a group's score is its mean. Ties go to the earlier layer, then to the
    earlier unit.

    Args:
        scores: For every layer, shape (U_l,).
        keep: Maximum number of units in total; groups may leave it unfilled.
        round_to: Size of a group.
    """
    groups: list[tuple[float, int, list[int]]] = []
    for layer, values in enumerate(scores):
        order = np.argsort(-values, kind="stable")
        mean = math.inf
        for start in range(0, len(order), round_to):
            members = order[start : start + round_to]
            # Rounding can make the mean of a later group of equal scores the larger one.
            mean = min(mean, float(values[members].mean()))
            groups.append((mean, layer, members.tolist()))
    groups.sort(key=lambda group: -group[0])  # Stable: layers stay in order among equals.
    kept: list[list[int]] = [[] for _ in scores]
    remaining = keep
    closed: set[int] = set()
    for _, layer, ids in groups:
        # Once a group does not fit, no worse group of the same layer may replace it.
        if layer in closed:
            continue
        if len(ids) > remaining:
            closed.add(layer)
            continue
        kept[layer] += ids
        remaining -= len(ids)
    return [sorted(layer) for layer in kept]


def best_of_each(scores: Sequence[np.ndarray], counts: Sequence[int]) -> list[list[int]]:
    """For every layer, sorted positions of the best `counts[l]` units; earlier ones win ties."""
    return [
        sorted(np.argsort(-values, kind="stable")[:count].tolist())
        for values, count in zip(scores, counts, strict=True)
    ]
