"""Masks: the pruned function with nothing removed. The oracle that surgery is checked against."""

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from prunelora.models.anatomy import dissect
from prunelora.models.gates import multiplied
from prunelora.planning.plan import Plan, check_within


@contextlib.contextmanager
def masked(model: nn.Module, plan: Plan) -> Iterator[nn.Module]:
    """Let `model` compute, while the block runs, what it would compute after `prune_(model, plan)`.

    Gates of 0 and 1 multiply heads and neurons; weights and shapes stay as they are. Gradients flow to the kept units.

    Example:
        >>> with masked(model, plan):
        ...     logits = model(**batch).logits

    Raises:
        PlanError: If the plan is for another model, or keeps what is already gone.
    """
    anatomy = dissect(model)
    present = anatomy.lineage
    check_within(plan, present)
    with multiplied(anatomy, _gates(present.heads, plan.heads), _gates(present.neurons, plan.neurons)):
        yield model


def _gates(present: Sequence[Sequence[int]], kept: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    return [
        torch.tensor([float(one in stays) for one in there])
        for there, stays in zip(present, map(set, kept), strict=True)
    ]
