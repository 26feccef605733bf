"""Quality against speed, read off a comparison at budgets: its curves, its points, and how far down they hold."""

from collections.abc import Iterator
from dataclasses import dataclass

from prunelora.comparison.commands import in_lines
from prunelora.comparison.results import ComparisonResults, MethodFacts, PairFacts
from prunelora.comparison.tables import all_sizes, largest_size, latency_at, metric_column, pair_of, unit_of_heads
from prunelora.comparison.texts import (
    NONE,
    Size,
    interval_text,
    p_said,
    quality_said,
    quality_text,
    share_text,
    signed,
    size_text,
)
from prunelora.report.reading import SHARES, in_units, metric_title
from prunelora.report.tables import Table

# What the curves are held against, where it is among the methods: the dense model, with the same kind of training.
YARDSTICK = "lora"


@dataclass(frozen=True)
class Curve:
    """One method at all its budgets.

    Attributes:
        name: Of the method: "prune-lora".
        points: One a budget, the largest first.
    """

    name: str
    points: tuple[MethodFacts, ...]


def curves(results: ComparisonResults) -> list[Curve]:
    """Every method that was trained at several budgets; none where the comparison had no such budgets."""
    names = dict.fromkeys(method.base for method in results.methods if method.base is not None)
    return [
        Curve(
            name,
            tuple(
                sorted(
                    (method for method in results.methods if method.base == name),
                    key=lambda method: -(method.keep_macs or 0),
                )
            ),
        )
        for name in names
    ]


def has_budgets(results: ComparisonResults) -> bool:
    """Whether budgets were asked for, several or one: then there are points to pick, each with its command."""
    return any(method.base is not None or method.command is not None for method in results.methods)


def sizes_shown(results: ComparisonResults) -> list[Size]:
    """Sizes that a point is picked by: the one with most tokens in all, and the longest single row."""
    single = max((size for size in all_sizes(results) if size[0] == 1), default=None)
    return [size for size in dict.fromkeys((largest_size(results), single)) if size is not None]


def points_table(results: ComparisonResults) -> Table:
    """A row a method and budget: what is left, what it does and how fast; no rows where no budgets were asked for."""
    if not has_budgets(results):
        return Table((), ())
    metric, sizes = results.main_metric, sizes_shown(results)
    # All are cut from one dense model.
    (_, heads), (_, neurons) = results.methods[0].heads, results.methods[0].neurons
    columns = (
        "method", "budget", *(metric_column(results, metric, split) for split in results.splits),
        *(f"time, of dense, {size_text(size)}" for size in sizes),
        f"{unit_of_heads(results)} of {heads:,}", f"neurons of {neurons:,}", "parameters", "MACs", "training memory",
    )  # fmt: skip
    parameters = max(method.parameters for method in results.methods)
    macs = max(method.macs for method in results.methods)
    memory = max(method.memory.training for method in results.methods)
    rows = tuple(
        (
            method.base or method.name,
            NONE if method.keep_macs is None else f"{method.keep_macs:g}",
            *(quality_text(metric, method.quality.get(split, {}).get(metric)) for split in results.splits),
            *(_time_text(method, size) for size in sizes),
            f"{method.heads[0]:,}",
            f"{method.neurons[0]:,}",
            in_units(method.parameters, like=parameters),
            in_units(method.macs, like=macs),
            in_units(method.memory.training, "B", like=memory),
        )
        for method in results.methods
    )
    return Table(columns, rows)


def commands_text(results: ComparisonResults) -> str | None:
    """For every method what builds its model, each below a line that says what it is; None where that is not known."""
    metric, size = results.main_metric, largest_size(results)
    parts = []
    for method in results.methods:
        if method.command is None:
            continue
        said = [
            quality_said(metric, figure) + (f" ({split})" if len(results.splits) > 1 else "")
            for split in results.splits
            if (figure := method.quality.get(split, {}).get(metric)) is not None
        ]
        timed = latency_at(method, size)
        if size is not None and timed is not None:
            said.append(f"{share_text(timed.to_dense.median)} of the dense model's time at {size_text(size)}")
        parts.append(f"# {', '.join([method.name, *said])}\n{in_lines(method.command)}")
    return "\n\n".join(parts) or None


def how_far_down(results: ComparisonResults) -> list[str]:
    """Of every curve, the smallest budget down to which quality does not fall by more than noise, and what comes next.

    Held against plain LoRA on the dense model; where that was not trained, against the curve's own largest budget.
    """
    lines = [_holds(results, curve, split) for split in results.splits for curve in curves(results)]
    return [line for line in lines if line is not None]


def _holds(results: ComparisonResults, curve: Curve, split: str) -> str | None:
    other = results.method(YARDSTICK) or curve.points[0]
    on = f" on the {split} rows" if len(results.splits) > 1 else ""
    what = f"the {metric_title(results.main_metric)} of {other.name}{on}"
    held = None
    for point, pair in _tests(results, curve, other, split):
        if pair.told_apart and pair.difference < 0:
            if held is None:
                return f"{curve.name} is below {what} already at keep_macs={_budget(point)}: {_lost(pair)}."
            return f"{_held(results, curve, held, what)}; at {_budget(point)} it is at {_lost(pair)}."
        held = point, pair
    return None if held is None else f"{_held(results, curve, held, what)}."


def _held(results: ComparisonResults, curve: Curve, held: tuple[MethodFacts, PairFacts], what: str) -> str:
    point, pair = held
    size = largest_size(results)
    timed = latency_at(point, size)
    # Few seeds show large losses alone, so the loss that may be there stands beside the claim.
    alone = ", of the rows alone" if pair.rows_alone else ""
    there = f" (there {signed(pair.metric, pair.difference)}, 95 % interval {interval_text(pair)}{alone})"
    text = f"down to keep_macs={_budget(point)} {curve.name} is not below {what} by more than noise{there}"
    if size is None or timed is None:
        return text
    return f"{text}, in {share_text(timed.to_dense.median)} of the dense model's time at {size_text(size)}"


def _lost(pair: PairFacts) -> str:
    unit = " points" if pair.metric in SHARES else ""
    alone = ", of the rows alone" if pair.rows_alone else ""
    return f"{signed(pair.metric, pair.difference)}{unit} (p {p_said(pair.p_holm)}{alone})"


def _tests(
    results: ComparisonResults, curve: Curve, other: MethodFacts, split: str
) -> Iterator[tuple[MethodFacts, PairFacts]]:
    for point in curve.points:
        pair = pair_of(results, point.name, other.name, split)
        if pair is not None:
            yield point, pair


def _time_text(method: MethodFacts, size: Size) -> str:
    timed = latency_at(method, size)
    return NONE if timed is None else share_text(timed.to_dense.median)


def _budget(method: MethodFacts) -> str:
    return f"{method.keep_macs:g}"
