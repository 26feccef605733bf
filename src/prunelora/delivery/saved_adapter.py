"""Loads an adapter that `save` wrote, on the base model that it was trained on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import PeftModel
from safetensors.torch import save_file

from prunelora.data.embedded import model_source
from prunelora.delivery.adapter_base import MODEL, REPAIRED, base_named, check_digest, file_of_base, repair_as
from prunelora.delivery.saved_files import (
    ADAPTER_WEIGHTS,
    FROZEN_HEAD,
    check_safetensors,
    read_about,
    read_plan,
    read_tensors,
)
from prunelora.delivery.saved_model import load_model, prune_as
from prunelora.errors import CheckpointError, PruneLoraError
from prunelora.finetuning.adapter import ADAPTER, audit
from prunelora.models.anatomy import Anatomy, dissect
from prunelora.models.loading import load_pretrained, pad_with_
from prunelora.planning.plan import Plan


def load_adapter(path: Path, base: Any) -> PeftModel:
    """Load an adapter on `base`; if it is None, on the base model that is built from the adapter's folder.

    Raises:
        CheckpointError: If a file is missing or damaged, or the files do not belong together.
        AdapterError: If the adapter has other ranks than its plan. A given base is not changed.
    """
    about = read_about(path, "adapter")
    plan = read_plan(path, about)
    check_safetensors(path / ADAPTER_WEIGHTS)
    if base is None:
        base = _base_of(path, about, plan)
    else:
        present = getattr(base, "prunelora_plan", None) or Plan.whole(dissect(base).lineage)
        if present.lineage != plan.lineage:
            raise CheckpointError(
                f"{path}: the adapter belongs to a base pruned by plan {plan.id}, the given base was pruned by plan "
                f"{present.id}. Its logits would be wrong. Prune the base by this folder's plan.json."
            )
    children = [(parent, name, child) for parent in base.modules() for name, child in parent.named_children()]
    trainable = [parameter for parameter in base.parameters() if parameter.requires_grad]
    try:
        try:
            peft_model = PeftModel.from_pretrained(base, str(path))
        except (OSError, ValueError, RuntimeError) as error:
            detail = " ".join(str(error).split())[:300]
            raise CheckpointError(
                f"{path / ADAPTER_WEIGHTS} does not fit the base model ({detail}). The adapter was trained on another "
                "base, with other labels or another vocabulary size. Build the base as for the training and pass it: "
                "load(folder, base=model)."
            ) from error
        audit(peft_model, plan)
        check_digest(peft_model, about, path)
    except PruneLoraError:
        # Restore the base. PEFT's `unload` would keep the adapter's task head.
        for parent, name, child in children:
            setattr(parent, name, child)
        for parameter in trainable:
            parameter.requires_grad_(True)
        raise
    base.prunelora_plan = plan
    # The file has a name instead of a path, which PEFT would look up on the hub when the adapter is saved again.
    peft_model.peft_config[ADAPTER].base_model_name_or_path = str(base.config.name_or_path)
    if (path / FROZEN_HEAD).exists():
        peft_model.get_base_model().load_state_dict(read_tensors(path / FROZEN_HEAD), strict=False)
    return peft_model.eval()


def _base_of(path: Path, about: Mapping[str, Any], plan: Plan) -> Any:
    """The base model that an adapter was trained on, built from the adapter's folder."""
    task = about["task"]
    if task["problem_type"] is None:
        raise CheckpointError(
            f"{path}: prunelora cannot build the base of an adapter for {about.get('model_class')}. Load the model "
            "that was adapted and pass it: load(folder, base=prune_(model, plan))."
        )
    merged = file_of_base(path, about, MODEL)
    base: Any
    if merged is not None:
        base = load_model(merged)
    else:
        name = base_named(path, about)
        base = load_pretrained(model_source(name), label_names=task["label_names"], problem_type=task["problem_type"])
        base.config.name_or_path = name
    pad_with_(base, task.get("pad_token_id"))
    prune_as(base, plan, path)
    repaired = file_of_base(path, about, REPAIRED)
    if repaired is not None:
        check_safetensors(repaired)
        repair_as(base, repaired)
    return base


def save_frozen_head(peft_model: PeftModel, anatomy: Anatomy, folder: Path) -> None:
    """Save a frozen task head, which is not in the adapter and often not in the base model's checkpoint."""
    trained = set(getattr(peft_model.peft_config[ADAPTER], "modules_to_save", None) or ())
    heads = tuple(f"{name}." for name in anatomy.task_head_names() if name not in trained)
    tensors = {
        key: value.detach().cpu().contiguous()
        for key, value in peft_model.get_base_model().state_dict().items()
        if heads and key.startswith(heads)
    }
    if tensors:
        save_file(tensors, folder / FROZEN_HEAD)
