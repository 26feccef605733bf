"""What the layers of a model are called with: masks, positions, and which tokens are no padding."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import nn

from prunelora.errors import UnsupportedModelError, advice
from prunelora.models.anatomy import Anatomy
from prunelora.models.padding import readable
from prunelora.pruning.layers import Layer, layers_of

HIDDEN = "hidden_states"


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


class LayerCalls:
    """What every layer is called with, by batch.

    Masks and positions seldom depend on what the layers compute. Where the first batch shows that they do not, the
    layers are not run for the others, each gives back what it reads, and the calls of a batch are noted again whenever
    they are asked for: masks of all rows would fill the memory. Where they do depend on it, as in encoder-decoders,
    calls are kept up to a limit, and those beyond it take a forward pass each time.

    An encoder-decoder needs to know what its decoder reads: the batch says it, or its labels, or the model makes it of
    what the encoder reads.
    """

    def __init__(self, anatomy: Anatomy, batches: Sequence[Mapping[str, Any]], *, most_bytes: int) -> None:
        """Note nothing yet.

        Args:
            anatomy: The model that is called.
            batches: Dicts as `model(**batch)` takes them.
            most_bytes: Of calls that are kept.
        """
        self.anatomy, self.batches, self.most_bytes = anatomy, batches, most_bytes
        self.layers = layers_of(anatomy)
        self._skipping: bool | None = None
        self._lengths: list[int | None] = []
        self._kept: dict[int, tuple[Call, ...]] = {}
        self._bytes_kept = 0

    def of(self, number: int) -> tuple[Call, ...]:
        """The calls of all layers for one batch.

        Raises:
            UnsupportedModelError: If a layer is not called once, with the hidden states first, or does not read what
                the layer before it gave.
        """
        if number in self._kept:
            return self._kept[number]
        inputs = dict(readable(self.batches[number], self.anatomy.model))
        if self._skipping:
            with _skipped(self.layers, self._lengths):
                return _noted_calls(self.anatomy, self.layers, inputs)
        with _tuples_of(self.layers) as lengths, _nothing_between(self.anatomy, self.layers):
            calls = _noted_calls(self.anatomy, self.layers, inputs)
        if self._skipping is None:
            self._lengths = lengths
            with _skipped(self.layers, lengths):
                self._skipping = _equal(calls, _noted_calls(self.anatomy, self.layers, inputs))
        size = sum({id(one): one.numel() * one.element_size() for one in _tensors(calls)}.values())
        if not self._skipping and self._bytes_kept + size <= self.most_bytes:
            self._kept[number] = calls
            self._bytes_kept += size
        return calls


def _noted_calls(anatomy: Anatomy, layers: Sequence[Layer], inputs: Mapping[str, Any]) -> tuple[Call, ...]:
    """Run a batch through the model once."""
    first = _first_of_stacks(layers)
    seen: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        rest = {name: value for name, value in kwargs.items() if name != HIDDEN}
        # Only a first layer's is kept: the others' would fill the memory, and are made again on the way.
        hidden = (args[0] if args else kwargs.get(HIDDEN)) if id(module) in first else None
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
            f"({advice('repair', False)})."
        )
    calls: list[Call] = []
    for layer, (hidden, args, kwargs) in zip(layers, seen, strict=True):
        real = calls[-1].real if hidden is None else _real_tokens(layer, inputs, hidden)
        calls.append(Call(hidden, real, args, kwargs))
    return tuple(calls)


def _first_of_stacks(layers: Sequence[Layer]) -> set[int]:
    """Identities of the modules that are the first layers of an encoder and of a decoder."""
    return {id(next(stack).module) for _, stack in groupby(layers, key=lambda layer: layer.blocks[0].family.blocks)}


@contextmanager
def _nothing_between(anatomy: Anatomy, layers: Sequence[Layer]) -> Iterator[None]:
    """Hold every layer to read what the one before it gave, or they cannot be run one by one.

    Raises:
        UnsupportedModelError: If a model computes something between them, as some DeBERTas convolve.
    """
    first, given = _first_of_stacks(layers), [torch.empty(0)]

    def gives(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        given[0] = output[0] if isinstance(output, tuple) else output

    def reads(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden = args[0] if args else kwargs.get(HIDDEN)
        if id(module) in first or hidden is given[0] or not isinstance(hidden, torch.Tensor):
            return
        if not torch.equal(hidden, given[0]):
            raise UnsupportedModelError(
                f"{type(anatomy.model).__name__}: something is computed between its blocks, so they cannot be run one "
                f"by one. Cut it without repair ({advice('repair', False)})."
            )

    handles = [layer.module.register_forward_hook(gives) for layer in layers]
    handles += [layer.module.register_forward_pre_hook(reads, with_kwargs=True) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _tuples_of(layers: Sequence[Layer]) -> Iterator[list[int | None]]:
    """How long the tuple is that each layer gives, in the order they run; None where it gives a tensor."""
    lengths: list[int | None] = []

    def note(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        lengths.append(len(output) if isinstance(output, tuple) else None)

    handles = [layer.module.register_forward_hook(note) for layer in layers]
    try:
        yield lengths
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _skipped(layers: Sequence[Layer], lengths: Sequence[int | None]) -> Iterator[None]:
    """Every layer gives back what it reads, and None for all else that it gives."""

    def through(length: int | None) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            hidden = args[0] if args else kwargs[HIDDEN]
            return hidden if length is None else (hidden, *[None] * (length - 1))

        return forward

    own = [vars(layer.module).get("forward") for layer in layers]
    try:
        for layer, length in zip(layers, lengths, strict=True):
            layer.module.forward = through(length)
        yield
    finally:
        for layer, before in zip(layers, own, strict=True):
            vars(layer.module).pop("forward", None)
            if before is not None:
                layer.module.forward = before


def _equal(one: Any, other: Any) -> bool:
    """Whether two calls, or parts of them, say the same; what cannot be told does not."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other)
    if type(one) is not type(other):
        return False
    if isinstance(one, Call):
        return _equal(vars(one), vars(other))
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(_equal(value, other[key]) for key, value in one.items())
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(_equal(*pair) for pair in zip(one, other, strict=True))
    return one is other or (isinstance(one, bool | int | float | str) and one == other)


def _tensors(one: Any) -> Iterator[torch.Tensor]:
    """Those in a call, or a part of it."""
    if isinstance(one, torch.Tensor):
        yield one
        return
    parts = vars(one) if isinstance(one, Call) else one
    if isinstance(parts, Mapping):
        parts = tuple(parts.values())
    if isinstance(parts, tuple | list):
        for part in parts:
            yield from _tensors(part)


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
