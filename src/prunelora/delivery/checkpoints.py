"""Folders that load: a pruned model, or an adapter with its plan."""

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
from prunelora.delivery.near_misses import instead_of
from prunelora.delivery.processors import save_processor
from prunelora.delivery.saved_adapter import load_adapter, save_frozen_head
from prunelora.delivery.saved_files import ABOUT, ADAPTER_CONFIG, ADAPTER_WEIGHTS, DENSE, PLAN, WEIGHTS
from prunelora.delivery.saved_model import load_model
from prunelora.delivery.standalone import own_auto_class, stock_class, write_standalone
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
    """Save a model, or an adapter alone, atomically: the old folder stays whole until the new one is.

    A plain model gives config.json, model.safetensors, plan.json, prunelora.json, the tokenizer's files and a model
    card (README.md). A PeftModel gives PEFT's files (adapter_config.json, adapter_model.safetensors) with plan.json and
    prunelora.json, which name the base model and what was cut from it. No other tool can make that base; where PEFT
    alone is to load the adapter, save it `with_base`.

    With format="dense" the weights are an ordinary checkpoint of the base's shapes, with zeros where it was cut: every
    tool loads it, and it is as large and as slow as the base. `load` cuts it again by the plan beside it.

    Args:
        model: What `merge`, `prune_` or `add_adapter` returned.
        folder: Where to; what an earlier call saved there is replaced.
        tokenizer: Or an image processor: saved beside it, so that the folder works in `transformers.pipeline`. Saved
            to pad on the right, except for a causal language model.
        facts: Numbers for the model card, such as accuracy; names to values.
        format: "pruned", the weights as they are; or "dense".
        made_from: For an adapter whose base is more than the pretrained model and the plan: files that it is made from,
            relative to `folder`. "model" is a saved model in place of the pretrained one, "repaired" the projections
            that were solved anew after the cut.
        recipe: What the model was made by, as YAML, for the model card.
        with_base: For an adapter: also save the pruned model that it is on, as a model of its own in `base/`. It is as
            large as the pruned model.

    Returns:
        The folder.

    Raises:
        CheckpointError: If `folder` holds something that is not a saved model, there is no such format, an adapter is
            to be saved as dense weights, or a model with a base.
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
        raise CheckpointError(f"{folder}: with_base=True is for an adapter, and {type(model).__name__} carries none.")
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
            kind = problem_type_of(base)
            about["task"] = {
                "problem_type": kind,
                "label_names": [] if kind in (REGRESSION, CAUSAL_LM) else list(label_names_of(base)),
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
                # One file: it is either whole or not. Under the names that the model has now: the layout of a family's
                # first checkpoints (NomicBERT's fuse q, k and v) is made for layers of equal sizes.
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
    """Load what `save` wrote, with the same logits.

    Args:
        folder: A model's folder, or an adapter's.
        base: For an adapter: the pruned base model, if it is loaded already; it must have the plan and the weights
            that the adapter was trained on.

    Returns:
        The model in eval mode; for an adapter, a `peft.PeftModel` on the base model, pruned again by the plan.

    Raises:
        CheckpointError: If something is missing, damaged, a pickle, or does not belong together.
        AdapterError: If an adapter has other ranks than its plan. A base that was given is left as it was found.
    """
    path = Path(folder)
    if not path.exists():
        raise CheckpointError(f"{folder}: no such folder. Give the folder that prunelora.save wrote.")
    if path.is_file():
        raise CheckpointError(f"{folder} is {instead_of(path)}")
    names = {file.name for file in path.iterdir()}
    pickles = sorted(names.intersection(_PICKLES))
    if pickles and not names.intersection((WEIGHTS, ADAPTER_WEIGHTS)):
        raise CheckpointError(
            f"{folder}: the weights are {pickles[0]}, a pickle, which can run code when it is read; expected "
            f"{WEIGHTS}. Only safetensors are loaded."
        )
    if ABOUT not in names:
        raise CheckpointError(f"{folder} is {instead_of(path)}")
    return load_adapter(path, base) if ADAPTER_CONFIG in names else load_model(path)


def _check_replaceable(target: Path) -> None:
    """Never replace a folder that holds something else than a saved model."""
    if target.is_file():
        raise CheckpointError(f"{target} is a file. Give a folder.")
    if target.is_dir() and any(target.iterdir()) and not (target / ABOUT).exists():
        raise CheckpointError(
            f"{target} is not empty and was not written by prunelora.save (no {ABOUT}); it is left as it is. "
            "Give another folder."
        )
