"""LoRA with a rank for every matrix of a pruned model, as a stock PEFT adapter (paper section 3.3)."""

import math
import re
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
# prunelora's name -> PEFT's.
INITIALISATIONS: dict[str, bool | str] = {"kaiming": True, "gaussian": "gaussian", "orthogonal": "orthogonal"}


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
    """Add LoRA with the plan's ranks to a pruned model; LoRA, LayerNorms and task head are trainable.

    The result is an ordinary `peft.PeftModel` with one stock `LoraConfig`: train it with `finetune`, or in your own
    loop. Matrices without rows or columns get no LoRA. After injection the ranks and the trainable modules are compared
    with the plan, because PEFT only warns about a pattern that matches nothing.

    Args:
        model: The model after `prune_(model, plan)`.
        plan: The same plan.
        alpha_over_rank: LoRA's scale alpha / r, the same for every rank.
        dropout: Dropout of LoRA's input, 0..1.
        train_norms: Train every LayerNorm outside the task head.
        train_head: Train the task head. A head that is freshly initialised needs it.
        initialisation: Initialisation of A and B: "kaiming" (uniform, PEFT's default) or "gaussian" A with B = 0; or
            "orthogonal" A and B. All leave the base weights unchanged, unlike initialisations from their factors.
        seed: Seed of the initialisation.

    Returns:
        A PeftModel around the same modules.

    Raises:
        AdapterError: If the model was not pruned by this plan, the plan has no rank above 0, or the audit fails.
    """
    anatomy = dissect(model)
    if anatomy.lineage != plan.lineage:
        raise AdapterError(
            f"The model was not pruned by this plan: it has {anatomy.architecture.describe()}, the plan keeps "
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
    ranks = _ranks(anatomy, plan)
    if not ranks:
        raise AdapterError("The plan has no rank above 0, so no matrix gets LoRA. Set ranks in the plan.")
    max_rank = max(ranks.values())
    trained = (anatomy.norm_names() if train_norms else []) + (anatomy.task_head_names() if train_head else [])
    config = LoraConfig(
        task_type=_task_type(model) if train_head else None,
        r=max_rank,
        lora_alpha=alpha_over_rank * max_rank,  # type: ignore[arg-type]
        lora_dropout=dropout,
        target_modules=list(ranks),
        # Without "^" a pattern also matches longer names that end with it.
        rank_pattern={f"^{re.escape(name)}": rank for name, rank in ranks.items()},
        alpha_pattern={f"^{re.escape(name)}": alpha_over_rank * rank for name, rank in ranks.items()},
        modules_to_save=list(trained) or None,  # A copy: PEFT appends to the list.
        fan_in_fan_out=any(isinstance(model.get_submodule(name), Conv1D) for name in ranks),
        init_lora_weights=INITIALISATIONS[initialisation],  # type: ignore[arg-type]
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        peft_model = get_peft_model(model, config, adapter_name=ADAPTER)
    audit(peft_model, plan)
    wrapped = {name for name, module in model.named_modules() if isinstance(module, ModulesToSaveWrapper)}
    if wrapped != set(trained):
        name = min(wrapped ^ set(trained))
        raise AdapterError(f"{name} should {'' if name in trained else 'not '}be trainable, and PEFT did the opposite.")
    model.prunelora_plan = plan  # type: ignore[assignment]  # Its ranks are saved with the adapter.
    return peft_model


def audit(peft_model: PeftModel, plan: Plan) -> None:
    """Compare the ranks of an injected adapter with the plan.

    Raises:
        AdapterError: If the rank of a matrix is not the plan's; the message names the first such matrix.
    """
    model = peft_model.get_base_model()
    injected = {
        name: int(module.r[ADAPTER])
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer) and ADAPTER in module.lora_A
    }
    planned = _ranks(dissect(model, adapted=True), plan)
    for name in sorted(planned.keys() | injected.keys()):
        if planned.get(name, 0) != injected.get(name, 0):
            raise AdapterError(
                f"{name}: its rank is {planned.get(name, 0)} in the plan and {injected.get(name, 0)} in the adapter. "
                "The adapter was made for another plan, or PEFT matched another module."
            )


def merge(peft_model: PeftModel) -> Any:
    """Merge LoRA, norms and head into the weights and remove the adapter.

    Returns:
        The base model as plain torch modules, with its plan; all weights are trainable, as after `from_pretrained`.

    Raises:
        AdapterError: If there is no adapter, or a PEFT module remains after merging.
        DivergenceError: If a weight is not finite before or after merging.
    """
    if not isinstance(peft_model, PeftModel):
        raise AdapterError(f"{type(peft_model).__name__} has no adapter to merge. Pass what add_adapter returned.")
    check_finite(peft_model, "merge")
    try:
        model = peft_model.merge_and_unload(safe_merge=True)
    except ValueError as error:  # Raised by `safe_merge` if a merged weight is not finite.
        raise DivergenceError(
            f"merge: {first_line(error)}. Train the adapter again, with a lower learning_rate."
        ) from error
    for attribute in ("peft_config", "_hf_peft_config_loaded"):
        if attribute in vars(model):
            delattr(model, attribute)
    remaining = [name for name, module in model.named_modules() if type(module).__module__.startswith("peft.")]
    if remaining:
        raise AdapterError(f"{remaining[0]} is still a PEFT module after merging. Is there a second adapter?")
    return model.requires_grad_(True)


def trainable_parameters(model: nn.Module) -> dict[str, int]:
    """Number of trainable parameters by kind: "lora", "norms", "head"; "other" without an adapter."""
    counts = {"lora": 0, "norms": 0, "head": 0, "other": 0}
    kinds: dict[str, str] = {}
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            kinds[name] = "lora"
        elif isinstance(module, ModulesToSaveWrapper):
            # A norm has vectors only, a head has matrices.
            vectors = all(parameter.dim() == 1 for parameter in module.original_module.parameters())
            kinds[name] = "norms" if vectors else "head"
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            kind = next((kind for prefix, kind in kinds.items() if name.startswith(f"{prefix}.")), "other")
            counts[kind] += parameter.numel()
    return counts


def _ranks(anatomy: Anatomy, plan: Plan) -> dict[str, int]:
    """Ranks of the linear layers that get LoRA. A fused layer has the highest rank among its projections."""
    ranks: dict[str, int] = {}
    for block in anatomy.blocks:
        for part in block.family.projections:
            # A gate projection has the rank of the up projection.
            rank = plan.rank("up" if part == "gate" else part, block.index)
            name = block.full_name(part)
            ranks[name] = max(ranks.get(name, 0), rank)
    return {name: rank for name, rank in ranks.items() if rank}


_TASK_TYPES = {
    SINGLE_LABEL: TaskType.SEQ_CLS,
    MULTI_LABEL: TaskType.SEQ_CLS,
    REGRESSION: TaskType.SEQ_CLS,
    TOKENS: TaskType.TOKEN_CLS,
    CAUSAL_LM: TaskType.CAUSAL_LM,
}


def _task_type(model: nn.Module) -> TaskType | None:
    """PEFT's name of the task, which selects its wrapper class; None for the plain wrapper."""
    name = type(model).__name__
    if name.endswith("ForImageClassification"):
        return None  # PEFT's wrapper for sequence classification passes token ids.
    if name.endswith("ForConditionalGeneration"):
        return TaskType.SEQ_2_SEQ_LM
    return _TASK_TYPES.get(problem_type_of(model) or "")
