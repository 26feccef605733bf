"""LoRA with a rank for every matrix, on the pruned sizes, as a stock PEFT adapter (paper section 3.3)."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper
from torch import nn
from transformers.pytorch_utils import Conv1D

from prunelora.errors import AdapterError, DivergenceError, first_line, one_of, option
from prunelora.models.anatomy import Anatomy, dissect
from prunelora.models.problem_types import (
    CAUSAL_LM,
    MULTI_LABEL,
    REGRESSION,
    SINGLE_LABEL,
    TOKENS,
    problem_type_of,
)
from prunelora.models.state import check_finite
from prunelora.planning.plan import Plan

ADAPTER = "default"
# Our name -> PEFT's.
INITIALISATIONS: dict[str, bool | str] = {"kaiming": True, "gaussian": "gaussian", "orthogonal": "orthogonal"}


@dataclass(frozen=True)
class _Target:
    """One matrix that gets LoRA."""

    name: str
    rank: int


def add_adapter(
    model: nn.Module,
    plan: Plan,
    *,
    alpha_over_rank: float = 2.0,
    dropout: float = 0.0,
    train_norms: bool = True,
    train_head: bool = True,
    initialisation: str = "kaiming",
    seed: int = 0,
) -> PeftModel:
    """Add LoRA with the plan's ranks to a pruned model; trainable are LoRA, LayerNorms and task head.

    The result is an ordinary `peft.PeftModel` with one stock `LoraConfig`: train it with `finetune`, or in a loop of
    your own. Matrices of which nothing is left get no LoRA. After injection the rank of every matrix, and the list of
    what is trainable, are compared with the plan: PEFT only warns about a pattern that matched nothing.

    Args:
        model: The model after `prune_(model, plan)`.
        plan: The same plan.
        alpha_over_rank: LoRA's scale alpha / r, the same for every rank.
        dropout: Of LoRA's input, 0..1.
        train_norms: Train every LayerNorm outside the task head.
        train_head: Train the task head. Without it nothing is learnt on a head that was just initialised.
        initialisation: How LoRA begins: "kaiming" (uniform, as in PEFT) or "gaussian" for A with B at zero; or
            "orthogonal", for both. None changes the function, or the weights that the adapter is later loaded onto, as
            initialisations from the weights' own factors do.
        seed: For the initialisation.

    Returns:
        A PeftModel around the same modules.

    Raises:
        AdapterError: If the model was not pruned by this plan, the plan adapts nothing, or the audit fails.
    """
    anatomy = dissect(model)
    if anatomy.lineage != plan.lineage:
        raise AdapterError(
            f"The model is not what the plan leaves: it has {anatomy.architecture.describe()}, the plan leaves "
            f"{plan.architecture.describe()}. Call prune_(model, plan) first."
        )
    if not 0 < alpha_over_rank < math.inf:
        raise AdapterError(f"alpha_over_rank={alpha_over_rank!r}: expected a number above 0, such as 2.0.")
    if not 0 <= dropout < 1:
        raise AdapterError(f"dropout={dropout!r}: expected a number from 0 to below 1.")
    if initialisation not in INITIALISATIONS:
        raise AdapterError(
            f"{option('initialisation', initialisation)} is unknown.{one_of(initialisation, INITIALISATIONS)}"
        )
    targets = list(_targets(anatomy, plan))
    if not targets:
        raise AdapterError(
            "The plan gives no matrix a rank above 0, so there is nothing to adapt. Set ranks in the plan."
        )
    saved = (anatomy.norm_names() if train_norms else []) + (anatomy.task_head_names() if train_head else [])
    config = LoraConfig(
        task_type=_task_type(model) if train_head else None,
        r=max(target.rank for target in targets),
        lora_alpha=alpha_over_rank * max(target.rank for target in targets),  # type: ignore[arg-type]
        lora_dropout=dropout,
        target_modules=[target.name for target in targets],
        # "^": a pattern without it also matches names that merely end like this one.
        rank_pattern={f"^{re.escape(target.name)}": target.rank for target in targets},
        alpha_pattern={f"^{re.escape(target.name)}": alpha_over_rank * target.rank for target in targets},
        modules_to_save=list(saved) or None,  # PEFT adds names of its own to the list.
        fan_in_fan_out=any(isinstance(model.get_submodule(target.name), Conv1D) for target in targets),
        init_lora_weights=INITIALISATIONS[initialisation],  # type: ignore[arg-type]
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        peft_model = get_peft_model(model, config, adapter_name=ADAPTER)
    audit(peft_model, plan)
    copied = {name for name, one in model.named_modules() if isinstance(one, ModulesToSaveWrapper)}
    if copied != set(saved):
        name = min(copied ^ set(saved))
        raise AdapterError(f"{name} is {'' if name in saved else 'not '}to be trained, and PEFT took it otherwise.")
    model.prunelora_plan = plan  # type: ignore[assignment]  # Its ranks are saved with the adapter.
    return peft_model


def audit(peft_model: PeftModel, plan: Plan) -> None:
    """Hold an injected adapter to its plan.

    Raises:
        AdapterError: Naming the first matrix whose rank is not the plan's, or that was adapted without being in it.
    """
    model = peft_model.get_base_model()
    found = {
        name: int(module.r[ADAPTER])
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer) and ADAPTER in module.lora_A
    }
    expected = {target.name: target.rank for target in _targets(_shape_of(peft_model), plan)}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name, 0) != found.get(name, 0):
            raise AdapterError(
                f"{name}: the plan gives it rank {expected.get(name, 0)}, the adapter has {found.get(name, 0)}. "
                "The adapter was made for another plan, or PEFT matched another module."
            )


def merge(peft_model: PeftModel) -> Any:
    """Fold LoRA, norms and head into the weights: plain torch modules again, no adapter left.

    Returns:
        The base model, with the plan it was pruned by; every weight trainable again, as after `from_pretrained`.

    Raises:
        AdapterError: If there is no adapter, or something of it is left after merging.
        DivergenceError: If a weight is not finite, or would not be after merging.
    """
    if not isinstance(peft_model, PeftModel):
        raise AdapterError(f"{type(peft_model).__name__} has no adapter to merge. Pass what add_adapter returned.")
    check_finite(peft_model, "merge")
    try:
        model = peft_model.merge_and_unload(safe_merge=True)
    except ValueError as error:  # PEFT looks at every product.
        raise DivergenceError(
            f"merge: {first_line(error)}. Train the adapter again, with a lower learning_rate."
        ) from error
    for attribute in ("peft_config", "_hf_peft_config_loaded"):
        if attribute in vars(model):
            delattr(model, attribute)
    left = [name for name, module in model.named_modules() if type(module).__module__.startswith("peft.")]
    if left:
        raise AdapterError(f"{left[0]} is still a PEFT module after merging. Is there a second adapter?")
    return model.requires_grad_(True)


def trainable_parameters(model: nn.Module) -> dict[str, int]:
    """How many parameters are trained, by kind: "lora", "norms", "head"; "other" where all weights are."""
    counts = {"lora": 0, "norms": 0, "head": 0, "other": 0}
    kinds: dict[str, str] = {}
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            kinds[name] = "lora"
        elif isinstance(module, ModulesToSaveWrapper):
            # A norm has a number or two for every channel, and no matrix.
            vectors = all(parameter.dim() == 1 for parameter in module.original_module.parameters())
            kinds[name] = "norms" if vectors else "head"
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            owner = next((kind for prefix, kind in kinds.items() if name.startswith(f"{prefix}.")), "other")
            counts[owner] += parameter.numel()
    return counts


def _targets(anatomy: Anatomy, plan: Plan) -> Iterator[_Target]:
    """Layers that get LoRA. A fused layer has one, of the highest rank among its projections."""
    for block in anatomy.blocks:
        ranks: dict[str, int] = {}
        for part in block.family.projections:
            # A gate is the other half of the way into a neuron, and is adapted as the up projection is.
            rank = plan.rank("up" if part == "gate" else part, block.index)
            name = block.full_name(part)
            ranks[name] = max(ranks.get(name, 0), rank)
        yield from (_Target(name, rank) for name, rank in ranks.items() if rank)


_TASK_TYPES = {
    SINGLE_LABEL: TaskType.SEQ_CLS,
    MULTI_LABEL: TaskType.SEQ_CLS,
    REGRESSION: TaskType.SEQ_CLS,
    TOKENS: TaskType.TOKEN_CLS,
    CAUSAL_LM: TaskType.CAUSAL_LM,
}


def _task_type(model: nn.Module) -> TaskType | None:
    """What PEFT calls the task, where it makes a difference to the wrapper around the model."""
    name = type(model).__name__
    if name.endswith("ForImageClassification"):
        return None  # PEFT's wrapper for sequences would pass tokens on.
    if name.endswith("ForConditionalGeneration"):
        return TaskType.SEQ_2_SEQ_LM
    return _TASK_TYPES.get(problem_type_of(model) or "")


def _shape_of(peft_model: PeftModel) -> Anatomy:
    """Names of the parts under an adapter, whose linear layers `dissect` would not accept."""
    model = peft_model.get_base_model()
    return dissect(model, adapted=True)
