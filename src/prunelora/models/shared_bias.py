"""A bias that all layers share, with a part for every head of the dense model: a cut layer takes its own part.

Either every layer is given it; or the first layer computes it, from a table, and every layer hands it on to the next
one, as its second output. A cut layer still hands on the whole, and a first layer without heads still computes it.
"""

import functools
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from prunelora.models.empty import NoHeads

OWN_HEADS = "own_heads"


class OwnHeads:
    """Called before an attention module, it leaves in the shared bias the heads that the module still has.

    Attributes:
        argument: Name of the module's argument that is the bias (B or 1, heads, T, T).
        place: Where that stands where it is given by position.
        heads: Of the dense model, those that are left.
        maker: Method of the module that computes the bias where none is given and the module has the table; None where
            layers do not hand it on.
        whole: The bias of all heads, from when the module is called until it hands it on.
    """

    def __init__(self, argument: str, place: int, heads: Sequence[int], maker: str | None = None) -> None:
        """Remember which heads are left."""
        self.argument, self.place, self.heads, self.maker = argument, place, tuple(heads), maker
        self.whole: torch.Tensor | None = None

    def __call__(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Give the arguments back with the bias of the heads that are left."""
        self.whole = None
        if kwargs.get(self.argument) is not None:
            return args, {**kwargs, self.argument: self.part_of(kwargs[self.argument])}
        if len(args) > self.place and args[self.place] is not None:
            own = self.part_of(args[self.place])
            return (*args[: self.place], own, *args[self.place + 1 :]), kwargs
        return args, kwargs

    def make(self, attention: nn.Module, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Compute the bias of all heads as the module does, and give it the part of those that are left."""
        return self.part_of(getattr(type(attention), str(self.maker))(attention, *args, **kwargs))

    def part_of(self, whole: torch.Tensor) -> torch.Tensor:
        """(B or 1, all heads, T, T) -> (B or 1, heads that are left, T, T)."""
        if self.maker is not None:
            self.whole = whole
        return whole[:, list(self.heads)]

    def hand_on(self, _: nn.Module, __: Any, output: tuple[Any, ...]) -> tuple[Any, ...]:
        """Called after the module, give the next layer what this one was given, or has computed, for all heads."""
        whole, self.whole = self.whole, None
        return (output[0], whole, *output[2:])


class HandsOn(NoHeads):
    """An attention module with no head left, where layers hand the shared bias on."""

    def __init__(self, former: nn.Module, *, argument: str, maker: str, table: str, **settings: Any) -> None:
        """Take the table over from the module that was there, under its name, where that was the first layer's.

        Args:
            former: The module that had heads; it is not used otherwise again.
            argument: Name of its argument that is the bias.
            maker: Name of its method that computes it, from the numbers of tokens and of tokens attended to.
            table: Name of its submodule that it is computed from.
            settings: Of `NoHeads`.
        """
        super().__init__(**settings)
        self.argument, self.maker, self.table = argument, maker, table
        owns = dict(former.named_children()).get(table)
        if owns is not None:
            self.add_module(table, owns)
            for name in [name for name, _ in former.named_children() if name != table]:
                delattr(former, name)
        # Not as a submodule: its table is one here already.
        vars(self)["former"] = None if owns is None else former

    def forward(
        self,
        hidden_states: torch.Tensor,
        *_: Any,
        past_key_values: Any = None,
        key_value_states: Any = None,
        **others: Any,
    ) -> tuple[Any, ...]:
        """As without heads, with the bias of all heads as the second output."""
        whole, former = others.get(self.argument), vars(self)["former"]
        before = 0 if past_key_values is None else past_key_values.get_seq_length(self.layer_idx)
        context, _ = super().forward(hidden_states)
        length = self.enter_cache(past_key_values, hidden_states, key_value_states)
        if whole is None and former is not None:
            make = getattr(type(former), self.maker)
            whole = make(former, hidden_states.shape[1], length, device=hidden_states.device, past_seen_tokens=before)
        return context, whole, None


def take_own_heads(attention: nn.Module, argument: str, kept: Sequence[int], *, maker: str | None = None) -> None:
    """Let an attention module use its own heads' part of a shared bias.

    Args:
        attention: The module; it may have lost heads before.
        argument: Name of its argument that is the bias.
        kept: Positions of those that stay among the heads that it has now.
        maker: Name of its method that computes the bias, where layers hand it on.
    """
    known = getattr(attention, OWN_HEADS, None)
    if known is not None:
        known.heads = tuple(known.heads[position] for position in kept)
        return
    place = list(inspect.signature(attention.forward).parameters).index(argument)
    attach(attention, OwnHeads(argument, place, kept, maker))


def attach(attention: nn.Module, own: OwnHeads) -> None:
    """Call it around the module, which keeps it where a later cut finds it."""
    setattr(attention, OWN_HEADS, own)
    attention.register_forward_pre_hook(own, with_kwargs=True)
    if own.maker is not None:
        setattr(attention, own.maker, functools.partial(own.make, attention))
        attention.register_forward_hook(own.hand_on)
