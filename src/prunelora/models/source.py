"""The files of a model folder: checks that they are complete and readable, made before any heavy import."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from prunelora.errors import CheckpointError, UnsupportedModelError
from prunelora.models.families import family_of_model_type
from prunelora.storage import is_lfs_pointer

WEIGHTS, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"

# The key of config.json, in a folder that `prunelora.save` wrote, with the sizes of the pruned layers.
SHAPES_KEY = "prunelora"

# Files that determine a model's outputs: configuration, weights, tokenizer, image processor.
_DECIDING_SUFFIXES = (".safetensors", ".model")
_DECIDING_FILES = (
    CONFIG, INDEX, "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.txt", "vocab.json", "merges.txt", "preprocessor_config.json", "processor_config.json",
)  # fmt: skip

_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


def deciding_files(folder: Path) -> list[Path]:
    """Files of a model folder that determine the model's outputs, in alphabetical order."""
    return sorted(
        path for path in folder.iterdir() if path.name in _DECIDING_FILES or path.suffix in _DECIDING_SUFFIXES
    )


def check_source(source: str | Path, *, pruned: bool = False) -> None:
    """Check that a source, if it is a path, is a folder with a complete model in safetensors.

    Args:
        source: Folder or hub name.
        pruned: Whether a pruned model that `prunelora.save` wrote is accepted.

    Raises:
        CheckpointError: If the folder does not exist, or a file is missing, damaged or not of the named type.
    """
    path = Path(source)
    looks_like_path = isinstance(source, Path) or path.is_absolute() or str(source).startswith((".", "~"))
    if not path.exists():
        if looks_like_path or str(source).count("/") > 1:
            raise CheckpointError(f"{source} does not exist. Give the folder of a saved model, or a hub name.")
        return
    if not path.is_dir():
        raise CheckpointError(f"{source} is a file. Give the folder that holds {CONFIG} and {WEIGHTS}.")
    check_no_pointers(path)
    if not (path / CONFIG).exists():
        raise CheckpointError(_without_config(path))
    config = _read_json(path / CONFIG)
    for file in _weights(path):
        _check_complete(file)
    if not pruned:
        check_config(config, source)


def check_config(config: Mapping[str, Any], source: str | Path) -> None:
    """Check that a configuration is of a dense model in full precision.

    Args:
        config: The content of config.json, or the attributes of a configuration.
        source: Folder or hub name, for messages.

    Raises:
        CheckpointError: If the weights are quantised, the model is pruned, or the padding id is out of range.
    """
    quantised = config.get("quantization_config")
    if quantised is not None:
        method = quantised.get("quant_method") if isinstance(quantised, Mapping) else quantised.quant_method
        raise CheckpointError(
            f"{source} is quantised ({getattr(method, 'value', method) or 'unnamed method'}; quantization_config in "
            f"{CONFIG}). Only weights in full precision can be pruned. Give the model before quantisation."
        )
    if SHAPES_KEY in config:
        raise CheckpointError(
            f"{source} is a model that prunelora has pruned, and a dense model is needed here. Give the model before "
            f"pruning, or load this one in Python with prunelora.load({str(source)!r})."
        )
    padding, size = config.get("pad_token_id"), config.get("vocab_size")
    if isinstance(padding, int) and isinstance(size, int) and padding >= size:
        raise CheckpointError(
            f"{source}: pad_token_id={padding} in {CONFIG} is beyond vocab_size={size:,}. Set it to the id of the "
            "tokenizer's padding token; if that token is new, call model.resize_token_embeddings first."
        )


def check_reads(source: str | Path, *, images: bool) -> None:
    """Check that a model reads the kind of rows of a task.

    Args:
        source: Folder or hub name.
        images: Whether the rows are images instead of texts.

    Raises:
        UnsupportedModelError: If the model does not read such rows.
        CheckpointError: If its configuration cannot be read or is not of a dense model.
    """
    if Path(source).is_dir():
        config = _read_json(Path(source) / CONFIG)
    else:
        from prunelora.models.loading import read_config

        configuration = read_config(source)
        config = {**vars(configuration), "model_type": configuration.model_type}
    check_config(config, source)
    family = family_of_model_type(str(config.get("model_type")))
    if family is not None and family.images != images:
        inputs, rows = ("images", "texts") if family.images else ("texts", "images")
        raise UnsupportedModelError(
            f"{source} is a {family.title} model, which reads {inputs}, and the rows of the task are {rows}. Give "
            "another model, or other data."
        )


def check_no_pointers(folder: Path) -> None:
    """Check that no file of a model folder, weights aside, is a git-lfs pointer.

    Raises:
        CheckpointError: Naming the first pointer.
    """
    for file in deciding_files(folder):
        if file.suffix != ".safetensors":  # There may be further weights, which are not read.
            _check_no_pointer(file)


def _check_no_pointer(file: Path) -> None:
    if is_lfs_pointer(file):
        raise CheckpointError(
            f"{file} is a pointer of git-lfs instead of the file: the repository was cloned without git-lfs. "
            f"Install it, and in {file.parent} run: git lfs install && git lfs pull"
        )


def _without_config(folder: Path) -> str:
    names = sorted(file.name for file in folder.iterdir())
    if "adapter_config.json" in names:
        base = _read_json(folder / "adapter_config.json").get("base_model_name_or_path")
        return (
            f"{folder} holds an adapter instead of a model. Give its base model ({base}), or merge the adapter and "
            "save the result: "
            "peft.AutoPeftModel.from_pretrained(folder).merge_and_unload().save_pretrained(other_folder)"
        )
    if "recipe.yaml" in names:
        return (
            f"{folder} is the folder of a run, and a dense model is needed here. Give the run's own input model, or "
            f"load its result, {folder / 'model'}, in Python with prunelora.load."
        )
    message = f"{folder}: no {CONFIG} there, found {', '.join(names[:5]) or 'no files'}."
    # The model may be in a subfolder, as in the hub's cache.
    inner = sorted(folder.glob(f"*/{CONFIG}")) or sorted(folder.glob(f"*/*/{CONFIG}"))
    return f"{message} Did you mean {inner[0].parent}, which has one?" if inner else message


def _weights(folder: Path) -> Iterator[Path]:
    """The files with the model's weights.

    Raises:
        CheckpointError: If there are none, or some are missing.
    """
    if (folder / WEIGHTS).exists():
        yield folder / WEIGHTS
        return
    names = sorted(file.name for file in folder.iterdir())
    if INDEX not in names:
        raise CheckpointError(_without_weights(folder, names))
    shards = sorted(set(_read_json(folder / INDEX).get("weight_map", {}).values()))
    missing = [name for name in shards if name not in names]
    if missing or not shards:
        raise CheckpointError(
            f"{folder}: {INDEX} names {len(shards)} files of weights, and {len(missing)} are missing, first "
            f"{', '.join(missing[:1]) or 'all'}. Download the folder again, or copy these files into it."
        )
    yield from (folder / name for name in shards)


def _without_weights(folder: Path, names: list[str]) -> str:
    expected = f"{folder}: expected {WEIGHTS}"
    tensors = [name for name in names if name.endswith(".safetensors")]
    if any("-of-" in name for name in tensors):
        return (
            f"{expected}, found {len(tensors)} files of weights ({tensors[0]}) without {INDEX}, which maps tensors to "
            "files. Copy it into the folder."
        )
    if tensors:
        return f"{expected}, found {', '.join(tensors[:3])}. Rename the file that holds the whole model."
    pickles = [name for name in names if name.endswith(_PICKLES)]
    others = [name for name in names if name.endswith((".h5", ".msgpack", ".gguf", ".onnx", ".ot"))]
    if pickles:
        return (
            f"{expected}, found only {pickles[0]}, a pickle, which can run code while it is read. Convert it: load it "
            "where you trust it, and call model.save_pretrained(folder), which writes safetensors."
        )
    present = f"only {others[0]}, which is for another program" if others else "no weights"
    return f"{expected}, found {present}. Give the folder of the PyTorch version of the model, or download it again."


def _check_complete(file: Path) -> None:
    _check_no_pointer(file)
    try:
        with safe_open(file, framework="np") as opened:
            opened.keys()
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{file} is damaged or cut off: {file.stat().st_size:,} bytes ({error}). Download or copy it again."
        ) from error


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} is not valid JSON ({error}). Download or copy it again.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} holds a {type(content).__name__}, expected a JSON object. Copy it again.")
    return content
