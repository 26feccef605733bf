"""Curvature of the loss by output and down projections: what a change of one costs, as far as gradients tell.

For a projection that reads x (K,) and gives y (D,), with the gradient g (D,) of an example's loss by y, over all tokens
and examples (empirical Fisher information in Kronecker factors, Martens and Grosse 2015; for cutting with what stays
solved anew: van der Ouderaa et al. 2024, "The LLM Surgeon")::

    H = sum |g|^2 (x - m)(x - m)^T / sum |g|^2,    m = sum |g|^2 x / sum |g|^2
    G = sum g g^T
    mean loss goes up by about    1/2 tr(dW^T G dW H) / number of examples

A token that the loss does not depend on counts for nothing, padding included. The mean m is left out because a bias
makes up for it; m = 0 for a projection that has none, as in repair. An example's loss depends on few of its tokens: H
uses only its heaviest, which hold 95 % of its |g|^2, since a token takes K^2 products there; G, where it takes D^2,
uses all tokens.
"""

from collections.abc import Mapping
from typing import Any

import torch

from prunelora.importance.elimination import costs_of_leaving_out
from prunelora.importance.losses import count_examples, count_tokens
from prunelora.importance.moments import OuterSum, WeightedMoments
from prunelora.importance.taps import Tap, listen
from prunelora.models.anatomy import Anatomy
from prunelora.models.block import Block
from prunelora.models.padding import readable
from prunelora.progress import over

# The lightest tokens of an example are left out of H, as long as they hold no more than this share of its |g|^2.
NEGLIGIBLE = 0.05


class Curvature:
    """Sums of H and G of every output and down projection: a matrix (K, K) and one (D, D) for each."""

    def __init__(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        self.heads = [_Moments(block, "output") if block.num_heads else None for block in anatomy.blocks]
        self.neurons = [_Moments(block, "down") if block.num_neurons else None for block in anatomy.blocks]
        self.num_examples = 0
        self.num_tokens = 0

    def add(self, number: int, batch: Mapping[str, Any]) -> None:
        """Run one batch forward and backward and add its tokens."""
        model = self.anatomy.model
        batch = readable(batch, model)
        examples = count_examples(batch, number)
        taps = [Tap(one.full_name, one.module, one.add) for one in (*self.heads, *self.neurons) if one]
        length = listen(model, batch, number, taps)
        self.num_examples += examples
        self.num_tokens += count_tokens(batch, examples, length)

    def scores(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """What leaving out each head (H_l,) and each neuron (F_l,) adds to the mean loss when its turn comes."""
        costs = [
            torch.zeros(0, dtype=torch.float64) if one is None else one.costs() / (2 * self.num_examples)
            for one in over((*self.heads, *self.neurons), "leaving units out")
        ]
        return costs[: len(self.heads)], costs[len(self.heads) :]


class _Moments:
    """Moments of one projection's inputs, weighted by |g|^2, and the sum of g g^T, over tokens."""

    def __init__(self, block: Block, name: str) -> None:
        matrix = block.matrix(name)
        self.module = block.part(name)
        self.full_name = block.full_name(name)
        self.weight = matrix.weight
        self.width = matrix.in_features // (block.num_heads if name == "output" else block.num_neurons)
        device = matrix.weight.device
        self.inputs = WeightedMoments(matrix.in_features, device, centred=matrix.bias is not None)
        self.errors = OuterSum(matrix.out_features, device)

    def add(self, inputs: torch.Tensor, gradients: torch.Tensor) -> None:
        """Add a batch: x (B, T, K) and g (B, T, D)."""
        dtype = torch.promote_types(self.weight.dtype, torch.float32)
        x, g = inputs.to(dtype).flatten(0, -2), gradients.to(dtype).flatten(0, -2)
        self.errors.add(g)
        weights = g.square().sum(1)
        heavy = _heaviest(weights.reshape(len(gradients), -1)).flatten()
        self.inputs.add(x[heavy], weights[heavy])

    def costs(self) -> torch.Tensor:
        """Of leaving each unit out when its turn comes, (U,)."""
        if not self.inputs.total:
            return torch.zeros(self.weight.shape[1] // self.width, dtype=torch.float64)
        weight = self.weight.detach().cpu().double()
        costs = costs_of_leaving_out(weight, self.inputs.covariance(), self.errors.matrix(), width=self.width)
        return torch.from_numpy(costs)


def _heaviest(weights: torch.Tensor) -> torch.Tensor:
    """Which tokens of every example stay when its lightest go (B, T): bool. Those of no weight always go.

    Weights that are not finite stay: they are found, and said, where the sums are used.
    """
    lightest = weights.sort(dim=1, stable=True)
    share = lightest.values.cumsum(1) / weights.sum(1, keepdim=True)
    go = (share <= NEGLIGIBLE) | (lightest.values <= 0)
    return torch.zeros_like(go).scatter(1, lightest.indices, ~go)
