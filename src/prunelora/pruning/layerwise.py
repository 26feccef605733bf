"""Runs a model layer by layer and returns the activations around its projections."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from prunelora.errors import UnsupportedModelError
from prunelora.pruning.layer_inputs import HIDDEN, LayerInputs
from prunelora.pruning.layers import Layer, hooks

# Name under which a decoder's layer receives the encoder's output.
_MEMORY = "encoder_hidden_states"


@dataclass(frozen=True)
class Activations:
    """Activations around a projection back into the residual stream, for one batch.

    Attributes:
        inputs: Input of the projection (B, T, K).
        residual: Residual stream to which the output is added (B, T, D).
        output: Output of the projection (B, T, D).
        scale: Factor of the output before the addition (D,); None if the family has none.
    """

    inputs: torch.Tensor
    residual: torch.Tensor
    output: torch.Tensor
    scale: torch.Tensor | None = None

    @property
    def total(self) -> torch.Tensor:
        """The residual stream after the addition (B, T, D)."""
        return self.residual + (self.output if self.scale is None else self.scale * self.output)

    def output_for(self, total: torch.Tensor) -> torch.Tensor:
        """The output of the projection with which the residual stream after the addition is `total`."""
        added = total - self.residual
        if self.scale is None:
            return added
        return torch.where(self.scale == 0, self.output, added / self.scale)  # Any output fits where the scale is 0.


class _ProjectionReached(Exception):
    """The requested projection has run."""


def run_layer(
    layer: Layer, inputs: LayerInputs, hidden: torch.Tensor, memory: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the hidden states after a layer.

    Args:
        layer: Of the model whose inputs were recorded, or of a model with the same layers.
        inputs: Recorded inputs.
        hidden: Hidden states before the layer (B, T, D).
        memory: The encoder's output (B, S, D) for a decoder's layer, in place of the recorded one.
    """
    args, kwargs = inputs.args, inputs.kwargs
    if memory is not None and _MEMORY in kwargs:
        kwargs = {**kwargs, _MEMORY: memory}
    elif memory is not None:
        position = list(inspect.signature(layer.module.forward).parameters).index(_MEMORY) - 1
        args = (*args[:position], memory, *args[position + 1 :])
    output = layer.module(hidden, *args, **kwargs)
    return output[0] if isinstance(output, tuple) else output


def run_with_activations(
    layer: Layer, inputs: LayerInputs, hidden: torch.Tensor
) -> tuple[torch.Tensor, list[Activations]]:
    """Return the hidden states after a layer and the activations around each of its projections."""
    with _recording(layer) as recorded:
        output = run_layer(layer, inputs, hidden)
    return output, _activations(layer, hidden, recorded)


def run_to_projection(
    layer: Layer, number: int, inputs: LayerInputs, hidden: torch.Tensor, memory: torch.Tensor | None = None
) -> Activations:
    """Run a layer up to one of its projections and return the activations around it."""
    with _recording(layer, stop_at=number) as recorded:
        try:
            run_layer(layer, inputs, hidden, memory)
        except _ProjectionReached:
            return _activations(layer, hidden, recorded)[number]
    raise UnsupportedModelError(f"{layer.projections[number].full_name}: the layer ran without this projection.")


@dataclass(frozen=True)
class _Recorded:
    """Inputs and outputs of a layer's projections, and the inputs of their `entry` modules."""

    inputs: list[torch.Tensor] = field(default_factory=list)
    outputs: list[torch.Tensor] = field(default_factory=list)
    entries: list[torch.Tensor] = field(default_factory=list)


def _activations(layer: Layer, hidden: torch.Tensor, recorded: _Recorded) -> list[Activations]:
    """Activations around the projections that ran."""
    activations: list[Activations] = []
    for number, output in enumerate(recorded.outputs):
        projection = layer.projections[number]
        family = projection.block.family
        residual = hidden
        if activations:
            # In a post-norm layer the residual stream is the normalised sum, which the next entry reads.
            residual = activations[-1].total if family.prenorm else recorded.entries[number]
        scale = None
        if family.scales:
            scale = projection.block.module.get_parameter(family.scales[projection.name == "down"])
        activations.append(Activations(recorded.inputs[number], residual, output, scale))
    return activations


@contextmanager
def _recording(layer: Layer, *, stop_at: int | None = None) -> Iterator[_Recorded]:
    recorded = _Recorded()

    def record_entry(_: nn.Module, args: tuple[torch.Tensor, ...], kwargs: dict[str, Any]) -> None:
        recorded.entries.append(args[0] if args else kwargs[HIDDEN])

    def record_projection(number: int) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            recorded.inputs.append(args[0])
            recorded.outputs.append(output)
            if number == stop_at:
                raise _ProjectionReached

        return hook

    projections = layer.projections
    entries = [projection.entry.register_forward_pre_hook(record_entry, with_kwargs=True) for projection in projections]
    outputs = [
        projection.module.register_forward_hook(record_projection(number))
        for number, projection in enumerate(projections)
    ]
    with hooks([*entries, *outputs]):
        yield recorded
