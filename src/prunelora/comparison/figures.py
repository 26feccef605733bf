"""Figures of a comparison: quality against inference time, and training memory against the time of a training step.

Every function returns a matplotlib Figure that the caller owns; pyplot and its global state are not used.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from prunelora.comparison.results import ComparisonResults, MethodFacts
from prunelora.comparison.tables import (
    CONSTANT,
    Size,
    constant_value,
    largest_size,
    latency_at,
    metric_column,
    size_text,
    sizes_shown,
)
from prunelora.comparison.tradeoff import curves
from prunelora.evaluation.timing import Spread
from prunelora.report.figures import WIDTH, styled
from prunelora.report.numbers import SHARES, metric_number

# Okabe and Ito's colours without their yellow, which is too light for a point on white.
_COLOURS = ("#000000", "#e69f00", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9")
_MARKERS = ("o", "s", "D", "^", "v", "P", "X")
_LEGEND_COLUMNS = 2

_UNTIMED = "MACs, % of the most (nothing was timed)"

Range = tuple[float, float, float]  # Low end, middle, high end.


@dataclass(frozen=True)
class _Point:
    """A method in a figure, at the middle of two ranges, which are its bars."""

    method: MethodFacts
    x: Range
    y: Range


def quality_figure(results: ComparisonResults, size: Size | None = None) -> Figure | None:
    """Main metric on the first reported split against inference time; against MACs if nothing was timed.

    Bars are standard deviations over seeds, and quartiles over the rounds of timing. A line joins the budgets of a
    method. None if there is nothing to draw.

    Args:
        results: Of the comparison.
        size: Batch and tokens of the times; the largest timed size if not given.
    """
    metric, split = results.main_metric, next(iter(results.splits), "")
    size = size or largest_size(results)
    scale, points = 100 if metric in SHARES else 1, []
    for method in results.methods:
        quality, latency = method.quality.get(split, {}).get(metric), latency_at(method, size)
        if quality is None or (size is not None and latency is None):
            continue
        mean, sd = scale * quality.mean, scale * (quality.sd or 0.0)
        x = _per_cent(latency.to_dense) if latency is not None else _work(method, results)
        points.append(_Point(method, x, (mean - sd, mean, mean + sd)))
    constant = constant_value(results, split, metric)
    label = f"inference time, % of dense ({size_text(size)})" if size else f"inference: {_UNTIMED}"
    line = None if constant is None else (scale * constant, f"{CONSTANT}: {metric_number(metric, constant)}")
    return _scatter(points, label, metric_column(results, metric, split), line) if points else None


def training_figure(results: ComparisonResults) -> Figure | None:
    """Memory of a training step against its time, relative to full fine-tuning if that was timed; else against MACs.

    The device's own peak is drawn if every method has one. None if there is nothing to draw.
    """
    methods = results.methods
    label = "time of a training step, % of full fine-tuning's"
    times = {method.name: _per_cent(method.step_to_full) for method in methods if method.step_to_full is not None}
    if not times:
        label = "time of a training step, ms"
        times = {method.name: _exactly(method.step_ms) for method in methods if method.step_ms is not None}
    if not times:
        label = f"training: {_UNTIMED}"
        times = {method.name: _work(method, results) for method in methods}
    memory_label = "peak of the device's memory, MB"
    memories = {method.name: method.memory.device_peak for method in methods}
    if None in memories.values():
        memory_label = "memory of a training step, MB"
        memories = {method.name: method.memory.training for method in methods}
    points = [
        _Point(method, times[method.name], _exactly((memories[method.name] or 0) / 1e6))
        for method in methods
        if method.name in times
    ]
    return _scatter(points, label, memory_label) if points else None


def draw_comparison(results: ComparisonResults) -> dict[str, Figure]:
    """Every figure that has something to draw, by name."""
    figures = {"quality": quality_figure(results), "training": training_figure(results)}
    single = next((size for size in sizes_shown(results) if size != largest_size(results)), None)
    if curves(results) and single is not None:
        figures["quality-single"] = quality_figure(results, single)
    return {name: figure for name, figure in figures.items() if figure is not None}


@styled
def _scatter(points: Sequence[_Point], x_label: str, y_label: str, line: tuple[float, str] | None = None) -> Figure:
    """One marker a point, one colour a series, a line through the points of a series; and a dashed horizontal line."""
    series: dict[str, list[_Point]] = {}
    for point in points:
        series.setdefault(point.method.base or point.method.name, []).append(point)
    rows = -(-len(series) // _LEGEND_COLUMNS)
    figure = Figure(figsize=(WIDTH, 3.7 + 0.25 * rows), layout="constrained")
    axes = figure.subplots()
    for number, (name, members) in enumerate(series.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        (x_low, x, x_high), (y_low, y, y_high) = np.array([(point.x, point.y) for point in members]).transpose(1, 2, 0)
        axes.errorbar(
            x, y, xerr=(x - x_low, x_high - x), yerr=(y - y_low, y_high - y),
            fmt=_MARKERS[number % len(_MARKERS)], linestyle="-" if len(members) > 1 else "none",
            color=colour, markersize=6, linewidth=1.2, label=name,
        )  # fmt: skip
        for point in members:
            if point.method.base is None:
                continue
            # Above the points of one curve and below those of the next, since curves often run side by side.
            axes.annotate(
                f"{point.method.keep_macs:g}", (point.x[1], point.y[1]), xytext=(0, -6 if number % 2 else 6),
                textcoords="offset points", ha="center", va="top" if number % 2 else "bottom",
                fontsize=8, color=colour,
            )  # fmt: skip
    low, high = min(point.y[0] for point in points), max(point.y[2] for point in points)
    span = max(high - low, 0.05 * abs(high), 1e-6)
    bottom, top = low - 0.25 * span, high + 0.25 * span
    if line is not None:
        level, text = line
        if low - level > span:  # To scale, it would press all points into one.
            axes.text(0.01, 0.01, f"{text} (further down)", transform=axes.transAxes, fontsize=8, color="#444444")
        else:
            bottom, top = min(bottom, level - 0.1 * span), max(top, level + 0.1 * max(span, level - low))
            axes.axhline(level, color="#666666", linewidth=1, linestyle="--")
            axes.annotate(
                text, (0.01, level), xycoords=("axes fraction", "data"), xytext=(0, 3),
                textcoords="offset points", fontsize=8, color="#444444",
            )  # fmt: skip
    axes.set_ylim(bottom, top)
    axes.margins(x=0.1)
    axes.grid(color="#eeeeee")
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.5g}"))
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    figure.legend(loc="outside upper left", ncols=_LEGEND_COLUMNS)
    return figure


def _per_cent(share: Spread) -> Range:
    return 100 * share.q25, 100 * share.median, 100 * share.q75


def _exactly(value: float) -> Range:
    return value, value, value


def _work(method: MethodFacts, results: ComparisonResults) -> Range:
    return _exactly(100 * method.macs / max(other.macs for other in results.methods))
