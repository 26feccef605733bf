"""Replacement modules for blocks from which all heads, or all neurons, were removed.

`nn.Linear` of width 0 would compute the same, but attention cannot reshape a tensor without elements, and some runtimes
reject graphs with empty matrix products. These modules hold only the bias of the projection back into the residual
stream.
"""

from typing import Any

import torch
from torch import nn
from transformers.cache_utils import EncoderDecoderCache


class BiasOnly(nn.Module):
    """An output or down projection without inputs: returns its bias for every token."""

    def __init__(self, out_features: int, bias: nn.Parameter | None) -> None:
        """Take the bias of the projection; `None` stands for zeros."""
        super().__init__()
        self.in_features = 0
        self.out_features = out_features
        self.weight = None  # T5 reads its dtype.
        self.bias = bias

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map (B, T, 0) to (B, T, D)."""
        shape = (*inputs.shape[:-1], self.out_features)
        if self.bias is None:
            return inputs.new_zeros(shape)
        return self.bias.expand(shape)


class NoNeurons(nn.Module):
    """An up projection without neurons."""

    def __init__(self, in_features: int, *, had_bias: bool = True) -> None:
        """Record the input width of the replaced projection, and whether it had a bias."""
        super().__init__()
        self.in_features = in_features
        self.out_features = 0
        self.had_bias = had_bias

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map (B, T, D) to (B, T, 0)."""
        return inputs[..., :0]


class NoHeads(nn.Module):
    """An attention module without heads; holds the output projection if the replaced module contained it."""

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
        """Keep `output` and `norm` under the names in the replaced module, so that parameter names do not change.

        `had_bias` and `position_projections` describe the removed heads. `layer_idx` is a decoder layer's index in the
        cache of keys and values. `norm` is given if the replaced module adds its input and normalises the sum itself.
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
        """Map (B, T, D) to an empty context (B, T, 0), or to (B, T, D) if the output projection is inside."""
        self.enter_cache(past_key_values, hidden_states, key_value_states)
        context = hidden_states[..., :0]
        if self.output_name is not None:
            context = self.get_submodule(self.output_name)(context)
        if self.norm_name is not None:
            context = self.get_submodule(self.norm_name)(hidden_states + context)
        return context, None

    def enter_cache(self, cache: Any, hidden_states: torch.Tensor, attended: torch.Tensor | None) -> int:
        """Add the present tokens to the layer's entry in the cache of keys and values, if there is a cache.

        Args:
            cache: The cache of all layers, or None.
            hidden_states: Hidden states of the present tokens (B, T, D).
            attended: Encoder output (B, S, D) for cross-attention; None for self-attention.

        Returns:
            Number of attended tokens, cached ones included.
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
        # Models read the number of past tokens from the first layer's entry. A tensor of no heads would report 0, so
        # the entry holds one head of one channel.
        placeholder = source.new_zeros(source.shape[0], 1, source.shape[1], 1)
        keys: torch.Tensor = cache.update(placeholder, placeholder, self.layer_idx)[0]
        return keys.shape[-2]
