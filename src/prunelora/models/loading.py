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
from prunelora.models.anatomy import SHAPES_KEY, dissect
from prunelora.models.families import family_of_model_type, supported_families
from prunelora.models.problem_types import AUTO_CLASS, CAUSAL_LM, OF_CONFIG, head_for
from prunelora.models.source import check_source, deciding_files

_LABELS_OF_REGRESSION = 1


def load_pretrained(
    source: str | Path,
    *,
    label_names: Sequence[str],
    problem_type: str,
    seed: int = 0,
) -> PreTrainedModel:
    """Load a pretrained transformer under the head that a kind of task needs, in float32.

    Args:
        source: Folder with config.json and model.safetensors, or a hub name.
        label_names: Names of the classes, in order; empty for regression, and for language modelling.
        problem_type: A kind of task of `prunelora.models.problem_types`, such as "single_label_classification".
        seed: For the task head where the checkpoint has none that fits.

    Raises:
        UnsupportedModelError: If the family is not supported, or has no head for such a task; nothing is loaded then.
        CheckpointError: If there is no such folder, the hub cannot be reached, or there are no safetensors.
    """
    check_source(source)
    config, kind = _for_task(source, label_names, problem_type)
    try:
        # That the task head is new is what this function is for: no report of it.
        with torch.random.fork_rng(), _errors_only(), progress_bars_off():
            torch.manual_seed(seed)
            model, info = kind.from_pretrained(
                source,
                config=config,
                use_safetensors=True,
                # Else that of the checkpoint, bfloat16 for most decoders, in which a step of training is rounded away.
                dtype=torch.float32,
                ignore_mismatched_sizes=True,  # A head for other labels is replaced; _check_encoder holds the rest.
                trust_remote_code=False,  # Otherwise transformers asks on a terminal.
                output_loading_info=True,
            )
    except ImportError as error:
        raise CheckpointError(_missing_package(source, config, error)) from error
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(_unreachable(source, error)) from error
    _check_encoder(model, source, info)
    loaded: PreTrainedModel = model
    return loaded


def random_pretrained(source: str | Path, *, label_names: Sequence[str], problem_type: str) -> PreTrainedModel:
    """The same model as `load_pretrained` gives, with random weights: of the source the configuration alone is read.

    Weights are the same every time. Neither time nor memory depends on what they are.

    Raises:
        UnsupportedModelError, CheckpointError: As `load_pretrained` raises them.
    """
    config, kind = _for_task(source, label_names, problem_type)
    with torch.random.fork_rng(), _errors_only():
        torch.manual_seed(0)
        model: PreTrainedModel = kind.from_config(config, dtype=torch.float32, trust_remote_code=False)
    return model


def _for_task(source: str | Path, label_names: Sequence[str], problem_type: str) -> tuple[PreTrainedConfig, Any]:
    """The configuration of a model for a task, and the Auto class that makes it."""
    config = read_config(source)
    kind = task_class(config, problem_type, source)
    _check_loadable(config, source)
    give_padding_(config)
    describe_task_(config, label_names=label_names, problem_type=problem_type)
    return config, kind


def read_config(source: str | Path) -> Any:
    """Read a model's configuration.

    Args:
        source: Folder or hub name.

    Raises:
        CheckpointError: If there is none, or it cannot be understood.
    """
    try:
        return AutoConfig.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # transformers raises whatever a value of the wrong kind leads to
        if "trust_remote_code" in str(error):
            raise CheckpointError(
                f"{source}: the model needs Python code of its own, and prunelora runs none. Use a model of a family "
                "that transformers has itself; `prunelora families` lists them."
            ) from error
        raise CheckpointError(_unreachable(source, error)) from error


def _check_loadable(config: Any, source: str | Path) -> None:
    """Refuse what a configuration says that cannot be loaded, or not be pruned.

    Raises:
        CheckpointError: If the weights are quantised, the model was pruned, or the padding lies beyond the vocabulary.
    """
    quantised = getattr(config, "quantization_config", None)
    if quantised is not None:
        method = quantised.get("quant_method") if isinstance(quantised, dict) else quantised.quant_method
        raise CheckpointError(
            f"{source} is quantised ({getattr(method, 'value', method) or 'its method is not named'}; "
            "quantization_config in config.json). Heads and neurons can be cut out of weights in full precision only. "
            "Give the model that it was quantised from."
        )
    if SHAPES_KEY in vars(config):
        raise CheckpointError(
            f"{source} is a model that prunelora has pruned, and a run begins with a dense one. Give the model that it "
            "was made from; to go on with this one, load it by prunelora.load(folder)."
        )
    padding, size = getattr(config, "pad_token_id", None), getattr(config, "vocab_size", None)
    if padding is not None and size is not None and padding >= size:
        raise CheckpointError(
            f"{source}: pad_token_id={padding} in config.json lies beyond vocab_size={size:,}. Set it to the id of the "
            "tokenizer's padding token there; where that is a new token, call model.resize_token_embeddings first."
        )


def _missing_package(source: str | Path, config: Any, error: ImportError) -> str:
    attention = getattr(config, "_attn_implementation", None)
    advice = (
        f"config.json asks for attn_implementation={attention!r}: remove it there, and the model is loaded with "
        "torch's own attention"
        if attention and attention in str(error).lower().replace("flashattention2", "flash_attention_2")
        else "Install what is missing"
    )
    return f"{source}: cannot be loaded ({first_line(error)}). {advice}."


def task_class(config: PreTrainedConfig, problem_type: str, source: str | Path) -> Any:
    """The Auto class of transformers that makes a model of a configuration for a kind of task.

    Args:
        config: Of the model.
        problem_type: A kind of task of `prunelora.models.problem_types`.
        source: Where it came from, for errors.

    Raises:
        UnsupportedModelError: If the family is not supported, or has no head for it.
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
            f"{source} is a {family.title}, which has no head for {problem_type.replace('_', ' ')}, but for "
            f"{', '.join(family.tasks).replace('_', ' ')}. `prunelora families` lists all of them."
        )
    return getattr(transformers, AUTO_CLASS[head])


def give_padding_(config: PreTrainedConfig) -> None:
    """Let the token that ends a text be the padding, where a model has none: as most decoders.

    Their heads look for the last token that is no padding.
    """
    ends = getattr(config, "eos_token_id", None)
    if getattr(config, "pad_token_id", None) is None and ends is not None:
        config.pad_token_id = ends[0] if isinstance(ends, list) else ends


def pad_with_(model: Any, token: int | None) -> None:
    """Let the token that rows are padded with be the padding of the model; nothing where none is given.

    What a tokenizer pads with need not be what `give_padding_` has guessed from the configuration.
    """
    if token is not None:
        model.config.pad_token_id = token


def describe_task_(config: PreTrainedConfig, *, label_names: Sequence[str], problem_type: str) -> None:
    """Write a task into a configuration: number and names of the labels, and the kind where it has a word for it."""
    if problem_type == CAUSAL_LM:
        return  # It gives words, of which it has its own.
    names = list(label_names)
    config.num_labels = len(names) or _LABELS_OF_REGRESSION
    if names:
        config.id2label = dict(enumerate(names))
        config.label2id = {name: number for number, name in enumerate(names)}
    config.problem_type = problem_type if problem_type in OF_CONFIG else None  # type: ignore[assignment]


def _check_encoder(model: PreTrainedModel, source: str | Path, info: Mapping[str, Any]) -> None:
    """Only the task head may be new: an encoder that is random in part would score and train like noise."""
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
    """An embedding that was resized, without its configuration or the other way round."""
    words: Any = model.get_input_embeddings()
    name = next((f"{path}.weight" for path, module in model.named_modules() if module is words), None)
    for key, of_file, of_config in (one for one in info["mismatched_keys"] if not isinstance(one, str)):
        if key == name:
            raise CheckpointError(
                f"{source}: the embedding has {of_file[0]:,} tokens in the weights and vocab_size={of_config[0]} in "
                f"config.json. Was it resized, and one of both not saved? Set vocab_size={of_file[0]} there, and take "
                "the tokenizer that was saved with the weights."
            )


def _check_layers(model: PreTrainedModel, source: str | Path, info: Mapping[str, Any]) -> None:
    """Weights of more layers than the configuration has would be left out without a word."""
    anatomy = dissect(model)
    path = re.escape(anatomy.family.blocks)
    blocks = re.compile(rf"(?:^|\.){path}\.(\d+)\.")
    count = len(anatomy.base.get_submodule(anatomy.family.blocks))  # type: ignore[arg-type]
    beyond = {int(found[1]) for key in info["unexpected_keys"] if (found := blocks.search(key)) is not None}
    if beyond and max(beyond) >= count:
        raise CheckpointError(
            f"{source}: the weights have {max(beyond) + 1} layers, and config.json says {count}. Is it the config.json "
            "that was saved with them?"
        )


def fingerprint(source: str | Path) -> str:
    """Identity of a model's files: a hash of those of a folder that its results depend on; name and commit on the hub.

    Of a folder these are the configuration, the weights, and what makes rows into inputs: tokeniser or image processor.

    Raises:
        CheckpointError: If it is no folder, and not to be had from the hub.
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
    """Keep transformers from drawing a bar for reading or writing one file."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


@contextlib.contextmanager
def _errors_only() -> Iterator[None]:
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)


def check_reads(source: str | Path, *, images: bool) -> None:
    """Hold that a model takes what the rows of a task are.

    Args:
        source: Folder or hub name.
        images: Whether the rows are images, and not texts.

    Raises:
        UnsupportedModelError: If it does not.
        CheckpointError: If its configuration cannot be read.
    """
    config = read_config(source)
    _check_loadable(config, source)
    family = family_of_model_type(config.model_type)
    if family is not None and family.images != images:
        reads, are = ("images", "texts") if family.images else ("texts", "images")
        raise UnsupportedModelError(
            f"{source} is a {family.title}, which reads {reads}, and the rows of the task are {are}. Give another "
            "model, or other data."
        )


def _model_folders() -> list[str]:
    """Folders here that hold a model."""
    return [path.parent.name for path in Path().glob("*/config.json")]


def _unreachable(source: str | Path, error: Exception) -> str:
    first = first_line(error)
    if Path(source).exists():
        return f"{source}: cannot be loaded ({first})."
    return (
        f"{source}: not a folder here, and not to be had from the Hugging Face hub ({first})."
        f"{did_you_mean(str(source), ['minilm', *_model_folders()])} "
        "Without a network give the path of a saved model folder, or 'minilm' for the embedded one."
    )
