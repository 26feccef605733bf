"""What it costs to leave columns of a matrix out one after another, if those that stay are solved anew each time.

A matrix W (D, K) reads inputs x (K,) with the second moments H; an error e of what it gives costs e^T G e. Without the
columns u the best values of the others are, and cost more by (optimal brain surgeon: Hassibi and Stork 1993; for groups
of columns: Kurtic et al. 2022, "The Optimal BERT Surgeon")::

    W - W[:, u] (H^-1[u, u])^-1 H^-1[u, :]
    tr( W[:, u]^T G W[:, u] (H^-1[u, u])^-1 )

The group of columns that costs least goes first; the others are solved anew, and the next one is looked for.
"""

import numpy as np
import torch
from numpy.typing import NDArray

# Added to the diagonal of H, times its mean: moments of few rows are not to be trusted to the last digit.
DAMPING = 0.01
# Groups are taken out in so many steps or fewer, where there are more: within a step the next one is looked for among
# the cheapest alone, and the rest is solved anew once.
STEPS = 96
# How many times as many are looked at within a step as are taken out.
CANDIDATES = 4


def costs_of_leaving_out(
    weight: torch.Tensor, inputs: torch.Tensor, errors: torch.Tensor, *, width: int = 1
) -> NDArray[np.float64]:
    """Leave out groups of columns, the cheapest first, until none is left.

    Args:
        weight: W (D, K).
        inputs: H (K, K), symmetric, no negative eigenvalue.
        errors: G (D, D), likewise.
        width: Columns a group; they lie side by side.

    Returns:
        (K / width,) what each group cost when its turn came, or what an earlier one had cost if that was more: a group
        that went later has the higher score, so that the best n of them are those that were left when n were.
    """
    groups = weight.shape[1] // width
    costs = np.zeros(groups)
    scale = float(inputs.diagonal().mean()) if groups else 0.0
    if not scale or not errors.any():
        return costs
    damped = inputs.double() + DAMPING * scale * torch.eye(len(inputs), dtype=torch.float64)
    left = _Left(
        weight.double(), errors.double() @ weight.double(), torch.cholesky_inverse(torch.linalg.cholesky(damped))
    )
    ids = torch.arange(groups)
    together = max(1, groups // STEPS)
    highest = 0.0
    while len(ids):
        number = min(together, len(ids))
        candidates = left.costs(width).argsort()[: CANDIDATES * number]
        some, names = left.only(candidates, width), candidates
        for _ in range(number):
            now = some.costs(width)
            cheapest = int(now.argmin())
            # Never the same score twice: ties would be broken by position, not by turn.
            highest = max(float(now[cheapest]), float(np.nextafter(highest, np.inf)))
            costs[ids[names[cheapest]]] = highest
            others = torch.arange(len(names)) != cheapest
            some, names = some.without(~others, width), names[others]
        gone = torch.zeros(len(ids), dtype=torch.bool)
        gone[candidates] = True
        gone[names] = False
        left, ids = left.without(gone, width), ids[~gone]
    return costs


class _Left:
    """What is left of the matrix: W, G W, and H^-1, for the columns that are still there."""

    def __init__(self, weight: torch.Tensor, weighed: torch.Tensor, inverse: torch.Tensor) -> None:
        self.weight = weight
        self.weighed = weighed
        self.inverse = inverse

    def costs(self, width: int) -> torch.Tensor:
        """Of leaving each group out now (U,)."""
        groups = self.weight.shape[1] // width
        own = self.inverse.reshape(groups, width, groups, width).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
        squares = torch.einsum("duv,duw->uvw", *(one.reshape(-1, groups, width) for one in (self.weight, self.weighed)))
        # A group that hardly anything but itself can stand in for has next to nothing in H^-1: no 0 / 0.
        return torch.linalg.solve(own, squares).diagonal(dim1=1, dim2=2).sum(1).clamp_min(0)

    def only(self, groups: torch.Tensor, width: int) -> "_Left":
        """The same problem for some groups, while all others stay."""
        some = _columns(groups, width)
        return _Left(self.weight[:, some], self.weighed[:, some], self.inverse[some][:, some])

    def without(self, gone: torch.Tensor, width: int) -> "_Left":
        """The others solved anew, where `gone` (U,) is false."""
        out, stay = (_columns(mask.nonzero()[:, 0], width) for mask in (gone, ~gone))
        across = self.inverse[out][:, stay]
        solved = torch.linalg.solve(self.inverse[out][:, out], across)
        return _Left(
            self.weight[:, stay] - self.weight[:, out] @ solved,
            self.weighed[:, stay] - self.weighed[:, out] @ solved,
            self.inverse[stay][:, stay] - across.T @ solved,
        )


def _columns(groups: torch.Tensor, width: int) -> torch.Tensor:
    return (groups[:, None] * width + torch.arange(width)).reshape(-1)
