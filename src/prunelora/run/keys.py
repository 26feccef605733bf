"""Keys of stages: hashes of everything that a stage's result depends on."""

import hashlib
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from prunelora.run.recipe import Recipe
from prunelora.stages.base import Stage, deciding

if TYPE_CHECKING:
    from prunelora.data.task import TaskData


def digest(value: Any) -> str:
    """Short hash of JSON-able content, the same on every machine."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def keys_of(
    recipe: Recipe, source: str, task: "TaskData", plan_id: Callable[[str], str]
) -> Iterator[tuple[str, Stage, str]]:
    """Yield name, settings and key of the stages in order.

    A key is a hash of the stage's version, the settings that decide its result, and the key before it; the first key
    starts from model, data and seed. The version is the stage's, not the package's: a new release repeats only the
    stages whose results it changes.
    A plan may be edited by hand, so the stages after it depend on the plan itself: `plan_id` is called when the next
    key is asked for, after the plan was made.

    Args:
        recipe: The stages.
        source: Fingerprint of the pretrained model.
        task: Its rows and labels.
        plan_id: Returns the id of the plan of a stage, by the stage's name.
    """
    from prunelora.data import metrics

    start = {
        "model": source,
        "data": task.fingerprint,
        "max_length": recipe.task.max_length,
        "seed": recipe.seed,
    }
    if task.metrics[0] != metrics.default_metrics(task.problem_type, task.label_names)[0]:
        start["chosen_by"] = task.metrics[0]  # A named task may choose checkpoints by another metric on the same rows.
    key = digest(start)
    for name, stage in recipe.by_name.items():
        key = digest({"stage": deciding(stage), "version": stage.version, "after": key})
        yield name, stage, key
        if stage.stage == "plan":
            key = digest({"plan": plan_id(name), "after": key})
