"""Inputs of every layer of a model, recorded for each batch: hidden states, masks, positions, padding."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import nn

from prunelora.errors import UnsupportedModelError, advice
from prunelora.models.anatomy import Anatomy
from prunelora.models.padding import prepare_batch, real_tokens
from prunelora.pruning.layers import Layer, hooks, layers_of

HIDDEN = "hidden_states"


class LayerInputs(NamedTuple):
    """Inputs of one layer for one batch.

    Attributes:
        hidden: Hidden states (B, T, D) for the first layer of the model or of its decoder; None for other layers.
        real: Which tokens are not padding, (B, T), bool.
        args: Other positional arguments, such as masks and position embeddings.
        kwargs: Keyword arguments.
    """

    hidden: torch.Tensor | None
    real: torch.Tensor
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class InputRecorder:
    """Inputs of every layer, by batch.

    Masks and positions seldom depend on the layers' outputs. If the first batch shows that they do not, later batches
    skip the layers' computation, and inputs are recorded again at every request, since masks of all rows would fill the
    memory. If they do depend on them, as in encoder-decoders, inputs are kept up to `most_bytes`; batches beyond that
    take a full forward pass at every request.

    An encoder-decoder's decoder inputs come from the batch, from its labels, or from the encoder's inputs.
    """

    def __init__(self, anatomy: Anatomy, batches: Sequence[Mapping[str, Any]], *, most_bytes: int) -> None:
        """Record nothing yet.

        Args:
            anatomy: The model that runs.
            batches: Dicts as `model(**batch)` takes them.
            most_bytes: Limit on the size of inputs that are kept.
        """
        self.anatomy, self.batches, self.most_bytes = anatomy, batches, most_bytes
        self.layers = layers_of(anatomy)
        self._skips_layers: bool | None = None
        self._tuple_lengths: list[int | None] = []
        self._kept: dict[int, tuple[LayerInputs, ...]] = {}
        self._bytes_kept = 0

    def of(self, batch: int) -> tuple[LayerInputs, ...]:
        """Inputs of all layers for one batch.

        Raises:
            UnsupportedModelError: If a layer does not run exactly once with the hidden states first, or does not read
                the output of the layer before it.
        """
        if batch in self._kept:
            return self._kept[batch]
        model_inputs = dict(prepare_batch(self.batches[batch], self.anatomy.model))
        if self._skips_layers:
            with _skipping(self.layers, self._tuple_lengths):
                return _record(self.anatomy, self.layers, model_inputs)
        with _recording_tuple_lengths(self.layers) as lengths, _checking_chain(self.anatomy, self.layers):
            inputs = _record(self.anatomy, self.layers, model_inputs)
        if self._skips_layers is None:
            self._tuple_lengths = lengths
            with _skipping(self.layers, lengths):
                self._skips_layers = _equal(inputs, _record(self.anatomy, self.layers, model_inputs))
        size = sum({id(tensor): tensor.numel() * tensor.element_size() for tensor in _tensors(inputs)}.values())
        if not self._skips_layers and self._bytes_kept + size <= self.most_bytes:
            self._kept[batch] = inputs
            self._bytes_kept += size
        return inputs


def _record(anatomy: Anatomy, layers: Sequence[Layer], model_inputs: Mapping[str, Any]) -> tuple[LayerInputs, ...]:
    """Run a batch through the model once and return the inputs of every layer."""
    first = _first_of_stacks(layers)
    recorded: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []

    def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        others = {name: value for name, value in kwargs.items() if name != HIDDEN}
        # Hidden states of later layers would fill the memory; they are computed again layer by layer.
        hidden = _hidden(args, kwargs) if id(module) in first else None
        recorded.append((hidden, tuple(args[1:]), others))

    with hooks(layer.module.register_forward_pre_hook(record, with_kwargs=True) for layer in layers):
        if anatomy.family.encoder_decoder:
            anatomy.model(**model_inputs, use_cache=False)
        else:
            # A key-value cache would grow each time a layer runs again.
            uncached = {"use_cache": False} if anatomy.family.decoder else {}
            anatomy.base(**{name: value for name, value in model_inputs.items() if name != "labels"}, **uncached)
    if len(recorded) != len(layers) or not isinstance(recorded[0][0], torch.Tensor):
        raise UnsupportedModelError(
            f"Repair runs a model layer by layer, which needs each layer to run once with the hidden states first. The "
            f"{len(layers)} layers of {type(anatomy.model).__name__} ran {len(recorded)} times. Prune without repair "
            f"({advice('repair', False)})."
        )
    inputs: list[LayerInputs] = []
    for layer, (hidden, args, kwargs) in zip(layers, recorded, strict=True):
        real = inputs[-1].real if hidden is None else real_tokens(model_inputs, hidden, decoder=len(layer.blocks) > 1)
        inputs.append(LayerInputs(hidden, real, args, kwargs))
    return tuple(inputs)


def _hidden(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    return args[0] if args else kwargs.get(HIDDEN)


def _first_of_stacks(layers: Sequence[Layer]) -> set[int]:
    """Ids of the modules that are the first layer of an encoder or of a decoder."""
    return {id(next(stack).module) for _, stack in groupby(layers, key=lambda layer: layer.blocks[0].family.blocks)}


@contextmanager
def _checking_chain(anatomy: Anatomy, layers: Sequence[Layer]) -> Iterator[None]:
    """Check that every layer reads the output of the layer before it.

    Raises:
        UnsupportedModelError: If the model computes something between them, such as the convolution of some DeBERTas.
    """
    first, previous = _first_of_stacks(layers), [torch.empty(0)]

    def keep_output(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        previous[0] = output[0] if isinstance(output, tuple) else output

    def check_input(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden = _hidden(args, kwargs)
        if id(module) in first or hidden is previous[0] or not isinstance(hidden, torch.Tensor):
            return
        if not torch.equal(hidden, previous[0]):
            raise UnsupportedModelError(
                f"Repair runs a model layer by layer, and {type(anatomy.model).__name__} computes something between "
                f"its layers. Prune without repair ({advice('repair', False)})."
            )

    outputs = [layer.module.register_forward_hook(keep_output) for layer in layers]
    inputs = [layer.module.register_forward_pre_hook(check_input, with_kwargs=True) for layer in layers]
    with hooks([*outputs, *inputs]):
        yield


@contextmanager
def _recording_tuple_lengths(layers: Sequence[Layer]) -> Iterator[list[int | None]]:
    """Yields a list that receives the length of each layer's output tuple; None for an output that is a tensor."""
    lengths: list[int | None] = []

    def record(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        lengths.append(len(output) if isinstance(output, tuple) else None)

    with hooks(layer.module.register_forward_hook(record) for layer in layers):
        yield lengths


@contextmanager
def _skipping(layers: Sequence[Layer], tuple_lengths: Sequence[int | None]) -> Iterator[None]:
    """Make every layer return its input unchanged, with None for other outputs."""

    def identity(length: int | None) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            hidden = _hidden(args, kwargs)
            return hidden if length is None else (hidden, *[None] * (length - 1))

        return forward

    overridden = [vars(layer.module).get("forward") for layer in layers]
    try:
        for layer, length in zip(layers, tuple_lengths, strict=True):
            layer.module.forward = identity(length)
        yield
    finally:
        for layer, forward in zip(layers, overridden, strict=True):
            vars(layer.module).pop("forward", None)
            if forward is not None:
                layer.module.forward = forward


def _equal(first: Any, second: Any) -> bool:
    """Whether two inputs, or parts of them, are equal; False if they cannot be compared."""
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return first.shape == second.shape and first.dtype == second.dtype and torch.equal(first, second)
    if type(first) is not type(second):
        return False
    if isinstance(first, Mapping):
        return first.keys() == second.keys() and all(_equal(value, second[key]) for key, value in first.items())
    if isinstance(first, tuple | list):
        return len(first) == len(second) and all(_equal(*pair) for pair in zip(first, second, strict=True))
    return first is second or (isinstance(first, bool | int | float | str) and first == second)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """All tensors in nested inputs."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors(part)
