"""Tokenizers and image processors that are saved with a model."""

import contextlib
import copy
from pathlib import Path
from typing import Any

from transformers import AutoImageProcessor, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from prunelora.data.task import TaskData
from prunelora.delivery.standalone import TYPE_PREFIX, is_pruned, stock_config
from prunelora.errors import CheckpointError, first_line
from prunelora.models.inputs import give_inputs_of_
from prunelora.models.problem_types import CAUSAL_LM, problem_type_of
from prunelora.models.source import check_no_pointers


def load_processor(folder: Path | str, task: TaskData) -> Any:
    """Load the tokenizer or image processor for a task's rows.

    Raises:
        CheckpointError: If there is none.
    """
    return load_image_processor(folder) if task.of_images else load_tokenizer(folder, words=task.by_word)


def save_processor(processor: Any, folder: Path | str, model: Any) -> None:
    """Save a tokenizer or an image processor with a model.

    A tokenizer is saved with padding on the right, as in training and evaluation. For a causal language model it keeps
    its side, because text is generated from rows that are padded on the left.
    """
    if isinstance(processor, PreTrainedTokenizerBase) and problem_type_of(model) != CAUSAL_LM:
        processor = copy.copy(processor)
        processor.padding_side = "right"
    processor.save_pretrained(str(folder))


def load_image_processor(folder: Path | str) -> Any:
    """Load the image processor that is saved with a model.

    Raises:
        CheckpointError: If there is none.
    """
    try:
        return AutoImageProcessor.from_pretrained(str(folder))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{folder}: no image processor can be loaded ({first_line(error)}). Copy preprocessor_config.json of the "
            "base model into the folder."
        ) from error


def size_made_by(processor: Any) -> tuple[int, int] | None:
    """Height and width of an image processor's output; None if they depend on the image."""
    if getattr(processor, "do_center_crop", False):
        size = processor.crop_size
    else:
        size = processor.size if getattr(processor, "do_resize", False) else None
    height, width = (size.get("height"), size.get("width")) if size is not None else (None, None)
    return (int(height), int(width)) if height and width else None


def load_tokenizer(folder: Path | str, *, words: bool = False) -> PreTrainedTokenizerBase:
    """Load the tokenizer that is saved with a model; it makes only inputs that the model uses.

    Args:
        folder: Folder of the model.
        words: Whether its inputs are lists of words, before which some tokenizers then add a space.

    Raises:
        CheckpointError: If there is none.
    """
    path = Path(folder)
    if path.is_dir() and not (path / "tokenizer_config.json").exists() and not (path / "tokenizer.json").exists():
        raise CheckpointError(
            f"{folder}: no tokenizer (tokenizer.json, tokenizer_config.json). Pass tokenizer= to prunelora.save, "
            "or copy the files of the base model's tokenizer into the folder."
        )
    if path.is_dir():
        check_no_pointers(path)
    try:
        options: dict[str, Any] = {"add_prefix_space": True} if words else {}
        if is_pruned(path):
            # Otherwise transformers asks whether to run the modelling file, which a tokenizer does not need.
            options["config"] = stock_config(path)
        tokenizer = AutoTokenizer.from_pretrained(str(folder), **options)
    except Exception as error:  # A damaged file raises errors of many types.
        raise CheckpointError(f"{folder}: the tokenizer cannot be loaded ({first_line(error)}).") from error
    _check_vocabulary(tokenizer, path)
    give_inputs_of_(tokenizer, _model_type(folder))
    if tokenizer.pad_token is None and tokenizer.eos_token is not None:
        tokenizer.pad_token = tokenizer.eos_token  # As in `load_pretrained`.
    return tokenizer


def _check_vocabulary(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Check for a vocabulary, without which transformers loads a tokenizer that knows no word."""
    files = sorted(set(type(tokenizer).vocab_files_names.values()))
    if not folder.is_dir() or not files:  # Tokenizers of bytes have no files.
        return
    # transformers also converts the vocabulary of another kind of tokenizer.
    if not any(file.name in files or file.suffix in (".model", ".tiktoken") for file in folder.iterdir()):
        raise CheckpointError(
            f"{folder}: the tokenizer has no vocabulary (none of {', '.join(files)}). Copy these files of the base "
            "model's tokenizer into the folder."
        )


def _model_type(folder: Path | str) -> str:
    """The model type in the folder's configuration; empty if the folder has only a tokenizer."""
    with contextlib.suppress(OSError):
        return str(PreTrainedConfig.get_config_dict(str(folder))[0].get("model_type", "")).removeprefix(TYPE_PREFIX)
    return ""
