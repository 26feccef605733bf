"""Fine-tuning with transformers' Trainer: evaluation, best checkpoint, resuming."""

import dataclasses
import functools
import importlib.util
import math
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from pydantic import ValidationError
from torch import nn
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainingArguments
from transformers.trainer_utils import EvalPrediction, get_last_checkpoint

from prunelora.data.answers import answers_of, mean_loss
from prunelora.data.fit import fitting
from prunelora.data.images import holds_images
from prunelora.data.metrics import IGNORED, choosing_metrics, default_metrics, metrics
from prunelora.data.tokens import Processor, collator
from prunelora.errors import (
    DataError,
    DivergenceError,
    MissingExtraError,
    RecipeError,
    advice,
    one_of,
    option,
    running_stage,
)
from prunelora.finetuning.adapter import trainable_parameters
from prunelora.finetuning.callbacks import OrderOfRows, StepClock, StepProgress, chosen_callbacks
from prunelora.finetuning.checkpoints import add_no_step_, identity_of, last_checkpoint
from prunelora.finetuning.conditions import (
    check_checkpointing,
    checkpointing_of,
    dropout_of,
    in_bfloat16,
    own_forward,
    recomputation_of,
    under_own_names,
)
from prunelora.finetuning.distillation import DistillingTrainer, check_teacher
from prunelora.finetuning.settings import FineTuneSettings
from prunelora.finetuning.trainer import MEAN_LOSS, ExactTrainer
from prunelora.models.device import best_device
from prunelora.models.padding import as_read
from prunelora.models.problem_types import BY_TOKEN, CAUSAL_LM, SINGLE_LABEL, label_names_of, problem_type_of
from prunelora.models.state import left_as_found, random_state_kept
from prunelora.settings import complaint


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """What a fine-tuning did.

    Attributes:
        history: One dict for every log and evaluation: "step", "epoch", and "loss" or "validation_..." values.
        best: Metrics on the validation rows of the checkpoint that was kept.
        best_step: Optimiser step of that checkpoint; 0 where the model is as it was before the first.
        steps: Optimiser steps in all.
        seconds: Wall time of training and evaluation, of this process only (not of what ran before it was resumed).
        step_ms: Median wall time of an optimiser step, evaluation left out; None if none ran in this process.
        trainable: Parameters trained, by kind.
    """

    history: list[dict[str, float]]
    best: dict[str, float]
    best_step: int
    steps: int
    seconds: float
    step_ms: float | None
    trainable: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)


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
    """Train what is trainable in `model`, in place, and leave it at its best on the validation rows.

    `transformers.Trainer` does the work, so `accelerate launch` and `torchrun` spread it over several processes, each
    with a GPU of its own; a single process uses one.

    Args:
        model: What `add_adapter` returned; or any model with a loss, whose trainable weights are then trained.
        train: Tokenised rows (see `prunelora.data.tokens.tokenise`): input_ids, attention_mask, labels; for
            distillation teacher_logits too; or prepared images.
        validation: Tokenised rows that pick the best checkpoint.
        tokenizer: For padding; of images the processor that made them.
        settings: How to train; by keyword as well: `finetune(..., epochs=3, learning_rate=1e-3)`.
        checkpoints: Folder for checkpoints, of this training alone. If it was stopped, the same call goes on from the
            last one there. A temporary folder if not given.
        logs: Folder for TensorBoard's logs, where settings ask for them.
        seed: Order of the rows and dropout. Global random generators are left as they were found.
        progress: Show a progress bar with the time left.
        main_metric: What the best checkpoint is best in, of `prunelora.data.metrics`; if not given, the first of its
            `default_metrics`: accuracy, for one label a row.
        **options: Fields of FineTuneSettings, in place of those in `settings`.

    Returns:
        TrainingResult.

    Raises:
        RecipeError: If there is no such setting, or it cannot have that value.
        DataError: If there are no rows to train on or to choose by, no such metric, or several processes have no folder
            in common.
        UnsupportedModelError: If the model cannot read a row (see `prunelora.data.fit.fitting`), or its layers cannot
            be computed again, where settings ask for it.
        CheckpointError: If `checkpoints` holds those of another training: other settings, rows, seed or weights to
            begin with. A model that the call has trained already has others: load it again before it is repeated.
        DivergenceError: If a loss or gradient is not finite. The model then has the weights of the last checkpoint; if
            there is none, those before the step, which are of no use.
    """
    settings = _with_options(settings or FineTuneSettings(), options)
    for name, rows in (("train", train), ("validation", validation)):
        if not len(rows):
            raise DataError(f"{name}: no rows to fine-tune with.")
    require_packages(settings)
    if checkpoints is None and _num_processes() > 1:
        raise DataError(
            f"Fine-tuning in {_num_processes()} processes needs checkpoints=, a folder that all of them see: the best "
            "checkpoint is read back from there by each."
        )
    temporary = None if checkpoints else tempfile.mkdtemp(prefix="prunelora-training-")
    folder = Path(checkpoints or str(temporary))
    own = model.get_base_model() if isinstance(model, PeftModel) else model
    train, validation = fitting(own, train, where="train row"), fitting(own, validation, where="validation row")
    problem_type = problem_type_of(own) or SINGLE_LABEL
    label_names = label_names_of(own)
    known = choosing_metrics(problem_type, label_names)
    chooses = main_metric or default_metrics(problem_type, label_names)[0]
    if chooses not in known:
        raise DataError(f"{option('main_metric', chooses)} cannot choose checkpoints here.{one_of(chooses, known)}")
    check_checkpointing(own, settings)
    for name, rows in (("train", train), ("validation", validation)):
        _check_labelled(name, rows, problem_type)
    collate = collator(train, tokenizer)
    if settings.distillation:
        check_teacher(train, problem_type)
    checkpoint = None
    if not temporary:
        others = {"seed": seed, "main_metric": chooses, "processes": _num_processes()}
        checkpoint = last_checkpoint(folder, identity_of(model, train, validation, settings, **others))
    clock = StepClock()
    kind: Any = ExactTrainer
    if settings.distillation:
        kind = functools.partial(
            DistillingTrainer, weight=settings.distillation, temperature=settings.distillation_temperature
        )
    trainer = kind(
        own=own,
        model=model,
        args=_arguments(settings, folder, chooses, train, seed, progress),
        train_dataset=train,
        eval_dataset={"validation": validation},
        processing_class=tokenizer,
        data_collator=lambda rows: as_read(collate(rows), own),
        compute_metrics=lambda output: _judge(output, problem_type, label_names),
        preprocess_logits_for_metrics=lambda output, labels: answers_of(_logits(output), labels, problem_type),
        callbacks=[clock, OrderOfRows(), *chosen_callbacks(settings, Path(logs))],
    )
    # The Trainer's own ways of showing progress print a dict at every log.
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    if progress:
        trainer.add_callback(StepProgress)
    started = time.perf_counter()
    try:
        with (
            own_forward(model), checkpointing_of(model, settings), dropout_of(model, settings.dropout),
            recomputation_of(settings), under_own_names(model),
        ):  # fmt: skip
            start = _Start.of(model, trainer) if settings.keep_start else None
            if checkpoint is not None:
                add_no_step_(trainer, checkpoint)
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except DivergenceError as error:
        stage = running_stage()  # Of a run, whose model nobody holds.
        said = f"{error} {_back_to_(trainer, folder)}" if stage is None else f"{stage}: {error}"
        raise DivergenceError(f"{said} {_advice(settings)}") from error
    finally:
        if temporary:
            shutil.rmtree(temporary, ignore_errors=True)
    seconds = time.perf_counter() - started
    model.eval()
    history = [_plain(entry) for entry in trainer.state.log_history if "train_runtime" not in entry]
    best_step = int(trainer.state.best_global_step or trainer.state.global_step)
    best = next(
        (
            {k: v for k, v in entry.items() if k.startswith("validation_")}
            for entry in history
            if entry["step"] == best_step and "validation_loss" in entry
        ),
        {},
    )
    if start is not None:
        history.insert(0, {"step": 0.0, "epoch": 0.0, **start.found})
        if start.merit(start.found, chooses) > start.merit(best, chooses):
            start.put_back_(model)
            best, best_step = start.found, 0
    return TrainingResult(
        history=history,
        best=best,
        best_step=best_step,
        steps=int(trainer.state.global_step),
        seconds=seconds,
        step_ms=clock.median_ms,
        trainable=trainable_parameters(model),
    )


def _with_options(settings: FineTuneSettings, options: dict[str, Any]) -> FineTuneSettings:
    try:
        return FineTuneSettings(**(settings.model_dump() | options))
    except ValidationError as error:
        raise RecipeError(
            f"{complaint(error, known=lambda _: FineTuneSettings.model_fields)} Settings of a fine-tuning: "
            f"{', '.join(FineTuneSettings.model_fields)}."
        ) from error


def _check_labelled(name: str, rows: Dataset, problem_type: str) -> None:
    if problem_type not in BY_TOKEN or holds_images(rows):
        return
    # Before its first token a language model has nothing to tell it from.
    first = 1 if problem_type == CAUSAL_LM else 0
    if not any(label != IGNORED for labels in rows["labels"] for label in labels[first:]):
        raise DataError(f"{name}: no token of its {len(rows):,} rows has a label (all are {IGNORED}).")


def _back_to_(trainer: Trainer, folder: Path) -> str:
    """Give the model the weights of the last checkpoint, which are finite.

    Returns:
        A sentence that says so, for the message.
    """
    last = get_last_checkpoint(str(folder))
    if last is None:
        return "No checkpoint was written before it; load the model again."
    trainer._load_from_checkpoint(last)
    return f"The model has the weights of the last checkpoint, {Path(last).name}."


@dataclasses.dataclass(frozen=True)
class _Start:
    """A model before the first step.

    Attributes:
        found: Metrics on the validation rows.
        weights: Those that are trained, by name.
    """

    found: dict[str, float]
    weights: dict[str, torch.Tensor]

    @classmethod
    def of(cls, model: nn.Module, trainer: Trainer) -> "_Start":
        """Evaluate the model that a trainer is about to train, which then trains as it would have without."""
        with left_as_found(model):
            entry = _plain(trainer.evaluate())
        weights = {name: one.detach().clone() for name, one in model.named_parameters() if one.requires_grad}
        return cls({name: value for name, value in entry.items() if name.startswith("validation_")}, weights)

    @staticmethod
    def merit(found: dict[str, float], metric: str) -> tuple[float, float]:
        """Of metrics on the validation rows: of equals those with the smaller loss are better."""
        values = found.get(f"validation_{metric}", math.nan), -found.get("validation_loss", math.nan)
        first, second = (-math.inf if math.isnan(value) else value for value in values)
        return first, second

    @torch.no_grad()
    def put_back_(self, model: nn.Module) -> None:
        """Give the model its weights again."""
        for name, parameter in model.named_parameters():
            if name in self.weights:
                parameter.copy_(self.weights[name])


def _arguments(
    settings: FineTuneSettings, folder: Path, main_metric: str, train: Dataset, seed: int, progress: bool
) -> TrainingArguments:
    rows, images = len(train), holds_images(train)
    total_steps = settings.updates(rows, processes=_num_processes())
    every = settings.updates_between_evaluations(rows, processes=_num_processes())
    # Named only when asked for: transformers is renaming it, and warns.
    checkpointing: dict[str, Any] = {"gradient_checkpointing": True} if settings.gradient_checkpointing else {}
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=2 * settings.batch_size,
        gradient_accumulation_steps=settings.accumulation_steps,
        warmup_steps=math.ceil(settings.warmup_fraction * total_steps),
        lr_scheduler_type=settings.schedule,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model=f"validation_{main_metric}",
        greater_is_better=True,
        logging_strategy="steps",
        logging_steps=max(1, min(25, every)),
        logging_nan_inf_filter=False,  # It logs what is not finite as 0.
        bf16=in_bfloat16(settings),
        train_sampling_strategy="group_by_length" if settings.group_by_length and not images else "random",
        report_to=[],
        seed=seed,
        data_seed=seed,
        disable_tqdm=not progress,
        dataloader_pin_memory=torch.cuda.is_available(),
        use_cpu=best_device().type == "cpu",  # Otherwise several processes on CPUs would not know of each other.
        label_names=["labels"],
        # The teacher's logits are no input of the model, and images turn into some only when they are read.
        remove_unused_columns=not (settings.distillation or images),
        **checkpointing,
    )
    # One GPU a process. The Trainer would give a single process all there are, with as many times the rows a step:
    # another training than the settings say.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def require_packages(settings: FineTuneSettings) -> None:
    """Hold that what a fine-tuning needs is installed.

    Raises:
        MissingExtraError: If TensorBoard is asked for and is not there.
    """
    if settings.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise MissingExtraError("tensorboard=True", "tensorboard")


def _num_processes() -> int:
    """How many processes torchrun or accelerate launch started for this training."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def _logits(outputs: Any) -> torch.Tensor:
    """Of a batch's outputs; an encoder-decoder also gives hidden states, which would be kept for all rows."""
    logits: torch.Tensor = outputs[0] if isinstance(outputs, tuple) else outputs
    return logits


def _judge(output: EvalPrediction, problem_type: str, label_names: Sequence[str]) -> dict[str, float]:
    answers: Any = output.predictions
    labels: Any = output.label_ids
    found = {MEAN_LOSS: mean_loss(answers, labels, problem_type)}
    # Some metrics fail on numbers that are not finite, before the training is stopped for them.
    return found | metrics(answers, labels, problem_type, label_names) if math.isfinite(found[MEAN_LOSS]) else found


def _advice(settings: FineTuneSettings) -> str:
    """A sentence for the message of a training that diverged."""
    tried = [f"a lower {advice('learning_rate')} than {settings.learning_rate:g}"]
    if not 0 < settings.max_grad_norm <= 1:
        tried.append(advice("max_grad_norm", 1.0))
    if settings.warmup_fraction < 0.1:
        tried.append(advice("warmup_fraction", 0.1))
    if in_bfloat16(settings):
        tried.append(advice("precision", "float32"))
    return f"Try {', or '.join(tried)}."


def _plain(entry: dict[str, Any]) -> dict[str, float]:
    """A log entry with our names ("eval_validation_loss" -> "validation_loss"), without timings of evaluation."""
    names = {key: key.removeprefix("eval_") for key in entry}
    return {
        names[key]: float(value)
        for key, value in entry.items()
        if isinstance(value, int | float) and not key.endswith(("_runtime", "_per_second", "_time"))
    }
