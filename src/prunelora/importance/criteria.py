"""Criteria: what makes a head or a neuron important. One small object each.

A gradient criterion turns the per-example gradient of a gate into a contribution, which is summed over examples. A
curvature criterion asks what the loss loses when units go one after another. A weight criterion needs no data.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from prunelora.errors import ScoreError, one_of, option
from prunelora.models.block import Block
from prunelora.models.matrices import Matrix


@dataclass(frozen=True)
class GradientCriterion:
    """Scores are a mean over tokens of a function of each example's gate gradients.

    Attributes:
        name: What `criterion=` is given.
        source: Where it comes from.
        contribution: Maps gate gradients of one batch (B, U) to what each example adds (B, U).
    """

    name: str
    source: str
    contribution: Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class CurvatureCriterion:
    """Scores are costs of leaving units out, those that stay being solved anew: see `curvature`.

    Attributes:
        name: What `criterion=` is given.
        source: Where it comes from.
    """

    name: str
    source: str


@dataclass(frozen=True)
class WeightCriterion:
    """Scores come from the weights alone, or from nothing.

    Attributes:
        name: What `criterion=` is given.
        source: Where it comes from.
        scores: Maps a block and a generator to scores of its heads (H_l,) and neurons (F_l,).
    """

    name: str
    source: str
    scores: Callable[[Block, torch.Generator], tuple[torch.Tensor, torch.Tensor]]


def _magnitude(block: Block, _: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Frobenius norm of everything that surgery would remove with the unit, biases left out."""
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
    heads, neurons = block.num_heads, block.num_neurons
    return (
        torch.rand(heads, dtype=torch.float64, generator=generator),
        torch.rand(neurons, dtype=torch.float64, generator=generator),
    )


Criterion = GradientCriterion | CurvatureCriterion | WeightCriterion

CRITERIA: dict[str, Criterion] = {
    criterion.name: criterion
    for criterion in (
        GradientCriterion("gradient", "Michel et al. 2019, I_h; eq. 1 of Wang et al. 2023", torch.abs),
        GradientCriterion("fisher", "diagonal empirical Fisher information of the gates", torch.square),
        CurvatureCriterion("obs", "structured optimal brain surgeon: van der Ouderaa et al. 2024"),
        WeightCriterion("magnitude", "Frobenius norm of the weights a unit owns", _magnitude),
        WeightCriterion("random", "uniform numbers from `seed`, as a control", _random),
    )
}


def find_criterion(name: str) -> Criterion:
    """Look a criterion up by name.

    Raises:
        ScoreError: If there is none of that name.
    """
    if name not in CRITERIA:
        raise ScoreError(f"{option('criterion', name)} is unknown.{one_of(name, CRITERIA)}")
    return CRITERIA[name]
