"""The report's figures: drawn without a display, readable on a phone, and byte for byte the same for the same input.

Every function returns a matplotlib Figure that the caller owns; pyplot and its global state are not used.
"""

import math
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
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from prunelora.importance.importance import Importance
from prunelora.models.family import PROJECTIONS
from prunelora.planning.normalise import normalise
from prunelora.planning.plan import Plan
from prunelora.report.reading import SHARES, finetunings, main_metric, metric_title, milliseconds, timings
from prunelora.report.results import RunResults
from prunelora.storage import replacing_file

# Okabe and Ito's colours, which people with any kind of colour blindness can tell apart; the grey is lighter than all.
DENSE, PRUNED, ACCENT, CUT = "#9a9a9a", "#0072b2", "#d55e00", "#d9d9d9"

# Light for 0, dark for 1, at monotone lightness; and no white, which means that nothing is there.
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


def importance_heatmap(importance: Importance, plan: Plan | None = None) -> Figure:
    """Layers x heads: the importance that a plan goes by as colour, and a cross on every head that it cuts.

    Scores that a plan compares as they are (normalise: none) are on a logarithmic scale, as they span many powers of
    ten; else they are those of equation 2. Heads that were gone before the scoring are hatched.
    """
    base = importance.lineage.base
    values = np.full((base.num_layers, max(base.num_heads, default=0)), np.nan)
    how = "paper" if plan is None else plan.provenance.get("options", {}).get("normalise", "paper")
    for layer, (ids, scores) in enumerate(zip(importance.lineage.heads, normalise(importance.heads, how), strict=True)):
        values[layer, list(ids)] = scores
    if how == "none":
        values = _by_powers(values)
    present = [(layer, head) for layer, ids in enumerate(importance.lineage.heads) for head in ids]
    gone = [
        (layer, head)
        for layer, count in enumerate(base.num_heads)
        for head in range(count)
        if np.isnan(values[layer, head])
    ]
    cut = [(layer, head) for layer, head in present if plan is not None and head not in plan.heads[layer]]

    with matplotlib.rc_context(STYLE):
        figure, axes = _new(height=1.3 + _rows_height(base.num_layers))
        norm = Normalize(0, 1)
        cells = _cells(axes, values, HEAT, norm)
        for layer, head in gone:
            axes.add_patch(
                matplotlib.patches.Rectangle(
                    (head - 0.5, layer - 0.5), 1, 1, facecolor="white", edgecolor="#bbbbbb", hatch="////", linewidth=0
                )
            )
        crosses = [("black" if values[cell] < 0.55 else "white", cell) for cell in cut]
        side = min(_rows_height(base.num_layers) / base.num_layers, 3.4 / max(1, values.shape[1]))
        for colour in ("black", "white"):
            places = [cell for ink, cell in crosses if ink == colour]
            axes.plot(
                [head for _, head in places], [layer for layer, _ in places],
                "x", color=colour, markersize=72 * side * 0.5, markeredgewidth=1.4,
            )  # fmt: skip
        legend: list[Any] = []
        if plan is not None:
            cross = Line2D([], [], color="black", marker="x", linestyle="", markersize=7, markeredgewidth=1.4)
            cross.set_label(f"cut: {len(cut)} of {len(present)} {base.unit_of_heads}")
            legend.append(cross)
        if gone:
            legend.append(
                Patch(facecolor="white", edgecolor="#bbbbbb", hatch="////", label=f"cut earlier: {len(gone)}")
            )
        if legend:
            _legend_above(axes, legend)
        axes.set_xlabel(base.unit_of_heads.removesuffix("s"))
        axes.set_ylabel("layer")
        bar = figure.colorbar(cells, ax=axes, fraction=0.05, pad=0.03, ticks=[0, 0.5, 1])
        # Two lines: of two layers the picture is less high than one line is long.
        bar.set_label(f"importance{', log' if how == 'none' else ''}\n(least 0, most 1)")
        bar.outline.set_visible(False)
        # Vectors, like the rest; matplotlib would put a picture there, and white lines between the steps.
        if bar.solids is not None:
            bar.solids.set(rasterized=False, edgecolor="face")
    return figure


def _by_powers(scores: np.ndarray) -> np.ndarray:
    """Logarithms of scores, stretched to 0..1; nan where there is none, and 0 for what is not above 0."""
    above = scores[scores > 0]
    if not above.size or above.min() == above.max():
        return np.where(np.isnan(scores), np.nan, (scores > 0).astype(float))
    low, high = math.log(above.min()), math.log(above.max())
    with np.errstate(divide="ignore", invalid="ignore"):
        stretched = (np.log(scores) - low) / (high - low)
    return np.where(np.isnan(scores), np.nan, np.nan_to_num(np.clip(stretched, 0, 1), nan=0.0))


def kept_per_layer(plan: Plan) -> Figure:
    """Heads and neurons that stay, of all that were there, layer by layer."""
    layers = range(plan.base.num_layers)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 1.2 + _rows_height(plan.base.num_layers)), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for axes, name, kept, totals in (
            (panels[0], plan.base.unit_of_heads, plan.heads, plan.base.num_heads),
            (panels[1], "neurons", plan.neurons, plan.base.num_neurons),
        ):
            counts = [len(ids) for ids in kept]
            axes.barh(layers, totals, color=CUT, height=0.78)
            axes.barh(layers, counts, color=PRUNED, height=0.78)
            widest = max(totals, default=1)
            for layer, count in zip(layers, counts, strict=True):
                # Beside the bar where it is too short to hold the number.
                inside = count > 0.3 * widest
                axes.text(
                    count - 0.03 * widest if inside else count + 0.03 * widest, layer, str(count),
                    ha="right" if inside else "left", va="center_baseline", fontsize=8,
                    color="white" if inside else "black",
                )  # fmt: skip
            axes.set_xlim(0, widest)
            axes.set_xlabel(name)
            axes.set_title(f"{sum(counts):,} of {sum(totals):,}")
            axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
            axes.tick_params(axis="y", length=0)
            axes.spines["left"].set_visible(False)
        panels[0].set_yticks(list(layers))
        panels[0].set_ylabel("layer")
        panels[0].set_ylim(plan.base.num_layers - 0.5, -0.5)
        figure.legend(
            handles=[Patch(color=PRUNED, label="stays"), Patch(color=CUT, label="cut")],
            loc="outside upper left",
            ncols=2,
        )
    return figure


def ranks(plan: Plan) -> Figure:
    """LoRA rank of every matrix: layers x projections, the number in its cell."""
    names = [name for name in PROJECTIONS if name in plan.ranks]
    values = np.array(
        [[plan.rank(name, layer) for name in names] for layer in range(plan.base.num_layers)], dtype=float
    ).reshape(plan.base.num_layers, len(names))
    levels = sorted(set(values.ravel().tolist()))
    with matplotlib.rc_context(STYLE):
        figure, axes = _new(height=0.7 + _rows_height(plan.base.num_layers))
        # One tint a level, none so dark that black numbers would not show.
        tints = matplotlib.colormaps[HEAT](np.linspace(0, 0.5, len(levels)))
        edges = [-1.0, *(level + 0.5 for level in levels)]
        _cells(axes, values, ListedColormap(tints), BoundaryNorm(edges, len(levels)) if levels else None)
        for (layer, column), rank in np.ndenumerate(values):
            axes.text(column, layer, f"{rank:.0f}", ha="center", va="center_baseline", fontsize=9, color="black")
        axes.set_xticks(range(len(names)), names)
        axes.set_ylabel("layer")
    return figure


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
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(1.1, 1))
        for entries, line, whose in curves:
            for axes, key, colour, label in (
                (upper, "loss", DENSE, f"{whose}training"),
                (upper, "validation_loss", PRUNED, f"{whose}validation"),
                (lower, f"validation_{metric}", PRUNED, "dense baseline" if whose else "pruned"),
            ):
                points = _points(entries, key)
                # A line of one point cannot be seen without a marker, and not be seen to be dashed: hence hollow ones.
                marker = "o" if key != "loss" or len(points) == 1 else ""
                if points:
                    axes.plot(
                        *zip(*points, strict=True),
                        line,
                        color=colour,
                        label=label,
                        marker=marker,
                        markersize=4.5,
                        markerfacecolor="white" if whose else colour,
                    )
        lower.set_xlim(left=0)
        for axes in (upper, lower):
            for start in starts:
                axes.axvline(start, color="#666666", linewidth=0.8, linestyle=":")
            axes.grid(axis="y", color="#eeeeee")
            axes.set_axisbelow(True)
        upper.set_ylabel("loss")
        lower.set_ylabel(f"{metric_title(metric)}\n(validation)")
        if metric in SHARES:
            lower.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{round(100 * share, 2):g} %"))
        lower.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10], min_n_ticks=2))
        lower.set_xlabel("epoch")
        for axes in (upper, lower) if baseline else (upper,):
            if axes.get_legend_handles_labels()[0]:
                _legend_above(axes, axes.get_legend_handles_labels()[0])
    return figure


def latency(measurement: Mapping[str, Any]) -> Figure:
    """Time of a forward pass, dense against pruned, for every engine and size.

    Every pair has its own scale, dense = 100 %, since batch 32 takes a hundred times as long as batch 1; the times
    themselves stand beside the bars. Whiskers are quartiles.
    """
    pairs = timings(measurement)
    engines = list(dict.fromkeys(pair.engine for pair in pairs))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 1.1 + 0.35 * len(engines) + 0.46 * len(pairs)), layout="constrained")
        counts = [sum(pair.engine == engine for pair in pairs) for engine in engines]
        panels = figure.subplots(len(engines), 1, sharex=True, squeeze=False, height_ratios=counts)[:, 0]
        longest = 100.0
        for engine, axes in zip(engines, panels, strict=True):
            own = [pair for pair in pairs if pair.engine == engine]
            for row, pair in enumerate(own):
                for place, time, colour in ((row - 0.2, pair.dense, DENSE), (row + 0.2, pair.pruned, PRUNED)):
                    scale = 100 / pair.dense.median_ms
                    median, low, high = (scale * value for value in (time.median_ms, time.q25_ms, time.q75_ms))
                    axes.barh(place, median, height=0.38, color=colour)
                    axes.plot([low, high], [place, place], color="black", linewidth=1.2, marker="|", markersize=5)
                    end = max(median, high)
                    longest = max(longest, end)
                    axes.text(end + 2, place, milliseconds(time.median_ms), va="center_baseline", fontsize=8)
            axes.set_yticks(range(len(own)), [f"batch {pair.batch}\n{pair.tokens} tokens" for pair in own])
            axes.set_ylim(len(own) - 0.5, -0.5)
            axes.set_title(engine)
            axes.tick_params(axis="y", length=0)
            axes.tick_params(axis="x", bottom=axes is panels[-1])
        panels[-1].set_xlim(0, longest * 1.2)  # Room for the numbers.
        panels[-1].set_xlabel("time, % of the dense model's")
        figure.legend(
            handles=[Patch(color=DENSE, label="dense"), Patch(color=PRUNED, label="pruned")],
            loc="outside upper left", ncols=2,
        )  # fmt: skip
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
        figures["training"] = training_curve(
            history,
            metric=main_metric(results),
            baseline=results.facts("baseline").get("training", {}).get("history", ()),
            starts=starts,
        )
    measurement = results.facts("measure").get("measurement", {})
    if timings(measurement):
        figures["latency"] = latency(measurement)
    return figures


def save_figures(results: RunResults, folder: Path) -> dict[str, Path]:
    """Draw all figures of a run into a folder.

    Returns:
        File name ("importance.svg", "importance.png", ...) -> path.
    """
    return save_drawn(draw(results), folder)


def save_drawn(figures: Mapping[str, Figure], folder: Path) -> dict[str, Path]:
    """Save every figure as SVG and as PNG, atomically.

    Returns:
        File name -> path.
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


def _new(*, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def _rows_height(layers: int) -> float:
    """Inches for so many rows: 0.3 a row where there are few, 0.2 where there are many."""
    return max(0.3 * min(layers, 12), 0.2 * layers)


def _cells(axes: Axes, values: np.ndarray, colours: str | Colormap, norm: Normalize | None) -> Any:
    """Vector cells, one a value, row 0 on top, with every row and column numbered."""
    rows, columns = values.shape
    cells = axes.pcolormesh(
        np.arange(columns + 1) - 0.5, np.arange(rows + 1) - 0.5, np.ma.masked_invalid(values),
        cmap=colours, norm=norm, edgecolors="white", linewidth=1,
    )  # fmt: skip
    axes.set_xticks(range(columns))
    axes.set_yticks(range(rows))
    axes.set_ylim(rows - 0.5, -0.5)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return cells


def _legend_above(axes: Axes, handles: Sequence[Any]) -> None:
    axes.legend(
        handles=list(handles), loc="lower left", bbox_to_anchor=(-0.02, 1.0), borderaxespad=0.2, ncols=2,
        handletextpad=0.5, columnspacing=1.2,
    )  # fmt: skip


def _points(history: Sequence[Mapping[str, float]], key: str) -> list[tuple[float, float]]:
    return [(entry.get("epoch", entry["step"]), entry[key]) for entry in history if key in entry]
