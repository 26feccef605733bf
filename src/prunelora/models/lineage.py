"""Where the heads and neurons of a model come from: their ids in the base model that was first cut."""

from dataclasses import dataclass

from prunelora.models.architecture import Architecture


@dataclass(frozen=True)
class Lineage:
    """Base architecture, and for every layer the sorted base ids of the heads and neurons that are still there.

    Attributes:
        base: Sizes of the model before anything was cut.
        heads: For every layer, ids in 0..H-1.
        neurons: For every layer, ids in 0..F-1.
    """

    base: Architecture
    heads: tuple[tuple[int, ...], ...]
    neurons: tuple[tuple[int, ...], ...]

    @classmethod
    def whole(cls, architecture: Architecture) -> "Lineage":
        """The lineage of a model that nothing was cut from."""
        return cls(
            base=architecture,
            heads=tuple(tuple(range(count)) for count in architecture.num_heads),
            neurons=tuple(tuple(range(count)) for count in architecture.num_neurons),
        )
