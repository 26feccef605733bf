"""Borrowing a model: whatever is switched while it is used is put back afterwards."""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn


@contextlib.contextmanager
def left_as_found(model: nn.Module) -> Iterator[None]:
    """Put back every module's training mode, every weight's requires_grad, and the random state."""
    training = {module: module.training for module in model.modules()}
    required = {parameter: parameter.requires_grad for parameter in model.parameters()}
    devices = sorted({p.device for p in model.parameters() if p.device.type == "cuda"}, key=str)
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        for module, mode in training.items():
            module.training = mode
        for parameter, mode in required.items():
            parameter.requires_grad_(mode)
