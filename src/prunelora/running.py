"""What the stages of a run hand on to each other, and how the models of a run are made and tuned."""

import dataclasses
import functools
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from datasets import Dataset

from prunelora.data.answers import labels_of
from prunelora.data.embedded import model_source
from prunelora.data.fit import fitting, vocabulary_note
from prunelora.data.task import TaskData
from prunelora.data.tokens import calibration_batches, collator, tokenise
from prunelora.data.truncation import Truncation
from prunelora.delivery.processors import load_processor, size_made_by
from prunelora.errors import RecipeError
from prunelora.evaluation.quality import evaluate, predict_rows
from prunelora.finetuning.adapter import add_adapter
from prunelora.finetuning.checkpoints import IDENTITY
from prunelora.finetuning.distillation import TEACHER, check_task
from prunelora.finetuning.settings import FineTuneSettings
from prunelora.finetuning.training import finetune
from prunelora.importance.importance import Importance
from prunelora.models.anatomy import dissect
from prunelora.models.device import best_device
from prunelora.models.inputs import give_images_of_, longest_input
from prunelora.models.loading import load_pretrained, pad_with_, random_pretrained
from prunelora.planning.plan import Plan
from prunelora.pruning.surgery import prune_
from prunelora.recipe import Recipe
from prunelora.report.results import RunResults
from prunelora.runfolder import RunFolder
from prunelora.stage_settings import FineTuneStage

Facts = dict[str, Any]
Made = TypeVar("Made")


@dataclasses.dataclass
class Run:
    """What the stages hand on to each other."""

    recipe: Recipe
    folder: RunFolder
    task: TaskData
    processor: Any  # Tokenizer, or image processor.
    model: Any = None
    importance: Importance | None = None
    plan: Plan | None = None
    progress: bool = True
    tell: Callable[[str], None] = lambda _: None
    done: list[str] = dataclasses.field(default_factory=list)  # Stages that are up to date, in order.
    _tokenised: dict[str, Dataset] = dataclasses.field(default_factory=dict, init=False, repr=False)

    def path(self, stage: str, file: str) -> Path:
        """Where a stage puts a file: plan.json; for an earlier stage of the same kind, plan-1, plan-1.json."""
        return self.folder.file(stage_file(stage, file))

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
        """Tokenised rows of a split, by the names that `TaskData.split` takes; they are kept."""
        if split not in self._tokenised:
            rows = self.task.split(split)
            self._tokenised[split] = tokenise(rows, self.processor, max_length=self.recipe.task.max_length)
        return self._tokenised[split]

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the training rows, the validation rows, and all that is reported."""
        return ("train", "validation", *self.task.reported)

    def check_rows(self) -> list[str]:
        """Check that the present model can read the rows of every split.

        Returns:
            Notes on the tokenizer and on what is cut off of the rows.

        Raises:
            UnsupportedModelError: If a row does not fit the model; see `prunelora.data.fit.fitting`.
            DataError: If the tokenizer has no padding token.
        """
        for split in self.splits:
            fitting(self.model, self.tokenised(split), where=f"{split} row")
        collator(self.tokenised("train"), self.processor)
        longest = None if self.task.of_images else longest_input(self.model)
        notes = [found.describe(split, longest=longest) for split, found in self.truncation.items()]
        if not self.task.of_images:
            notes.insert(0, vocabulary_note(self.model, self.processor))
        return [note for note in notes if note is not None]

    @functools.cached_property
    def truncation(self) -> dict[str, Truncation]:
        """What is cut off of the rows of every split; empty for images."""
        if self.task.of_images:
            return {}
        length = self.recipe.task.max_length
        return {
            split: Truncation.of(self.task.split(split), self.tokenised(split), self.processor, max_length=length)
            for split in self.splits
        }

    def quality(self, split: str, model: Any = None) -> dict[str, float]:
        """Metrics of the present model, or another, on a split."""
        model = self.model if model is None else model
        return evaluate(model, self.tokenised(split), self.processor, problem_type=self.task.problem_type)

    def answers(self, split: str, model: Any) -> tuple[np.ndarray, np.ndarray]:
        """What `metrics` takes, logits most often, of a model for a split; and its labels."""
        tokenised = self.tokenised(split)
        answers = predict_rows(model, tokenised, self.processor, problem_type=self.task.problem_type)
        return answers, labels_of(tokenised)

    def pretrained(self) -> Any:
        """The model everything starts from, dense, on the best device."""
        return pretrained(self.recipe, self.task, self.processor)

    def results(self) -> RunResults:
        """What has been found so far, for the report."""
        records = [record for name in self.done if (record := self.folder.record(name)) is not None]
        return RunResults(
            model=self.recipe.model,
            data=self.recipe.task.described,
            task={
                "problem_type": self.task.problem_type,
                "label_names": list(self.task.label_names),
                "rows": {name: len(self.task.split(name)) for name in ("train", "validation", "test")}
                | {split: len(rows) for split, rows in self.task.more_tests.items()},
                "test_name": self.task.test_name,
                "majority_rate": self.task.majority_rate,
                "majority_rates": self.task.majority_rates,
                "validation_majority_rate": self.task.validation_majority_rate,
                "metrics": list(self.task.metrics),
                "columns": self.task.columns,
                "notes": list(self.task.notes),
                "fingerprint": self.task.fingerprint,
            },
            seed=self.recipe.seed,
            recipe_yaml=self.recipe.to_yaml(),
            folder=str(self.folder.path),
            importance=self.importance,
            plan=self.plan,
            stages={record.stage: {"seconds": record.seconds, "facts": record.facts} for record in records},
        )


def stage_file(stage: str, file: str) -> str:
    """What a stage calls a file: plan.json; an earlier stage of the same kind, plan-1, calls it plan-1.json."""
    _, _, number = stage.partition("-")
    name = Path(file)
    return f"{name.stem}-{number}{name.suffix}" if number else file


def pretrained(recipe: Recipe, task: TaskData, processor: Any = None, *, weights: bool = True) -> Any:
    """The dense model that a recipe starts from, with a task head for the task, on the best device.

    Args:
        recipe: Names the model.
        task: Its labels.
        processor: The tokenizer or image processor that goes with it; loaded if not given.
        weights: Read its weights; else they are random, for what does not depend on them.

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


def ready_to_train(model: Any, plan: Plan | None, settings: FineTuneStage, *, seed: int) -> Any:
    """The model as a fine-tuning trains it: every weight, or an adapter by the plan; without one, of one rank."""
    if settings.trainable == "all":
        return model.requires_grad_(True)
    if plan is None:
        # Cuts nothing, and leaves its ranks with the model, where a saved adapter finds them.
        plan = Plan.whole(dissect(model).lineage, rank=settings.lora_rank, targets=settings.lora_targets)
        prune_(model, plan)
    return add_adapter(
        model,
        plan,
        alpha_over_rank=settings.alpha_over_rank,
        dropout=settings.lora_dropout,
        train_norms=settings.train_norms,
        train_head=settings.train_head,
        initialisation=settings.lora_init,
        seed=seed,
    )


def tune(run: Run, model: Any, settings: FineTuneSettings, checkpoints: Path, logs: Path, teacher: Any = None) -> Facts:
    """Train a model as a fine-tuning says, on the training rows, in place; with a teacher towards its answers."""
    _remove_checkpoints_of_earlier_versions(run, checkpoints)
    train = run.tokenised("train")
    if teacher is not None:
        check_task(train, run.task.problem_type)
        train = train.add_column(TEACHER, predict_rows(teacher, train, run.processor).tolist())
    result = finetune(
        model,
        train,
        run.tokenised("validation"),
        tokenizer=run.processor,
        checkpoints=checkpoints,
        logs=logs,
        seed=run.recipe.seed,
        progress=run.progress,
        main_metric=run.task.metrics[0],
        **settings.model_dump(include=set(FineTuneSettings.model_fields)),
    )
    return result.to_dict() | {"truncation": {split: found.to_dict() for split, found in run.truncation.items()}}


def _remove_checkpoints_of_earlier_versions(run: Run, folder: Path) -> None:
    """Remove a run's checkpoints which do not say what they were made from, so that the training begins anew."""
    if any(folder.glob("checkpoint-*")) and not (folder / IDENTITY).exists():
        run.tell(f"{folder.name}: checkpoints of an earlier version of prunelora are removed; the training begins anew")
        shutil.rmtree(folder)


@dataclasses.dataclass(frozen=True)
class StageWork:
    """How a stage is carried out.

    Attributes:
        run: Does the work on the run, leaves files, and returns facts for the report.
        restore: Brings the run to the state after the stage, from its files.
        files: What it leaves in the run folder, by its plain names; depends on its settings.
        model_only: Whether `restore` changes nothing but the model.
        whole_model: Whether `restore` brings a model that does not depend on the one before.
        unfinished: Folders of the run folder, by their plain names, that it goes on from when it was stopped.
    """

    run: Callable[[Run, str, Any], Facts]
    restore: Callable[[Run, str, Any], None]
    files: Callable[[Any], tuple[str, ...]] = lambda _: ()
    model_only: bool = False
    whole_model: bool = False
    unfinished: tuple[str, ...] = ()


def made(value: Made | None, kind: str) -> Made:
    """What an earlier stage made.

    Raises:
        RecipeError: If it did not run.
    """
    if value is None:
        raise RecipeError(f"Nothing to go on from: the stage {kind!r} has not run. Put it before this one.")
    return value


def restore_nothing(_: Run, __: str, ___: Any) -> None:
    """Restore nothing: no later stage reads what this one left."""
