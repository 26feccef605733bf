"""What stands in a block whose heads, or whose neurons, are all gone.

`nn.Linear` of width 0 would compute the same, but attention cannot reshape a tensor of no elements, and exported graphs
with empty matrix products are not run everywhere. These modules hold only what is left: the bias of the projection back
into the residual stream.
"""

from typing import Any

import torch
from torch import nn


class BiasOnly(nn.Module):
    """An output or down projection that nothing flows into any more: its bias, for every token."""

    def __init__(self, out_features: int, bias: nn.Parameter | None) -> None:
        """Take over the bias of the projection; `None` gives zeros."""
        super().__init__()
        self.in_features = 0
        self.out_features = out_features
        self.bias = bias

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map (B, T, 0) to (B, T, D)."""
        shape = (*inputs.shape[:-1], self.out_features)
        if self.bias is None:
            return inputs.new_zeros(shape)
        return self.bias.expand(shape)


class NoNeurons(nn.Module):
    """An up projection with no neuron left."""

    def __init__(self, in_features: int) -> None:
        """Remember the width it used to read."""
        super().__init__()
        self.in_features = in_features
        self.out_features = 0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map (B, T, D) to (B, T, 0)."""
        return inputs[..., :0]


class NoHeads(nn.Module):
    """An attention module with no head left; it keeps the output projection where the original had one inside."""

    def __init__(self, head_dim: int, output_name: str | None = None, output: nn.Module | None = None) -> None:
        """Hold `output` under the name the original module used, so that parameter names stay what they were."""
        super().__init__()
        self.head_dim = head_dim
        self.output_name = output_name
        if output_name is not None:
            self.add_module(output_name, output)

    def forward(self, hidden_states: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, None]:
        """Map (B, T, D) to the context of no heads (B, T, 0), or to (B, T, D) through the output projection inside."""
        context = hidden_states[..., :0]
        if self.output_name is not None:
            context = self.get_submodule(self.output_name)(context)
        return context, None
