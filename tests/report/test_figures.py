import dataclasses
import re

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from report.made_up_run import made_up_importance, made_up_plan, make_results, measurement, training

from prunelora.importance.importance import Importance
from prunelora.models.lineage import Lineage
from prunelora.planning.make_plan import make_plan
from prunelora.planning.normalise import normalise
from prunelora.report import figures

SHAPES = [(6, 12), (12, 12), (24, 16), (2, 4), (1, 2)]


def crosses(figure):
    """(layer, head) of every cross."""
    return {
        (int(layer), int(head))
        for line in figure.axes[0].lines
        if line.get_marker() == "x"
        for head, layer in zip(*line.get_data(), strict=True)
    }


@pytest.mark.parametrize(("layers", "heads"), SHAPES)
def test_crosses_are_on_the_heads_that_the_plan_cuts_and_nowhere_else(layers, heads):
    importance = made_up_importance(layers, heads)
    plan = made_up_plan(importance)
    cut = {(layer, head) for layer in range(layers) for head in range(heads) if head not in plan.heads[layer]}
    assert cut
    assert crosses(figures.importance_heatmap(importance, plan)) == cut


def test_the_colours_are_the_normalised_scores():
    importance = made_up_importance()
    cells = figures.importance_heatmap(importance).axes[0].collections[0].get_array()
    np.testing.assert_array_equal(np.asarray(cells), np.stack(normalise(importance.heads, "paper")))


def test_where_scores_are_compared_as_they_are_what_is_cut_is_paler_than_what_stays():
    """Layers differ by powers of ten: taken layer by layer, each would have dark heads and pale ones."""
    made_up = made_up_importance(6, 12)
    heads = tuple(scores * 10.0**layer for layer, scores in enumerate(made_up.heads))
    importance = dataclasses.replace(made_up, heads=heads)
    plan = make_plan(importance, keep_heads=0.5, normalise="none")
    cells = np.asarray(figures.importance_heatmap(importance, plan).axes[0].collections[0].get_array())
    kept = np.zeros((6, 12), dtype=bool)
    for layer, ids in enumerate(plan.heads):
        kept[layer, list(ids)] = True
    assert cells[~kept].max() <= cells[kept].min()
    assert (cells.min(), cells.max()) == (0, 1)
    assert np.unique(cells).size > 40


def test_heads_that_were_cut_earlier_have_no_colour_and_no_cross():
    whole = made_up_importance(2, 4)
    lineage = Lineage(whole.lineage.base, ((0, 3), (0, 1, 2, 3)), whole.lineage.neurons)
    importance = Importance(heads=(whole.heads[0][:2], whole.heads[1]), neurons=whole.neurons, lineage=lineage)
    plan = made_up_plan(whole).model_copy(update={"heads": ((3,), (1,))})
    figure = figures.importance_heatmap(importance, plan)
    assert crosses(figure) == {(0, 0), (1, 0), (1, 2), (1, 3)}
    cells = figure.axes[0].collections[0].get_array()
    assert np.argwhere(np.ma.getmaskarray(cells)).tolist() == [[0, 1], [0, 2]]
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["cut: 4 of 6 heads", "cut earlier: 2"]


def test_figures_of_grouped_queries_count_groups():
    whole = made_up_importance(2, 4)
    base = dataclasses.replace(whole.lineage.base, queries_per_head=2)
    importance = dataclasses.replace(whole, lineage=dataclasses.replace(whole.lineage, base=base))
    plan = made_up_plan(importance)
    axes = figures.importance_heatmap(importance, plan).axes[0]
    assert re.fullmatch(r"cut: \d of 8 key/value groups", axes.get_legend().get_texts()[0].get_text())
    assert axes.get_xlabel() == "key/value group"
    assert figures.kept_per_layer(plan).axes[0].get_xlabel() == "key/value groups"


def test_bars_are_as_long_as_what_stays():
    plan = made_up_plan(made_up_importance())
    for axes, kept in zip(figures.kept_per_layer(plan).axes, (plan.heads, plan.neurons), strict=True):
        stays = axes.containers[1]
        assert [bar.get_width() for bar in stays] == [len(ids) for ids in kept]


def test_every_rank_stands_in_its_cell():
    plan = made_up_plan(made_up_importance())
    texts = figures.ranks(plan).axes[0].texts
    shown = {tuple(map(int, reversed(text.get_position()))): text.get_text() for text in texts}
    names = ["query", "key", "value", "output"]
    assert shown == {(layer, i): str(plan.rank(name, layer)) for layer in range(6) for i, name in enumerate(names)}
    assert shown[5, 0] == "0"  # No head is left there.


def test_the_baseline_is_dashed_and_only_there_when_it_was_trained():
    history = training((0.7, 0.8), {}, 1.0)["history"]
    alone = figures.training_curve(history)
    both = figures.training_curve(history, baseline=training((0.8, 0.9), {}, 1.0)["history"])
    assert {line.get_linestyle() for axes in alone.axes for line in axes.lines} == {"-"}
    dashed = [line for line in both.axes[1].lines if line.get_linestyle() == "--"]
    assert [line.get_ydata().tolist() for line in dashed] == [[0.8, 0.9]]


def test_bars_of_latency_are_relative_to_the_dense_model_and_labelled_with_the_times():
    figure = figures.latency(measurement(speed=2.0))
    assert [axes.get_title("left") for axes in figure.axes] == ["torch", "onnxruntime"]
    last = figure.axes[0].patches[-2:]
    assert [bar.get_width() for bar in last] == pytest.approx([100, 50])
    assert [text.get_text() for text in figure.axes[0].texts][-2:] == ["518 ms", "259 ms"]


@pytest.mark.parametrize(("layers", "heads"), SHAPES)
def test_no_label_covers_another_and_titles_of_axes_are_whole(layers, heads):
    importance = made_up_importance(layers, heads)
    plan = made_up_plan(importance)
    plan = plan.model_copy(update={"ranks": plan.ranks | {"up": (128,) * layers, "down": (4,) * layers}})
    for figure in (figures.importance_heatmap(importance, plan), figures.kept_per_layer(plan), figures.ranks(plan)):
        renderer = FigureCanvasAgg(figure).get_renderer()
        figure.draw(renderer)
        boxes = [
            text.get_window_extent(renderer)
            for axes in figure.axes
            for text in axes.findobj(Text)
            if text.get_text() and text.get_visible()
        ]
        assert len(boxes) > layers
        overlapping = [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]
        assert overlapping == []
        titles = [label for axes in figure.axes for label in (axes.xaxis.label, axes.yaxis.label) if label.get_text()]
        boxes = [label.get_window_extent(renderer) for label in titles]
        assert len(boxes) >= 1
        assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)
        assert all(figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1 for box in boxes)


def test_every_figure_is_there_as_svg_and_png(tmp_path):
    written = figures.save_drawn(figures.draw(make_results()), tmp_path)
    names = ("importance", "kept", "ranks", "training", "latency")
    assert set(written) == {f"{name}.{kind}" for name in names for kind in ("svg", "png")}
    assert {path.name for path in tmp_path.iterdir()} == set(written)
    for name, path in written.items():
        start = path.read_bytes()[:200]
        assert start.startswith(b"\x89PNG") if name.endswith("png") else b"<?xml" in start


def test_figures_without_anything_to_show_are_left_out():
    results = dataclasses.replace(
        make_results(without=("measure", "finetune")), importance=None, plan=None
    )  # fmt: skip
    assert figures.draw(results) == {}
