"""Figure 1: the importance of every head for each of the six tasks, as six heat maps in one figure."""

from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from prunelora.planning.normalise import normalise
from prunelora.report.figures import HEAT, STYLE, WIDTH
from prunelora.reproduction.results import Reproduction, TaskOutcome

_COLUMNS = 2
# Crosses on cells of a higher score are white, since the cells are dark.
_DARK = 0.55


def importance_maps(reproduction: Reproduction) -> Figure:
    """One panel a task, in the paper's order: eq. 2 as colour, a cross on every head that was cut.

    The panel of a task without scores is empty and says why.
    """
    rows = -(-len(reproduction.tasks) // _COLUMNS)
    layers = max((task.importance.lineage.base.num_layers for task in reproduction.tasks if task.importance), default=6)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 1.3 + rows * (0.55 + 0.13 * max(layers, 6))), layout="constrained")
        panels = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
        cells = None
        for axes, task in zip(panels, reproduction.tasks, strict=False):
            cells = _panel(axes, task) or cells
        for axes in panels[len(reproduction.tasks) :]:
            axes.set_axis_off()
        figure.suptitle(
            f"Importance of every head ({reproduction.label})\n\N{MULTIPLICATION SIGN} = cut",
            x=0.01, ha="left", fontsize=10,
        )  # fmt: skip
        for axes in panels[::_COLUMNS]:
            axes.set_ylabel("layer", fontsize=8)
        for axes in panels[-_COLUMNS:]:
            axes.set_xlabel("head", fontsize=8)
        if cells is not None:
            bar = figure.colorbar(
                cells, ax=list(panels), orientation="horizontal", fraction=0.04, pad=0.02, aspect=40, ticks=[0, 0.5, 1]
            )
            bar.set_label("importance (least 0, most 1)")
            bar.outline.set_visible(False)
            # Vectors like the rest, without white lines between the steps.
            if bar.solids is not None:
                bar.solids.set(rasterized=False, edgecolor="face")
    return figure


def _panel(axes: Axes, task: TaskOutcome) -> Any:
    name = f"{task.task} (note)" if task.note else task.task
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0, labelsize=7)
    if task.importance is None:
        axes.set_title(name)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.text(0.5, 0.5, "not run" if task.comparison is None else "scores not kept", ha="center", va="center")
        return None
    base = task.importance.lineage.base
    values = np.full((base.num_layers, max(base.num_heads, default=0)), np.nan)
    scores = normalise(task.importance.heads, "paper")
    for layer, (ids, layer_scores) in enumerate(zip(task.importance.lineage.heads, scores, strict=True)):
        values[layer, list(ids)] = layer_scores
    cells = axes.pcolormesh(
        np.arange(values.shape[1] + 1) - 0.5, np.arange(values.shape[0] + 1) - 0.5, np.ma.masked_invalid(values),
        cmap=HEAT, norm=Normalize(0, 1), edgecolors="white", linewidth=0.5,
    )  # fmt: skip
    axes.set_ylim(values.shape[0] - 0.5, -0.5)
    axes.set_xticks(range(0, values.shape[1], 2))
    axes.set_yticks(range(0, values.shape[0], 2))
    axes.set_title(name)
    if task.plan is not None:
        present = [(layer, head) for layer, ids in enumerate(task.importance.lineage.heads) for head in ids]
        cut = [(layer, head) for layer, head in present if head not in task.plan.heads[layer]]
        axes.set_title(f"{name}: {len(cut)} of {len(present)} cut")
        for colour, places in (
            ("black", [cell for cell in cut if values[cell] < _DARK]),
            ("white", [cell for cell in cut if values[cell] >= _DARK]),
        ):
            axes.plot(
                [head for _, head in places], [layer for layer, _ in places],
                "x", color=colour, markersize=3.5, markeredgewidth=0.9,
            )  # fmt: skip
    return cells
