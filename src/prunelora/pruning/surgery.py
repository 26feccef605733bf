"""The cut: rows and columns leave the weights for good."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from torch import nn

from prunelora.models.anatomy import dissect
from prunelora.models.block import Block
from prunelora.models.empty import BiasOnly, NoHeads, NoNeurons
from prunelora.models.layer_config import LayerConfig
from prunelora.models.matrices import keep_columns, keep_rows, widths
from prunelora.models.shared_bias import HandsOn, take_own_heads
from prunelora.planning.plan import Plan, check_within
from prunelora.pruning.repair import Weights, check_repairable, check_weights, repair_

Model = TypeVar("Model", bound=nn.Module)


def prune_(
    model: Model,
    plan: Plan,
    *,
    repair_with: Iterable[Mapping[str, Any]] | None = None,
    repair_weights: Weights = "equal",
) -> Model:
    """Remove from `model`, in place, the heads and neurons that `plan` does not keep.

    Rows of W_Q, W_K, W_V with their biases and columns of W_O go with a head (paper section 3.2), a row of the up
    projection with its bias and a column of the down projection with a neuron. A layer that loses every head, or every
    neuron, is left with the bias of its output, or down, projection. The plan stays with the model as
    `model.prunelora_plan`, so that the model can be saved, scored and cut again.

    Args:
        model: The base model of the plan, or one that was cut before and still has all that the plan keeps.
        plan: In the base model's coordinates.
        repair_with: Batches of calibration rows, dicts as `model(**batch)` takes them. With them output and down
            projections are then re-solved, so that every block gives what it gave before the cut (see `repair`); the
            model is held twice in memory meanwhile.
        repair_weights: How the tokens of these rows count: "equal", or by how much the "loss" depends on them, for
            which every batch needs labels.

    Returns:
        The same model.

    Raises:
        PlanError: If the plan is for another model, or keeps what is already gone, or `repair_weights` is not known;
            the model is then untouched. If there are too few calibration rows; the model is then cut and not repaired.
        ScoreError: If tokens are to count by the loss, and a batch has no labels or its loss is not finite; the model
            is then cut and not repaired.
        UnsupportedModelError: If the model's family is not supported, or it cannot be repaired, where that is asked
            for; the model is then untouched.
    """
    anatomy = dissect(model)
    present = anatomy.lineage
    check_within(plan, present)
    check_weights(repair_weights)
    if repair_with is not None:
        check_repairable(model)
    dense = copy.deepcopy(model) if repair_with is not None else None
    for block in anatomy.blocks:
        _cut_heads(block, _positions(present.heads[block.index], plan.heads[block.index]))
        _cut_neurons(block, _positions(present.neurons[block.index], plan.neurons[block.index]))
    model.prunelora_plan = plan  # type: ignore[assignment]
    if dense is not None and repair_with is not None:
        repair_(model, dense, repair_with, weights=repair_weights)
    return model


def _positions(present: Sequence[int], kept: Sequence[int]) -> list[int]:
    """Where the kept ids stand among the present ones: ([4, 7, 9], [4, 9]) -> [0, 2]."""
    place = {one: position for position, one in enumerate(present)}
    return [place[one] for one in kept]


def _cut_heads(block: Block, kept: Sequence[int]) -> None:
    if len(kept) == block.num_heads:
        return
    family, attention = block.family, block.part("attention")
    if not kept:
        _cut_all_heads(block)
        return
    of_queries = _channels(kept, block.head_dim * block.queries_per_head)
    of_heads = _channels(kept, block.head_dim)
    _keep_parts(block, {"query": of_queries, "key": of_heads, "value": of_heads})
    keep_columns(block.part("output"), of_queries)
    for further in block.with_heads():
        keep_rows(further, of_queries)
    if family.shared_bias is not None:
        take_own_heads(attention, family.shared_bias, kept, maker=family.bias_maker)
    left = {"heads": len(kept), "queries": len(kept) * block.queries_per_head, "width": len(of_queries)}
    for attribute, what in family.counts.items():
        setattr(attention, attribute, left[what])
    if family.config_counts:
        own = {attribute: left[what] for attribute, what in family.config_counts.items()}
        attention.config = LayerConfig(attention.config, **own)  # type: ignore[assignment]


def _cut_all_heads(block: Block) -> None:
    family, attention = block.family, block.part("attention")
    had_bias, position_projections = block.attention_bias, block.position_projections
    _replace_by_bias(block, "output")
    attention_path, output_path = family.path("attention"), family.path("output")
    inside = output_path.startswith(f"{attention_path}.")
    settings: dict[str, Any] = {
        "head_dim": block.head_dim,
        "output_name": output_path.removeprefix(f"{attention_path}.") if inside else None,
        "output": block.part("output") if inside else None,
        "had_bias": had_bias,
        "position_projections": position_projections,
        "layer_idx": getattr(attention, "layer_idx", None) if family.decoder else None,
        "norm_name": family.norm_in_attention,
        "norm": attention.get_submodule(family.norm_in_attention) if family.norm_in_attention else None,
    }
    handing_on = family.handing_on
    block.replace("attention", HandsOn(attention, **handing_on, **settings) if handing_on else NoHeads(**settings))


def _cut_neurons(block: Block, kept: Sequence[int]) -> None:
    if len(kept) == block.num_neurons:
        return
    into = block.family.into_neurons
    if not kept:
        had_bias = block.ffn_bias
        _replace_by_bias(block, "down")
        for name in into:
            if not isinstance(block.part(name), NoNeurons):  # A fused layer is one part with two names.
                block.replace(name, NoNeurons(widths(block.part(name))[0], had_bias=had_bias))
        return
    _keep_parts(block, dict.fromkeys(into, tuple(kept)))
    keep_columns(block.part("down"), kept)


def _keep_parts(block: Block, rows: Mapping[str, Sequence[int]]) -> None:
    """Keep some rows of several projections; those of one fused layer are cut at once, in the order they have there."""
    in_module: dict[int, tuple[nn.Module, list[int]]] = {}
    matrices = {name: block.matrix(name) for name in rows}
    for name, matrix in sorted(matrices.items(), key=lambda item: item[1].start):
        _, kept = in_module.setdefault(id(matrix.module), (matrix.module, []))
        kept += [matrix.start + row for row in rows[name]]
    for module, kept in in_module.values():
        keep_rows(module, kept)


def _channels(units: Sequence[int], width: int) -> list[int]:
    """Channels of units that own `width` neighbouring ones each: head h of q, k, v has h * d_h to (h + 1) * d_h - 1."""
    return [unit * width + offset for unit in units for offset in range(width)]


def _replace_by_bias(block: Block, name: str) -> None:
    projection = block.part(name)
    block.replace(name, BiasOnly(widths(projection)[1], getattr(projection, "bias", None)))
