"""The figures of a run: drawn without a display, readable on a phone, the same bytes for the same input.

Every function returns a matplotlib Figure that the caller owns; pyplot and its global state are not used.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import BoundaryNorm, Colormap, ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from prunelora.importance.importance import Importance
from prunelora.models.family import PROJECTIONS
from prunelora.planning.normalise import normalise
from prunelora.planning.plan import Plan
from prunelora.report.numbers import SHARES, count, metric_title, milliseconds
from prunelora.report.reading import Pair, finetunings, measured, timings
from prunelora.report.results import RunResults
from prunelora.storage import replacing_file

# Okabe and Ito's colours, safe for colour blindness; the greys are lighter.
DENSE, PRUNED, ACCENT, CUT = "#9a9a9a", "#0072b2", "#d55e00", "#d9d9d9"

# Light for 0, dark for 1, at monotone lightness; white is left for cells without a value.
HEAT = "YlGnBu"

# Inches. A phone shows 4.8 inches at about three quarters of their size, so 10 points stay readable.
WIDTH = 4.8

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.titlelocation": "left",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.fonttype": "path",
    "svg.hashsalt": "prunelora",
}
# No version and no date, so that the same input gives the same bytes.
_NO_METADATA: dict[str, dict[str, Any]] = {
    "svg": {"Date": None, "Creator": None, "Format": None, "Type": None},
    "png": {"Software": None},
}

# A decorator: functions draw with the style of all figures.
styled = matplotlib.rc_context(STYLE)


@styled
def importance_heatmap(importance: Importance, plan: Plan | None = None) -> Figure:
    """Layers x heads: importance as colour, and a cross on every head that the plan cuts.

    Scores that a plan compares as they are (normalise: none) are on a logarithmic scale, since they span many powers of
    ten; otherwise they are those of equation 2. Heads that were gone before scoring are hatched.
    """
    base, scored = importance.lineage.base, importance.lineage.heads
    how = "paper" if plan is None else plan.provenance.get("options", {}).get("normalise", "paper")
    every = ((layer, head) for layer, number in enumerate(base.num_heads) for head in range(number))
    gone = [(layer, head) for layer, head in every if head not in scored[layer]]
    figure, axes = _new(1.3 + _rows_height(base.num_layers))
    side = min(_rows_height(base.num_layers) / base.num_layers, 3.4 / max(1, *base.num_heads))
    cells, crosses = draw_importance(axes, importance, plan, how=how, size=72 * side * 0.5)
    hatched: dict[str, Any] = {"facecolor": "white", "edgecolor": "#bbbbbb", "hatch": "////"}
    for layer, head in gone:
        axes.add_patch(Rectangle((head - 0.5, layer - 0.5), 1, 1, linewidth=0, **hatched))
    legend: list[Any] = []
    if plan is not None:
        cross = Line2D([], [], color="black", marker="x", linestyle="", markersize=7, markeredgewidth=1.4)
        cross.set_label(f"cut: {crosses} of {sum(map(len, scored))} {base.unit_of_heads}")
        legend.append(cross)
    if gone:
        legend.append(Patch(label=f"cut earlier: {len(gone)}", **hatched))
    if legend:
        _legend_above(axes, legend)
    axes.set_xlabel(base.unit_of_heads.removesuffix("s"))
    # Two lines: with two layers the picture is less high than one line is long.
    label = f"importance{', log' if how == 'none' else ''}\n(least 0, most 1)"
    draw_colour_bar(figure, cells, label, ax=axes, fraction=0.05, pad=0.03)
    return figure


def draw_importance(
    axes: Axes, importance: Importance, plan: Plan | None, *, size: float, how: str = "paper", step: int = 1
) -> tuple[Any, int]:
    """Draw layers x heads: normalised scores as colour, and a cross of `size` points on every head that the plan cuts.

    Crosses are black, or white on dark cells. Heads that were gone before scoring have no colour. With `how` "none" the
    colour is the scores' logarithm. Every `step`-th layer and head is numbered.

    Returns:
        The cells, and the number of crosses.
    """
    base, heads = importance.lineage.base, importance.lineage.heads
    values = np.full((base.num_layers, max(base.num_heads, default=0)), np.nan)
    for layer, (ids, scores) in enumerate(zip(heads, normalise(importance.heads, how), strict=True)):
        values[layer, list(ids)] = scores
    values = _by_powers(values) if how == "none" else values
    cells = _draw_cells(axes, values, HEAT, Normalize(0, 1), step=step)
    cut = [(layer, head) for layer, ids in enumerate(heads) for head in ids if plan and head not in plan.heads[layer]]
    for colour in ("black", "white"):
        places = [cell for cell in cut if (values[cell] < 0.55) == (colour == "black")]
        axes.plot(
            [head for _, head in places], [layer for layer, _ in places],
            "x", color=colour, markersize=size, markeredgewidth=1.4 / step,
        )  # fmt: skip
    return cells, len(cut)


def draw_colour_bar(figure: Figure, cells: Any, label: str, **place: Any) -> None:
    """The scale of importance, 0 to 1."""
    bar = figure.colorbar(cells, ticks=[0, 0.5, 1], **place)
    bar.set_label(label)
    bar.outline.set_visible(False)
    # Vectors; matplotlib would put a picture there, and white lines between the steps.
    if bar.solids is not None:
        bar.solids.set(rasterized=False, edgecolor="face")


def _by_powers(scores: np.ndarray) -> np.ndarray:
    """Logarithms of scores, stretched to 0..1; nan stays nan, and scores that are not positive become 0."""
    positive = scores[scores > 0]
    if not positive.size:
        return 0 * scores
    logarithms = np.log(np.maximum(scores, positive.min()))
    low, high = np.nanmin(logarithms), np.nanmax(logarithms)
    return (logarithms - low) / (high - low if high > low else 1)


@styled
def kept_per_layer(plan: Plan) -> Figure:
    """Heads and neurons that stay, of all, layer by layer."""
    layers = range(plan.base.num_layers)
    figure, panels = _new(1.2 + _rows_height(len(layers)), ncols=2, sharey=True)
    for axes, name, kept, totals in (
        (panels[0], plan.base.unit_of_heads, plan.heads, plan.base.num_heads),
        (panels[1], "neurons", plan.neurons, plan.base.num_neurons),
    ):
        counts = [len(ids) for ids in kept]
        axes.barh(layers, totals, color=CUT, height=0.78)
        axes.barh(layers, counts, color=PRUNED, height=0.78)
        widest = max(totals, default=1)
        for layer, number in zip(layers, counts, strict=True):
            inside = number > 0.3 * widest  # Otherwise the bar is too short to hold the number.
            axes.text(
                number + (-0.03 if inside else 0.03) * widest, layer, str(number), ha="right" if inside else "left",
                va="center_baseline", fontsize=8, color="white" if inside else "black",
            )  # fmt: skip
        axes.set_xlim(0, widest)
        axes.set_xlabel(name)
        axes.set_title(f"{count(sum(counts))} of {count(sum(totals))}")
        axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
        axes.spines["left"].set_visible(False)
    _rows_of(panels[0], list(map(str, layers)))
    panels[1].tick_params(axis="y", length=0)
    panels[0].set_ylabel("layer")
    _legend_of_bars(figure, {"stays": PRUNED, "cut": CUT})
    return figure


@styled
def ranks(plan: Plan) -> Figure:
    """LoRA rank of every matrix: layers x projections, the number in its cell."""
    names = [name for name in PROJECTIONS if name in plan.ranks]
    shape = (plan.base.num_layers, len(names))
    values = np.array([[plan.rank(name, layer) for name in names] for layer in range(shape[0])], float).reshape(shape)
    levels = sorted(set(values.ravel().tolist()))
    figure, axes = _new(0.7 + _rows_height(plan.base.num_layers))
    # One tint a level, none so dark that black numbers would not show.
    tints = matplotlib.colormaps[HEAT](np.linspace(0, 0.5, len(levels)))
    edges = [-1.0, *(level + 0.5 for level in levels)]
    _draw_cells(axes, values, ListedColormap(tints), BoundaryNorm(edges, len(levels)) if levels else None)
    for (layer, column), rank in np.ndenumerate(values):
        axes.text(column, layer, f"{rank:.0f}", ha="center", va="center_baseline", fontsize=9, color="black")
    axes.set_xticks(range(len(names)), names)
    return figure


@styled
def training_curve(
    history: Sequence[Mapping[str, float]],
    *,
    metric: str = "accuracy",
    baseline: Sequence[Mapping[str, float]] = (),
    starts: Sequence[float] = (),
) -> Figure:
    """Loss over the epochs, and below it the main metric on the validation rows.

    Args:
        history: As in `TrainingResult.history`.
        metric: Name of the main metric.
        baseline: History of the dense model, drawn dashed.
        starts: Epochs at which a second, third ... training began.
    """
    curves = [(history, "-", "")] + ([(baseline, "--", "dense baseline, ")] if baseline else [])
    figure, (upper, lower) = _new(4.6, nrows=2, sharex=True, height_ratios=(1.1, 1))
    for entries, line, whose in curves:
        for axes, key, colour, label in (
            (upper, "loss", DENSE, f"{whose}training"),
            (upper, "validation_loss", PRUNED, f"{whose}validation"),
            (lower, f"validation_{metric}", PRUNED, "dense baseline" if whose else "pruned"),
        ):
            points = [(entry.get("epoch", entry["step"]), entry[key]) for entry in entries if key in entry]
            if not points:
                continue
            # A line of one point needs a marker to be seen, and a hollow one to be told from a dashed line.
            marker = "o" if key != "loss" or len(points) == 1 else ""
            axes.plot(
                *zip(*points, strict=True), line, color=colour, label=label, marker=marker, markersize=4.5,
                markerfacecolor="white" if whose else colour,
            )  # fmt: skip
    lower.set_xlim(left=0)
    for axes in (upper, lower):
        for start in starts:
            axes.axvline(start, color="#666666", linewidth=0.8, linestyle=":")
        axes.grid(axis="y", color="#eeeeee")
        axes.set_axisbelow(True)
        handles = axes.get_legend_handles_labels()[0]
        if handles and (baseline or axes is upper):
            _legend_above(axes, handles)
    upper.set_ylabel("loss")
    lower.set_ylabel(f"{metric_title(metric)}\n(validation)")
    if metric in SHARES:
        lower.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{round(100 * share, 2):g} %"))
    lower.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10], min_n_ticks=2))
    lower.set_xlabel("epoch")
    return figure


@styled
def latency(measurement: Mapping[str, Any]) -> Figure:
    """Time of a forward pass, dense against pruned, for every engine and size.

    Every pair has its own scale, dense = 100 %, since batch 32 takes a hundred times as long as batch 1; the times
    themselves stand beside the bars. Whiskers are quartiles.
    """
    by_engine: dict[str, list[Pair]] = {}
    for pair in timings(measurement):
        by_engine.setdefault(pair.engine, []).append(pair)
    counts = list(map(len, by_engine.values()))
    height = 1.1 + 0.35 * len(counts) + 0.46 * sum(counts)
    figure, panels = _new(height, nrows=len(counts), sharex=True, squeeze=False, height_ratios=counts)
    panels = panels[:, 0]
    longest = 100.0
    for (engine, pairs), axes in zip(by_engine.items(), panels, strict=True):
        for row, pair in enumerate(pairs):
            for place, time, colour in ((row - 0.2, pair.dense, DENSE), (row + 0.2, pair.pruned, PRUNED)):
                median, low, high = (100 * end / pair.dense.median for end in (time.median, time.q25, time.q75))
                axes.barh(place, median, height=0.38, color=colour)
                axes.plot([low, high], [place, place], color="black", linewidth=1.2, marker="|", markersize=5)
                longest = max(longest, median, high)
                axes.text(max(median, high) + 2, place, milliseconds(time.median), va="center_baseline", fontsize=8)
        _rows_of(axes, [f"batch {pair.batch}\n{pair.tokens} tokens" for pair in pairs])
        axes.set_title(engine)
        axes.tick_params(axis="x", bottom=axes is panels[-1])
    panels[-1].set_xlim(0, longest * 1.2)  # Room for the numbers.
    panels[-1].set_xlabel("time, % of the dense model's")
    _legend_of_bars(figure, {"dense": DENSE, "pruned": PRUNED})
    return figure


def draw(results: RunResults) -> dict[str, Figure]:
    """Every figure that there is something to draw for, by name."""
    figures = {}
    if results.importance is not None:
        figures["importance"] = importance_heatmap(results.importance, results.plan)
    if results.plan is not None:
        figures["kept"] = kept_per_layer(results.plan)
        if any(name in results.plan.ranks for name in PROJECTIONS):
            figures["ranks"] = ranks(results.plan)
    history, starts = finetunings(results)
    if history:
        baseline = results.facts("baseline").get("training", {}).get("history", ())
        figures["training"] = training_curve(history, metric=results.main_metric, baseline=baseline, starts=starts)
    if timings(measured(results)):
        figures["latency"] = latency(measured(results))
    return figures


def save_drawn(figures: Mapping[str, Figure], folder: Path) -> dict[str, Path]:
    """Save every figure as SVG and as PNG, atomically.

    Returns:
        File name ("importance.svg", "importance.png", ...) -> path.
    """
    written = {}
    for name, figure in figures.items():
        for kind in ("svg", "png"):
            path = folder / f"{name}.{kind}"
            with matplotlib.rc_context(STYLE), replacing_file(path) as temporary:
                FigureCanvasAgg(figure)
                figure.savefig(temporary, format=kind, dpi=200, metadata=_NO_METADATA[kind])
            written[path.name] = path
    return written


def _new(height: float, **panels: Any) -> tuple[Figure, Any]:
    """A figure with its axes; options as those of `Figure.subplots`."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots(**panels)


def _rows_height(layers: int) -> float:
    """Inches for so many rows: 0.3 a row for few, 0.2 for many."""
    return max(0.3 * min(layers, 12), 0.2 * layers)


def _rows_of(axes: Axes, labels: Sequence[str], step: int = 1) -> None:
    """One row a label, the first on top; every `step`-th label is shown."""
    axes.set_yticks(range(0, len(labels), step), labels[::step])
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)


def _draw_cells(
    axes: Axes, values: np.ndarray, colours: str | Colormap, norm: Normalize | None, *, step: int = 1
) -> Any:
    """Vector cells, one a value, layer 0 on top, with every `step`-th row and column numbered."""
    rows, columns = values.shape
    cells = axes.pcolormesh(
        np.arange(columns + 1) - 0.5, np.arange(rows + 1) - 0.5, np.ma.masked_invalid(values),
        cmap=colours, norm=norm, edgecolors="white", linewidth=1 / step,
    )  # fmt: skip
    axes.set_xticks(range(0, columns, step))
    _rows_of(axes, list(map(str, range(rows))), step)
    axes.set_ylabel("layer")
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return cells


def _legend_above(axes: Axes, handles: Sequence[Any]) -> None:
    axes.legend(
        handles=list(handles), loc="lower left", bbox_to_anchor=(-0.02, 1.0), borderaxespad=0.2, ncols=2,
        handletextpad=0.5, columnspacing=1.2,
    )  # fmt: skip


def _legend_of_bars(figure: Figure, colours: Mapping[str, str]) -> None:
    handles = [Patch(color=colour, label=label) for label, colour in colours.items()]
    figure.legend(handles=handles, loc="outside upper left", ncols=2)
