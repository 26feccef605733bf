"""Figure 1: the importance of every head for each of the six tasks, as six heat maps in one figure."""

import math
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prunelora.report.figures import WIDTH, draw_colour_bar, draw_importance, styled
from prunelora.reproduction.results import Reproduction

_COLUMNS = 2


@styled
def importance_maps(reproduction: Reproduction) -> Figure:
    """One panel a task, in the paper's order: eq. 2 as colour, a cross on every head that was cut.

    The panel of a task without scores is empty and says why.
    """
    tasks, scores = reproduction.settings, reproduction.scores
    rows = math.ceil(len(tasks) / _COLUMNS)
    layers = max([6, *(importance.lineage.base.num_layers for importance, _ in scores.values())])
    figure = Figure(figsize=(WIDTH, 1.3 + rows * (0.55 + 0.13 * layers)), layout="constrained")
    panels = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    cells = None
    for axes, task in zip(panels, tasks, strict=True):
        cells = _panel(axes, reproduction, task) or cells
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


def _panel(axes: Axes, reproduction: Reproduction, task: str) -> Any:
    name = f"{task} (note)" if reproduction.settings[task].note else task
    if task not in reproduction.scores:
        axes.set_title(name)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        axes.text(
            0.5, 0.5, "scores not kept" if task in reproduction.comparisons else "not run", ha="center", va="center"
        )
        return None
    importance, plan = reproduction.scores[task]
    cells, crosses = draw_importance(axes, importance, plan, size=3.5, step=2)
    axes.tick_params(labelsize=7)
    axes.set_title(f"{name}: {crosses} of {sum(map(len, importance.lineage.heads))} cut")
    return cells
