"""Folders that load: a pruned model, or an adapter with its plan."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import transformers
from peft import PeftModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import BaseImageProcessor, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import GENERATION_CONFIG_NAME

from prunelora import __version__
from prunelora.data.embedded import model_source
from prunelora.delivery.adapter_base import (
    BASE,
    MODEL,
    REPAIRED,
    base_named,
    base_without_adapter,
    check_digest,
    digest_of_base,
    file_of_base,
    name_base,
    path_from,
    repair_as,
)
from prunelora.delivery.card import write_card
from prunelora.delivery.dense import dense_copy
from prunelora.delivery.near_misses import instead_of
from prunelora.delivery.processors import save_processor
from prunelora.delivery.standalone import own_auto_class, stock_class, stock_config, write_standalone
from prunelora.errors import CheckpointError, PruneLoraError, first_line
from prunelora.finetuning.adapter import ADAPTER, audit
from prunelora.models.anatomy import Anatomy, dissect
from prunelora.models.loading import load_pretrained, pad_with_, progress_bars_off
from prunelora.models.problem_types import CAUSAL_LM, REGRESSION, label_names_of, problem_type_of
from prunelora.models.source import check_source
from prunelora.models.state import check_finite, random_state_kept
from prunelora.planning.plan import Plan
from prunelora.pruning.surgery import prune_
from prunelora.spelling import one_of, option
from prunelora.storage import name_of, replacing_folder, write_json

WEIGHTS = "model.safetensors"
PLAN = "plan.json"
ABOUT = "prunelora.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
FROZEN_HEAD = "frozen_head.safetensors"

DENSE = "dense"
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
            that were solved anew behind the cut.
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
            _save_frozen_head(model, anatomy, temporary)
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
        base: For an adapter: the pruned base model, if it is already at hand; held to be the one of the adapter's plan
            and weights.

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
    if not names.intersection((ABOUT, PLAN)):
        raise CheckpointError(f"{folder} is {instead_of(path)}")
    return _load_adapter(path, base) if ADAPTER_CONFIG in names else _load_model(path)


def _load_model(path: Path) -> PreTrainedModel:
    check_source(path, pruned=True)
    plan, about = _read_plan(path), _read_about(path, "model", DENSE)  # The plan first: other folders have none.
    with _told_as_checkpoint_error(path, "config.json"):
        config = stock_config(path)
    _check_plan_id(path, plan, about)
    model_class = getattr(transformers, str(about.get("model_class")), None)
    if not (isinstance(model_class, type) and issubclass(model_class, PreTrainedModel)):
        raise CheckpointError(f"{path / ABOUT}: model_class {about.get('model_class')!r} is no class of transformers.")
    tensors = _read_tensors(path / WEIGHTS)
    model = model_class._from_config(config, dtype=_dtype_of(tensors))
    if model.can_generate() and (path / GENERATION_CONFIG_NAME).exists():
        with _told_as_checkpoint_error(path, GENERATION_CONFIG_NAME):
            model.generation_config = GenerationConfig.from_pretrained(str(path))
    if about["kind"] != DENSE:
        _prune_as(model, plan, path)
    for name, parameter in model.named_parameters():
        if name in tensors:  # Some models have weights of several types.
            parameter.data = parameter.data.to(tensors[name].dtype)
    try:
        model.load_state_dict(tensors | _tied(model, tensors), strict=True)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path / WEIGHTS} does not fit {PLAN}: {' '.join(str(error).split())[:300]} The folder was put together "
            "from two models, or one file was edited."
        ) from error
    if about["kind"] == DENSE:
        _prune_as(model, plan, path)
    model.config.name_or_path = str(path)
    return model.eval()


def _tied(model: nn.Module, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Weights that the file leaves out because the model holds them under another name too, as word embeddings."""
    state = model.state_dict()
    names: dict[int, list[str]] = {}
    for name, value in state.items():
        names.setdefault(value.data_ptr(), []).append(name)
    found = {}
    for name in state.keys() - tensors.keys():
        others = [other for other in names[state[name].data_ptr()] if other in tensors]
        if others and state[name].numel():
            found[name] = tensors[others[0]]
    return found


def _load_adapter(path: Path, base: Any) -> PeftModel:
    plan, about = _read_plan(path), _read_about(path, "adapter")
    _check_plan_id(path, plan, about)
    _check_safetensors(path / ADAPTER_WEIGHTS)
    if base is None:
        base = _base_of(path, about, plan)
    else:
        present = getattr(base, "prunelora_plan", None) or Plan.whole(dissect(base).lineage)
        if present.lineage != plan.lineage:
            raise CheckpointError(
                f"{path}: the adapter belongs to a base cut by plan {plan.id}, the base given was cut by plan "
                f"{present.id}. Its logits would be wrong without a word. Prune the base by this folder's plan.json."
            )
    before = [(parent, name, child) for parent in base.modules() for name, child in parent.named_children()]
    trained = [parameter for parameter in base.parameters() if parameter.requires_grad]
    try:
        try:
            peft_model = PeftModel.from_pretrained(base, str(path))
        except (OSError, ValueError, RuntimeError) as error:
            detail = " ".join(str(error).split())[:300]
            raise CheckpointError(
                f"{path / ADAPTER_WEIGHTS}: does not fit the base model ({detail}). The adapter was trained on another "
                "one, with other labels or another number of words. Make the base as it was made then, and pass it: "
                "load(folder, base=model)."
            ) from error
        audit(peft_model, plan)
        check_digest(peft_model, about, path)
    except PruneLoraError:
        # The base is left as it was found. PEFT's own way back would leave it the adapter's task head.
        for parent, name, child in before:
            setattr(parent, name, child)
        for parameter in trained:
            parameter.requires_grad_(True)
        raise
    base.prunelora_plan = plan
    if (path / FROZEN_HEAD).exists():
        peft_model.get_base_model().load_state_dict(_read_tensors(path / FROZEN_HEAD), strict=False)
    return peft_model.eval()


def _base_of(path: Path, about: Mapping[str, Any], plan: Plan) -> Any:
    """The model that an adapter was trained on, made again as it was made then."""
    task = about["task"]
    if task["problem_type"] is None:
        raise CheckpointError(
            f"{path}: the adapter is of a {about.get('model_class')}, whose base model prunelora cannot make by "
            "itself. Load the model that it was made from, and give it: load(folder, base=prune_(model, plan))."
        )
    merged = file_of_base(path, about, MODEL)
    base: Any
    if merged is not None:
        base = _load_model(merged)
    else:
        name = base_named(path, about)
        base = load_pretrained(model_source(name), label_names=task["label_names"], problem_type=task["problem_type"])
        base.config.name_or_path = name
    pad_with_(base, task.get("pad_token_id"))
    _prune_as(base, plan, path)
    repaired = file_of_base(path, about, REPAIRED)
    if repaired is not None:
        _check_safetensors(repaired)
        repair_as(base, repaired)
    return base


def _save_frozen_head(peft_model: PeftModel, anatomy: Anatomy, folder: Path) -> None:
    """A task head that was not trained is not in the adapter, and often not in the base model's checkpoint either."""
    trained = set(getattr(peft_model.peft_config[ADAPTER], "modules_to_save", None) or ())
    heads = tuple(f"{name}." for name in anatomy.task_head_names() if name not in trained)
    tensors = {
        key: value.detach().cpu().contiguous()
        for key, value in peft_model.get_base_model().state_dict().items()
        if heads and key.startswith(heads)
    }
    if tensors:
        save_file(tensors, folder / FROZEN_HEAD)


def _prune_as(model: nn.Module, plan: Plan, path: Path) -> None:
    try:
        prune_(model, plan)
    except PruneLoraError as error:
        raise CheckpointError(f"{path}: {PLAN} and the model do not belong together. {error}") from error


def _read_plan(path: Path) -> Plan:
    if not (path / PLAN).exists():
        raise CheckpointError(
            f"{path}: no {PLAN} there, so which heads and neurons the weights are is not known. Copy the folder again, "
            "or save it again."
        )
    try:
        return Plan.load(path / PLAN)
    except PruneLoraError as error:
        raise CheckpointError(str(error)) from error


def _read_about(path: Path, *kinds: str) -> dict[str, Any]:
    with _told_as_checkpoint_error(path, ABOUT):
        about: dict[str, Any] = json.loads((path / ABOUT).read_text(encoding="utf-8"))
    if about.get("format") != "prunelora-checkpoint-1" or about.get("kind") not in kinds:
        raise CheckpointError(
            f"{path / ABOUT}: format {about.get('format')!r} of a {about.get('kind')!r}, expected "
            f"'prunelora-checkpoint-1' of a {kinds[0]!r}."
        )
    return about


def _check_plan_id(path: Path, plan: Plan, about: Mapping[str, Any]) -> None:
    if about.get("plan_id") != plan.id:
        raise CheckpointError(
            f"{path}: the weights were saved with plan {about.get('plan_id')}, {PLAN} there is plan {plan.id}. It was "
            "edited, or belongs to another model. To apply an edited plan, prune the base model by it."
        )


def _read_tensors(path: Path) -> dict[str, Any]:
    _check_safetensors(path)
    return load_file(path)


def _check_safetensors(path: Path) -> None:
    """Read the header, which tells a truncated file from a whole one."""
    try:
        with safe_open(path, framework="pt"):
            pass
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: damaged or cut off ({first_line(error)}; {path.stat().st_size if path.exists() else 0} bytes). "
            "Copy the folder again, or save it again."
        ) from error


def _dtype_of(tensors: Mapping[str, Any]) -> Any:
    return next(tensor.dtype for tensor in tensors.values() if tensor.is_floating_point())


def _check_replaceable(target: Path) -> None:
    """Never replace a folder that holds something else than a saved model."""
    if target.is_file():
        raise CheckpointError(f"{target} is a file. Give a folder.")
    if target.is_dir() and any(target.iterdir()) and not (target / ABOUT).exists():
        raise CheckpointError(
            f"{target} is not empty and was not written by prunelora.save (no {ABOUT}); it is left as it is. "
            "Give another folder."
        )


@contextlib.contextmanager
def _told_as_checkpoint_error(path: Path, name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{path / name}: cannot be read ({first_line(error)}).") from error
