"""Kronecker-factored curvature of the loss at output and down projections: the loss increase after a weight change.

For a projection with inputs x (K,) and outputs y (D,), and the gradient g (D,) of an example's loss with respect to y,
with sums over all tokens and examples (empirical Fisher information in Kronecker factors, Martens and Grosse 2015;
structured pruning by it: van der Ouderaa et al. 2024, "The LLM Surgeon")::

    H = sum |g|^2 (x - m)(x - m)^T / sum |g|^2,    m = sum |g|^2 x / sum |g|^2
    G = sum g g^T
    increase of the mean loss    ~ 1/2 tr(dW^T G dW H) / number of examples

Tokens with g = 0, padding included, do not count. The mean m is subtracted because a bias compensates for it; m = 0
without a bias, as in repair. H uses only the tokens that hold 95 % of an example's |g|^2, since each costs O(K^2); G
uses all tokens.

With random projections of the features (`objectives`) in place of the loss, the same sums give half the mean squared
distance of the features.
"""

from collections.abc import Mapping
from typing import Any

import torch

from prunelora.importance.elimination import elimination_costs
from prunelora.importance.hooks import GradientHook, run_with_hooks
from prunelora.importance.losses import count_tokens
from prunelora.importance.moments import OuterSum, WeightedMoments
from prunelora.importance.objectives import Objective
from prunelora.models.anatomy import Anatomy
from prunelora.models.block import Block
from prunelora.models.padding import prepare_batch
from prunelora.progress import over

# H excludes the tokens of an example with the smallest |g|^2, up to this share of their sum.
NEGLIGIBLE = 0.05


class Curvature:
    """Sums for H (K, K) and G (D, D) of every output and down projection."""

    def __init__(self, anatomy: Anatomy, objective: Objective) -> None:
        self.anatomy = anatomy
        self.objective = objective
        self.heads = [_ProjectionMoments(block, "output") if block.num_heads else None for block in anatomy.blocks]
        self.neurons = [_ProjectionMoments(block, "down") if block.num_neurons else None for block in anatomy.blocks]
        self.num_examples = 0
        self.num_tokens = 0

    def add(self, number: int, batch: Mapping[str, Any]) -> None:
        """Run one batch forward and backward and add its tokens."""
        batch = prepare_batch(batch, self.anatomy.model)
        examples = self.objective.count(batch, number)
        hooks = [
            GradientHook(moments.full_name, moments.module, moments.add)
            for moments in (*self.heads, *self.neurons)
            if moments
        ]
        length = run_with_hooks(self.anatomy, batch, number, hooks, self.objective)
        self.num_examples += examples
        self.num_tokens += count_tokens(batch, examples, length)

    def scores(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Increase of the mean loss when each head (H_l,), or neuron (F_l,), is removed in its turn."""
        costs = [
            torch.zeros(0, dtype=torch.float64) if moments is None else moments.costs() / (2 * self.num_examples)
            for moments in over((*self.heads, *self.neurons), "eliminating units")
        ]
        return costs[: len(self.heads)], costs[len(self.heads) :]


class _ProjectionMoments:
    """Moments of one projection's inputs, weighted by |g|^2, and the sum of g g^T, over tokens."""

    def __init__(self, block: Block, name: str) -> None:
        matrix = block.matrix(name)
        self.module = block.part(name)
        self.full_name = block.full_name(name)
        self.weight = matrix.weight
        self.width = matrix.in_features // (block.num_heads if name == "output" else block.num_neurons)
        device = matrix.weight.device
        self.inputs = WeightedMoments(matrix.in_features, device, centred=matrix.bias is not None)
        self.gradients = OuterSum(matrix.out_features, device)

    def add(self, inputs: torch.Tensor, gradients: torch.Tensor) -> None:
        """Add a batch: x (B, T, K) and g (B, T, D)."""
        dtype = torch.promote_types(self.weight.dtype, torch.float32)
        x, g = inputs.to(dtype).flatten(0, -2), gradients.to(dtype).flatten(0, -2)
        self.gradients.add(g)
        weights = g.square().sum(1)
        heavy = _heaviest(weights.reshape(len(gradients), -1)).flatten()
        self.inputs.add(x[heavy], weights[heavy])

    def costs(self) -> torch.Tensor:
        """Cost of removing each unit in its turn, (U,)."""
        if not self.inputs.total:
            return torch.zeros(self.weight.shape[1] // self.width, dtype=torch.float64)
        weight = self.weight.detach().cpu().double()
        costs = elimination_costs(weight, self.inputs.covariance(), self.gradients.matrix(), width=self.width)
        return torch.from_numpy(costs)


def _heaviest(weights: torch.Tensor) -> torch.Tensor:
    """Mask (B, T) of the tokens that remain without each example's lightest ones; tokens of weight 0 never remain.

    Weights that are not finite remain: `elimination_costs` reports them.
    """
    ascending = weights.sort(dim=1, stable=True)
    share = ascending.values.cumsum(1) / weights.sum(1, keepdim=True)
    light = (share <= NEGLIGIBLE) | (ascending.values <= 0)
    return torch.zeros_like(light).scatter(1, ascending.indices, ~light)
