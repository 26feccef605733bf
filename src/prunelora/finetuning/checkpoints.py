"""The folder of a training's checkpoints: whose they are, and which one the training goes on from."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import torch
from datasets import Dataset
from torch import nn
from transformers import Trainer, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint

from prunelora.errors import CheckpointError
from prunelora.finetuning.distillation import TEACHER
from prunelora.finetuning.settings import FineTuneSettings
from prunelora.storage import write_json

# Beside the checkpoints: what they were made from.
IDENTITY = "training.json"

# Settings that change neither the weights that a training gives, nor when it saves them.
_WITHOUT_EFFECT = {*FineTuneSettings.costs_alone, "gradient_checkpointing", "tensorboard", "keep_start"}
# Numbers of a weight that are compared: another model differs in all of them.
_SAMPLE = 1024
# Answers of the same teacher differ by rounding where they are computed again.
_SAME_ANSWERS = 1e-3

_IN_WORDS = {
    "train": "other training rows",
    "validation": "other validation rows",
    "teacher": "another teacher's answers",
    "model": "a model of another architecture",
    "trainable": "other weights to train",
    "weights": "other weights to begin with, as a model has that this training has trained already",
}


def identity_of(
    model: nn.Module,
    train: Dataset,
    validation: Dataset,
    settings: FineTuneSettings,
    **others: Any,
) -> dict[str, Any]:
    """What a training's result depends on, for JSON: settings as they are, rows and weights as hashes.

    Args:
        model: Before the first step.
        train: Tokenised rows.
        validation: Tokenised rows.
        settings: Of the training.
        **others: What else it depends on.
    """
    weights = list(model.named_parameters())
    found: dict[str, Any] = {
        "settings": settings.model_dump(exclude=_WITHOUT_EFFECT),
        **others,
        "train": hash_of_rows(train),
        "validation": hash_of_rows(validation),
        "model": _hash_of(f"{type(model).__name__} {[(name, tuple(one.shape)) for name, one in weights]}".encode()),
        "trainable": _hash_of(" ".join(name for name, one in weights if one.requires_grad).encode()),
        "weights": _hash_of(*(_sample(one) for _, one in weights)),
    }
    if TEACHER in train.column_names:
        answers = np.abs(np.asarray(train.with_format(None)[TEACHER], dtype=np.float64))
        found["teacher"] = {"mean": float(answers.mean()), "spread": float(answers.std())}
    return found


def last_checkpoint(folder: Path, identity: Mapping[str, Any]) -> Path | None:
    """The checkpoint with most steps, None where there is none; checkpoints that a kill left half written are removed.

    A folder without checkpoints becomes this training's. In a folder that was moved, the best checkpoint is found at
    its new place.

    Raises:
        CheckpointError: If the checkpoints are of another training, or the best one is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for checkpoint in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        try:  # The Trainer writes its state last.
            json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            shutil.rmtree(checkpoint, ignore_errors=True)
    last = get_last_checkpoint(str(folder))
    if last is None:
        write_json(folder / IDENTITY, dict(identity))
        return None
    differing = list(_differences(_read_identity(folder), identity))
    if differing:
        raise CheckpointError(
            f"{folder} holds checkpoints of another training: {'; '.join(differing)}. To go on from them, call "
            "with the same settings, rows and weights as at first; otherwise give another folder, or remove this one."
        )
    _find_best_again(folder, Path(last))
    return Path(last)


def add_no_step_(trainer: Trainer, checkpoint: Path) -> None:
    """Where a checkpoint is the training's end, leave nothing to do but to take up the best one.

    The Trainer begins an epoch again that was left in its middle, and takes a step before it looks how many there are.
    """
    state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
    if state.global_step >= state.max_steps:
        trainer.args.num_train_epochs = int(state.epoch or 0)


def _find_best_again(folder: Path, last: Path) -> None:
    """Let the last checkpoint name the best one by where it is now: the Trainer names it by where it was written."""
    path = last / TRAINER_STATE_NAME
    state = json.loads(path.read_text(encoding="utf-8"))
    step = state.get("best_global_step")
    if not step:
        return
    best = folder / f"{PREFIX_CHECKPOINT_DIR}-{step}"
    if not best.is_dir():
        raise CheckpointError(
            f"{folder}: the best checkpoint so far, {best.name}, is not there; {last.name} names it. Copy the whole "
            "folder, or remove it to begin anew."
        )
    if state.get("best_model_checkpoint") != str(best):
        write_json(path, state | {"best_model_checkpoint": str(best)})


def _read_identity(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / IDENTITY).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{folder} holds checkpoints, and no {IDENTITY} that says what they were made from. Give another folder, "
            "or remove this one to begin anew."
        ) from error
    return found


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[str]:
    """What differs between a folder's training and this one, in words."""
    for name in dict.fromkeys([*here, *there]):
        old, new = there.get(name), here.get(name)
        if name == "settings" and isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new)
        elif name == "teacher" and old and new:
            if not np.allclose(list(old.values()), list(new.values()), rtol=_SAME_ANSWERS):
                yield _IN_WORDS[name]
        elif old != new:
            yield _IN_WORDS.get(name, f"{name}={old!r} there, {new!r} here")


def hash_of_rows(rows: Dataset) -> str:
    """Hash of all columns that a model reads, row by row; of images by name and labels, and a teacher's not at all."""
    content = hashlib.sha256(str(len(rows)).encode())
    plain = rows.with_format("arrow").remove_columns([name for name in rows.column_names if name == TEACHER])
    for batch in plain.iter(batch_size=10_000):
        for name in sorted(batch.column_names):
            content.update(name.encode())
            for piece in _content(batch.column(name).combine_chunks()):
                content.update(piece)
    return content.hexdigest()[:16]


def _content(array: Any) -> Iterator[bytes]:
    """Bytes of an Arrow column that do not depend on how it lies in memory."""
    if isinstance(array, pyarrow.ChunkedArray):
        array = pyarrow.concat_arrays(array.chunks)
    if pyarrow.types.is_list(array.type) or pyarrow.types.is_large_list(array.type):
        yield array.value_lengths().to_numpy(zero_copy_only=False).tobytes()
        yield from _content(array.flatten())
    elif pyarrow.types.is_struct(array.type):  # An image: where it lies is no matter, what it is called is.
        for row in array.to_pylist():
            row = row or {}
            yield Path(row.get("path") or "").name.encode()
            yield row.get("bytes") or b""
    elif pyarrow.types.is_integer(array.type) and not array.null_count:
        yield array.cast(pyarrow.int64()).to_numpy(zero_copy_only=False).tobytes()
    elif pyarrow.types.is_primitive(array.type) and not array.null_count:
        yield array.to_numpy(zero_copy_only=False).tobytes()
    else:
        yield repr(array.to_pylist()).encode()


def _sample(weight: torch.Tensor) -> bytes:
    flat = weight.detach().flatten()
    return flat[:: max(1, len(flat) // _SAMPLE)].cpu().double().numpy().tobytes()


def _hash_of(*pieces: bytes) -> str:
    content = hashlib.sha256()
    for piece in pieces:
        content.update(piece)
    return content.hexdigest()[:16]
