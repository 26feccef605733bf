"""Torch-Pruning's cut of a transformer: heads and neurons by its Taylor importance, to a budget in MACs.

Follows the library's example for BERT (whole heads, none of their width). Unlike the example, the residual stream keeps
its width, as in every other cut here, and the ratio that gives the budget is searched for, which Torch-Pruning has no
option for.
"""

import copy
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch_pruning
from torch import nn

from prunelora.errors import PlanError
from prunelora.evaluation.counting import macs
from prunelora.models.anatomy import Anatomy, dissect
from prunelora.models.device import on_device
from prunelora.planning.plan import Plan

SEARCH_STEPS = 12
EVERYWHERE = 25
# Units are ranked over all layers, heads and neurons apart.
RANKING = {"global_pruning": True, "isomorphic": True}
Gradients = Mapping[str, torch.Tensor | None]
Batch = Mapping[str, Any]


def cut_with_torch_pruning(
    model: nn.Module, batches: Sequence[Batch], *, keep_macs: float, tokens: int = 128, round_to: int = 8
) -> tuple[nn.Module, dict[str, Any]]:
    """Cut a copy of a model to at most a fraction of its MACs.

    Args:
        model: A dense classifier of a supported family.
        batches: Dicts as `model(**batch)` takes them, with labels; their gradients are summed.
        keep_macs: Budget, as a fraction of the model's MACs.
        tokens: Length that MACs are counted for.
        round_to: Neurons stay in multiples of this number, as far as Torch-Pruning can.

    Returns:
        The cut model, and facts: its "macs", "heads" and "neurons", the number of heads by the pruner's books
        ("pruner_heads"), the ratios that were "tried" with the fraction of the MACs that each left, and the "seconds"
        of the gradients ("score"), the search ("plan") and the cut ("prune").

    Raises:
        PlanError: If no ratio that was tried meets the budget.
    """
    started = time.perf_counter()
    gradients = gradients_of(model, batches)
    scored = time.perf_counter()
    dense = macs(model, tokens=tokens).total
    budget = keep_macs * dense

    def macs_at(ratio: float) -> int:
        return macs(_cut_copy(model, gradients, batches[0], ratio, round_to)[0], tokens=tokens).total

    low, high = 0.0, 1.0
    tried: dict[float, int] = {}
    for _ in range(SEARCH_STEPS):
        ratio = (low + high) / 2
        tried[ratio] = macs_at(ratio)
        low, high = (ratio, high) if tried[ratio] > budget else (low, ratio)
    if min(tried.values()) > budget:
        # A layer that was to lose all units of a kind keeps all of them, so larger ratios may leave more.
        tried |= {step / EVERYWHERE: macs_at(step / EVERYWHERE) for step in range(1, EVERYWHERE)}
    fitting = {ratio: left for ratio, left in tried.items() if left <= budget}
    if not fitting:
        raise PlanError(
            f"keep_macs={keep_macs:g}: Torch-Pruning left {min(tried.values()) / dense:.3f} of the MACs at least, at "
            f"{len(tried)} ratios. Raise keep_macs."
        )
    ratio = max(fitting, key=lambda one: fitting[one])
    searched = time.perf_counter()
    small, pruner = _cut_copy(model, gradients, batches[0], ratio, round_to)
    ended = time.perf_counter()
    blocks = dissect(small).blocks
    return small.eval(), {
        "ratio": ratio,
        "macs": macs(small, tokens=tokens).total,
        "dense_macs": dense,
        "heads": [block.num_heads for block in blocks],
        "pruner_heads": [int(pruner.num_heads[block.part("query")]) for block in blocks],
        "neurons": [block.num_neurons for block in blocks],
        "tried": [(ratio, left / dense) for ratio, left in sorted(tried.items())],
        "seconds": {"score": scored - started, "plan": searched - scored, "prune": ended - searched},
    }


def as_plan(dense: nn.Module, small: nn.Module, plan: Plan) -> Plan:
    """A plan that keeps the units of a cut, which are found by equal weights, with the ranks of another plan."""
    heads, neurons = [], []
    for whole, cut in zip(dissect(dense).blocks, dissect(small).blocks, strict=True):
        for name, size, kept in (("query", whole.head_dim, heads), ("up", 1, neurons)):
            units, left = (
                [unit.numpy().tobytes() for unit in block.part(name).weight.detach().cpu().split(size)]
                for block in (whole, cut)
            )
            kept.append(tuple(index for index, unit in enumerate(units) if unit in set(left)))
    return Plan(base=plan.base, heads=tuple(heads), neurons=tuple(neurons), ranks=plan.ranks)


def gradients_of(model: nn.Module, batches: Sequence[Batch]) -> Gradients:
    """Gradients of the loss summed over batches; the model keeps none."""
    model.eval().requires_grad_(True)
    model.zero_grad(set_to_none=True)
    for batch in batches:
        model(**on_device(batch, model)).loss.backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    return found


def _cut_copy(
    model: nn.Module, gradients: Gradients, batch: Batch, ratio: float, round_to: int
) -> tuple[nn.Module, Any]:
    small = copy.deepcopy(model)
    vars(small).pop("prunelora_plan", None)  # The plan of an earlier cut is not this model's.
    for name, parameter in small.named_parameters():
        parameter.grad = gradients[name]
    anatomy = dissect(small)
    # Modules that the residual stream passes through, and the task head, keep their sizes.
    names = [*anatomy.norm_names(), *anatomy.task_head_names()]
    projections = [block.part(name) for block in anatomy.blocks for name in ("output", "down")]
    pruner = torch_pruning.pruner.BasePruner(
        small,
        {name: value[:2] for name, value in on_device(batch, small).items() if name != "labels"},
        importance=torch_pruning.importance.GroupTaylorImportance(),
        pruning_ratio=ratio,
        head_pruning_ratio=ratio,
        num_heads={block.part(name): block.num_heads for block in anatomy.blocks for name in ("query", "key", "value")},
        prune_num_heads=True,
        prune_head_dims=False,
        ignored_layers=[
            anatomy.base.get_submodule("embeddings"),
            *map(anatomy.model.get_submodule, names),
            *projections,
        ],
        round_to=round_to,
        output_transform=lambda output: output.logits.sum(),
        # The defaults are one dict for all pruners, which keeps every model alive.
        in_channel_groups={},
        out_channel_groups={},
        **RANKING,
    )
    pruner.step()
    small.zero_grad(set_to_none=True)
    _count_heads_again(anatomy)
    return small, pruner


def _count_heads_again(anatomy: Anatomy) -> None:
    """Set the attention modules' numbers of heads and width by their weights, which Torch-Pruning alone cuts."""
    for block in anatomy.blocks:
        attention, rows = block.part("attention"), block.part("query").out_features
        for attribute, what in block.family.counts.items():
            setattr(attention, attribute, rows if what == "width" else rows // block.head_dim)
