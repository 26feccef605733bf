"""Memory of one training step, counted from the tensors themselves, so that it is the same on every device."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from prunelora.evaluation.counting import weight_bytes
from prunelora.models.device import on_device
from prunelora.models.state import left_as_found


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes that one training step needs at least.

    Attributes:
        weights_bytes: All parameters.
        gradients_bytes: Gradients of the trainable ones.
        optimizer_bytes: State of the optimiser for the trainable ones.
        saved_bytes: Tensors that autograd keeps from the forward for the backward pass.
    """

    weights_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    saved_bytes: int

    @property
    def total(self) -> int:
        """All together."""
        return self.weights_bytes + self.gradients_bytes + self.optimizer_bytes + self.saved_bytes


def saved_for_backward_bytes(model: nn.Module, batch: Mapping[str, Any]) -> int:
    """Bytes that autograd keeps between the forward and the backward pass of one training step.

    The model runs forward in training mode, with gradients for whatever requires them now, and is left as it was found.
    Tensors that share memory count once; the model's own parameters and buffers do not count.

    Args:
        model: Pruned or not, with or without an adapter.
        batch: As `model(**batch)` takes it, with `labels`.

    Returns:
        Bytes.
    """
    own = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    saved: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with left_as_found(model), _problem_type_kept(model), torch.enable_grad():
        model.train()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            # The graph, and with it every saved tensor, must live until all are counted: else addresses come up again.
            output = model(**on_device(batch, model))
        total = sum(saved.values())
        del output
    return total


def training_memory(model: nn.Module, batch: Mapping[str, Any], *, optimizer_states: int = 2) -> TrainingMemory:
    """Count the memory of one training step.

    Args:
        model: As it is trained: with its adapter, and `requires_grad` set.
        batch: As `model(**batch)` takes it, with `labels`.
        optimizer_states: Numbers that the optimiser keeps for every trainable one: 2 for Adam, 0 for plain SGD.
    """
    trainable = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    return TrainingMemory(
        weights_bytes=weight_bytes(model),
        gradients_bytes=trainable,
        optimizer_bytes=optimizer_states * trainable,
        saved_bytes=saved_for_backward_bytes(model, batch),
    )


@contextlib.contextmanager
def _problem_type_kept(model: nn.Module) -> Iterator[None]:
    """Transformers writes the kind of task that it guesses from the labels into the configuration."""
    config: Any = getattr(model, "config", None)
    found = getattr(config, "problem_type", None)
    try:
        yield
    finally:
        if hasattr(config, "problem_type"):
            config.problem_type = found
