"""Where a model is loaded from: a folder that must hold what it seems to, checked before anything is loaded."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from prunelora.errors import CheckpointError
from prunelora.models.anatomy import SHAPES_KEY
from prunelora.storage import is_lfs_pointer

WEIGHTS, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"

# What of a model's folder decides what comes out of it: configuration, weights, tokeniser, image processor.
_DECIDING_SUFFIXES = (".safetensors", ".model")
_DECIDING_FILES = (
    CONFIG, INDEX, "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.txt", "vocab.json", "merges.txt", "preprocessor_config.json", "processor_config.json",
)  # fmt: skip

_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


def deciding_files(folder: Path) -> list[Path]:
    """Files of a model's folder that its results depend on, in alphabetical order."""
    return sorted(
        path for path in folder.iterdir() if path.name in _DECIDING_FILES or path.suffix in _DECIDING_SUFFIXES
    )


def check_source(source: str | Path, *, pruned: bool = False) -> None:
    """Hold what looks like a path to be a folder with a whole model in safetensors.

    Args:
        source: Folder or hub name.
        pruned: Whether the model may be one that `prunelora.save` wrote at its pruned sizes.

    Raises:
        CheckpointError: If it is not there, or something in it is missing, damaged or not what its name says.
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
        _check_whole(file)
    if not pruned and SHAPES_KEY in config:
        raise CheckpointError(
            f"{source} is a model that prunelora has pruned, and a model at its full size is needed here. Give the "
            f"model that it was made from, or go on with it in Python, with prunelora.load({str(source)!r})."
        )


def check_no_pointers(folder: Path) -> None:
    """Refuse a folder in which git has left pointers in place of its files, for want of git-lfs; weights aside.

    Raises:
        CheckpointError: Naming the first pointer.
    """
    for file in deciding_files(folder):
        if file.suffix != ".safetensors":  # There may be others than the model's, which nobody reads.
            _check_no_pointer(file)


def _check_no_pointer(file: Path) -> None:
    if is_lfs_pointer(file):
        raise CheckpointError(
            f"{file} is a pointer of git-lfs, a few lines in place of the file: the repository was cloned "
            f"without git-lfs. Install it, and in {file.parent} run: git lfs install && git lfs pull"
        )


def _without_config(folder: Path) -> str:
    names = sorted(file.name for file in folder.iterdir())
    if "adapter_config.json" in names:
        base = _read_json(folder / "adapter_config.json").get("base_model_name_or_path")
        return (
            f"{folder} holds an adapter, and no model: a run begins with a whole one. Give its base model "
            f"({base}), or merge both and save what comes out: "
            "peft.AutoPeftModel.from_pretrained(folder).merge_and_unload().save_pretrained(other_folder)"
        )
    if "recipe.yaml" in names:
        return (
            f"{folder} is the folder of a run, and a run begins with a dense model. Give the one that this run "
            f"began with; what came out of it is in {folder / 'model'}, for prunelora.load."
        )
    found = f"{folder}: no {CONFIG} there, found {', '.join(names[:5]) or 'nothing'}."
    # A repository with the model in a folder of its own, or the hub's cache.
    inner = sorted(folder.glob(f"*/{CONFIG}")) or sorted(folder.glob(f"*/*/{CONFIG}"))
    return f"{found} Did you mean {inner[0].parent}, which has one?" if inner else found


def _weights(folder: Path) -> Iterator[Path]:
    """Files with the weights, all of them there."""
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
            f"{expected}, found {len(tensors)} files of weights ({tensors[0]}) without {INDEX}, which says what is in "
            "which. Copy it into the folder."
        )
    if tensors:
        return f"{expected}, found {', '.join(tensors[:3])}. Rename the file that holds the whole model."
    pickles = [name for name in names if name.endswith(_PICKLES)]
    others = [name for name in names if name.endswith((".h5", ".msgpack", ".gguf", ".onnx", ".ot"))]
    if pickles:
        return (
            f"{expected}, found only {pickles[0]}, a pickle, which can run code when it is read. Convert it: load it "
            "where you trust it, and call model.save_pretrained(folder), which writes safetensors."
        )
    found = f"only {others[0]}, which is for another program" if others else "no weights"
    return (
        f"{expected}, found {found}. Give the folder that the model was published in for PyTorch, or download it again."
    )


def _check_whole(file: Path) -> None:
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
        raise CheckpointError(f"{file} is no JSON ({error}). Download or copy it again.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} holds a {type(content).__name__}, and not names and values. Copy it again.")
    return content
