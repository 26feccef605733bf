"""Damped least squares from moments of tokens, with the damping chosen on held-out tokens."""

import math

import torch

# With infinity the weights stay as they are after the cut, and only the bias is fitted.
DAMPINGS = (1e-4, 1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0, math.inf)
# The damping is chosen on at least this many output channels; the cost of the choice grows with their number.
CHANNELS_TRIED = 64


def to_float64(tensor: torch.Tensor) -> torch.Tensor:
    """Detached copy in float64 on the CPU."""
    return tensor.detach().cpu().double()


class Moments:
    """Weighted sums over tokens of 1, x, y, x x^T, x y^T and |y|^2, with x and y relative to given origins.

    Products are computed in float32, in which the differences between tokens would vanish if all x were far from 0.
    Sums are float64 on the CPU, because not every device has float64.
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
        """Add tokens: x (N, K), y (N, D), weights (N,)."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        x, y, weights = x.to(dtype) - self.origin_x, y.to(dtype) - self.origin_y, weights.to(dtype)
        weighted = x * weights[:, None]
        self.count += float(weights.sum())
        self.x += weighted.sum(0).cpu()
        self.y += (weights @ y).cpu()
        self.xx += (weighted.T @ x).cpu()
        self.xy += (weighted.T @ y).cpu()
        self.yy += float(weights @ y.square().sum(1))

    def __add__(self, other: "Moments") -> "Moments":
        """Moments of the tokens of both, which have the same origins."""
        both = Moments(self.origin_x, self.origin_y)
        for name in ("count", "x", "y", "xx", "xy", "yy"):
            setattr(both, name, getattr(self, name) + getattr(other, name))
        return both

    def error(self, weight: torch.Tensor, bias: torch.Tensor) -> float:
        """Mean over the tokens of |W x + b - y|^2."""
        n = self.count
        bias = bias + weight @ to_float64(self.origin_x) - to_float64(self.origin_y)
        quadratic = ((weight @ (self.xx / n)) * weight).sum() - 2 * (weight.T * (self.xy / n)).sum() + self.yy / n
        linear = 2 * bias @ (weight @ (self.x / n) - self.y / n) + bias @ bias
        return float(quadratic + linear)

    def of_channels(self, step: int) -> "Moments":
        """Moments with every `step`-th channel of y; without |y|^2, which is the same for every solution."""
        some = Moments(self.origin_x, self.origin_y[::step])
        some.count, some.x, some.xx = self.count, self.x, self.xx
        some.y, some.xy = self.y[::step], self.xy[:, ::step]
        return some

    @property
    def variance(self) -> float:
        """Variance of y, summed over its channels."""
        return self.yy / self.count - float((self.y / self.count).square().sum())


class LeastSquares:
    """Least squares from moments, damped towards given weights; `solve` takes the damping."""

    def __init__(self, moments: Moments, weight: torch.Tensor, *, with_bias: bool) -> None:
        n = moments.count
        self.weight = weight
        # Without a bias the fit uses moments about zero.
        x = moments.x / n if with_bias else torch.zeros_like(moments.x)
        y = moments.y / n if with_bias else torch.zeros_like(moments.y)
        self.mean_x, self.mean_y = x + to_float64(moments.origin_x), y + to_float64(moments.origin_y)
        self.covariance = moments.xx / n - torch.outer(x, x)
        # S_xy - S_xx W0^T: zero if W0 is the undamped solution already.
        self.residual = moments.xy / n - torch.outer(x, y) - self.covariance @ weight.T
        self.scale = float(self.covariance.diagonal().mean()) if weight.numel() else 0.0

    def solve(self, damping: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights (D, K) and bias (D,)."""
        weight = self.weight
        if not math.isinf(damping) and self.scale > 0:
            damped = self.covariance + damping * self.scale * torch.eye(len(self.covariance), dtype=torch.float64)
            factor, failed = torch.linalg.cholesky_ex(damped)
            # It fails if rounding makes the matrix indefinite: the damping is too small, and the weights stay.
            if not failed:
                weight = weight + torch.cholesky_solve(self.residual, factor).T
        return weight, self.mean_y - weight @ self.mean_x


def chosen_damping(weight: torch.Tensor, fitted: Moments, held_out: Moments, *, with_bias: bool) -> float:
    """The damping with the smallest error on the held-out rows, over a sample of the output channels."""
    step = max(1, len(weight) // CHANNELS_TRIED)
    problem = LeastSquares(fitted.of_channels(step), weight[::step], with_bias=with_bias)
    validation = held_out.of_channels(step)

    def error(damping: float) -> float:
        value = validation.error(*problem.solve(damping))
        return math.inf if math.isnan(value) else value  # min() would never replace NaN.

    return min(DAMPINGS, key=error)
