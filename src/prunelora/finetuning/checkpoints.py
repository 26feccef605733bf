"""A training's folder of checkpoints: which training it belongs to, and from which checkpoint to resume."""

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

# File beside the checkpoints that identifies their training.
IDENTITY = "training.json"

# Settings that change neither the trained weights nor the steps at which they are saved.
_WITHOUT_EFFECT = {*FineTuneSettings.costs_alone, "gradient_checkpointing", "tensorboard", "keep_start"}
# Elements of each weight that are hashed; other trainings differ in nearly all elements.
_SAMPLE = 1024
# Relative tolerance: logits of the same teacher differ by rounding when they are computed again.
_TEACHER_TOLERANCE = 1e-3

_IN_WORDS = {
    "train": "other training rows",
    "validation": "other validation rows",
    "teacher": "another teacher's logits",
    "model": "a model of another architecture",
    "trainable": "other trainable weights",
    "weights": "other initial weights, such as those of a model that was already trained",
}


def identity_of(
    model: nn.Module,
    train: Dataset,
    validation: Dataset,
    settings: FineTuneSettings,
    **others: Any,
) -> dict[str, Any]:
    """Everything that a training's result depends on, for JSON: settings as values, rows and weights as hashes.

    Args:
        model: The model before the first step.
        train: Tokenised rows.
        validation: Tokenised rows.
        settings: Settings of the training.
        **others: Further values that the result depends on.
    """
    weights = list(model.named_parameters())
    identity: dict[str, Any] = {
        "settings": settings.model_dump(exclude=_WITHOUT_EFFECT),
        **others,
        "train": hash_of_rows(train),
        "validation": hash_of_rows(validation),
        "model": _hash_of(
            f"{type(model).__name__} {[(name, tuple(weight.shape)) for name, weight in weights]}".encode()
        ),
        "trainable": _hash_of(" ".join(name for name, weight in weights if weight.requires_grad).encode()),
        "weights": _hash_of(*(_sample(weight) for _, weight in weights)),
    }
    if TEACHER in train.column_names:
        logits = np.abs(np.asarray(train.with_format(None)[TEACHER], dtype=np.float64))
        identity["teacher"] = {"mean": float(logits.mean()), "spread": float(logits.std())}
    return identity


def last_checkpoint(folder: Path, identity: Mapping[str, Any]) -> Path | None:
    """Return the last complete checkpoint, or None; incomplete ones are removed.

    A folder without checkpoints is assigned to this training. After the folder was moved, the path of the best
    checkpoint is corrected.

    Raises:
        CheckpointError: If the checkpoints belong to another training, or the best one is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for checkpoint in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        try:  # The Trainer writes its state last: without it the checkpoint is incomplete.
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
            f"{folder} holds checkpoints of another training: {'; '.join(differing)}. To resume it, use its settings, "
            "rows and initial weights; otherwise use another folder, or remove this one."
        )
    _correct_best_path(folder, Path(last))
    return Path(last)


def add_no_step_(trainer: Trainer, checkpoint: Path) -> None:
    """Let the Trainer only load the best checkpoint if `checkpoint` is the training's last step.

    If the last step is in the middle of an epoch, the Trainer would otherwise take one more step before it stops.
    """
    state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
    if state.global_step >= state.max_steps:
        trainer.args.num_train_epochs = int(state.epoch or 0)


def _correct_best_path(folder: Path, last: Path) -> None:
    """Set the path of the best checkpoint in the last one's state, which has the path where it was written."""
    path = last / TRAINER_STATE_NAME
    state = json.loads(path.read_text(encoding="utf-8"))
    step = state.get("best_global_step")
    if not step:
        return
    best = folder / f"{PREFIX_CHECKPOINT_DIR}-{step}"
    if not best.is_dir():
        raise CheckpointError(
            f"{folder}: the best checkpoint {best.name}, which {last.name} refers to, is missing. Copy the whole "
            "folder, or remove it to start again."
        )
    if state.get("best_model_checkpoint") != str(best):
        write_json(path, state | {"best_model_checkpoint": str(best)})


def _read_identity(folder: Path) -> dict[str, Any]:
    try:
        identity: dict[str, Any] = json.loads((folder / IDENTITY).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{folder} holds checkpoints without {IDENTITY}, which identifies their training. Use another folder, or "
            "remove this one to start again."
        ) from error
    return identity


def _differences(saved: Mapping[str, Any], present: Mapping[str, Any]) -> Iterator[str]:
    """Differences between the training of a folder and the present one, in words."""
    for name in dict.fromkeys([*present, *saved]):
        old, new = saved.get(name), present.get(name)
        if name == "settings" and isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new)
        elif name == "teacher" and old and new:
            if not np.allclose(list(old.values()), list(new.values()), rtol=_TEACHER_TOLERANCE):
                yield _IN_WORDS[name]
        elif old != new:
            yield _IN_WORDS.get(name, f"{name}={old!r} there, {new!r} here")


def hash_of_rows(rows: Dataset) -> str:
    """Hash of all columns except the teacher's logits, row by row; images by file name and bytes."""
    plain = rows.with_format("arrow").remove_columns([name for name in rows.column_names if name == TEACHER])
    digest = hashlib.sha256(str(len(rows)).encode())
    for batch in plain.iter(batch_size=10_000):
        for name in sorted(batch.column_names):
            digest.update(name.encode())
            for piece in _content(batch.column(name).combine_chunks()):
                digest.update(piece)
    return digest.hexdigest()[:16]


def _content(array: Any) -> Iterator[bytes]:
    """Bytes of an Arrow column, independent of its memory layout."""
    if isinstance(array, pyarrow.ChunkedArray):
        array = pyarrow.concat_arrays(array.chunks)
    if pyarrow.types.is_list(array.type) or pyarrow.types.is_large_list(array.type):
        yield array.value_lengths().to_numpy(zero_copy_only=False).tobytes()
        yield from _content(array.flatten())
    elif pyarrow.types.is_struct(array.type):  # An image; the folder does not matter.
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
    return hashlib.sha256(b"".join(pieces)).hexdigest()[:16]
