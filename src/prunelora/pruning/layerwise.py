"""Running a model layer by layer: what flows through the parts of each."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from prunelora.errors import UnsupportedModelError
from prunelora.pruning.calls import HIDDEN, Call
from prunelora.pruning.layers import Layer

# What a layer of a decoder calls the output of the encoder that it attends to.
_MEMORY = "encoder_hidden_states"


@dataclass(frozen=True)
class Part:
    """A projection back into the residual stream, for one batch.

    Attributes:
        inputs: What it reads (B, T, K).
        residual: What its output is added to (B, T, D).
        output: What it gives (B, T, D).
        scale: What multiplies its output before (D,); None where nothing does.
    """

    inputs: torch.Tensor
    residual: torch.Tensor
    output: torch.Tensor
    scale: torch.Tensor | None = None

    @property
    def added_up(self) -> torch.Tensor:
        """What goes on (B, T, D)."""
        return self.residual + (self.output if self.scale is None else self.scale * self.output)

    def missing_to(self, wanted: torch.Tensor) -> torch.Tensor:
        """What the part would have to give, for `wanted` to go on."""
        missing = wanted - self.residual
        if self.scale is None:
            return missing
        return torch.where(self.scale == 0, self.output, missing / self.scale)  # What a 0 multiplies does not matter.


class _Reached(Exception):
    """The part that was asked for has run."""


def run_layer(layer: Layer, call: Call, hidden: torch.Tensor, memory: torch.Tensor | None = None) -> torch.Tensor:
    """Hidden states behind a layer.

    Args:
        layer: Of the model that was called, or of one with the same layers.
        call: What it was called with.
        hidden: What it reads (B, T, D).
        memory: What a decoder's layer attends to (B, S, D), in place of what it was called with.
    """
    args, kwargs = call.args, call.kwargs
    if memory is not None and _MEMORY in kwargs:
        kwargs = {**kwargs, _MEMORY: memory}
    elif memory is not None:
        place = list(inspect.signature(layer.module.forward).parameters).index(_MEMORY) - 1
        args = (*args[:place], memory, *args[place + 1 :])
    output = layer.module(hidden, *args, **kwargs)
    return output[0] if isinstance(output, tuple) else output


def run_with_parts(layer: Layer, call: Call, hidden: torch.Tensor) -> tuple[torch.Tensor, list[Part]]:
    """Hidden states behind a layer, and what its `projections` read, give, and are added to."""
    with _listening(layer) as heard:
        behind = run_layer(layer, call, hidden)
    return behind, _parts(layer, hidden, heard)


def run_up_to(layer: Layer, number: int, call: Call, hidden: torch.Tensor, memory: torch.Tensor | None = None) -> Part:
    """What one of the layer's `projections` reads, gives, and is added to; what lies behind it is not run."""
    with _listening(layer, stop_at=number) as heard:
        try:
            run_layer(layer, call, hidden, memory)
        except _Reached:
            return _parts(layer, hidden, heard)[number]
    raise UnsupportedModelError(f"{layer.projections[number].full_name}: the block ran without passing through it.")


@dataclass(frozen=True)
class _Heard:
    """What flowed into the projections of a layer and out of them, and what of the residual stream led there."""

    inputs: list[torch.Tensor] = field(default_factory=list)
    outputs: list[torch.Tensor] = field(default_factory=list)
    entries: list[torch.Tensor] = field(default_factory=list)


def _parts(layer: Layer, hidden: torch.Tensor, heard: _Heard) -> list[Part]:
    """Parts of a layer, as far as it was run."""
    parts: list[Part] = []
    for number, output in enumerate(heard.outputs):
        projection = layer.projections[number]
        family = projection.block.family
        residual = hidden
        if parts:
            # Where norms are taken of sums, what goes on is what is read next.
            residual = parts[-1].added_up if family.prenorm else heard.entries[number]
        scale = None
        if family.scales:
            scale = projection.block.module.get_parameter(family.scales[projection.name == "down"])
        parts.append(Part(heard.inputs[number], residual, output, scale))
    return parts


@contextmanager
def _listening(layer: Layer, *, stop_at: int | None = None) -> Iterator[_Heard]:
    heard = _Heard()

    def enter(_: nn.Module, args: tuple[torch.Tensor, ...], kwargs: dict[str, Any]) -> None:
        heard.entries.append(args[0] if args else kwargs[HIDDEN])

    def listen(number: int) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            heard.inputs.append(args[0])
            heard.outputs.append(output)
            if number == stop_at:
                raise _Reached

        return hook

    handles = []
    try:
        for number, projection in enumerate(layer.projections):
            handles.append(projection.entry.register_forward_pre_hook(enter, with_kwargs=True))
            handles.append(projection.module.register_forward_hook(listen(number)))
        yield heard
    finally:
        for handle in handles:
            handle.remove()
