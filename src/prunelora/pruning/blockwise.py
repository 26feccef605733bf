"""Running a model block by block: what every block is called with, and what flows into a part of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from prunelora.errors import UnsupportedModelError
from prunelora.models.anatomy import Anatomy, Block
from prunelora.models.device import on_device

_HIDDEN = "hidden_states"


@dataclass(frozen=True)
class BlockInputs:
    """How one batch goes through the blocks.

    Attributes:
        hidden: What the first block reads (B, T, D).
        real: Which tokens are no padding, (B, T), bool.
        calls: For every block, its further positional arguments and its keyword arguments: masks, position tables.
    """

    hidden: torch.Tensor
    real: torch.Tensor
    calls: tuple[tuple[tuple[Any, ...], dict[str, Any]], ...]

    @property
    def rows(self) -> int:
        """B."""
        return len(self.hidden)


class _Reached(Exception):
    """Carries what flowed into the part."""

    def __init__(self, inputs: torch.Tensor) -> None:
        super().__init__()
        self.inputs = inputs


def block_inputs(anatomy: Anatomy, batch: Mapping[str, Any]) -> BlockInputs:
    """Run a batch through the model once, and note what every block was called with.

    Raises:
        UnsupportedModelError: If a block is not called once, with the hidden states first.
    """
    inputs = {name: value for name, value in on_device(batch, anatomy.model).items() if name != "labels"}
    seen: list[tuple[torch.Tensor | None, tuple[Any, ...], dict[str, Any]]] = []

    def note(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        rest = {name: value for name, value in kwargs.items() if name != _HIDDEN}
        # Only the first block's is kept: the others' would fill the memory, and are made again on the way.
        hidden = (args[0] if args else kwargs.get(_HIDDEN)) if not seen else None
        seen.append((hidden, tuple(args[1:]), rest))

    handles = [block.module.register_forward_pre_hook(note, with_kwargs=True) for block in anatomy.blocks]
    # A cache of keys and values would grow every time that a block is run again.
    uncached = {"use_cache": False} if anatomy.family.decoder else {}
    try:
        anatomy.base(**inputs, **uncached)
    finally:
        for handle in handles:
            handle.remove()
    if len(seen) != len(anatomy.blocks) or not isinstance(seen[0][0], torch.Tensor):
        raise UnsupportedModelError(
            f"{type(anatomy.model).__name__}: its {len(anatomy.blocks)} blocks were called {len(seen)} times; they can "
            "be run one by one only where each is called once, with the hidden states first."
        )
    hidden = seen[0][0]
    mask = inputs.get("attention_mask")
    real = torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device) if mask is None else mask.bool()
    return BlockInputs(hidden, real, tuple((args, kwargs) for _, args, kwargs in seen))


def run_block(block: Block, inputs: BlockInputs, hidden: torch.Tensor) -> torch.Tensor:
    """Hidden states behind a block."""
    args, kwargs = inputs.calls[block.index]
    output = block.module(hidden, *args, **kwargs)
    return output[0] if isinstance(output, tuple) else output


def captured(block: Block, part: str, inputs: BlockInputs, hidden: torch.Tensor) -> torch.Tensor:
    """What flows into a part of the block, such as "down"; what lies behind it is not run."""

    def stop(_: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        raise _Reached(args[0])

    handle = block.part(part).register_forward_pre_hook(stop)
    try:
        run_block(block, inputs, hidden)
    except _Reached as reached:
        return reached.inputs
    finally:
        handle.remove()
    raise UnsupportedModelError(f"{block.full_name(part)}: the block ran without passing through it.")
