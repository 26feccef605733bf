"""The base model of an adapter: the check of its weights, and the files from which it is built.

On other weights than those it was trained on, an adapter gives wrong logits without an error. The adapter's folder
therefore has a plan with the base's heads and neurons, and a digest of its weights.
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

# Files from which a base is built: a merged model in place of the pretrained one, and projections re-solved by repair.
MODEL, REPAIRED = "model", "repaired"

# Folder of a base that is saved inside the adapter's folder.
BASE = "base"

# In names of parameters: parts that PEFT adds to the base, or trains instead of the base's own.
_ADDED = re.compile(r"\.lora_|\.modules_to_save\.|\.original_module\.")


def digest_of_base(peft_model: PeftModel) -> str:
    """Hash of the base's frozen weights without the task head, as 16 hexadecimal digits.

    The task head is part of the adapter's folder, so the base's own head has no effect.
    """
    base: Any = peft_model.get_base_model()
    heads = tuple(f"{name}." for name in dissect(base, adapted=True).task_head_names())
    digest = hashlib.sha256()
    for name, parameter in sorted(base.named_parameters(), key=lambda pair: pair[0]):
        if _ADDED.search(name) or (heads and name.startswith(heads)):
            continue
        weights = parameter.detach().cpu().contiguous()
        digest.update(f"{name.replace('.base_layer', '')} {tuple(weights.shape)} {weights.dtype}".encode())
        if weights.numel():
            digest.update(weights.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def check_digest(peft_model: PeftModel, about: Mapping[str, Any], folder: Path) -> None:
    """Check that an adapter is on the base model that it was trained on, if its folder has a digest.

    Raises:
        CheckpointError: If the base model has other weights.
    """
    expected = about.get("base_digest")
    if expected is None or expected == digest_of_base(peft_model):
        return
    raise CheckpointError(
        f"{folder}: the adapter was trained on a base model with other weights (or another dtype) than this one, "
        f"{about.get('base_model')!r} pruned by the same plan. Its logits would be wrong. Build the base as for the "
        "training and pass it: load(folder, base=model); or load the merged model of the same run."
    )


def file_of_base(folder: Path, about: Mapping[str, Any], kind: str) -> Path | None:
    """Path of a file or folder of one kind from which the base model is built; None if there is none of this kind.

    Raises:
        CheckpointError: If the path does not exist.
    """
    name = (about.get("made_from") or {}).get(kind)
    if name is None:
        return None
    path = folder / name
    if not path.exists():
        raise CheckpointError(
            f"{folder}: the adapter's base model is built from {name}, which is missing. Keep the adapter in the "
            "folder of its run, or pass the base: load(folder, base=model)."
        )
    return path


def path_from(folder: Path, source: str) -> str:
    """A model's folder relative to an adapter's folder; the name of a hub model or embedded model unchanged."""
    if source and model_source(source) == source and Path(source).is_dir():
        try:
            return os.path.relpath(Path(source).resolve(), folder.resolve())
        except ValueError:  # Windows: on another drive.
            return name_of(source)
    return name_of(source)


def base_named(folder: Path, about: Mapping[str, Any]) -> str:
    """Folder or name of the pretrained model of an adapter's base.

    Raises:
        CheckpointError: If it is a folder that does not exist.
    """
    name = str(about.get("base_model") or "")
    if name and (folder / name).is_dir():
        return str(folder / name)
    if name.startswith("..") and not Path(name).is_dir():
        raise CheckpointError(
            f"{folder}: the adapter's base model is built from the model in {folder / name}, which is missing. Pass "
            "the base: load(folder, base=model), with a model that is pruned by the plan in the folder."
        )
    return name


def name_base(path: Path, name: str) -> None:
    """Replace the path of the base model in PEFT's adapter_config.json by a name."""
    content = json.loads(path.read_text(encoding="utf-8"))
    write_json(path, content | {"base_model_name_or_path": name})


def base_without_adapter(peft_model: PeftModel) -> Any:
    """A copy of the model without its adapter, as it was before the adapter was trained."""
    base: Any = copy.deepcopy(peft_model).unload()
    for attribute in ("peft_config", "_hf_peft_config_loaded"):
        vars(base).pop(attribute, None)
    return base.eval()


def repair_as(model: Any, path: Path) -> None:
    """Load projections that repair re-solved into a pruned model.

    Raises:
        CheckpointError: If they do not belong to this model.
    """
    tensors = load_file(path)
    try:
        unknown = model.load_state_dict(tensors, strict=False).unexpected_keys
    except RuntimeError as error:
        raise CheckpointError(
            f"{path} does not belong to this model ({' '.join(str(error).split())[:200]})."
        ) from error
    if unknown:
        raise CheckpointError(f"{path} does not belong to this model, which has no {unknown[0]}.")
