"""Context managers that restore a model and the random generators after use, and the check for finite weights."""

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from prunelora.errors import DivergenceError


@contextlib.contextmanager
def random_state_kept() -> Iterator[None]:
    """Restore the state of every global random generator: Python's, NumPy's, and torch's on all devices."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@contextlib.contextmanager
def left_as_found(model: nn.Module) -> Iterator[None]:
    """Restore every module's training mode, every weight's requires_grad, and the random state."""
    training = {module: module.training for module in model.modules()}
    requires_grad = {parameter: parameter.requires_grad for parameter in model.parameters()}
    try:
        with random_state_kept():
            yield
    finally:
        for module, mode in training.items():
            module.training = mode
        for parameter, flag in requires_grad.items():
            parameter.requires_grad_(flag)


def check_finite(model: nn.Module, operation: str) -> None:
    """Check that every weight of a model is finite.

    Args:
        model: The model.
        operation: The operation that needs finite weights, for the message.

    Raises:
        DivergenceError: Naming the first weight that is not.
    """
    for name, parameter in model.named_parameters():
        if not bool(parameter.isfinite().all()):
            count = int((~parameter.isfinite()).sum())
            raise DivergenceError(
                f"{operation}: {count:,} of {parameter.numel():,} numbers in {name} are not finite, as after diverged "
                "training. Train again from finite weights, with a lower learning_rate."
            )
