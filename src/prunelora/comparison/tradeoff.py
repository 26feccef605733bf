"""Quality against speed in a comparison at several budgets: its curves, and the smallest budgets that keep quality."""

from collections.abc import Sequence

from prunelora.comparison.results import ComparisonResults, MethodFacts, PairFacts
from prunelora.comparison.tables import Size, largest_size, latency_at, pair_of, size_text
from prunelora.report.numbers import NONE, metric_interval, metric_number, optional, p_value, percent
from prunelora.report.table import Table

# Curves are tested against this method if it is there: the dense model with the same kind of training.
YARDSTICK = "lora"


def curves(results: ComparisonResults) -> dict[str, list[MethodFacts]]:
    """Every method that was trained at several budgets, by name, with a point a budget, the largest first."""
    points: dict[str, list[MethodFacts]] = {method.base: [] for method in results.methods if method.base is not None}
    for method in sorted(results.methods, key=lambda method: -(method.keep_macs or 0)):
        if method.base is not None:
            points[method.base].append(method)
    return points


def holds_table(results: ComparisonResults) -> Table:
    """The smallest budget of every curve before quality falls significantly, and the first budget at which it does.

    Against plain LoRA on the dense model, or if that was not trained against the curve's own largest budget.
    """
    size, rows = largest_size(results), []
    several = len(results.splits) > 1
    for split in results.splits:
        for name, points in curves(results).items():
            other = results.method(YARDSTICK) or points[0]
            kept, lost = _last_kept(results, points, other.name, split)
            if kept is not None or lost is not None:
                rows.append(
                    (
                        f"{name} against {other.name}{f', {split}' if several else ''}",
                        *_kept_cells(kept, size),
                        *_lost_cells(lost),
                    )
                )
    columns = (
        "methods", "smallest budget", "difference there", "95 % interval",
        f"time, of dense, {size_text(size)}" if size else "time, of dense",
        "worse from", "difference from there", "p, adjusted",
    )  # fmt: skip
    note = (
        "Smallest budget: down to it, quality is not significantly below the other method's. Few rows or seeds hide a "
        "loss: the interval shows how large it may be."
    )
    return Table(columns, tuple(rows), "How far down quality holds", (note,))


_Tested = tuple[MethodFacts, PairFacts]


def _last_kept(
    results: ComparisonResults, points: Sequence[MethodFacts], other: str, split: str
) -> tuple[_Tested | None, _Tested | None]:
    """The last budget from the top without a significant loss, and the next; a gap ends the search."""
    kept = None
    for point in points:
        pair = pair_of(results, point.name, other, split)
        if pair is None:
            continue
        if pair.told_apart and pair.difference < 0:
            return kept, (point, pair)
        kept = point, pair
    return kept, None


def _kept_cells(kept: _Tested | None, size: Size | None) -> tuple[str, ...]:
    if kept is None:
        return ("none", NONE, NONE, NONE)
    point, pair = kept
    return (
        f"{point.keep_macs:g}",
        metric_number(pair.metric, pair.difference, signed=True),
        metric_interval(pair.metric, pair.low, pair.high, signed=True),
        optional(latency_at(point, size), lambda latency: percent(latency.to_dense.median)),
    )


def _lost_cells(lost: _Tested | None) -> tuple[str, ...]:
    if lost is None:
        return ("none", NONE, NONE)
    point, pair = lost
    return f"{point.keep_macs:g}", metric_number(pair.metric, pair.difference, signed=True), p_value(pair.p_holm)
