"""The base model of an adapter: which weights it has, and what it is made from.

On other weights than those that it was trained on, an adapter gives wrong logits and no error. Its plan says which
heads and neurons the base model has, a digest says which weights.
"""

import copy
import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_file

from prunelora.data.embedded import model_source
from prunelora.errors import CheckpointError
from prunelora.models.anatomy import dissect
from prunelora.storage import name_of, write_json

# What a base is made from, beside the pretrained model and the plan: a merged model in its place, and the projections
# that were solved anew after the cut.
MODEL, REPAIRED = "model", "repaired"

# Folder of the base in an adapter's own folder, where it is saved with it.
BASE = "base"

# Of PEFT's names: what it adds to the base, and what it trains in place of the base's own.
_ADDED = re.compile(r"\.lora_|\.modules_to_save\.|\.original_module\.")


def digest_of_base(peft_model: PeftModel) -> str:
    """Hash of the base's weights that the adapter leaves as they are, without the task head: 16 hexadecimal digits.

    The head is trained, or saved beside the adapter, so what the base had there does not matter.
    """
    base: Any = peft_model.get_base_model()
    heads = tuple(f"{name}." for name in dissect(base, adapted=True).task_head_names())
    found = hashlib.sha256()
    for name, parameter in sorted(base.named_parameters(), key=lambda pair: pair[0]):
        if _ADDED.search(name) or (heads and name.startswith(heads)):
            continue
        weights = parameter.detach().cpu().contiguous()
        found.update(f"{name.replace('.base_layer', '')} {tuple(weights.shape)} {weights.dtype}".encode())
        if weights.numel():
            found.update(weights.reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()[:16]


def check_digest(peft_model: PeftModel, about: Mapping[str, Any], folder: Path) -> None:
    """Check that an adapter is on the base model that it was trained on, where its folder says which one that is.

    Raises:
        CheckpointError: If the base model has other weights.
    """
    wanted = about.get("base_digest")
    if wanted is None or wanted == digest_of_base(peft_model):
        return
    raise CheckpointError(
        f"{folder}: the adapter was trained on a base model with other weights (or of another dtype) than the one it "
        f"was put on now, {about.get('base_model')!r} cut by the same plan; its logits would be wrong without a word. "
        "Make the base as it was made then, and pass it: load(folder, base=model). The merged model of the same run "
        "needs no base."
    )


def file_of_base(folder: Path, about: Mapping[str, Any], what: str) -> Path | None:
    """Path of a file or folder that the base model is made from, by its kind; None if it is made without one.

    Raises:
        CheckpointError: If the path does not exist.
    """
    name = (about.get("made_from") or {}).get(what)
    if name is None:
        return None
    path = folder / name
    if not path.exists():
        raise CheckpointError(
            f"{folder}: the adapter's base model is made from {name}, which is not there. Keep the adapter in the "
            "folder of its run, or pass the base: load(folder, base=model)."
        )
    return path


def path_from(folder: Path, source: str) -> str:
    """A model's folder relative to an adapter's folder; a hub name, or the embedded model's, unchanged."""
    if source and model_source(source) == source and Path(source).is_dir():
        try:
            return os.path.relpath(Path(source).resolve(), folder.resolve())
        except ValueError:  # On another drive.
            return name_of(source)
    return name_of(source)


def base_named(folder: Path, about: Mapping[str, Any]) -> str:
    """Folder or name of the pretrained model that an adapter's base is made of.

    Raises:
        CheckpointError: If it was a folder that does not exist any more.
    """
    name = str(about.get("base_model") or "")
    if name and (folder / name).is_dir():
        return str(folder / name)
    if name.startswith("..") and not Path(name).is_dir():
        raise CheckpointError(
            f"{folder}: the adapter's base model is made of the model in {folder / name}, which is not there. Pass the "
            "base: load(folder, base=model), where model is cut by the plan in the folder."
        )
    return name


def name_base(path: Path, name: str) -> None:
    """Write a name for the base model into PEFT's adapter_config.json, in place of a path on this machine."""
    content = json.loads(path.read_text(encoding="utf-8"))
    write_json(path, content | {"base_model_name_or_path": name})


def base_without_adapter(peft_model: PeftModel) -> Any:
    """A copy of the model that an adapter is on, as it was before the adapter was trained."""
    base: Any = copy.deepcopy(peft_model).unload()
    for attribute in ("peft_config", "_hf_peft_config_loaded"):
        vars(base).pop(attribute, None)
    return base.eval()


def repair_as(model: Any, path: Path) -> None:
    """Load the projections that were solved anew into a cut model.

    Raises:
        CheckpointError: If they are not of this model.
    """
    tensors = load_file(path)
    try:
        unknown = model.load_state_dict(tensors, strict=False).unexpected_keys
    except RuntimeError as error:
        raise CheckpointError(f"{path}: not of this model ({' '.join(str(error).split())[:200]}).") from error
    if unknown:
        raise CheckpointError(f"{path}: not of this model, which has no {unknown[0]}.")
