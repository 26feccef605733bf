"""Quality against speed in a comparison at several budgets: its curves, and the smallest budgets that keep quality."""

from itertools import takewhile

from prunelora.comparison.results import ComparisonResults, MethodFacts, PairFacts
from prunelora.comparison.tables import largest_size, pair_name, pair_of, size_text, time_to_dense
from prunelora.report.numbers import NONE, metric_interval, metric_number, p_value
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

    Against plain LoRA on the dense model, or if that was not trained against the curve's own largest budget. A budget
    further down that is within noise again does not count.
    """
    size, rows = largest_size(results), []
    for split in results.splits:
        for name, points in curves(results).items():
            other = (results.method(YARDSTICK) or points[0]).name
            tested = [
                (point, pair) for point in points if (pair := pair_of(results, point.name, other, split)) is not None
            ]
            kept = list(takewhile(lambda test: not (test[1].told_apart and test[1].difference < 0), tested))
            smallest, first_loss = (("none", NONE, NONE, NONE), ("none", NONE, NONE))
            if kept:
                point, pair = kept[-1]
                interval = metric_interval(pair.metric, pair.low, pair.high, signed=True)
                smallest = (*_budget_and_difference(point, pair), interval, time_to_dense(size)(point))
            if len(kept) < len(tested):
                point, pair = tested[len(kept)]
                first_loss = (*_budget_and_difference(point, pair), p_value(pair.p_holm))
            if tested:
                rows.append((pair_name(results, name, other, split), *smallest, *first_loss))
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


def _budget_and_difference(point: MethodFacts, pair: PairFacts) -> tuple[str, str]:
    return f"{point.keep_macs:g}", metric_number(pair.metric, pair.difference, signed=True)
