"""Cost of removing columns of a matrix one after another, with the remaining columns re-solved each time.

A matrix W (D, K) reads inputs x (K,) with second moments H; an output error e costs e^T G e. After removal of the
columns u, the optimal remaining matrix and its additional cost are (optimal brain surgeon: Hassibi and Stork 1993; for
groups of columns: Kurtic et al. 2022, "The Optimal BERT Surgeon")::

    W - W[:, u] (H^-1[u, u])^-1 H^-1[u, :]
    tr( W[:, u]^T G W[:, u] (H^-1[u, u])^-1 )

Greedy elimination removes the cheapest group, re-solves the others, and repeats.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from prunelora.errors import ScoreError

# Multiple of H's mean diagonal that is added to its diagonal, since moments of few rows are noisy.
DAMPING = 0.01
# Maximum number of steps. With more groups, a step removes several: it chooses among the cheapest candidates and
# re-solves the full problem once.
STEPS = 96
# Candidates per group removed in a step.
CANDIDATES = 4
# Removed groups are dropped from the matrices once at most this share of the groups remains; a step costs O(size^2).
SHRINK_AT = 0.75
# Costs within this relative difference are ties, which the first group wins; rounding must not decide.
TIE = 1e-6


def elimination_costs(
    weight: torch.Tensor, inputs: torch.Tensor, errors: torch.Tensor, *, width: int = 1
) -> NDArray[np.float64]:
    """Remove groups of columns, the cheapest first, until none remains.

    Args:
        weight: W (D, K).
        inputs: H (K, K), symmetric, positive semi-definite.
        errors: G (D, D), symmetric, positive semi-definite.
        width: Number of adjacent columns in a group.

    Returns:
        (K / width,) the cost of each group in its turn, or a slightly higher value than its predecessor's if that is
        more: scores rise in the order of removal, so the n highest scores are the last n groups.

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
    problem = _Problem(weight.double().T @ errors.double() @ weight.double(), _damped_inverse(inputs.double(), scale))
    per_step = max(1, groups // STEPS)
    highest, remaining = 0.0, groups
    ids = torch.arange(groups)  # Ids of the groups in `problem`.
    while remaining:
        number = min(per_step, remaining)
        candidates = problem.costs(width).argsort()[: min(CANDIDATES * number, remaining)].sort().values
        subproblem, removed = problem.restricted(candidates, width), []
        for _ in range(number):
            candidate_costs = subproblem.costs(width)
            cheapest = int((candidate_costs <= (1 + TIE) * candidate_costs.min()).nonzero()[0])
            # Scores differ by at least one ulp, so that sorting them restores the order of removal.
            highest = max(float(candidate_costs[cheapest]), float(np.nextafter(highest, np.inf)))
            costs[ids[candidates[cheapest]]] = highest
            subproblem.remove_(torch.tensor([cheapest]), width)
            removed.append(cheapest)
        problem.remove_(candidates[removed], width)
        remaining -= number
        if remaining <= SHRINK_AT * len(ids):
            present = problem.groups(width)
            ids, problem = ids[present], problem.restricted(present, width)
    return costs


def _damped_inverse(inputs: torch.Tensor, scale: float) -> torch.Tensor:
    """H^-1, with stronger damping if rounding gave H negative eigenvalues."""
    damping = DAMPING * scale
    while True:
        factor, failed = torch.linalg.cholesky_ex(inputs + damping * torch.eye(len(inputs), dtype=torch.float64))
        if not failed:
            return torch.cholesky_inverse(factor)
        damping *= 10


class _Problem:
    """The remaining columns: W^T G W of their present values, and H^-1 of their inputs, both (K, K)."""

    def __init__(self, squares: torch.Tensor, inverse: torch.Tensor) -> None:
        self.squares = squares
        self.inverse = inverse
        self.present = torch.ones(len(inverse), dtype=torch.bool)

    def groups(self, width: int) -> torch.Tensor:
        """Indices of the remaining groups."""
        return self.present[::width].nonzero().flatten()

    def costs(self, width: int) -> torch.Tensor:
        """Cost of removing each group next (U,); infinite for removed groups."""
        if width == 1:  # Fewer operations, whose overhead dominates for small matrices.
            costs = self.squares.diagonal() / self.inverse.diagonal()
            return costs.clamp_min_(0).masked_fill_(~self.present, torch.inf)
        groups = len(self.inverse) // width
        present = self.present[::width]
        inverses, squares = (
            matrix.reshape(groups, width, groups, width).diagonal(dim1=0, dim2=2).permute(2, 0, 1)[present]
            for matrix in (self.inverse, self.squares)
        )
        costs = torch.full((groups,), torch.inf, dtype=torch.float64)
        costs[present] = torch.linalg.solve(inverses, squares).diagonal(dim1=1, dim2=2).sum(1).clamp_min(0)
        return costs

    def restricted(self, groups: torch.Tensor, width: int) -> "_Problem":
        """The problem in which only some groups may be removed."""
        columns = _columns(groups, width)
        return _Problem(self.squares[columns][:, columns], self.inverse[columns][:, columns])

    def remove_(self, groups: torch.Tensor, width: int) -> None:
        """Remove groups and re-solve the others; rows and columns of removed groups become 0."""
        columns = _columns(groups, width)
        rows = self.inverse[columns]
        # The remaining columns change from W to W - W[:, columns] @ update.
        update = rows / rows[:, columns] if len(columns) == 1 else torch.linalg.solve(rows[:, columns], rows)
        half = self.squares[columns] - 0.5 * self.squares[columns][:, columns] @ update
        self.squares.addmm_(torch.cat((half, update)).T, torch.cat((update, half)), alpha=-1)
        self.inverse.addmm_(rows.T, update, alpha=-1)
        self.present[columns] = False


def _columns(groups: torch.Tensor, width: int) -> torch.Tensor:
    return (groups[:, None] * width + torch.arange(width)).reshape(-1)
