"""Figure 1: the importance of every head for each of the six tasks, as six heat maps in one figure."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from prunelora.report.figures import (
    HEAT,
    WIDTH,
    cut_heads,
    draw_cells,
    draw_colour_bar,
    draw_crosses,
    scores_of_heads,
    styled,
)
from prunelora.reproduction.results import Reproduction, TaskOutcome

_COLUMNS = 2


@styled
def importance_maps(reproduction: Reproduction) -> Figure:
    """One panel a task, in the paper's order: eq. 2 as colour, a cross on every head that was cut.

    The panel of a task without scores is empty and says why.
    """
    rows = -(-len(reproduction.tasks) // _COLUMNS)
    layers = max((task.importance.lineage.base.num_layers for task in reproduction.tasks if task.importance), default=6)
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
    for number, axes in enumerate(panels):
        axes.set_ylabel("" if number % _COLUMNS else "layer", fontsize=8)
    for axes in panels[-_COLUMNS:]:
        axes.set_xlabel("head", fontsize=8)
    if cells is not None:
        place = {"orientation": "horizontal", "fraction": 0.04, "pad": 0.02, "aspect": 40}
        draw_colour_bar(figure, cells, "importance (least 0, most 1)", ax=list(panels), **place)
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
    values = scores_of_heads(task.importance)
    cells = draw_cells(axes, values, HEAT, Normalize(0, 1), gap=0.5, step=2)
    axes.set_title(name)
    if task.plan is not None:
        cut = cut_heads(task.importance, task.plan)
        axes.set_title(f"{name}: {len(cut)} of {sum(map(len, task.importance.lineage.heads))} cut")
        draw_crosses(axes, values, cut, size=3.5, width=0.9)
    return cells
