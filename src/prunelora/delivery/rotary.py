"""Rotary position embeddings whose frequencies depend on the length of the input, for export and comparison.

transformers recomputes the frequencies of the types "dynamic" and "longrope" in the forward pass and stores them in the
module. A traced graph would have the frequencies of the traced length, and torch's logits depend on earlier inputs.
Here the frequencies are a function of the length only.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

_LONG = "longrope"


@contextlib.contextmanager
def rotary_restored(model: nn.Module) -> Iterator[Callable[[], None]]:
    """Restore the rotary embeddings after the block; yields a function that sets their state for short inputs."""
    rotaries = _changing(model)
    states = [(rotary, dict(vars(rotary)), _buffers(rotary)) for rotary in rotaries]

    def reset() -> None:
        for rotary in rotaries:
            _reset(rotary)

    try:
        yield reset
    finally:
        for rotary, attributes, buffers in states:
            rotary.__dict__.clear()
            rotary.__dict__.update(attributes)
            rotary._buffers = dict(buffers)


@contextlib.contextmanager
def rotary_by_length(model: nn.Module) -> Iterator[None]:
    """Make rotary embeddings compute their frequencies from the length with traceable operations."""
    rotaries = _changing(model)
    for rotary in rotaries:
        rotary.forward = functools.partial(_forward, rotary)
    try:
        yield
    finally:
        for rotary in rotaries:
            del rotary.forward


def lengths_of_change(model: nn.Module) -> set[int]:
    """Largest lengths at which the rotary embeddings of a model use their frequencies for short inputs."""
    return {
        int(_parameters(rotary, kind)["original_max_position_embeddings"])
        if name == _LONG
        else int(rotary.config.max_position_embeddings)
        for rotary in _changing(model)
        for kind, name in _types(rotary).items()
        if _changes(name)
    }


def _changing(model: nn.Module) -> list[Any]:
    """Rotary embeddings of a model whose frequencies depend on the length."""
    rotaries = [module for module in model.modules() if hasattr(module, "rope_type") and hasattr(module, "config")]
    return [rotary for rotary in rotaries if any(map(_changes, _types(rotary).values()))]


def _changes(rope_type: str) -> bool:
    return "dynamic" in rope_type or rope_type == _LONG


def _types(rotary: Any) -> dict[str | None, str]:
    """Types by kind of layer; the only key is None if all layers have the same type."""
    return rotary.rope_type if isinstance(rotary.rope_type, dict) else {None: rotary.rope_type}


def _parameters(rotary: Any, kind: str | None) -> dict[str, Any]:
    parameters = rotary.config.rope_parameters
    return parameters if kind is None else parameters[kind]


def _prefix(kind: str | None) -> str:
    return "" if kind is None else f"{kind}_"


def _buffers(rotary: nn.Module) -> dict[str, Any]:
    # Cloned, because "longrope" writes into its buffer in place.
    return {name: None if buffer is None else buffer.clone() for name, buffer in rotary._buffers.items()}


def _reset(rotary: Any) -> None:
    for kind in _types(rotary):
        prefix = _prefix(kind)
        setattr(rotary, f"{prefix}inv_freq", getattr(rotary, f"{prefix}original_inv_freq").clone())
        if hasattr(rotary, f"{prefix}max_seq_len_cached"):
            setattr(rotary, f"{prefix}max_seq_len_cached", rotary.original_max_seq_len)


def _forward(rotary: Any, x: torch.Tensor, position_ids: torch.Tensor, layer_type: str | None = None) -> Any:
    """The module's forward without its update of frequencies, with the frequencies of the present length."""
    forward: Any = type(rotary).forward
    while hasattr(forward, "__wrapped__"):
        forward = forward.__wrapped__
    length = position_ids.max() + 1
    view = _With(rotary, **{f"{_prefix(layer_type)}inv_freq": _frequencies(rotary, length, layer_type)})
    return forward(view, x, position_ids, **({} if layer_type is None else {"layer_type": layer_type}))


def _frequencies(rotary: Any, length: torch.Tensor, kind: str | None) -> torch.Tensor:
    name, short = _types(rotary)[kind], getattr(rotary, f"{_prefix(kind)}original_inv_freq")
    if not _changes(name):
        return short
    make = functools.partial(ROPE_INIT_FUNCTIONS[name], rotary.config, short.device, layer_type=kind)
    if name != _LONG:
        return make(seq_len=length)[0]
    last = int(_parameters(rotary, kind)["original_max_position_embeddings"])
    return torch.where(length > last, make(seq_len=last + 1)[0], short)


class _With:
    """A view of a module with other values for some attributes."""

    def __init__(self, module: Any, **values: Any) -> None:
        self.__dict__.update(values)
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)
