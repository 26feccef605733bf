"""Structured pruning: rows and columns of the weights are removed, not masked."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from torch import nn

from prunelora.models.anatomy import dissect
from prunelora.models.block import Block
from prunelora.models.empty import BiasOnly, NoHeads, NoNeurons
from prunelora.models.layer_config import LayerConfig
from prunelora.models.matrices import keep_columns, keep_rows, widths
from prunelora.models.shared_bias import NoHeadsWithBias, restrict_shared_bias
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

    A head's rows of W_Q, W_K, W_V with their biases and its columns of W_O are removed (paper section 3.2); so are a
    neuron's row of the up projection with its bias and its column of the down projection. A layer without any head, or
    neuron, computes the bias of its output, or down, projection. The plan is kept as `model.prunelora_plan`, so that
    the model can be saved, scored and pruned again.

    Args:
        model: The base model of the plan, or a pruned model that still has every unit that the plan keeps.
        plan: In the base model's coordinates.
        repair_with: Batches of calibration rows, dicts as `model(**batch)` takes them. If given, output and down
            projections are re-solved after the cut (see `repair`); memory then holds the model twice.
        repair_weights: Weights of their tokens: "equal", or by how much the "loss" or the "features" that the task head
            reads depend on them. For the loss, every batch needs labels.

    Returns:
        The same model.

    Raises:
        PlanError: If the plan is for another model, or keeps units that were removed before, or `repair_weights` is
            unknown: the model is unchanged. If there are too few calibration rows: the model is pruned, not repaired.
        ScoreError: If tokens are weighted by the loss, and a batch has no labels or its loss is not finite: the model
            is pruned, not repaired.
        UnsupportedModelError: If the model's family is not supported, or repair is asked for and not possible: the
            model is unchanged.
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
    """Positions of the kept ids among the present ids: ([4, 7, 9], [4, 9]) -> [0, 2]."""
    position = {unit: index for index, unit in enumerate(present)}
    return [position[unit] for unit in kept]


def _cut_heads(block: Block, kept: Sequence[int]) -> None:
    if len(kept) == block.num_heads:
        return
    family, attention = block.family, block.part("attention")
    if not kept:
        _cut_all_heads(block)
        return
    query_channels = _channels(kept, block.head_dim * block.queries_per_head)
    key_channels = _channels(kept, block.head_dim)
    _keep_parts(block, {"query": query_channels, "key": key_channels, "value": key_channels})
    keep_columns(block.part("output"), query_channels)
    for module in block.with_heads():
        keep_rows(module, query_channels)
    if family.shared_bias is not None:
        restrict_shared_bias(attention, family.shared_bias, kept, maker=family.bias_maker)
    counts = {"heads": len(kept), "queries": len(kept) * block.queries_per_head, "width": len(query_channels)}
    for attribute, quantity in family.counts.items():
        setattr(attention, attribute, counts[quantity])
    if family.config_counts:
        overrides = {attribute: counts[quantity] for attribute, quantity in family.config_counts.items()}
        attention.config = LayerConfig(attention.config, **overrides)  # type: ignore[assignment]


def _cut_all_heads(block: Block) -> None:
    family, attention = block.family, block.part("attention")
    had_bias, position_projections = block.attention_bias, block.position_projections
    _replace_by_bias(block, "output")
    attention_path, output_path = family.path("attention"), family.path("output")
    output_inside = output_path.startswith(f"{attention_path}.")
    settings: dict[str, Any] = {
        "head_dim": block.head_dim,
        "output_name": output_path.removeprefix(f"{attention_path}.") if output_inside else None,
        "output": block.part("output") if output_inside else None,
        "had_bias": had_bias,
        "position_projections": position_projections,
        "layer_idx": getattr(attention, "layer_idx", None) if family.decoder else None,
        "norm_name": family.norm_in_attention,
        "norm": attention.get_submodule(family.norm_in_attention) if family.norm_in_attention else None,
    }
    bias_settings = family.shared_bias_settings
    no_heads = NoHeadsWithBias(attention, **bias_settings, **settings) if bias_settings else NoHeads(**settings)
    block.replace("attention", no_heads)


def _cut_neurons(block: Block, kept: Sequence[int]) -> None:
    if len(kept) == block.num_neurons:
        return
    into = block.family.into_neurons
    if not kept:
        had_bias = block.neuron_bias
        _replace_by_bias(block, "down")
        for name in into:
            if not isinstance(block.part(name), NoNeurons):  # A fused layer is one module with two names.
                block.replace(name, NoNeurons(widths(block.part(name))[0], had_bias=had_bias))
        return
    _keep_parts(block, dict.fromkeys(into, tuple(kept)))
    keep_columns(block.part("down"), kept)


def _keep_parts(block: Block, rows: Mapping[str, Sequence[int]]) -> None:
    """Keep some rows of several projections. Projections of a fused layer are cut together, in their order there."""
    rows_of: dict[int, tuple[nn.Module, list[int]]] = {}
    matrices = {name: block.matrix(name) for name in rows}
    for name, matrix in sorted(matrices.items(), key=lambda item: item[1].start):
        _, module_rows = rows_of.setdefault(id(matrix.module), (matrix.module, []))
        module_rows += [matrix.start + row for row in rows[name]]
    for module, module_rows in rows_of.values():
        keep_rows(module, module_rows)


def _channels(units: Sequence[int], width: int) -> list[int]:
    """Channels of units of `width` adjacent channels: head h of q, k, v has h * d_h to (h + 1) * d_h - 1."""
    return [unit * width + offset for unit in units for offset in range(width)]


def _replace_by_bias(block: Block, name: str) -> None:
    projection = block.part(name)
    block.replace(name, BiasOnly(widths(projection)[1], getattr(projection, "bias", None)))
