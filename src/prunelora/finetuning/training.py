"""Fine-tuning with transformers' Trainer: evaluation, best checkpoint, resuming."""

import dataclasses
import functools
import math
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from pydantic import ValidationError
from torch import nn
from transformers import PrinterCallback, ProgressCallback, Trainer
from transformers.trainer_utils import EvalPrediction, get_last_checkpoint

from prunelora.data.answers import answers_of, mean_loss
from prunelora.data.fit import fitting
from prunelora.data.images import holds_images
from prunelora.data.metrics import IGNORED, choosing_metrics, default_metrics, metrics
from prunelora.data.tokens import Processor, collator
from prunelora.errors import (
    DataError,
    DivergenceError,
    RecipeError,
    advice,
    one_of,
    option,
    running_stage,
)
from prunelora.finetuning.adapter import trainable_parameters
from prunelora.finetuning.arguments import num_processes, training_arguments
from prunelora.finetuning.callbacks import OrderOfRows, StepClock, StepProgress, chosen_callbacks
from prunelora.finetuning.checkpoints import add_no_step_, identity_of, last_checkpoint
from prunelora.finetuning.contexts import check_checkpointing, in_bfloat16, training_contexts
from prunelora.finetuning.distillation import DistillingTrainer, check_teacher
from prunelora.finetuning.result import TrainingResult, log_entry, metrics_at
from prunelora.finetuning.settings import FineTuneSettings
from prunelora.finetuning.start import Start
from prunelora.finetuning.trainer import MEAN_LOSS, ExactTrainer
from prunelora.models.padding import pad_for_model
from prunelora.models.problem_types import BY_TOKEN, CAUSAL_LM, SINGLE_LABEL, label_names_of, problem_type_of
from prunelora.models.state import random_state_kept
from prunelora.settings import complaint


@random_state_kept()
def finetune(
    model: nn.Module,
    train: Dataset,
    validation: Dataset,
    *,
    tokenizer: Processor,
    settings: FineTuneSettings | None = None,
    checkpoints: Path | str | None = None,
    logs: Path | str = "tensorboard",
    seed: int = 0,
    progress: bool = True,
    main_metric: str | None = None,
    **options: Any,
) -> TrainingResult:
    """Train the trainable weights of `model`, in place, and keep the checkpoint that is best on the validation rows.

    Training uses `transformers.Trainer`, so `accelerate launch` and `torchrun` distribute it over several processes
    with one GPU each; a single process uses one GPU.

    Args:
        model: The result of `add_adapter`, or any model with a loss; its trainable weights are trained.
        train: Tokenised rows (see `prunelora.data.tokens.tokenise`) with input_ids, attention_mask, labels, and
            teacher_logits for distillation; or prepared images.
        validation: Tokenised rows on which the best checkpoint is chosen.
        tokenizer: Pads batches; for images, the processor that prepared them.
        settings: Settings of the training; also by keyword: `finetune(..., epochs=3, learning_rate=1e-3)`.
        checkpoints: Folder for the checkpoints of this training. If the training was interrupted, the same call resumes
            from the last checkpoint. Without it, a temporary folder.
        logs: Folder for TensorBoard's logs, if the settings ask for them.
        seed: Seed of the rows' order and of dropout. Global random generators are restored.
        progress: Show a progress bar with the time left.
        main_metric: Metric of `prunelora.data.metrics` by which the best checkpoint is chosen; by default the first of
            `default_metrics`, which is accuracy for one label a row.
        **options: Fields of FineTuneSettings; they replace those of `settings`.

    Returns:
        TrainingResult.

    Raises:
        RecipeError: If there is no such setting, or its value is not valid.
        DataError: If there are no training or validation rows, no such metric, or several processes without a folder
            for checkpoints.
        UnsupportedModelError: If the model cannot read a row (see `prunelora.data.fit.fitting`), or does not support
            gradient checkpointing that the settings ask for.
        CheckpointError: If `checkpoints` belongs to a training with other settings, rows, seed or initial weights. A
            model that this call has trained has other weights: load it again before repeating the call.
        DivergenceError: If a loss or gradient is not finite. The model then has the weights of the last checkpoint; if
            there is none, those before the step, which are of no use.
    """
    settings = _with_options(settings or FineTuneSettings(), options)
    _check_call(train, validation, settings, checkpoints)
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    train, validation = fitting(base, train, where="train row"), fitting(base, validation, where="validation row")
    task = _Task.of(base, main_metric)
    check_checkpointing(base, settings)
    _check_labels({"train": train, "validation": validation}, task.problem_type)
    collate = collator(train, tokenizer)
    if settings.distillation:
        check_teacher(train, task.problem_type)
    clock = StepClock()
    with ExitStack() as stack:
        checkpoint = None
        if checkpoints:
            folder = Path(checkpoints)
            others = {"seed": seed, "main_metric": task.main_metric, "processes": num_processes()}
            checkpoint = last_checkpoint(folder, identity_of(model, train, validation, settings, **others))
        else:
            temporary = tempfile.TemporaryDirectory(prefix="prunelora-training-", ignore_cleanup_errors=True)
            folder = Path(stack.enter_context(temporary))
        trainer = _make_trainer(
            model,
            base,
            settings,
            task,
            args=training_arguments(settings, folder, task.main_metric, train, seed, progress),
            train_dataset=train,
            eval_dataset={"validation": validation},
            processing_class=tokenizer,
            data_collator=lambda rows: pad_for_model(collate(rows), base),
            callbacks=[clock, OrderOfRows(), *chosen_callbacks(settings, Path(logs))],
        )
        if progress:
            trainer.add_callback(StepProgress)
        started = time.perf_counter()
        try:
            with training_contexts(model, settings):
                start = Start.of(model, trainer) if settings.keep_start else None
                if checkpoint is not None:
                    add_no_step_(trainer, checkpoint)
                trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        except DivergenceError as error:
            raise _explained(error, trainer, folder, settings) from error
    seconds = time.perf_counter() - started
    model.eval()
    history = [log_entry(entry) for entry in trainer.state.log_history if "train_runtime" not in entry]
    best_step = int(trainer.state.best_global_step or trainer.state.global_step)
    best = metrics_at(history, best_step)
    if start is not None:
        history.insert(0, {"step": 0.0, "epoch": 0.0, **start.metrics})
        if start.is_better_than(best, task.main_metric):
            start.restore_(model)
            best, best_step = start.metrics, 0
    return TrainingResult(
        history=history,
        best=best,
        best_step=best_step,
        steps=int(trainer.state.global_step),
        seconds=seconds,
        step_ms=clock.median_ms,
        trainable=trainable_parameters(model),
    )


@dataclasses.dataclass(frozen=True)
class _Task:
    """The task of a model, and the metric by which the best checkpoint is chosen."""

    problem_type: str
    label_names: Sequence[str]
    main_metric: str

    @classmethod
    def of(cls, model: nn.Module, main_metric: str | None) -> "_Task":
        problem_type, label_names = problem_type_of(model) or SINGLE_LABEL, label_names_of(model)
        metric = main_metric or default_metrics(problem_type, label_names)[0]
        known = choosing_metrics(problem_type, label_names)
        if metric not in known:
            raise DataError(f"{option('main_metric', metric)} cannot choose checkpoints here.{one_of(metric, known)}")
        return cls(problem_type, label_names, metric)

    def evaluate(self, output: EvalPrediction) -> dict[str, float]:
        """Mean loss and metrics of an evaluation."""
        answers: Any = output.predictions
        labels: Any = output.label_ids
        loss = {MEAN_LOSS: mean_loss(answers, labels, self.problem_type)}
        if not math.isfinite(loss[MEAN_LOSS]):
            return loss  # Some metrics fail on values that are not finite, before ExactTrainer stops the training.
        return loss | metrics(answers, labels, self.problem_type, self.label_names)

    def answers(self, outputs: Any, labels: torch.Tensor) -> torch.Tensor:
        """Answers of a batch. The hidden states that an encoder-decoder also returns are not kept."""
        return answers_of(outputs[0] if isinstance(outputs, tuple) else outputs, labels, self.problem_type)


def _with_options(settings: FineTuneSettings, options: dict[str, Any]) -> FineTuneSettings:
    try:
        return FineTuneSettings(**(settings.model_dump() | options))
    except ValidationError as error:
        raise RecipeError(
            f"{complaint(error, known=lambda _: FineTuneSettings.model_fields)} Settings of a fine-tuning: "
            f"{', '.join(FineTuneSettings.model_fields)}."
        ) from error


def _check_call(
    train: Dataset, validation: Dataset, settings: FineTuneSettings, checkpoints: Path | str | None
) -> None:
    for name, rows in (("train", train), ("validation", validation)):
        if not len(rows):
            raise DataError(f"{name}: no rows to fine-tune with.")
    settings.check_installed()
    if checkpoints is None and num_processes() > 1:
        raise DataError(
            f"Fine-tuning in {num_processes()} processes needs checkpoints=, a folder that all of them can read: each "
            "loads the best checkpoint from it."
        )


def _check_labels(splits: dict[str, Dataset], problem_type: str) -> None:
    """Check that some tokens have labels, for tasks with a label for each token."""
    for name, rows in splits.items():
        if problem_type not in BY_TOKEN or holds_images(rows):
            return
        # A language model does not predict the first token.
        first = 1 if problem_type == CAUSAL_LM else 0
        if not any(label != IGNORED for labels in rows["labels"] for label in labels[first:]):
            raise DataError(f"{name}: no token of its {len(rows):,} rows has a label (all are {IGNORED}).")


def _make_trainer(
    model: nn.Module, base: nn.Module, settings: FineTuneSettings, task: _Task, **arguments: Any
) -> Trainer:
    """The Trainer for a task; further arguments are those of `transformers.Trainer`."""
    kind: Any = ExactTrainer
    if settings.distillation:
        kind = functools.partial(
            DistillingTrainer, weight=settings.distillation, temperature=settings.distillation_temperature
        )
    trainer: Trainer = kind(
        base=base,
        model=model,
        compute_metrics=task.evaluate,
        preprocess_logits_for_metrics=task.answers,
        **arguments,
    )
    # These callbacks of transformers print a dict at every log.
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    return trainer


def _explained(error: DivergenceError, trainer: Trainer, folder: Path, settings: FineTuneSettings) -> DivergenceError:
    """The error with the state of the model and what to try; outside a run, the last checkpoint is loaded."""
    stage = running_stage()
    if stage is not None:
        return DivergenceError(f"{stage}: {error} {_advice(settings)}")
    last = get_last_checkpoint(str(folder))
    if last is None:
        state = "No checkpoint was written before it; load the model again."
    else:
        trainer._load_from_checkpoint(last)
        state = f"The model has the weights of the last checkpoint, {Path(last).name}."
    return DivergenceError(f"{error} {state} {_advice(settings)}")


def _advice(settings: FineTuneSettings) -> str:
    """A sentence on settings that help against divergence."""
    remedies = [f"a lower {advice('learning_rate')} than {settings.learning_rate:g}"]
    if not 0 < settings.max_grad_norm <= 1:
        remedies.append(advice("max_grad_norm", 1.0))
    if settings.warmup_fraction < 0.1:
        remedies.append(advice("warmup_fraction", 0.1))
    if in_bfloat16(settings):
        remedies.append(advice("precision", "float32"))
    return f"Try {', or '.join(remedies)}."
