"""The cut: rows and columns leave the weights for good."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import nn

from prunelora.models.anatomy import Block, dissect
from prunelora.models.empty import BiasOnly, NoHeads, NoNeurons
from prunelora.planning.plan import Plan, check_within
from prunelora.pruning.repair import repair_

Model = TypeVar("Model", bound=nn.Module)


def prune_(model: Model, plan: Plan, *, repair_with: Iterable[Mapping[str, Any]] | None = None) -> Model:
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

    Returns:
        The same model.

    Raises:
        PlanError: If the plan is for another model, or keeps what is already gone; the model is then untouched. If
            there are too few calibration rows; the model is then cut and not repaired.
        UnsupportedModelError: If the model's family is not supported.
    """
    anatomy = dissect(model)
    present = anatomy.lineage
    check_within(plan, present)
    dense = copy.deepcopy(model) if repair_with is not None else None
    for block in anatomy.blocks:
        _cut_heads(block, _positions(present.heads[block.index], plan.heads[block.index]))
        _cut_neurons(block, _positions(present.neurons[block.index], plan.neurons[block.index]))
    model.prunelora_plan = plan  # type: ignore[assignment]
    if dense is not None and repair_with is not None:
        repair_(model, dense, repair_with)
    return model


def _positions(present: Sequence[int], kept: Sequence[int]) -> list[int]:
    """Where the kept ids stand among the present ones: ([4, 7, 9], [4, 9]) -> [0, 2]."""
    place = {one: position for position, one in enumerate(present)}
    return [place[one] for one in kept]


def _cut_heads(block: Block, kept: Sequence[int]) -> None:
    if len(kept) == block.num_heads:
        return
    head_dim, family = block.head_dim, block.family
    output = block.linear("output")
    if not kept:
        _replace_by_bias(block, "output")
        attention_path, output_path = family.path("attention"), family.path("output")
        inside = output_path.startswith(f"{attention_path}.")
        name = output_path.removeprefix(f"{attention_path}.") if inside else None
        block.replace("attention", NoHeads(head_dim, name, block.part("output") if inside else None))
        return
    # Head h owns the channels h * d_h to (h + 1) * d_h - 1 of q, k, v, and of the output projection's input.
    channels = [head * head_dim + offset for head in kept for offset in range(head_dim)]
    for name in ("query", "key", "value"):
        _keep_rows(block.linear(name), channels)
    _keep_columns(output, channels)
    attention = block.part("attention")
    for attribute in family.head_count:
        setattr(attention, attribute, len(kept))
    for attribute in family.heads_width:
        setattr(attention, attribute, len(channels))


def _cut_neurons(block: Block, kept: Sequence[int]) -> None:
    if len(kept) == block.num_neurons:
        return
    if not kept:
        _replace_by_bias(block, "down")
        block.replace("up", NoNeurons(block.linear("up").in_features))
        return
    _keep_rows(block.linear("up"), kept)
    _keep_columns(block.linear("down"), kept)


def _replace_by_bias(block: Block, name: str) -> None:
    projection = block.linear(name)
    block.replace(name, BiasOnly(projection.out_features, projection.bias))


def _keep_rows(linear: nn.Linear, rows: Sequence[int]) -> None:
    """q: (768, 768) -> (512, 768) when 8 of 12 heads of size 64 stay."""
    linear.weight = _taken(linear.weight, 0, rows)
    if linear.bias is not None:
        linear.bias = _taken(linear.bias, 0, rows)
    linear.out_features = len(rows)


def _keep_columns(linear: nn.Linear, columns: Sequence[int]) -> None:
    """Output projection: (768, 768) -> (768, 512); its bias belongs to no head and stays."""
    linear.weight = _taken(linear.weight, 1, columns)
    linear.in_features = len(columns)


def _taken(tensor: torch.Tensor, dim: int, index: Sequence[int]) -> nn.Parameter:
    picked = tensor.detach().index_select(dim, torch.tensor(index, device=tensor.device))
    return nn.Parameter(picked.contiguous(), requires_grad=tensor.requires_grad)
