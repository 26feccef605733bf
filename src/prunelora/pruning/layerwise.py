"""Running a model layer by layer: what every layer is called with, and what flows through its parts."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from torch import nn

from prunelora.errors import UnsupportedModelError
from prunelora.models.anatomy import Anatomy
from prunelora.models.block import Block
from prunelora.models.device import on_device

_HIDDEN = "hidden_states"
# What a layer of a decoder calls the output of the encoder that it attends to.
_MEMORY = "encoder_hidden_states"


@dataclass(frozen=True)
class Projection:
    """A projection back into the residual stream: "output" or "down" of a block."""

    block: Block
    name: str

    @property
    def full_name(self) -> str:
        """Within the whole model."""
        return self.block.full_name(self.name)

    @property
    def module(self) -> nn.Module:
        """The linear layer, or what is left of it."""
        return self.block.part(self.name)

    @property
    def entry(self) -> nn.Module:
        """What the hidden states of the residual stream go into, on their way to the projection."""
        return self.block.part("up" if self.name == "down" else "attention")


@dataclass(frozen=True)
class Layer:
    """A module with one block in it; or with two, in the decoder of an encoder-decoder."""

    module: nn.Module
    blocks: tuple[Block, ...]

    @property
    def projections(self) -> tuple[Projection, ...]:
        """Projections back into the residual stream, in the order they run."""
        return tuple(
            Projection(block, name)
            for block in self.blocks
            for name in (("output", "down") if block.family.feed_forward else ("output",))
        )


def layers_of(anatomy: Anatomy) -> tuple[Layer, ...]:
    """All layers, in the order they run; of an encoder-decoder, the encoder's first."""
    grouped = (tuple(blocks) for _, blocks in groupby(anatomy.blocks, key=lambda block: block.prefix))
    return tuple(Layer(blocks[0].module, blocks) for blocks in grouped)


@dataclass(frozen=True)
class Call:
    """How one batch goes through one layer.

    Attributes:
        start: What the layer reads (B, T, D) where it is the first of the model, or of its decoder; None elsewhere.
        real: Which tokens are no padding, (B, T), bool.
        args: Further positional arguments: masks, position tables.
        kwargs: Keyword arguments.
    """

    start: torch.Tensor | None
    real: torch.Tensor
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


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


def layer_calls(anatomy: Anatomy, batch: Mapping[str, Any]) -> tuple[Call, ...]:
    """Run a batch through the model once, and note what every layer was called with.

    An encoder-decoder needs to know what its decoder reads: the batch says it, or its labels, or the model makes it of
    what the encoder reads.

    Raises:
        UnsupportedModelError: If a layer is not called once, with the hidden states first.
    """
    inputs, layers = dict(on_device(batch, anatomy.model)), layers_of(anatomy)
    first = {id(next(stack).module) for _, stack in groupby(layers, key=lambda layer: layer.blocks[0].family.blocks)}
    seen: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        rest = {name: value for name, value in kwargs.items() if name != _HIDDEN}
        # Only a first layer's is kept: the others' would fill the memory, and are made again on the way.
        hidden = (args[0] if args else kwargs.get(_HIDDEN)) if id(module) in first else None
        seen.append((hidden, tuple(args[1:]), rest))

    handles = [layer.module.register_forward_pre_hook(note, with_kwargs=True) for layer in layers]
    try:
        if anatomy.family.encoder_decoder:
            anatomy.model(**inputs, use_cache=False)
        else:
            # A cache of keys and values would grow every time that a layer is run again.
            uncached = {"use_cache": False} if anatomy.family.decoder else {}
            anatomy.base(**{name: value for name, value in inputs.items() if name != "labels"}, **uncached)
    finally:
        for handle in handles:
            handle.remove()
    if len(seen) != len(layers) or not isinstance(seen[0][0], torch.Tensor):
        raise UnsupportedModelError(
            f"{type(anatomy.model).__name__}: its {len(layers)} blocks were called {len(seen)} times; they can "
            "be run one by one only where each is called once, with the hidden states first. Cut it without repair "
            "(--no-repair, or repair: false in the recipe)."
        )
    calls: list[Call] = []
    for layer, (hidden, args, kwargs) in zip(layers, seen, strict=True):
        real = calls[-1].real if hidden is None else _real_tokens(layer, inputs, hidden)
        calls.append(Call(hidden, real, args, kwargs))
    return tuple(calls)


def _real_tokens(layer: Layer, inputs: Mapping[str, Any], hidden: torch.Tensor) -> torch.Tensor:
    """Which of a stack's tokens are no padding, (B, T)."""
    mask = inputs.get("attention_mask")
    if len(layer.blocks) > 1:  # A decoder that attends to an encoder.
        labels = inputs.get("labels")
        if inputs.get("decoder_attention_mask") is not None:
            mask = inputs["decoder_attention_mask"]
        elif labels is not None and labels.dtype == torch.long and labels.shape == hidden.shape[:2]:
            mask = labels != -100  # Words that the decoder is to give, one for each that it reads.
        elif mask is not None and mask.shape != hidden.shape[:2]:
            mask = None
    return torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device) if mask is None else mask.bool()


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
        heard.entries.append(args[0] if args else kwargs[_HIDDEN])

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
