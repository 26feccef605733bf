"""Listening to modules of a frozen model: what each reads, and the gradient of the loss by what it gives."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from prunelora.importance.losses import check_that_all_ran, summed_loss

# Takes what a module read (B, T, K) and the gradient by what it gave (B, T, D).
Heard = Callable[[torch.Tensor, torch.Tensor], None]


@dataclass
class Tap:
    """Listens to one module.

    Attributes:
        name: Of the module within the whole model.
        module: It gives one tensor (B, T, D).
        heard: Called in the backward pass.
        length: T of what last passed through it; 0 while nothing has.
    """

    name: str
    module: nn.Module
    heard: Heard
    length: int = 0


def listen(model: nn.Module, batch: Mapping[str, Any], number: int, taps: Sequence[Tap]) -> int:
    """Run a batch forward and backward, for the gradients of its summed loss.

    Args:
        model: With every weight frozen.
        batch: On the model's device.
        number: Of the batch, for messages.
        taps: Modules to listen to.

    Returns:
        T of the longest that passed through a tap.

    Raises:
        ScoreError: If the batch has no labels, its loss is missing or not finite, or a module did not run.
    """
    # Every weight is frozen; this alone makes gradients flow, back to the first module.
    anchor = torch.zeros((), device=next(model.parameters()).device, requires_grad=True)
    for tap in taps:
        tap.length = 0
    with torch.enable_grad(), contextlib.ExitStack() as stack:
        for tap in taps:
            stack.enter_context(_tapped(tap, anchor))
        loss = summed_loss(model, batch, number)
        check_that_all_ran([tap.name for tap in taps if not tap.length], any_ran=bool(taps))
        torch.autograd.grad(loss, anchor)
    return max(tap.length for tap in taps)


class _Listen(torch.autograd.Function):
    """Gives its input back; its gradient is handed on to who listens."""

    @staticmethod
    def forward(
        ctx: Any, output: torch.Tensor, anchor: torch.Tensor, inputs: torch.Tensor, heard: Heard
    ) -> torch.Tensor:
        ctx.save_for_backward(inputs)
        ctx.heard = heard
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None, None]:
        (inputs,) = ctx.saved_tensors
        (gradient,) = gradients
        ctx.heard(inputs, gradient)
        return gradient, gradient.new_zeros(()), None, None


@contextlib.contextmanager
def _tapped(tap: Tap, anchor: torch.Tensor) -> Iterator[None]:
    def hook(_: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        tap.length = output.shape[1]
        listened: torch.Tensor = _Listen.apply(output, anchor, args[0].detach(), tap.heard)
        return listened

    handle = tap.module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
