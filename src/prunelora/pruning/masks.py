"""Masks: the function of the pruned model without removing anything. Tests compare surgery with it."""

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from prunelora.models.anatomy import dissect
from prunelora.models.gates import multiplied
from prunelora.planning.plan import Plan, check_within


@contextlib.contextmanager
def masked(model: nn.Module, plan: Plan) -> Iterator[nn.Module]:
    """Make `model` compute, inside the `with` block, the function that it has after `prune_(model, plan)`.

    Gates of 0 and 1 multiply heads and neurons; weights and shapes do not change. Gradients flow to the kept units.

    Example:
        >>> with masked(model, plan):
        ...     logits = model(**batch).logits

    Raises:
        PlanError: If the plan is for another model, or keeps units that an earlier cut removed.
    """
    anatomy = dissect(model)
    present = anatomy.lineage
    check_within(plan, present)
    with multiplied(anatomy, _gates(present.heads, plan.heads), _gates(present.neurons, plan.neurons)):
        yield model


def _gates(present: Sequence[Sequence[int]], kept: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """1 for a kept unit, 0 for a pruned one, by layer: [[4, 7, 9]], [[4, 9]] -> [[1, 0, 1]]."""
    return [
        torch.tensor([float(unit in kept_units) for unit in units])
        for units, kept_units in zip(present, map(set, kept), strict=True)
    ]
