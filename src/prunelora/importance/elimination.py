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

from prunelora.errors import ScoreError

# Added to the diagonal of H, times its mean: moments of few rows are not to be trusted to the last digit.
DAMPING = 0.01
# Groups are taken out in so many steps or fewer, where there are more: within a step the next one is looked for among
# the cheapest alone, and the rest is solved anew once.
STEPS = 96
# How many times as many are looked at within a step as are taken out.
CANDIDATES = 4
# The matrices are made smaller once this share of their groups, or less, is left: every step costs their size squared.
SHRINK_AT = 0.75
# Of groups whose costs differ by no more than this the first one goes, and not the one that rounding made the cheapest.
TIE = 1e-6


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

    Raises:
        ScoreError: If a moment is not finite.
    """
    groups = weight.shape[1] // width
    costs = np.zeros(groups)
    scale = float(inputs.diagonal().mean()) if groups else 0.0
    if not (inputs.isfinite().all() and errors.isfinite().all()):
        raise ScoreError("Moments of inputs or gradients are not finite: they overflow. Score by gradient or fisher.")
    if scale <= 0 or not errors.any():
        return costs
    left = _Left(weight.double().T @ errors.double() @ weight.double(), _damped_inverse(inputs.double(), scale))
    together = max(1, groups // STEPS)
    highest, number_left = 0.0, groups
    index = torch.arange(groups)  # Of the groups that `left` has rows and columns of.
    while number_left:
        number = min(together, number_left)
        candidates = left.costs(width).argsort()[: min(CANDIDATES * number, number_left)].sort().values
        some, gone = left.only(candidates, width), []
        for _ in range(number):
            now = some.costs(width)
            cheapest = int((now <= (1 + TIE) * now.min()).nonzero()[0])
            # Never the same score twice: ties would be broken by position, not by turn.
            highest = max(float(now[cheapest]), float(np.nextafter(highest, np.inf)))
            costs[index[candidates[cheapest]]] = highest
            some.take_out(torch.tensor([cheapest]), width)
            gone.append(cheapest)
        left.take_out(candidates[gone], width)
        number_left -= number
        if number_left <= SHRINK_AT * len(index):
            there = left.groups(width)
            index, left = index[there], left.only(there, width)
    return costs


def _damped_inverse(inputs: torch.Tensor, scale: float) -> torch.Tensor:
    """H^-1, with more damping where rounding left H with negative eigenvalues."""
    damping = DAMPING * scale
    while True:
        factor, failed = torch.linalg.cholesky_ex(inputs + damping * torch.eye(len(inputs), dtype=torch.float64))
        if not failed:
            return torch.cholesky_inverse(factor)
        damping *= 10


class _Left:
    """What is left: W^T G W of the present values of W's columns, and H^-1 of their inputs, both (K, K)."""

    def __init__(self, squares: torch.Tensor, inverse: torch.Tensor) -> None:
        self.squares = squares
        self.inverse = inverse
        self.there = torch.ones(len(inverse), dtype=torch.bool)

    def groups(self, width: int) -> torch.Tensor:
        """Those that are still there."""
        return self.there[::width].nonzero().flatten()

    def costs(self, width: int) -> torch.Tensor:
        """Of leaving each group out now (U,); infinite where it is out already."""
        if width == 1:  # The same in fewer operations: of small matrices each takes longer than its arithmetic.
            costs = self.squares.diagonal() / self.inverse.diagonal()
            return costs.clamp_min_(0).masked_fill_(~self.there, torch.inf)
        groups = len(self.inverse) // width
        there = self.there[::width]
        inverses, squares = (
            one.reshape(groups, width, groups, width).diagonal(dim1=0, dim2=2).permute(2, 0, 1)[there]
            for one in (self.inverse, self.squares)
        )
        costs = torch.full((groups,), torch.inf, dtype=torch.float64)
        costs[there] = torch.linalg.solve(inverses, squares).diagonal(dim1=1, dim2=2).sum(1).clamp_min(0)
        return costs

    def only(self, groups: torch.Tensor, width: int) -> "_Left":
        """The same problem for some groups, while all others stay."""
        some = _columns(groups, width)
        return _Left(self.squares[some][:, some], self.inverse[some][:, some])

    def take_out(self, groups: torch.Tensor, width: int) -> None:
        """Solve the others anew; rows and columns of those that are out are 0 then."""
        out = _columns(groups, width)
        across = self.inverse[out]
        # The present values of the others become W - W[:, out] taken.
        taken = across / across[:, out] if len(out) == 1 else torch.linalg.solve(across[:, out], across)
        half = self.squares[out] - 0.5 * self.squares[out][:, out] @ taken
        self.squares.addmm_(torch.cat((half, taken)).T, torch.cat((taken, half)), alpha=-1)
        self.inverse.addmm_(across.T, taken, alpha=-1)
        self.there[out] = False


def _columns(groups: torch.Tensor, width: int) -> torch.Tensor:
    return (groups[:, None] * width + torch.arange(width)).reshape(-1)
