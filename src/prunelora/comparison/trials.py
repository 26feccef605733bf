"""Trials of a comparison: one training each, in its own run folder."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from prunelora.comparison.methods import Method
from prunelora.comparison.results import TrialFacts, trial_folder
from prunelora.data.load import load_task
from prunelora.data.task import TaskData
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
    """A method with a learning rate and a seed.

    Attributes:
        method: The method.
        learning_rate: Of its longest fine-tuning; the others change in proportion.
        seed: Of the run.
        out: The comparison's folder.
    """

    method: Method
    learning_rate: float
    seed: int
    out: Path

    def __str__(self) -> str:
        """Name in messages."""
        return f"{self.method.name}, learning rate {self.learning_rate:g}, seed {self.seed}"

    @property
    def key(self) -> tuple[str, float, int]:
        """Method, learning rate and seed."""
        return self.method.name, self.learning_rate, self.seed

    @property
    def folder(self) -> Path:
        """Run folder: OUT/trials/METHOD/lr-RATE/seed-SEED."""
        return self.out / trial_folder(*self.key)

    @property
    def recipe(self) -> Recipe:
        """The recipe of this training."""
        return self.method.with_learning_rate(self.learning_rate).with_settings({"seed": self.seed})

    def facts(self) -> TrialFacts | None:
        """Returns the results; None if the trial is not finished under its present recipe."""
        try:
            facts = TrialFacts.model_validate(json.loads((self.folder / FACTS).read_text(encoding="utf-8")))
        except (OSError, ValueError, ValidationError):
            return None
        return facts if facts.recipe == portable(self.recipe) else None

    def answers(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns logits (N, C) and labels (N,) of the rows of a reported split."""
        tensors = load_file(self.folder / "answers.safetensors")
        return tensors[f"{split}.logits"].numpy(), tensors[f"{split}.labels"].numpy()


def run_trial(
    trial: Trial,
    task: TaskData,
    *,
    store: Path | None = None,
    progress: bool = False,
    tell: Callable[[str], None] | None = None,
) -> TrialFacts:
    """Train a trial, or continue a stopped one; stages finished under the same recipe are not repeated.

    Args:
        trial: The trial.
        task: Its data.
        store: Folder of finished stages that trials share.
        progress: Show progress bars.
        tell: Called with a line for every stage.

    Raises:
        PruneLoraError: If a stage fails. Results of earlier stages stay.
    """
    outcome = execute(trial.recipe, trial.folder, task=task, store=store, progress=progress, tell=tell)
    facts, stored = _facts(trial, outcome.results), trial.facts()
    # Unchanged results keep the machine and version that they were made with.
    if stored and stored == facts.model_copy(update={"machine": stored.machine, "prunelora": stored.prunelora}):
        return stored
    write_json(trial.folder / FACTS, facts.model_dump(mode="json"))
    return facts


def run_trial_in_worker(trial: Trial, threads: int, store: Path | None = None) -> TrialFacts:
    """`run_trial` in its own process, with a share of the cores."""
    torch.set_num_threads(threads)
    return run_trial(trial, load_task(trial.recipe.task), store=store)


def portable(recipe: Recipe) -> dict[str, Any]:
    """A recipe as plain data, without the path of the data on this machine."""
    content = recipe.model_dump(mode="json")
    content["task"].pop("data_dir")
    return content


def _facts(trial: Trial, results: RunResults) -> TrialFacts:
    tunings = [results.facts(name) for name in trial.recipe.tunings]
    last = tunings[-1]
    return TrialFacts(
        method=trial.method.name,
        learning_rate=trial.learning_rate,
        seed=trial.seed,
        # "validation_accuracy" -> "accuracy"
        validation={name.removeprefix("validation_"): value for name, value in last["best"].items() if name != "step"},
        test={split: dict(values) for split, values in results.facts("evaluate")["quality"].items()},
        best_step=sum(facts["steps"] for facts in tunings[:-1]) + last["best_step"],
        steps=sum(facts["steps"] for facts in tunings),
        step_ms=last["step_ms"],
        seconds={name: stage["seconds"] for name, stage in results.stages.items()},
        trained=last["trainable"],
        plan_id=results.plan.id if results.plan is not None else None,
        recipe=portable(trial.recipe),
        prunelora=__version__,
        machine=describe_machine(best_device()),
    )
