"""Borrowing a model: whatever is switched while it is used is put back afterwards."""

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from prunelora.errors import DivergenceError


@contextlib.contextmanager
def random_state_kept() -> Iterator[None]:
    """Put back the state of every global random generator: Python's, NumPy's, and torch's on all devices."""
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
    """Put back every module's training mode, every weight's requires_grad, and the random state."""
    training = {module: module.training for module in model.modules()}
    required = {parameter: parameter.requires_grad for parameter in model.parameters()}
    try:
        with random_state_kept():
            yield
    finally:
        for module, mode in training.items():
            module.training = mode
        for parameter, mode in required.items():
            parameter.requires_grad_(mode)


def check_finite(model: nn.Module, what: str) -> None:
    """Hold every weight of a model to be finite.

    Args:
        model: Whose.
        what: Is done with it, for the message.

    Raises:
        DivergenceError: Naming the first weight that is not.
    """
    for name, parameter in model.named_parameters():
        if not bool(parameter.isfinite().all()):
            number = int((~parameter.isfinite()).sum())
            raise DivergenceError(
                f"{what}: {number:,} of {parameter.numel():,} numbers in {name} are not finite, as after a training "
                "that diverged. Train again from weights that are finite, with a lower learning_rate."
            )
