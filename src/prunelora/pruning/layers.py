"""The layers of a model in execution order, and their projections back into the residual stream."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby

from torch import nn
from torch.utils.hooks import RemovableHandle

from prunelora.models.anatomy import Anatomy
from prunelora.models.block import Block


@dataclass(frozen=True)
class Projection:
    """A projection back into the residual stream: "output" or "down" of a block."""

    block: Block
    name: str

    @property
    def full_name(self) -> str:
        """Name within the whole model."""
        return self.block.full_name(self.name)

    @property
    def module(self) -> nn.Module:
        """The linear layer; `BiasOnly` if every head or neuron was pruned."""
        return self.block.part(self.name)

    @property
    def entry(self) -> nn.Module:
        """The module that reads the residual stream on the way to this projection: attention, or up projection."""
        return self.block.part("up" if self.name == "down" else "attention")


@dataclass(frozen=True)
class Layer:
    """A module with one block; with two blocks in the decoder of an encoder-decoder."""

    module: nn.Module
    blocks: tuple[Block, ...]

    @property
    def projections(self) -> tuple[Projection, ...]:
        """Projections back into the residual stream, in execution order."""
        return tuple(
            Projection(block, name)
            for block in self.blocks
            for name in (("output", "down") if block.family.feed_forward else ("output",))
        )


def layers_of(anatomy: Anatomy) -> tuple[Layer, ...]:
    """All layers in execution order; the encoder's come before the decoder's."""
    grouped = (tuple(blocks) for _, blocks in groupby(anatomy.blocks, key=lambda block: block.prefix))
    return tuple(Layer(blocks[0].module, blocks) for blocks in grouped)


@contextmanager
def hooks(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    """Remove hooks when the block ends."""
    handles = list(handles)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
