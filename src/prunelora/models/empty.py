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

    def __init__(self, in_features: int, *, had_bias: bool = True) -> None:
        """Remember the width it used to read, and whether it had a bias."""
        super().__init__()
        self.in_features = in_features
        self.out_features = 0
        self.had_bias = had_bias

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map (B, T, D) to (B, T, 0)."""
        return inputs[..., :0]


class NoHeads(nn.Module):
    """An attention module with no head left; it keeps the output projection where the original had one inside."""

    def __init__(
        self,
        head_dim: int,
        output_name: str | None = None,
        output: nn.Module | None = None,
        *,
        had_bias: bool = True,
        position_projections: int = 0,
        layer_idx: int | None = None,
        norm_name: str | None = None,
        norm: nn.Module | None = None,
    ) -> None:
        """Hold `output` under the name the original module used, so that parameter names stay what they were.

        `had_bias` and `position_projections` say what the heads had. A decoder's layer also has its place in the cache
        of keys and values, `layer_idx`. Where the original adds its input and takes a norm itself, this does the same:
        `norm`, under the name it had.
        """
        super().__init__()
        self.head_dim = head_dim
        self.had_bias = had_bias
        self.position_projections = position_projections
        self.layer_idx = layer_idx
        self.output_name = output_name
        if output_name is not None:
            self.add_module(output_name, output)
        self.norm_name = norm_name
        if norm_name is not None:
            self.add_module(norm_name, norm)

    def forward(
        self, hidden_states: torch.Tensor, *_: Any, past_key_values: Any = None, **__: Any
    ) -> tuple[torch.Tensor, None]:
        """Map (B, T, D) to the context of no heads (B, T, 0), or to (B, T, D) through the output projection inside."""
        if past_key_values is not None and self.layer_idx is not None:
            # Keys of no heads: models ask the first layer's cache how many tokens came before.
            nothing = hidden_states.new_zeros(hidden_states.shape[0], 0, hidden_states.shape[1], self.head_dim)
            past_key_values.update(nothing, nothing, self.layer_idx)
        context = hidden_states[..., :0]
        if self.output_name is not None:
            context = self.get_submodule(self.output_name)(context)
        if self.norm_name is not None:
            context = self.get_submodule(self.norm_name)(hidden_states + context)
        return context, None
