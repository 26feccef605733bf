"""Loading a pretrained transformer for a task, from safetensors only."""

import contextlib
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers import logging as transformers_logging

from prunelora.errors import CheckpointError, UnsupportedModelError, did_you_mean, first_line
from prunelora.models.anatomy import dissect
from prunelora.models.families import family_of_model_type, supported_families
from prunelora.models.problem_types import AUTO_CLASS, CAUSAL_LM, OF_CONFIG, head_for
from prunelora.models.source import check_config, check_source, deciding_files

_LABELS_OF_REGRESSION = 1


def load_pretrained(
    source: str | Path,
    *,
    label_names: Sequence[str],
    problem_type: str,
    seed: int = 0,
) -> PreTrainedModel:
    """Load a pretrained transformer with the head for a kind of task, in float32.

    Args:
        source: Folder with config.json and model.safetensors, or a hub name.
        label_names: Names of the classes, in order; empty for regression and language modelling.
        problem_type: A kind of task of `prunelora.models.problem_types`, such as "single_label_classification".
        seed: Seed of the task head's weights, if the checkpoint has no matching head.

    Raises:
        UnsupportedModelError: If the family is not supported, or has no head for the task; nothing is loaded then.
        CheckpointError: If there is no such folder, the hub cannot be reached, or there are no safetensors.
    """
    check_source(source)
    config, auto_class = _for_task(source, label_names, problem_type)
    try:
        # transformers would report the new task head.
        with torch.random.fork_rng(), _errors_only(), progress_bars_off():
            torch.manual_seed(seed)
            model, info = auto_class.from_pretrained(
                source,
                config=config,
                use_safetensors=True,
                # The checkpoint's dtype is bfloat16 for most decoders, which rounds small optimiser steps to zero.
                dtype=torch.float32,
                ignore_mismatched_sizes=True,  # A head for other labels is replaced; _check_encoder checks the rest.
                trust_remote_code=False,  # Otherwise transformers asks on a terminal.
                output_loading_info=True,
            )
    except ImportError as error:
        raise CheckpointError(_missing_package(source, config, error)) from error
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(_not_loaded(source, error)) from error
    _check_encoder(model, source, info)
    loaded: PreTrainedModel = model
    return loaded


def random_pretrained(source: str | Path, *, label_names: Sequence[str], problem_type: str) -> PreTrainedModel:
    """The model of `load_pretrained` with random weights, the same every time; only its configuration is read.

    For measurements of time and memory, which do not depend on the values of the weights.

    Raises:
        UnsupportedModelError, CheckpointError: As in `load_pretrained`.
    """
    config, auto_class = _for_task(source, label_names, problem_type)
    with torch.random.fork_rng(), _errors_only():
        torch.manual_seed(0)
        model: PreTrainedModel = auto_class.from_config(config, dtype=torch.float32, trust_remote_code=False)
    return model


def _for_task(source: str | Path, label_names: Sequence[str], problem_type: str) -> tuple[PreTrainedConfig, Any]:
    """The configuration of a model for a task, and its Auto class."""
    config = read_config(source)
    auto_class = task_class(config, problem_type, source)
    check_config(vars(config), source)
    give_padding_(config)
    describe_task_(config, label_names=label_names, problem_type=problem_type)
    return config, auto_class


def read_config(source: str | Path) -> Any:
    """Read a model's configuration.

    Args:
        source: Folder or hub name.

    Raises:
        CheckpointError: If there is none, or it is not valid.
    """
    try:
        return AutoConfig.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # A value of the wrong type raises any kind of exception in transformers.
        if "trust_remote_code" in str(error):
            raise CheckpointError(
                f"{source}: the model needs Python code from its folder, which prunelora does not run. Use a model of "
                "a family that transformers implements; `prunelora families` lists the supported ones."
            ) from error
        raise CheckpointError(_not_loaded(source, error)) from error


def _missing_package(source: str | Path, config: Any, error: ImportError) -> str:
    attention = getattr(config, "_attn_implementation", None)
    advice = (
        f"config.json asks for attn_implementation={attention!r}: remove it there to use torch's own attention"
        if attention and attention in str(error).lower().replace("flashattention2", "flash_attention_2")
        else "Install the missing package"
    )
    return f"{source}: cannot be loaded ({first_line(error)}). {advice}."


def task_class(config: PreTrainedConfig, problem_type: str, source: str | Path) -> Any:
    """The Auto class of transformers for a model's configuration and a kind of task.

    Args:
        config: Configuration of the model.
        problem_type: A kind of task of `prunelora.models.problem_types`.
        source: Folder or hub name, for messages.

    Raises:
        UnsupportedModelError: If the family is not supported, or has no head for the task.
    """
    family = family_of_model_type(config.model_type)
    if family is None:
        raise UnsupportedModelError(
            f"{source} is of the family {config.model_type!r}, which prunelora does not support. "
            f"Supported families: {supported_families()}."
        )
    head = head_for(problem_type, images=family.images)
    if head not in family.tasks:
        raise UnsupportedModelError(
            f"{source} is a {family.title} model, which has no head for {problem_type.replace('_', ' ')}, only for "
            f"{', '.join(family.tasks).replace('_', ' ')}. `prunelora families` lists the heads of all families."
        )
    return getattr(transformers, AUTO_CLASS[head])


def give_padding_(config: PreTrainedConfig) -> None:
    """Set the padding token to the end-of-text token if a configuration has none, as for most decoders.

    Their classification heads read the last token before the padding.
    """
    ends = getattr(config, "eos_token_id", None)
    if getattr(config, "pad_token_id", None) is None and ends is not None:
        config.pad_token_id = ends[0] if isinstance(ends, list) else ends


def pad_with_(model: Any, token: int | None) -> None:
    """Set the model's padding token to the tokenizer's, if it has one; `give_padding_` may have set another."""
    if token is not None:
        model.config.pad_token_id = token


def describe_task_(config: PreTrainedConfig, *, label_names: Sequence[str], problem_type: str) -> None:
    """Write a task into a configuration: number and names of labels, and the problem type if transformers has it."""
    if problem_type == CAUSAL_LM:
        return  # The classes are the tokens of the vocabulary.
    names = list(label_names)
    config.num_labels = len(names) or _LABELS_OF_REGRESSION
    if names:
        config.id2label = dict(enumerate(names))
        config.label2id = {name: number for number, name in enumerate(names)}
    config.problem_type = problem_type if problem_type in OF_CONFIG else None  # type: ignore[assignment]


def _check_encoder(model: PreTrainedModel, source: str | Path, info: Mapping[str, Any]) -> None:
    """Check that only the task head has new weights: a partly random encoder would score and train like noise."""
    heads = tuple(f"{name}." for name in dissect(model).task_head_names())
    mismatched = [key if isinstance(key, str) else key[0] for key in info["mismatched_keys"]]
    wrong = sorted(key for key in {*info["missing_keys"], *mismatched} if not key.startswith(heads))
    _check_vocabulary(model, source, info)
    _check_layers(model, source, info)
    if wrong:
        raise CheckpointError(
            f"{source}: {len(wrong)} of the encoder's weights are missing from the checkpoint or have another shape, "
            f"first {wrong[0]}. Is it a checkpoint of {type(model).__name__}, and is config.json its own?"
        )


def _check_vocabulary(model: PreTrainedModel, source: str | Path, info: Mapping[str, Any]) -> None:
    """Check that the token embedding has the size of the configuration."""
    embedding: Any = model.get_input_embeddings()
    name = next((f"{path}.weight" for path, module in model.named_modules() if module is embedding), None)
    for key, of_file, of_config in (entry for entry in info["mismatched_keys"] if not isinstance(entry, str)):
        if key == name:
            raise CheckpointError(
                f"{source}: the embedding has {of_file[0]:,} tokens in the weights and vocab_size={of_config[0]} in "
                f"config.json: it was resized, and one of the two was not saved. Set vocab_size={of_file[0]} in "
                "config.json, and use the tokenizer that was saved with the weights."
            )


def _check_layers(model: PreTrainedModel, source: str | Path, info: Mapping[str, Any]) -> None:
    """Check that the weights have no more layers than the configuration; transformers would skip them silently."""
    anatomy = dissect(model)
    path = re.escape(anatomy.family.blocks)
    blocks = re.compile(rf"(?:^|\.){path}\.(\d+)\.")
    count = len(anatomy.base.get_submodule(anatomy.family.blocks))  # type: ignore[arg-type]
    unused = {int(match[1]) for key in info["unexpected_keys"] if (match := blocks.search(key)) is not None}
    if unused and max(unused) >= count:
        raise CheckpointError(
            f"{source}: the weights have {max(unused) + 1} layers, and config.json says {count}. Is it the config.json "
            "that was saved with them?"
        )


def fingerprint(source: str | Path) -> str:
    """Identity of a model's files: a hash of a folder's files that determine outputs, or a hub name with its commit.

    Raises:
        CheckpointError: If it is not a folder, and the hub does not have it.
    """
    path = Path(source)
    if not path.is_dir():
        return f"{source}@{getattr(read_config(source), '_commit_hash', None)}"
    content = hashlib.sha256()
    for file in deciding_files(path):
        content.update(file.name.encode())
        with file.open("rb") as stream:
            content.update(hashlib.file_digest(stream, "sha256").digest())
    return content.hexdigest()[:16]


@contextlib.contextmanager
def progress_bars_off() -> Iterator[None]:
    """Turn off transformers' progress bars for reading and writing weights."""
    enabled = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            transformers_logging.enable_progress_bar()


@contextlib.contextmanager
def _errors_only() -> Iterator[None]:
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)


def _not_loaded(source: str | Path, error: Exception) -> str:
    reason = first_line(error)
    if Path(source).exists():
        return f"{source}: cannot be loaded ({reason})."
    folders = [path.parent.name for path in Path().glob("*/config.json")]
    return (
        f"{source}: no such folder here, and not available from the Hugging Face hub ({reason})."
        f"{did_you_mean(str(source), ['minilm', *folders])} "
        "Without a network, give the path of a saved model folder, or 'minilm' for the embedded model."
    )
