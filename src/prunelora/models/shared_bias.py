"""A bias that all layers share, with a part for every head of the dense model: a cut layer takes its own part."""

import inspect
from collections.abc import Sequence
from typing import Any

from torch import nn

OWN_HEADS = "own_heads"


class OwnHeads:
    """Called before an attention module, it leaves in the shared bias the heads that the module still has.

    Attributes:
        argument: Name of the module's argument that is the bias (B or 1, heads, T, T).
        place: Where that stands where it is given by position.
        heads: Of the dense model, those that are left.
    """

    def __init__(self, argument: str, place: int, heads: Sequence[int]) -> None:
        """Remember which heads are left."""
        self.argument, self.place, self.heads = argument, place, tuple(heads)

    def __call__(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Give the arguments back with the bias of the heads that are left."""
        if kwargs.get(self.argument) is not None:
            return args, {**kwargs, self.argument: kwargs[self.argument][:, list(self.heads)]}
        if len(args) > self.place and args[self.place] is not None:
            own = args[self.place][:, list(self.heads)]
            return (*args[: self.place], own, *args[self.place + 1 :]), kwargs
        return args, kwargs


def take_own_heads(attention: nn.Module, argument: str, kept: Sequence[int]) -> None:
    """Let an attention module use its own heads' part of a shared bias.

    Args:
        attention: The module; it may have lost heads before.
        argument: Name of its argument that is the bias.
        kept: Positions of those that stay among the heads that it has now.
    """
    known = getattr(attention, OWN_HEADS, None)
    if known is not None:
        known.heads = tuple(known.heads[position] for position in kept)
        return
    place = list(inspect.signature(attention.forward).parameters).index(argument)
    attach(attention, OwnHeads(argument, place, kept))


def attach(attention: nn.Module, own: OwnHeads) -> None:
    """Call it before the module, which keeps it where a later cut finds it."""
    setattr(attention, OWN_HEADS, own)
    attention.register_forward_pre_hook(own, with_kwargs=True)
