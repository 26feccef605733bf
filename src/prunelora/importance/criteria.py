"""Importance criteria.

A gradient criterion sums a function of each example's gate gradients. A curvature criterion estimates the loss increase
after removing units one after another. A weight criterion needs no data.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from prunelora.errors import ScoreError, one_of, option
from prunelora.importance.objectives import FEATURES, LOSS, Objective
from prunelora.models.block import Block
from prunelora.models.matrices import Matrix


@dataclass(frozen=True)
class GradientCriterion:
    """Scores are sums over examples, divided by the number of tokens.

    Attributes:
        contribution: Maps the gate gradients of one batch (B, U) to the terms of the sum (B, U).
    """

    contribution: Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class CurvatureCriterion:
    """Scores are increases of an objective after removing units and re-solving the remaining ones: see `curvature`.

    Attributes:
        objective: The loss, or the vectors that the task head reads.
    """

    objective: Objective


@dataclass(frozen=True)
class WeightCriterion:
    """Scores depend on the weights alone, or on nothing.

    Attributes:
        scores: Maps a block and a generator to scores of its heads (H_l,) and neurons (F_l,).
    """

    scores: Callable[[Block, torch.Generator], tuple[torch.Tensor, torch.Tensor]]


def _magnitude(block: Block, _: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Frobenius norm of all weights that pruning removes with the unit, biases excluded."""
    heads = torch.zeros(block.num_heads, dtype=torch.float64)
    if block.num_heads:
        for name in ("query", "key", "value"):
            heads += _squares(block.matrix(name)).sum(1).reshape(block.num_heads, -1).sum(1)
        heads += _squares(block.matrix("output")).sum(0).reshape(block.num_heads, -1).sum(1)
    neurons = torch.zeros(block.num_neurons, dtype=torch.float64)
    if block.num_neurons:
        neurons += _squares(block.matrix("up")).sum(1) + _squares(block.matrix("down")).sum(0)
        if block.family.gate:
            neurons += _squares(block.matrix("gate")).sum(1)
    return heads.sqrt(), neurons.sqrt()


def _squares(matrix: Matrix) -> torch.Tensor:
    return matrix.weight.detach().to("cpu", torch.float64) ** 2


def _random(block: Block, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Uniform random numbers, as a control."""
    heads, neurons = block.num_heads, block.num_neurons
    return (
        torch.rand(heads, dtype=torch.float64, generator=generator),
        torch.rand(neurons, dtype=torch.float64, generator=generator),
    )


Criterion = GradientCriterion | CurvatureCriterion | WeightCriterion

CRITERIA: dict[str, Criterion] = {
    "gradient": GradientCriterion(torch.abs),  # Michel et al. 2019, I_h; eq. 1 of Wang et al. 2023.
    "fisher": GradientCriterion(torch.square),  # Diagonal empirical Fisher information of the gates.
    "obs": CurvatureCriterion(LOSS),  # Structured optimal brain surgeon: van der Ouderaa et al. 2024.
    "features": CurvatureCriterion(FEATURES),  # The same, with the distance of the features for the loss.
    "magnitude": WeightCriterion(_magnitude),
    "random": WeightCriterion(_random),
}


def find_criterion(name: str) -> Criterion:
    """The criterion with a name.

    Raises:
        ScoreError: If there is none.
    """
    if name not in CRITERIA:
        raise ScoreError(f"{option('criterion', name)} is unknown.{one_of(name, CRITERIA)}")
    return CRITERIA[name]
