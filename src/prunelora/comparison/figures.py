"""A comparison's figures: quality against inference time, and training memory against the time of a training step.

Every function returns a matplotlib Figure that the caller owns; pyplot and its global state are not used.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, MaxNLocator
from matplotlib.transforms import Bbox

from prunelora.comparison.results import ComparisonResults, MethodFacts, Share
from prunelora.comparison.tables import CONSTANT, constant_value, largest_size, latency_at, metric_column
from prunelora.comparison.texts import Size, number_text, points_of, size_text
from prunelora.comparison.tradeoff import curves, sizes_shown
from prunelora.report.figures import STYLE, WIDTH

# Okabe and Ito's colours without their yellow, which is too light for a point on white.
_COLOURS = ("#000000", "#e69f00", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9")
_MARKERS = ("o", "s", "D", "^", "v", "P", "X")

# Where a name may stand beside its point, best first: at which end of its bars (-1 the low one, 1 the high one, 0 the
# point itself) across and up, how far from there in points of type, and which part of the name is put there.
_PLACES = (
    (1, 0, 6, 0, "left", "center"), (-1, 0, -6, 0, "right", "center"),
    (0, 1, 0, 6, "center", "bottom"), (0, -1, 0, -6, "center", "top"),
    (0, 0, 7, 7, "left", "bottom"), (0, 0, 7, -7, "left", "top"),
    (0, 0, -7, 7, "right", "bottom"), (0, 0, -7, -7, "right", "top"),
    (0, 1, 0, 18, "center", "bottom"), (0, -1, 0, -18, "center", "top"),
    (0, 1, 0, 30, "center", "bottom"), (0, -1, 0, -30, "center", "top"),
)  # fmt: skip
# So many of them are near.
_NEAR = 8
_LEGEND_COLUMNS = 2
# Pixels between the boxes that stand for a line.
_STEP = 6


@dataclass(frozen=True)
class _Point:
    """A method in a figure; `x_range` and `y_range` are the ends of its bars.

    Methods at several budgets share the style of their curve, and are called by their budgets.
    """

    name: str
    x: float
    y: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    style: int


def quality_figure(results: ComparisonResults, size: Size | None = None) -> Figure | None:
    """Main metric on the first reported split, over time of inference; over MACs where nothing was timed.

    Bars are standard deviations over seeds, and quartiles of the rounds of timing. The budgets of a method are joined
    by a line. None if nothing can be drawn.

    Args:
        results: Of the comparison.
        size: Batch and tokens of the times; the largest that was timed if not given.
    """
    metric, split = results.main_metric, next(iter(results.splits), "")
    size = size or largest_size(results)
    most = max((method.macs for method in results.methods), default=0)
    scale = points_of(metric)
    points = []
    styles = _styles(results)
    for method in results.methods:
        figure, timed = method.quality.get(split, {}).get(metric), latency_at(method, size)
        if figure is None or not most or (size is not None and timed is None):
            continue
        x, low, high = _work(method, most) if timed is None else _per_cent(timed.to_dense)
        mean, sd = scale * figure.mean, scale * (figure.sd or 0.0)
        points.append(
            _Point(_label(method), x, mean, (low, high), (mean - sd, mean + sd), styles[method.base or method.name])
        )
    if not points:
        return None
    label = f"inference time, % of dense ({size_text(size)})" if size else f"inference: {_not_timed('MACs')}"
    constant = constant_value(results, split, metric)
    line = None
    if constant is not None:
        line = (scale * constant, f"{CONSTANT}: {number_text(metric, constant)}")
    return _scatter(points, label, metric_column(results, metric, split), line, _joined(results))


def training_figure(results: ComparisonResults) -> Figure | None:
    """Memory of a training step over its time, relative to full fine-tuning where that was timed; else over MACs.

    The device's own peak is drawn where every method has one. None if nothing can be drawn.
    """
    methods = results.methods
    most = max((method.macs for method in methods), default=0)
    relative = any(method.step_to_full is not None for method in methods)
    timed = relative or any(method.step_ms is not None for method in methods)
    device = all(method.memory.device_peak is not None for method in methods)
    points = []
    styles = _styles(results)
    for method in methods:
        if relative:
            place = _per_cent(method.step_to_full) if method.step_to_full is not None else None
        elif timed:
            place = (method.step_ms,) * 3 if method.step_ms is not None else None
        else:
            place = _work(method, most) if most else None
        if place is None:
            continue
        memory = ((method.memory.device_peak or 0) if device else method.memory.training) / 1e6
        style = styles[method.base or method.name]
        points.append(_Point(_label(method), place[0], memory, place[1:], (memory, memory), style))
    if not points:
        return None
    label = "time of a training step, % of full fine-tuning's" if relative else "time of a training step, ms"
    whose = "peak of the device's memory" if device else "memory of a training step"
    x_label = label if timed else f"training: {_not_timed('MACs')}"
    return _scatter(points, x_label, f"{whose}, MB", joined=_joined(results))


def draw_comparison(results: ComparisonResults) -> dict[str, Figure]:
    """Every figure that there is something to draw for, by name."""
    figures = {"quality": quality_figure(results), "training": training_figure(results)}
    single = next((size for size in sizes_shown(results) if size != largest_size(results)), None)
    if curves(results) and single is not None:
        figures["quality-single"] = quality_figure(results, single)
    return {name: figure for name, figure in figures.items() if figure is not None}


def _styles(results: ComparisonResults) -> dict[str, int]:
    """Colour and marker of every method, one for all its budgets."""
    return {
        name: style for style, name in enumerate(dict.fromkeys(one.base or one.name for one in results.methods))
    }  # fmt: skip


def _label(method: MethodFacts) -> str:
    return method.name if method.base is None else f"{method.keep_macs:g}"


def _joined(results: ComparisonResults) -> dict[int, str]:
    """Styles whose points are joined by a line, and what the line is called."""
    styles = _styles(results)
    return {styles[curve.name]: curve.name for curve in curves(results)}


def _scatter(
    points: Sequence[_Point],
    x_label: str,
    y_label: str,
    line: tuple[float, str] | None = None,
    joined: Mapping[int, str] | None = None,
) -> Figure:
    """One point a method with its name beside it; and a dashed line, below a break where it is far away.

    Points of a style in `joined` have a line through them in the order given, and its name is in a legend above.
    """
    low, high = (min(point.y_range[0] for point in points), max(point.y_range[1] for point in points))
    span = max(high - low, 0.05 * abs(high), 1e-6)
    with matplotlib.rc_context(STYLE):
        rows = -(-len(joined or {}) // _LEGEND_COLUMNS)
        figure = Figure(figsize=(WIDTH, 4.0 + 0.25 * rows), layout="constrained")
        # Drawn to scale, a line far below would press all points into one.
        apart = line is not None and low - line[0] > span
        if apart:
            axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(7, 1))
        else:
            axes = below = figure.subplots()
        for point in points:
            colour, marker = _COLOURS[point.style % len(_COLOURS)], _MARKERS[point.style % len(_MARKERS)]
            axes.plot(point.x_range, (point.y, point.y), color=colour, linewidth=1.2, marker="|", markersize=5)
            axes.plot((point.x, point.x), point.y_range, color=colour, linewidth=1.2, marker="_", markersize=5)
            # On a line there are many of them, and bars are short.
            axes.plot([point.x], [point.y], marker, color=colour, markersize=5 if point.style in (joined or {}) else 7)
        if joined:
            _join(figure, axes, points, joined)
        axes.set_ylim(low - 0.25 * span, high + 0.25 * span)
        _widen(axes, points)
        for one in {id(axes): axes, id(below): below}.values():
            one.grid(color="#eeeeee")
            one.set_axisbelow(True)
        words: list[Text] = []
        if line is not None:
            if apart:
                _break(axes, below, line[0])
            else:
                bottom, top = axes.get_ylim()
                # It may be above all points: its words need room too.
                room = 0.1 * max(span, line[0] - low)
                axes.set_ylim(min(bottom, line[0] - 0.1 * span), max(top, line[0] + room))
            below.axhline(line[0], color="#666666", linewidth=1, linestyle="--")
            note = below.annotate(
                line[1], (0.01, line[0]), xycoords=("axes fraction", "data"), xytext=(0, 3),
                textcoords="offset points", fontsize=8, color="#444444",
            )  # fmt: skip
            words.append(note)
        for one in (axes, below):
            one.yaxis.set_major_formatter(FuncFormatter(_tick))
        below.xaxis.set_major_locator(MaxNLocator(7, integer=True))
        below.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        _name(figure, axes, points, words, None if line is None or apart else line[0], joined or {})
    return figure


def _join(figure: Figure, axes: Axes, points: Sequence[_Point], joined: Mapping[int, str]) -> None:
    handles = []
    for style, name in joined.items():
        own = [point for point in points if point.style == style]
        colour, marker = _COLOURS[style % len(_COLOURS)], _MARKERS[style % len(_MARKERS)]
        if own:
            axes.plot([point.x for point in own], [point.y for point in own], color=colour, linewidth=1.2, alpha=0.6)
            handles.append(Line2D([], [], color=colour, marker=marker, linewidth=1.2, label=name))
    if handles:
        figure.legend(handles=handles, loc="outside upper left", ncols=_LEGEND_COLUMNS)


def _widen(axes: Axes, points: Sequence[_Point]) -> None:
    """Room for names on both sides."""
    left, right = (min(point.x_range[0] for point in points), max(point.x_range[1] for point in points))
    span = max(right - left, 0.05 * abs(right), 1e-6)
    axes.set_xlim(left - 0.3 * span, right + 0.3 * span)


def _break(axes: Axes, below: Axes, level: float) -> None:
    """Marks on the left that say that the scale is broken between two axes."""
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(axis="x", bottom=False)
    below.set_ylim(level - 1, level + 1)
    below.set_yticks([])  # The line says its own value.
    slanted: dict[str, Any] = {
        "marker": [(-1, -0.6), (1, 0.6)], "markersize": 7, "linestyle": "none", "color": "#666666", "clip_on": False,
    }  # fmt: skip
    axes.plot([0], [0], transform=axes.transAxes, **slanted)
    below.plot([0], [1], transform=below.transAxes, **slanted)


def _name(
    figure: Figure,
    axes: Axes,
    points: Sequence[_Point],
    taken: list[Text],
    level: float | None,
    joined: Mapping[int, str],
) -> None:
    """Put every name where it covers neither a point, nor a bar, nor another name, and little of a line.

    On a line a name must be near: further away it would seem to be the next point's.

    Args:
        figure: Of the axes.
        axes: Where the points are.
        points: What is to be named.
        taken: Other words that are there.
        level: Where a line runs across; None if there is none.
        joined: Styles whose points have a line through them.
    """
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer, frame = canvas.get_renderer(), axes.get_window_extent()
    boxes = [text.get_window_extent(renderer) for text in taken]
    if level is not None:
        height = axes.transData.transform((0, level))[1]
        boxes.append(Bbox([[frame.x0, height], [frame.x1, height]]).padded(3))
    boxes += [box for point in points for box in _covered(axes, point)]
    lines = [box for style in joined for box in _along(axes, [point for point in points if point.style == style])]
    for point in points:
        best, least = None, float("inf")
        places = _PLACES[:_NEAR] if point.style in joined else _PLACES
        for place, (across, up, dx, dy, horizontal, vertical) in enumerate(places):
            anchor = (
                point.x_range[across > 0] if across else point.x,
                point.y_range[up > 0] if up else point.y,
            )
            text = axes.annotate(
                point.name, anchor, xytext=(dx, dy), textcoords="offset points", ha=horizontal, va=vertical,
                fontsize=9, color=_COLOURS[point.style % len(_COLOURS)],
            )  # fmt: skip
            box = text.get_window_extent(renderer)
            outside = box.width * box.height - _overlap(box, frame)
            cost = sum(_overlap(box, other) for other in boxes) + 3 * outside + 0.01 * place
            cost += sum(_overlap(box, other) for other in lines) / 3
            if cost < least:
                if best is not None:
                    best.remove()
                best, least = text, cost
            else:
                text.remove()
        if best is not None:
            boxes.append(best.get_window_extent(renderer))


def _covered(axes: Axes, point: _Point) -> list[Bbox]:
    """Pixels that a point and its bars cover."""
    ends = axes.transData.transform([(x, y) for x in (*point.x_range, point.x) for y in (*point.y_range, point.y)])
    left, right, middle = ends[0, 0], ends[3, 0], ends[6, 0]
    low, high, centre = ends[0, 1], ends[1, 1], ends[2, 1]
    return [
        Bbox([[left, centre], [right, centre]]).padded(4),
        Bbox([[middle, low], [middle, high]]).padded(4),
        Bbox([[middle, centre], [middle, centre]]).padded(7),
    ]


def _along(axes: Axes, points: Sequence[_Point]) -> Iterator[Bbox]:
    """Pixels that a line through some points covers, as small boxes one behind the other."""
    if not points:
        return
    for start, end in pairwise(axes.transData.transform([(point.x, point.y) for point in points])):
        steps = max(1, round(math.dist(start, end) / _STEP))
        for step in range(steps):
            x, y = start + (end - start) * (step + 0.5) / steps
            yield Bbox([[x, y], [x, y]]).padded(_STEP / 2)


def _overlap(one: Bbox, other: Bbox) -> float:
    """Area that two boxes share."""
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return max(0.0, width) * max(0.0, height)


def _tick(value: float, _: int) -> str:
    return f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}"


def _per_cent(share: Share) -> tuple[float, float, float]:
    return 100 * share.median, 100 * share.q25, 100 * share.q75


def _work(method: MethodFacts, most: int) -> tuple[float, float, float]:
    return (100 * method.macs / most,) * 3


def _not_timed(what: str) -> str:
    return f"{what}, % of the most (nothing was timed)"
