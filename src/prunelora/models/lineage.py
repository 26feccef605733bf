"""Ids of a model's heads and neurons in the base model, before any pruning."""

from dataclasses import dataclass

from prunelora.models.architecture import Architecture


@dataclass(frozen=True)
class Lineage:
    """The base architecture, and for every layer the sorted base ids of the present heads and neurons.

    Attributes:
        base: Sizes of the model before any pruning.
        heads: For every layer, ids in 0..H-1.
        neurons: For every layer, ids in 0..F-1.
    """

    base: Architecture
    heads: tuple[tuple[int, ...], ...]
    neurons: tuple[tuple[int, ...], ...]

    @classmethod
    def whole(cls, architecture: Architecture) -> "Lineage":
        """The lineage of an unpruned model."""
        return cls(
            base=architecture,
            heads=tuple(tuple(range(count)) for count in architecture.num_heads),
            neurons=tuple(tuple(range(count)) for count in architecture.num_neurons),
        )
