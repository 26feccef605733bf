"""Gates: numbers that multiply each head's context vector and each neuron's activation, set from outside by hooks.

The gate of a head sits just before the attention output projection, which is the same as scaling its attention
probabilities after the softmax; the gate of a neuron sits just before the down projection. Forward pre-hooks put them
there, so the model's own code, eager or SDPA, is used as it is.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

from prunelora.models.anatomy import Anatomy

# (block index, input of the projection (B, T, U * width)) -> what the projection shall see instead.
GateFunction = Callable[[int, torch.Tensor], torch.Tensor]


@contextlib.contextmanager
def gated(anatomy: Anatomy, on_heads: GateFunction, on_neurons: GateFunction) -> Iterator[None]:
    """Pass the input of every output and down projection through a function while the block runs.

    Blocks with no head, or no neuron, have no gate there.
    """
    handles = []
    try:
        for block in anatomy.blocks:
            if block.num_heads:
                handles.append(_hook(block.part("output"), on_heads, block.index))
            if block.num_neurons:
                handles.append(_hook(block.part("down"), on_neurons, block.index))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def multiplied(anatomy: Anatomy, heads: Sequence[torch.Tensor], neurons: Sequence[torch.Tensor]) -> Iterator[None]:
    """Multiply by given gates while the block runs.

    Args:
        anatomy: The model.
        heads: For every layer, gates of shape (H_l,) or, one row an example, (B, H_l).
        neurons: For every layer, gates of shape (F_l,) or (B, F_l).
    """

    def multiply(gates: Sequence[torch.Tensor]) -> GateFunction:
        def apply(layer: int, inputs: torch.Tensor) -> torch.Tensor:
            gate = gates[layer].to(inputs)
            width = inputs.shape[-1] // gate.shape[-1]
            # (B, H) -> (B, 1, H * d_h), the same value for all of a head's channels and for every token.
            return inputs * gate.repeat_interleave(width, dim=-1).reshape(-1, 1, inputs.shape[-1])

        return apply

    with gated(anatomy, multiply(heads), multiply(neurons)):
        yield


def _hook(projection: nn.Module, function: GateFunction, layer: int) -> torch.utils.hooks.RemovableHandle:
    def before(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (function(layer, inputs[0]), *inputs[1:])

    return projection.register_forward_pre_hook(before)
