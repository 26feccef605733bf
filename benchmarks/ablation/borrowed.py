"""What benchmarks.glue has found: trainings under the same settings, whose rows are taken over; its tasks' rows."""

from itertools import zip_longest
from pathlib import Path

from benchmarks.ablation.results import Row
from benchmarks.ablation.variants import SEEDS, TASKS, Variant
from prunelora.comparison.results import TrialFacts, load_comparison
from prunelora.errors import RecipeError
from prunelora.stage_settings import EvaluateStage


def borrowed_rows(variant: Variant, task: str, results: Path) -> list[Row]:
    """Rows of a variant that cuts nothing, from the results of benchmarks.glue; none where it was trained otherwise."""
    try:
        found = load_comparison(results / task / "comparison.json")
    except RecipeError:
        return []
    method = found.method(variant.name)
    if method is None:
        return []
    return [
        Row(
            task=task,
            definition=variant.definition(task),
            keep_macs=variant.keep_macs,
            heads=None,
            neurons=None,
            parameters=method.parameters,
            training_memory=method.memory.training,
            cut=None,
            cell=cell,
        )
        for cell in found.trials
        if cell.method == variant.name and cell.seed in SEEDS and is_trained_as(cell, variant, task)
    ]


def most_frequent(results: Path) -> dict[str, float]:
    """Share of the most frequent class among the reported rows, in points, by task, from the same results."""
    rates = {}
    for task in TASKS:
        try:
            rate = load_comparison(results / task / "comparison.json").task["majority_rate"].get("test")
        except RecipeError:
            continue
        if rate is not None:
            rates[task] = 100 * rate
    return rates


def is_trained_as(cell: TrialFacts, variant: Variant, task: str) -> bool:
    """Whether a training's recipe is the variant's on the task; a setting that it does not know has its default."""
    ours = variant.for_task(task, cell.learning_rate / variant.learning_rate)
    if cell.recipe["task"]["max_train_rows"] != variant.rows_of(task):
        return False
    stages = [stage for stage in cell.recipe["stages"] if stage["stage"] != EvaluateStage().stage]
    for stage, theirs in zip_longest(ours.stages, stages, fillvalue=None):
        if stage is None or theirs is None:
            return False
        defaults = type(stage)().model_dump(mode="json")
        if stage.model_dump(mode="json") != defaults | theirs:
            return False
    return True
