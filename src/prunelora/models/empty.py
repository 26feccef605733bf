"""What stands in a block whose heads, or whose neurons, are all gone.

`nn.Linear` of width 0 would compute the same, but attention cannot reshape a tensor of no elements, and exported graphs
with empty matrix products are not run everywhere. These modules hold only what is left: the bias of the projection back
into the residual stream.
"""

from typing import Any

import torch
from torch import nn
from transformers.cache_utils import EncoderDecoderCache


class BiasOnly(nn.Module):
    """An output or down projection that nothing flows into any more: its bias, for every token."""

    def __init__(self, out_features: int, bias: nn.Parameter | None) -> None:
        """Take over the bias of the projection; `None` gives zeros."""
        super().__init__()
        self.in_features = 0
        self.out_features = out_features
        self.weight = None  # Some models ask for its dtype.
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
        self, hidden_states: torch.Tensor, *_: Any, past_key_values: Any = None, key_value_states: Any = None, **__: Any
    ) -> tuple[Any, ...]:
        """Map (B, T, D) to the context of no heads (B, T, 0), or to (B, T, D) through the output projection inside."""
        self.enter_cache(past_key_values, hidden_states, key_value_states)
        context = hidden_states[..., :0]
        if self.output_name is not None:
            context = self.get_submodule(self.output_name)(context)
        if self.norm_name is not None:
            context = self.get_submodule(self.norm_name)(hidden_states + context)
        return context, None

    def enter_cache(self, cache: Any, hidden_states: torch.Tensor, attended: torch.Tensor | None) -> int:
        """Take the layer's place in the cache of keys and values, where there is one.

        Args:
            cache: Of all layers, or None.
            hidden_states: Of the present tokens (B, T, D).
            attended: What is attended to, (B, S, D), where that is not the tokens themselves and those before them.

        Returns:
            How many tokens are attended to, with those from before.
        """
        source = hidden_states if attended is None else attended
        if cache is None or self.layer_idx is None:
            return source.shape[1]
        if isinstance(cache, EncoderDecoderCache) and attended is not None:
            if cache.is_updated.get(self.layer_idx):
                return source.shape[1]
            cache.is_updated[self.layer_idx] = True
            cache = cache.cross_attention_cache
        elif isinstance(cache, EncoderDecoderCache):
            cache = cache.self_attention_cache
        # Models ask the first layer's part how many tokens came before: a channel of one head says it, no head would
        # say none.
        nothing = source.new_zeros(source.shape[0], 1, source.shape[1], 1)
        keys: torch.Tensor = cache.update(nothing, nothing, self.layer_idx)[0]
        return keys.shape[-2]
