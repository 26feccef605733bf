"""The device of a model, and batches on it."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from prunelora.models.embedding_sizes import check_batch


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's first parameter."""
    return next(model.parameters()).device


def on_device(batch: Mapping[str, Any], model: nn.Module) -> dict[str, Any]:
    """Copy of a batch with every tensor on the model's device.

    Raises:
        UnsupportedModelError: If the batch has token or token type ids beyond the model's embeddings, or is too long.
    """
    check_batch(model, batch)
    device = device_of(model)
    return {name: value.to(device) if torch.is_tensor(value) else value for name, value in batch.items()}


def best_device() -> torch.device:
    """An accelerator if there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")
