"""The model before the first step of a training, which is kept if no checkpoint is better."""

import dataclasses
import math

import torch
from torch import nn
from transformers import Trainer

from prunelora.finetuning.result import VALIDATION, log_entry, validation_metrics
from prunelora.models.state import left_as_found


@dataclasses.dataclass(frozen=True)
class Start:
    """A model before the first step.

    Attributes:
        metrics: Metrics on the validation rows.
        weights: Trainable weights, by name.
    """

    metrics: dict[str, float]
    weights: dict[str, torch.Tensor]

    @classmethod
    def of(cls, model: nn.Module, trainer: Trainer) -> "Start":
        """Evaluate a model before training; the training is not affected."""
        with left_as_found(model):
            entry = log_entry(trainer.evaluate())
        weights = {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}
        return cls(validation_metrics(entry), weights)

    def is_better_than(self, metrics: dict[str, float], main_metric: str) -> bool:
        """Whether the start has a higher main metric, or the same with a lower loss."""

        def rank(metrics: dict[str, float]) -> tuple[float, ...]:
            values = metrics.get(f"{VALIDATION}{main_metric}", math.nan), -metrics.get(f"{VALIDATION}loss", math.nan)
            return tuple(-math.inf if math.isnan(value) else value for value in values)

        return rank(self.metrics) > rank(metrics)

    @torch.no_grad()
    def restore_(self, model: nn.Module) -> None:
        """Set the trainable weights of the model to those before the first step."""
        for name, parameter in model.named_parameters():
            if name in self.weights:
                parameter.copy_(self.weights[name])
