"""Saving and loading of pruned models, and of adapters with their plans."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from peft import PeftModel
from torch import nn
from transformers import BaseImageProcessor, PreTrainedTokenizerBase

from prunelora.delivery.adapter_base import (
    BASE,
    MODEL,
    base_without_adapter,
    digest_of_base,
    name_base,
    path_from,
)
from prunelora.delivery.card import write_card
from prunelora.delivery.dense import dense_copy
from prunelora.delivery.processors import save_processor
from prunelora.delivery.saved_adapter import load_adapter, save_frozen_head
from prunelora.delivery.saved_files import ABOUT, ADAPTER_CONFIG, ADAPTER_WEIGHTS, DENSE, PLAN, WEIGHTS
from prunelora.delivery.saved_model import load_model
from prunelora.delivery.standalone import own_auto_class, stock_class, write_standalone
from prunelora.delivery.wrong_paths import describe
from prunelora.errors import CheckpointError, one_of, option
from prunelora.models.anatomy import dissect
from prunelora.models.loading import progress_bars_off
from prunelora.models.problem_types import CAUSAL_LM, REGRESSION, label_names_of, problem_type_of
from prunelora.models.state import check_finite, random_state_kept
from prunelora.planning.plan import Plan
from prunelora.storage import name_of, replacing_folder, write_json
from prunelora.version import __version__

KIND_OF_FORMAT = {"pruned": "model", DENSE: DENSE}
FORMATS = tuple(KIND_OF_FORMAT)

_PICKLES = ("pytorch_model.bin", "adapter_model.bin")


def save(
    model: Any,
    folder: Path | str,
    *,
    tokenizer: PreTrainedTokenizerBase | BaseImageProcessor | None = None,
    facts: Mapping[str, Any] | None = None,
    format: Literal["pruned", "dense"] = "pruned",
    made_from: Mapping[str, str] | None = None,
    recipe: str | None = None,
    with_base: bool = False,
) -> Path:
    """Save a model, or an adapter alone, atomically: an earlier folder is replaced only by a complete one.

    A plain model is saved as config.json, model.safetensors, plan.json, prunelora.json, the tokenizer's files and a
    model card (README.md). A PeftModel is saved as PEFT's files (adapter_config.json, adapter_model.safetensors) with
    plan.json and prunelora.json, from which `load` rebuilds the pruned base. If PEFT alone is to load the adapter, save
    it `with_base`.

    With format="dense" the weights are an ordinary checkpoint of the base's shapes, with zeros for pruned units: every
    tool loads it, and it is as large and as slow as the base. `load` prunes it again by the plan beside it.

    Args:
        model: The result of `merge`, `prune_` or `add_adapter`.
        folder: Folder to write; an earlier save in it is replaced.
        tokenizer: Tokenizer or image processor to save with the model, so that the folder works in
            `transformers.pipeline`. It is saved with padding on the right, except for a causal language model.
        facts: Numbers for the model card, such as accuracy; names to values.
        format: "pruned", the weights as they are; or "dense".
        made_from: Files relative to `folder` from which an adapter's base is built, beside the pretrained model and
            the plan: "model", a saved model in place of the pretrained one; "repaired", projections that repair
            re-solved.
        recipe: The run's recipe as YAML, for the model card.
        with_base: Also save an adapter's pruned base model, in `base/`.

    Returns:
        The folder.

    Raises:
        CheckpointError: If `folder` holds something else than a saved model, the format is unknown, the dense format is
            asked for an adapter, or `with_base` for a model without an adapter.
        DivergenceError: If a weight is not finite.
    """
    target = Path(folder)
    _check_replaceable(target)
    adapter = isinstance(model, PeftModel)
    if format not in FORMATS:
        raise CheckpointError(f"{option('format', format)} is unknown.{one_of(format, FORMATS)}")
    if adapter and format == DENSE:
        raise CheckpointError(f"{folder}: an adapter has no dense weights. Merge it first: prunelora.merge(model).")
    if with_base and not adapter:
        raise CheckpointError(f"{folder}: with_base=True needs an adapter, and {type(model).__name__} has none.")
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    check_finite(model, f"save to {folder}")
    source = str(base.config.name_or_path or "")
    anatomy = dissect(base, adapted=adapter)
    plan = getattr(base, "prunelora_plan", None) or Plan.whole(anatomy.lineage)
    about: dict[str, Any] = {
        "format": "prunelora-checkpoint-1",
        "prunelora": __version__,
        "kind": "adapter" if adapter else KIND_OF_FORMAT[format],
        "plan_id": plan.id,
        "model_class": stock_class(base).__name__,
        "base_model": path_from(target, source) if adapter else name_of(source),
        "family": anatomy.family.name,
    }
    with replacing_folder(target) as temporary:
        if adapter:
            problem_type = problem_type_of(base)
            about["task"] = {
                "problem_type": problem_type,
                "label_names": [] if problem_type in (REGRESSION, CAUSAL_LM) else list(label_names_of(base)),
                "pad_token_id": getattr(base.config, "pad_token_id", None),
            }
            made_from = {MODEL: BASE} if with_base else dict(made_from or {})
            about |= {"base_digest": digest_of_base(model), "made_from": made_from}
            with progress_bars_off():
                model.save_pretrained(str(temporary))
            name_base(temporary / ADAPTER_CONFIG, name_of(source))
            save_frozen_head(model, anatomy, temporary)
            if with_base:
                save(base_without_adapter(model), temporary / BASE)
        else:
            if format == DENSE:
                base = dense_copy(base)
            with progress_bars_off():
                # In one file, and under the model's own names: the names of a family's first checkpoints
                # (NomicBERT's fuse q, k and v) require layers of equal sizes.
                base.save_pretrained(str(temporary), max_shard_size="1000GB", save_original_format=False)
            if format != DENSE:
                write_standalone(temporary, anatomy, plan_id=plan.id)
        plan.save(temporary / PLAN)
        write_json(temporary / ABOUT, about)
        if tokenizer is not None:
            save_processor(tokenizer, temporary, base)
        write_card(
            temporary,
            base,
            plan,
            kind=about["kind"],
            auto=own_auto_class(base),
            facts=facts or {},
            recipe=recipe,
        )
    return target


@random_state_kept()
def load(folder: Path | str, *, base: nn.Module | None = None) -> Any:
    """Load a folder of `save`, with the same logits.

    Args:
        folder: Folder of a model or of an adapter.
        base: Pruned base model for an adapter, with the plan and the weights that the adapter was trained on. Without
            it, the base is built from the adapter's folder.

    Returns:
        The model in eval mode; for an adapter, a `peft.PeftModel` on its pruned base model.

    Raises:
        CheckpointError: If a file is missing, damaged or a pickle, or the files do not belong together.
        AdapterError: If an adapter has other ranks than its plan. A given base is not changed.
    """
    path = Path(folder)
    if not path.exists():
        raise CheckpointError(f"{folder}: no such folder. Give the folder that prunelora.save wrote.")
    if path.is_file():
        raise CheckpointError(f"{folder} is {describe(path)}")
    names = {file.name for file in path.iterdir()}
    pickles = sorted(names.intersection(_PICKLES))
    if pickles and not names.intersection((WEIGHTS, ADAPTER_WEIGHTS)):
        raise CheckpointError(
            f"{folder}: the weights are {pickles[0]}, a pickle, which can run code when it is loaded. Only safetensors "
            f"are loaded, such as {WEIGHTS}."
        )
    if ABOUT not in names:
        raise CheckpointError(f"{folder} is {describe(path)}")
    return load_adapter(path, base) if ADAPTER_CONFIG in names else load_model(path)


def _check_replaceable(target: Path) -> None:
    """Raises CheckpointError if a folder holds something else than a saved model."""
    if target.is_file():
        raise CheckpointError(f"{target} is a file. Give a folder.")
    if target.is_dir() and any(target.iterdir()) and not (target / ABOUT).exists():
        raise CheckpointError(
            f"{target} is not empty and was not written by prunelora.save (no {ABOUT}); nothing was changed. Give "
            "another folder."
        )
