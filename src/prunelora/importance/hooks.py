"""Hooks on modules of a frozen model that collect each module's input and the gradient at its output."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from prunelora.importance.losses import check_that_all_ran
from prunelora.importance.objectives import Objective
from prunelora.models.anatomy import Anatomy

# Takes a module's input (B, T, K) and the gradient of the objective at its output (B, T, D).
Callback = Callable[[torch.Tensor, torch.Tensor], None]


@dataclass
class GradientHook:
    """A hook on one module.

    Attributes:
        name: Name of the module within the whole model.
        module: A module that returns one tensor (B, T, D).
        callback: Called in the backward pass.
        length: T of the module's last output; 0 if it has not run.
    """

    name: str
    module: nn.Module
    callback: Callback
    length: int = 0


def run_with_hooks(
    anatomy: Anatomy, batch: Mapping[str, Any], number: int, hooks: Sequence[GradientHook], objective: Objective
) -> int:
    """Run a batch forward and backward, with gradients of an objective.

    Args:
        anatomy: Of a model whose weights are all frozen.
        batch: On the model's device.
        number: Number of the batch, for messages.
        hooks: Hooks to call.
        objective: The loss or the features.

    Returns:
        The largest T of the hooked modules' outputs.

    Raises:
        ScoreError: If a module did not run, and as the objective raises it.
    """
    # With all weights frozen, this is the only leaf that requires a gradient; it makes autograd reach every hook.
    anchor = torch.zeros((), device=next(anatomy.model.parameters()).device, requires_grad=True)
    for hook in hooks:
        hook.length = 0
    with torch.enable_grad(), contextlib.ExitStack() as stack:
        for hook in hooks:
            stack.enter_context(_hooked(hook, anchor))
        value = objective.value(anatomy, batch, number)
        check_that_all_ran([hook.name for hook in hooks if not hook.length], any_ran=bool(hooks))
        torch.autograd.grad(value, anchor)
    return max(hook.length for hook in hooks)


class _GradientCallback(torch.autograd.Function):
    """The identity, which passes its gradient to a callback in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, output: torch.Tensor, anchor: torch.Tensor, inputs: torch.Tensor, callback: Callback
    ) -> torch.Tensor:
        ctx.save_for_backward(inputs)
        ctx.callback = callback
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None, None]:
        (inputs,) = ctx.saved_tensors
        (gradient,) = gradients
        ctx.callback(inputs, gradient)
        return gradient, gradient.new_zeros(()), None, None


@contextlib.contextmanager
def _hooked(hook: GradientHook, anchor: torch.Tensor) -> Iterator[None]:
    def forward_hook(_: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        hook.length = output.shape[1]
        identical: torch.Tensor = _GradientCallback.apply(output, anchor, args[0].detach(), hook.callback)
        return identical

    handle = hook.module.register_forward_hook(forward_hook)
    try:
        yield
    finally:
        handle.remove()
