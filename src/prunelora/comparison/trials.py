"""Trials of a comparison: one training each, in a folder of its own that is finished or is not."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from prunelora.comparison.methods import Method
from prunelora.comparison.results import TrialFacts
from prunelora.comparison.sharing import bring_over, run_folders
from prunelora.data.task import TaskData
from prunelora.errors import RecipeError
from prunelora.evaluation.machine import describe_machine
from prunelora.models.device import best_device
from prunelora.report.results import RunResults
from prunelora.run.execute import execute
from prunelora.run.recipe import Recipe
from prunelora.storage import write_json
from prunelora.version import __version__

FACTS = "trial.json"


@dataclass(frozen=True)
class Trial:
    """A method with a learning rate and a seed, and where its run folder is.

    Attributes:
        method: The method.
        learning_rate: Of its longest fine-tuning; the others' in proportion.
        seed: Of the run.
        folder: Run folder: OUT/trials/METHOD/lr-RATE/seed-SEED.
    """

    method: Method
    learning_rate: float
    seed: int
    folder: Path

    def __str__(self) -> str:
        """As people read it."""
        return f"{self.method.name}, learning rate {self.learning_rate:g}, seed {self.seed}"

    @property
    def recipe(self) -> Recipe:
        """Everything that determines this training."""
        return self.method.with_learning_rate(self.learning_rate).with_settings({"seed": self.seed})

    def facts(self) -> TrialFacts | None:
        """What the trial found; None if it is not finished, or was finished under another recipe."""
        try:
            content = json.loads((self.folder / FACTS).read_text(encoding="utf-8"))
            facts = TrialFacts.model_validate(content)
        except (OSError, ValueError, ValidationError):
            return None
        return facts if facts.recipe == portable(self.recipe) else None

    def answers(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Logits (N, C) and labels (N,) of the rows of a reported split."""
        tensors = load_file(self.folder / "answers.safetensors")
        return tensors[f"{split}.logits"].numpy(), tensors[f"{split}.labels"].numpy()


def trial_of(method: Method, learning_rate: float, seed: int, *, out: Path) -> Trial:
    """The trial and its place under the comparison's folder."""
    return Trial(method, learning_rate, seed, folder_of(method.name, learning_rate, seed, out=out))


def folder_of(method: str, learning_rate: float, seed: int, *, out: Path) -> Path:
    """The run folder of a trial by its method's name, under the comparison's folder."""
    return out / "trials" / method / f"lr-{learning_rate:g}" / f"seed-{seed}"


def run_trial(
    trial: Trial,
    task: TaskData,
    *,
    share_with: Sequence[Path] = (),
    progress: bool = False,
    tell: Callable[[str], None] | None = None,
) -> TrialFacts:
    """Train a trial, or go on with one that was stopped; what is finished under the same recipe is not repeated.

    Args:
        trial: What to train.
        task: Its data.
        share_with: Folders of comparisons, whose trials' finished stages are reused where this trial begins with them.
        progress: Show progress bars.
        tell: Called with a line for every stage.

    Raises:
        PruneLoraError: Of the kind that fits. What its earlier stages left stays.
    """
    if share_with and trial.facts() is None:
        bring_over(trial.recipe, trial.folder, task, run_folders(share_with, trial.seed))
    outcome = execute(trial.recipe, trial.folder, task=task, progress=progress, tell=tell)
    facts, before = _facts(trial, outcome.results), trial.facts()
    # Where nothing was trained anew it was found on the machine that it was found on.
    if before is not None and before == facts.model_copy(update=_where_trained(before)):
        return before
    write_json(trial.folder / FACTS, facts.model_dump(mode="json"))
    return facts


def run_trial_in_worker(trial: Trial, threads: int, share_with: Sequence[Path] = ()) -> TrialFacts:
    """The same in a process of its own, with a share of the cores."""
    from prunelora.data.load import load_task

    torch.set_num_threads(threads)
    return run_trial(trial, load_task(trial.recipe.task), share_with=share_with)


def _where_trained(facts: TrialFacts) -> dict[str, Any]:
    return {"machine": facts.machine, "prunelora": facts.prunelora}


def portable(recipe: Recipe) -> dict[str, Any]:
    """A recipe as plain data, without where the data lies on this machine."""
    content = recipe.model_dump(mode="json")
    content["task"].pop("data_dir")
    return content


def _facts(trial: Trial, results: RunResults) -> TrialFacts:
    recipe = trial.recipe
    tunings = [results.facts(name) for name in recipe.tunings]
    last = tunings[-1]
    merged = next((name for name in reversed(recipe.names) if name == "merge"), None)
    if merged is None:
        raise RecipeError(f"{trial}: the recipe has no stage 'merge'.")
    return TrialFacts(
        method=trial.method.name,
        learning_rate=trial.learning_rate,
        seed=trial.seed,
        validation=_plain(last["best"]),
        test={split: dict(values) for split, values in results.facts("evaluate")["quality"].items()},
        best_step=sum(one["steps"] for one in tunings[:-1]) + last["best_step"],
        steps=sum(one["steps"] for one in tunings),
        step_ms=last["step_ms"],
        seconds={name: stage["seconds"] for name, stage in results.stages.items()},
        trained=last["trainable"],
        plan_id=results.plan.id if results.plan is not None else None,
        recipe=portable(recipe),
        prunelora=__version__,
        machine=describe_machine(best_device()),
    )


def _plain(best: dict[str, float]) -> dict[str, float]:
    """Metrics of the kept checkpoint by their own names: {"validation_accuracy": 0.8} -> {"accuracy": 0.8}."""
    return {name.removeprefix("validation_"): value for name, value in best.items() if name != "step"}
