"""Damped least squares from sums over tokens, and the choice of the damping by tokens that the fit has not seen."""

import math

import torch

# Infinity leaves the weights as the cut left them and corrects the bias alone.
DAMPINGS = (1e-4, 1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0, math.inf)
# Output channels that the damping is tried on, at least: all that is tried has the cost of their number.
CHANNELS_TRIED = 64


def exact(one: torch.Tensor) -> torch.Tensor:
    """Copy in float64 on the CPU, out of autograd's graph."""
    return one.detach().cpu().double()


class Moments:
    """Sums over weighted tokens of 1, x, y, x x^T, x y^T and |y|^2, with x and y from origins of their own.

    Products are taken in float32, whose rounding would drown what differs between tokens where x is far from 0 in all
    of them. Sums are kept in float64, on the CPU: not every device has float64.
    """

    def __init__(self, origin_x: torch.Tensor, origin_y: torch.Tensor) -> None:
        self.origin_x, self.origin_y = origin_x, origin_y
        self.count = 0.0
        self.x = torch.zeros(len(origin_x), dtype=torch.float64)
        self.y = torch.zeros(len(origin_y), dtype=torch.float64)
        self.xx = torch.zeros(len(origin_x), len(origin_x), dtype=torch.float64)
        self.xy = torch.zeros(len(origin_x), len(origin_y), dtype=torch.float64)
        self.yy = 0.0

    def add(self, x: torch.Tensor, y: torch.Tensor, weights: torch.Tensor) -> None:
        """Add tokens: x (N, K), y (N, D), and what each counts (N,)."""
        wide = torch.promote_types(x.dtype, torch.float32)
        x, y, weights = x.to(wide) - self.origin_x, y.to(wide) - self.origin_y, weights.to(wide)
        weighted = x * weights[:, None]
        self.count += float(weights.sum())
        self.x += weighted.sum(0).cpu()
        self.y += (weights @ y).cpu()
        self.xx += (weighted.T @ x).cpu()
        self.xy += (weighted.T @ y).cpu()
        self.yy += float(weights @ y.square().sum(1))

    def __add__(self, other: "Moments") -> "Moments":
        """Of the tokens of both, which have one origin."""
        both = Moments(self.origin_x, self.origin_y)
        for name in ("count", "x", "y", "xx", "xy", "yy"):
            setattr(both, name, getattr(self, name) + getattr(other, name))
        return both

    def error(self, weight: torch.Tensor, bias: torch.Tensor) -> float:
        """Mean over the tokens of |W x + b - y|^2."""
        n = self.count
        bias = bias + weight @ exact(self.origin_x) - exact(self.origin_y)
        quadratic = ((weight @ (self.xx / n)) * weight).sum() - 2 * (weight.T * (self.xy / n)).sum() + self.yy / n
        linear = 2 * bias @ (weight @ (self.x / n) - self.y / n) + bias @ bias
        return float(quadratic + linear)

    def of_channels(self, step: int) -> "Moments":
        """The same for every `step`-th channel of y; |y|^2, which no solution changes, is left out."""
        some = Moments(self.origin_x, self.origin_y[::step])
        some.count, some.x, some.xx = self.count, self.x, self.xx
        some.y, some.xy = self.y[::step], self.xy[:, ::step]
        return some

    @property
    def variance(self) -> float:
        """Of the wanted outputs, over all their channels together."""
        return self.yy / self.count - float((self.y / self.count).square().sum())


class LeastSquares:
    """Damped least squares from some moments, towards given weights, for any damping."""

    def __init__(self, moments: Moments, weight: torch.Tensor, *, with_bias: bool) -> None:
        n = moments.count
        self.weight = weight
        # Without a bias there is nothing to take the means up: moments about zero are then the right ones.
        x = moments.x / n if with_bias else torch.zeros_like(moments.x)
        y = moments.y / n if with_bias else torch.zeros_like(moments.y)
        self.mean_x, self.mean_y = x + exact(moments.origin_x), y + exact(moments.origin_y)
        self.covariance = moments.xx / n - torch.outer(x, x)
        self.missing = moments.xy / n - torch.outer(x, y) - self.covariance @ weight.T
        self.scale = float(self.covariance.diagonal().mean()) if weight.numel() else 0.0

    def solve(self, damping: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights (D, K) and bias (D,)."""
        weight = self.weight
        if not math.isinf(damping) and self.scale > 0:
            damped = self.covariance + damping * self.scale * torch.eye(len(self.covariance), dtype=torch.float64)
            factor, failed = torch.linalg.cholesky_ex(damped)
            # Where rounding left a damped variance below 0, this damping is too small to say anything.
            if not failed:
                weight = weight + torch.cholesky_solve(self.missing, factor).T
        return weight, self.mean_y - weight @ self.mean_x


def chosen_damping(weight: torch.Tensor, fitted: Moments, held: Moments, *, with_bias: bool) -> float:
    """The damping with the smallest error on the held-out rows, over some output channels where there are many."""
    step = max(1, len(weight) // CHANNELS_TRIED)
    trial = LeastSquares(fitted.of_channels(step), weight[::step], with_bias=with_bias)
    judge = held.of_channels(step)

    def error(damping: float) -> float:
        found = judge.error(*trial.solve(damping))
        return math.inf if math.isnan(found) else found  # Nothing compares as less than NaN.

    return min(DAMPINGS, key=error)
