"""Gates: factors on each head's context vector and each neuron's activation, applied by forward pre-hooks.

The gate of a head sits just before the attention output projection, which equals scaling its attention probabilities
after the softmax. The gate of a neuron sits just before the down projection. The model's own attention code, eager or
SDPA, runs unchanged.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

from prunelora.models.anatomy import Anatomy

# Maps a block index and the input of a projection (B, T, U * width) to the input that replaces it.
GateFunction = Callable[[int, torch.Tensor], torch.Tensor]


@contextlib.contextmanager
def gated(anatomy: Anatomy, on_heads: GateFunction, on_neurons: GateFunction) -> Iterator[None]:
    """Pass the input of every output and down projection through a function inside the `with` block.

    Transformer blocks without heads, or without neurons, have no gate there.
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
    """Multiply heads and neurons by given gates inside the `with` block.

    Args:
        anatomy: The model.
        heads: For every layer, gates of shape (H_l,) or (B, H_l).
        neurons: For every layer, gates of shape (F_l,) or (B, F_l).
    """

    def multiply(gates: Sequence[torch.Tensor]) -> GateFunction:
        def apply(layer: int, inputs: torch.Tensor) -> torch.Tensor:
            gate = gates[layer].to(inputs)
            width = inputs.shape[-1] // gate.shape[-1]
            # (B, H) -> (B, 1, H * d_h): one value for all channels of a head and all tokens.
            return inputs * gate.repeat_interleave(width, dim=-1).reshape(-1, 1, inputs.shape[-1])

        return apply

    with gated(anatomy, multiply(heads), multiply(neurons)):
        yield


def _hook(projection: nn.Module, function: GateFunction, layer: int) -> torch.utils.hooks.RemovableHandle:
    def replace_input(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (function(layer, inputs[0]), *inputs[1:])

    return projection.register_forward_pre_hook(replace_input)
