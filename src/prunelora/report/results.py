"""What a report is made of: the outcome of a run as plain data."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prunelora.importance.importance import Importance
from prunelora.planning.plan import Plan


@dataclass(frozen=True)
class RunResults:
    """The outcome of a run.

    Attributes:
        model: Name or path of the pretrained model.
        data: Name or path of the task data.
        task: "problem_type", "label_names", "rows" (split -> count), "test_name", "majority_rate" (or None),
            "majority_rates" (by reported split), "validation_majority_rate", "metrics" (main metric first), "columns",
            "notes", "fingerprint".
        seed: Of the run.
        recipe_yaml: The fully resolved recipe.
        folder: The run folder, as it was typed.
        importance: Scores the last plan was made from; None if nothing was scored.
        plan: The last plan; None if nothing was planned.
        stages: Stage name -> {"seconds": wall time, "facts": the stage's results, "label": how the journey names the
            model after it, "makes_model": whether its time counts as time to the model}, in order.
    """

    model: str
    data: str
    task: Mapping[str, Any]
    seed: int
    recipe_yaml: str
    folder: str
    importance: Importance | None
    plan: Plan | None
    stages: Mapping[str, Mapping[str, Any]]

    @property
    def main_metric(self) -> str:
        """The metric that the task is judged by: "accuracy" for one label a row, if no other was named."""
        return str(self.task["metrics"][0])

    def facts(self, stage: str) -> Mapping[str, Any]:
        """What a stage found; empty if it did not run."""
        return self.stages.get(stage, {}).get("facts", {})
