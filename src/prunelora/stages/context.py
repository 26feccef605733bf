"""The state of a run that its stages share: rows, models, scores, plan, and the records of finished stages."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from datasets import Dataset

from prunelora.data.answers import labels_of
from prunelora.data.embedded import model_source
from prunelora.data.fit import fitting, vocabulary_note
from prunelora.data.settings import DataSettings
from prunelora.data.task import TaskData
from prunelora.data.tokens import calibration_batches, collator, tokenise
from prunelora.data.truncation import Truncation
from prunelora.delivery.processors import load_processor, size_made_by
from prunelora.evaluation.quality import evaluate, predict_rows
from prunelora.importance.importance import Importance
from prunelora.models.device import best_device
from prunelora.models.inputs import give_images_of_, longest_input
from prunelora.models.loading import load_pretrained, pad_with_, random_pretrained
from prunelora.planning.plan import Plan
from prunelora.report.results import RunResults
from prunelora.stages.base import Record, Stage, stage_file
from prunelora.stages.finetune import FineTuneStage


class RunRecipe(Protocol):
    """The parts of a recipe that stages read; `prunelora.run.recipe.Recipe` has them."""

    @property
    def model(self) -> str:
        """Name or folder of the pretrained model."""

    @property
    def task(self) -> DataSettings:
        """The data."""

    @property
    def seed(self) -> int:
        """The seed of the run."""

    @property
    def by_name(self) -> dict[str, Any]:
        """All stages by name, in order."""

    @property
    def tunings(self) -> dict[str, FineTuneStage]:
        """All fine-tunings by name, in order."""

    @property
    def main_tuning(self) -> str:
        """Name of the longest fine-tuning."""

    @property
    def after_plans(self) -> set[str]:
        """Names of the stages after a plan."""

    def without_paths(self) -> "RunRecipe":
        """The recipe without paths of this machine."""

    def to_yaml(self) -> str:
        """The resolved recipe."""


@dataclass
class Run:
    """The state of a run that its stages share.

    Attributes:
        recipe: The recipe of the run.
        folder: The run folder.
        task: The rows and labels.
        processor: The tokenizer or image processor.
        model: The present model.
        importance: The last scores.
        plan: The last plan.
        progress: Whether progress bars are shown.
        tell: Called with a line for every event.
        done: Records of the stages that are up to date, by name and in order.
    """

    recipe: RunRecipe
    folder: Path
    task: TaskData
    processor: Any
    model: Any = None
    importance: Importance | None = None
    plan: Plan | None = None
    progress: bool = True
    tell: Callable[[str], None] = lambda _: None
    done: dict[str, Record] = field(default_factory=dict)
    _tokenised: dict[str, Dataset] = field(default_factory=dict, init=False, repr=False)

    def path(self, stage: str, file: str) -> Path:
        """The path of a stage's file: plan.json; for an earlier stage of the same kind, plan-1.json."""
        return self.folder / stage_file(stage, file)

    def done_of(self, kind: str) -> list[str]:
        """Names of the finished stages of a kind, in order."""
        return [name for name in self.done if self.recipe.by_name[name].stage == kind]

    def calibration(self, rows: int, batch_size: int) -> Sequence[dict[str, torch.Tensor]]:
        """Batches of a seeded sample of training rows."""
        return calibration_batches(
            self.task,
            self.processor,
            rows=rows,
            batch_size=batch_size,
            seed=self.recipe.seed,
            max_length=self.recipe.task.max_length,
        )

    def tokenised(self, split: str) -> Dataset:
        """Tokenised rows of a split, by the names that `TaskData.split` takes; each split is tokenised once."""
        if split not in self._tokenised:
            rows = self.task.split(split)
            self._tokenised[split] = tokenise(rows, self.processor, max_length=self.recipe.task.max_length)
        return self._tokenised[split]

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the training rows, the validation rows, and all reported rows."""
        return ("train", "validation", *self.task.reported)

    def check_rows(self) -> list[str]:
        """Check that the present model can read the rows of every split.

        Returns:
            Notes on the tokenizer and on truncated rows.

        Raises:
            UnsupportedModelError: If a row does not fit the model; see `prunelora.data.fit.fitting`.
            DataError: If the tokenizer has no padding token.
        """
        for split in self.splits:
            fitting(self.model, self.tokenised(split), where=f"{split} row")
        collator(self.tokenised("train"), self.processor)
        longest = None if self.task.of_images else longest_input(self.model)
        notes = [truncation.describe(split, longest=longest) for split, truncation in self.truncation.items()]
        if not self.task.of_images:
            notes.insert(0, vocabulary_note(self.model, self.processor))
        return [note for note in notes if note is not None]

    @functools.cached_property
    def truncation(self) -> dict[str, Truncation]:
        """How much of the rows of every split is truncated; empty for images."""
        if self.task.of_images:
            return {}
        length = self.recipe.task.max_length
        return {
            split: Truncation.of(self.task.split(split), self.tokenised(split), self.processor, max_length=length)
            for split in self.splits
        }

    def quality(self, split: str, model: Any = None) -> dict[str, float]:
        """Metrics of a model on a split; the present model if none is given."""
        model = self.model if model is None else model
        return evaluate(model, self.tokenised(split), self.processor, problem_type=self.task.problem_type)

    def answers(self, split: str, model: Any) -> tuple[np.ndarray, np.ndarray]:
        """A model's answers for a split, mostly logits, as `metrics` takes them; and the split's labels."""
        tokenised = self.tokenised(split)
        answers = predict_rows(model, tokenised, self.processor, problem_type=self.task.problem_type)
        return answers, labels_of(tokenised)

    def pretrained(self) -> Any:
        """The dense pretrained model with a new task head, on the best device."""
        return pretrained(self.recipe, self.task, self.processor)

    def results(self) -> RunResults:
        """The results so far, for the report."""
        task, stages = self.task, self.recipe.by_name
        return RunResults(
            model=self.recipe.model,
            data=self.recipe.task.described,
            task={
                "problem_type": task.problem_type,
                "label_names": list(task.label_names),
                "rows": {name: len(task.split(name)) for name in ("train", "validation", "test")}
                | {split: len(rows) for split, rows in task.more_tests.items()},
                "test_name": task.test_name,
                "majority_rate": task.majority_rate,
                "majority_rates": task.majority_rates,
                "validation_majority_rate": task.validation_majority_rate,
                "metrics": list(task.metrics),
                "columns": task.columns,
                "notes": list(task.notes),
                "fingerprint": task.fingerprint,
            },
            seed=self.recipe.seed,
            recipe_yaml=self.recipe.to_yaml(),
            folder=str(self.folder),
            importance=self.importance,
            plan=self.plan,
            stages={name: _result(record, stages[name]) for name, record in self.done.items()},
        )


def _result(record: Record, stage: Stage) -> Mapping[str, Any]:
    return {
        "seconds": record.seconds,
        "facts": record.facts,
        "label": stage.label,
        "makes_model": stage.makes_model,
    }


def pretrained(recipe: RunRecipe, task: TaskData, processor: Any = None, *, weights: bool = True) -> Any:
    """The dense model that a recipe starts from, with a head for the task, on the best device.

    Args:
        recipe: Names the model.
        task: Its labels.
        processor: The model's tokenizer or image processor; loaded if not given.
        weights: Read the weights; otherwise they are random, for results that do not depend on them.

    Raises:
        UnsupportedModelError: If the family is not supported.
        CheckpointError: As the loading functions raise it.
    """
    source = model_source(recipe.model)
    load = functools.partial(load_pretrained, seed=recipe.seed) if weights else random_pretrained
    model: Any = load(
        source,
        label_names=task.label_names,
        problem_type=task.problem_type,
    )
    processor = load_processor(source, task) if processor is None else processor
    pad_with_(model, getattr(processor, "pad_token_id", None))
    if task.of_images:
        give_images_of_(model, size_made_by(processor))
    model.config.name_or_path = recipe.model
    return model.to(best_device())
