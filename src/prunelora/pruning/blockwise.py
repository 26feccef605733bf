"""Running a model block by block: what every block is called with, and what flows through its parts."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
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
            "be run one by one only where each is called once, with the hidden states first. Cut it without repair "
            "(--no-repair, or repair: false in the recipe)."
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


def run_with_parts(block: Block, inputs: BlockInputs, hidden: torch.Tensor) -> tuple[torch.Tensor, dict[str, Part]]:
    """Hidden states behind a block, and what its parts "output" and "down" read, give, and are added to."""
    with _listening(block) as heard:
        behind = run_block(block, inputs, hidden)
    return behind, {name: _part(block, name, hidden, heard) for name in ("output", "down")}


def run_up_to(block: Block, part: str, inputs: BlockInputs, hidden: torch.Tensor) -> Part:
    """What the part "output" or "down" reads, gives, and is added to; what lies behind it is not run."""
    with _listening(block, stop_at=part) as heard:
        try:
            run_block(block, inputs, hidden)
        except _Reached:
            return _part(block, part, hidden, heard)
    raise UnsupportedModelError(f"{block.full_name(part)}: the block ran without passing through it.")


def _part(block: Block, name: str, hidden: torch.Tensor, heard: "_Heard") -> Part:
    family = block.family
    of_output, of_down = map(block.module.get_parameter, family.scales) if family.scales else (None, None)
    output = Part(heard.inputs["output"], hidden, heard.outputs["output"], of_output)
    if name == "output":
        return output
    residual = output.added_up if family.prenorm else heard.inputs["up"]
    return Part(heard.inputs["down"], residual, heard.outputs["down"], of_down)


@dataclass(frozen=True)
class _Heard:
    """What flowed into parts of a block and out of them, by name."""

    inputs: dict[str, torch.Tensor] = field(default_factory=dict)
    outputs: dict[str, torch.Tensor] = field(default_factory=dict)


@contextmanager
def _listening(block: Block, *, stop_at: str | None = None) -> Iterator[_Heard]:
    heard = _Heard()

    def listen(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            heard.inputs[name], heard.outputs[name] = args[0], output
            if name == stop_at:
                raise _Reached

        return hook

    handles = [block.part(name).register_forward_hook(listen(name)) for name in ("output", "up", "down")]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()
