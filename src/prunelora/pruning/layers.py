"""The layers of a model, in the order they run, and their projections back into the residual stream."""

from dataclasses import dataclass
from itertools import groupby

from torch import nn

from prunelora.models.anatomy import Anatomy
from prunelora.models.block import Block


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
