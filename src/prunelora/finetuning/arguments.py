"""Arguments of transformers' Trainer from the settings of a fine-tuning."""

import math
import os
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainingArguments

from prunelora.data.images import holds_images
from prunelora.finetuning.contexts import in_bfloat16
from prunelora.finetuning.result import VALIDATION
from prunelora.finetuning.settings import FineTuneSettings
from prunelora.models.device import best_device


def num_processes() -> int:
    """Number of processes that torchrun or accelerate launch started for this training."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def training_arguments(
    settings: FineTuneSettings, folder: Path, main_metric: str, train: Dataset, seed: int, progress: bool
) -> TrainingArguments:
    """Arguments of the Trainer for training on the rows `train`, with checkpoints in `folder`."""
    rows, images = len(train), holds_images(train)
    steps_between = settings.updates_between_evaluations(rows, processes=num_processes())
    # Passed only if it is on, because transformers warns about its name.
    checkpointing: dict[str, Any] = {"gradient_checkpointing": True} if settings.gradient_checkpointing else {}
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=2 * settings.batch_size,
        gradient_accumulation_steps=settings.accumulation_steps,
        warmup_steps=math.ceil(settings.warmup_fraction * settings.updates(rows, processes=num_processes())),
        lr_scheduler_type=settings.schedule,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        eval_strategy="steps",
        eval_steps=steps_between,
        save_strategy="steps",
        save_steps=steps_between,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model=f"{VALIDATION}{main_metric}",
        greater_is_better=True,
        logging_strategy="steps",
        logging_steps=max(1, min(25, steps_between)),
        logging_nan_inf_filter=False,  # The filter would log 0 for a loss that is not finite.
        bf16=in_bfloat16(settings),
        train_sampling_strategy="group_by_length" if settings.group_by_length and not images else "random",
        report_to=[],
        seed=seed,
        data_seed=seed,
        disable_tqdm=not progress,
        dataloader_pin_memory=torch.cuda.is_available(),
        use_cpu=best_device().type == "cpu",  # Several processes on CPUs need it for their process group.
        label_names=["labels"],
        # The model does not read the teacher's logits, and images become pixel values only when rows are read.
        remove_unused_columns=not (settings.distillation or images),
        **checkpointing,
    )
    # One GPU a process: with several GPUs the Trainer would multiply the rows of a step by their number.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments
