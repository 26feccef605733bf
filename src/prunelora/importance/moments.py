"""Second moments and sums of outer products over batches, independent of the order of the batches.

Products within a batch are computed in float32, twice as fast as in float64; sums over batches are float64. A symmetric
matrix is stored as panels of its lower triangle, which take little more memory than the whole matrix in float32 and
nearly halve the products::

    rows 0 to 3      0 1 2 3
    rows 4 to 7      0 1 2 3 4 5 6 7
    rows 8 to 11     0 1 2 3 4 5 6 7 8 9 10 11
"""

from itertools import pairwise

import torch

# More panels save memory and products; small panels multiply slowly.
MOST_PANELS = 8
LEAST_PANEL = 64


class OuterSum:
    """The sum over batches of X^T X, for X (N, K): shape (K, K)."""

    def __init__(self, size: int, device: torch.device) -> None:
        number = max(1, min(MOST_PANELS, size // LEAST_PANEL))
        self.panels = [
            (start, torch.zeros(end - start, end, dtype=torch.float64, device=_with_float64(device)))
            for start, end in pairwise(round(size * panel / number) for panel in range(number + 1))
        ]

    def add(self, x: torch.Tensor) -> None:
        """Add the products of a batch, X (N, K), computed in its dtype."""
        for start, panel in self.panels:
            end = panel.shape[1]
            panel += (x[:, start:end].T @ x[:, :end]).to(panel.device)

    def add_outer(self, x: torch.Tensor, weight: float) -> None:
        """Add `weight` x x^T for a vector x (K,) in float64."""
        for start, panel in self.panels:
            end = panel.shape[1]
            panel.addr_(x[start:end], x[:end], alpha=weight)

    def matrix(self) -> torch.Tensor:
        """The sum, (K, K), symmetric, on the CPU."""
        size = self.panels[-1][1].shape[1]
        lower = torch.zeros(size, size, dtype=torch.float64)
        for start, panel in self.panels:
            lower[start : panel.shape[1], : panel.shape[1]] = panel.cpu()
        return lower.tril() + lower.tril(-1).T


class WeightedMoments:
    """Mean and second moments of weighted vectors.

    A batch is centred at its own mean before the products, because rounding errors far from the mean would exceed the
    differences between vectors. Batches are then combined in float64 (Chan, Golub and LeVeque 1979).
    """

    def __init__(self, size: int, device: torch.device, *, centred: bool) -> None:
        self.centred = centred
        self.total = 0.0
        self.mean = torch.zeros(size, dtype=torch.float64, device=_with_float64(device))
        self.scatter = OuterSum(size, device)

    def add(self, x: torch.Tensor, weights: torch.Tensor) -> None:
        """Add a batch: vectors (N, K) and the weight of each (N,)."""
        added = float(weights.to(self.mean).sum())
        if not added:  # A NaN passes, and is reported when the moments are used.
            return
        if self.centred:
            mean = weights @ x / added
            x = x - mean
            total = self.total + added
            step = mean.to(self.mean) - self.mean
            self.scatter.add_outer(step, self.total * added / total)
            self.mean += step * (added / total)
        self.scatter.add(x * weights.sqrt()[:, None])
        self.total += added

    def covariance(self) -> torch.Tensor:
        """Covariance: sum w (x - m)(x - m)^T / sum w, (K, K); m = 0 if vectors are not centred."""
        return self.scatter.matrix() / self.total


def _with_float64(device: torch.device) -> torch.device:
    """The device, or the CPU if the device has no float64."""
    return torch.device("cpu") if device.type == "mps" else device
