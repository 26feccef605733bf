"""A position bias that all layers share, with a part for every head of the dense model.

A pruned layer uses only the part of its remaining heads. Either every layer receives the bias as an argument (MPNet),
or the first layer computes it from a table and every layer returns it as its second output for the next layer (T5).
Pruned layers then still return the whole bias, and a first layer without heads still computes it.
"""

import functools
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from prunelora.models.empty import NoHeads

BIAS_HOOK = "bias_hook"


class SharedBiasHook:
    """A forward pre-hook that reduces the shared bias to the module's remaining heads.

    Attributes:
        argument: Name of the module's argument that holds the bias (B or 1, heads, T, T).
        place: Index of this argument if it is passed by position.
        heads: Ids, in the dense model, of the remaining heads.
        maker: Method of the module that computes the bias if none is passed; None if layers do not return the bias.
        whole: The bias of all heads, between the module's call and its return.
    """

    def __init__(self, argument: str, place: int, heads: Sequence[int], maker: str | None = None) -> None:
        """Store the argument's name and index, the remaining heads, and the method's name."""
        self.argument, self.place, self.heads, self.maker = argument, place, tuple(heads), maker
        self.whole: torch.Tensor | None = None

    def __call__(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Return the arguments with the bias of the remaining heads."""
        self.whole = None
        if kwargs.get(self.argument) is not None:
            return args, {**kwargs, self.argument: self.part_of(kwargs[self.argument])}
        if len(args) > self.place and args[self.place] is not None:
            part = self.part_of(args[self.place])
            return (*args[: self.place], part, *args[self.place + 1 :]), kwargs
        return args, kwargs

    def make(self, attention: nn.Module, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Compute the bias of all heads by the module's own method, and return the part of the remaining heads."""
        return self.part_of(getattr(type(attention), str(self.maker))(attention, *args, **kwargs))

    def part_of(self, whole: torch.Tensor) -> torch.Tensor:
        """(B or 1, all heads, T, T) -> (B or 1, remaining heads, T, T)."""
        if self.maker is not None:
            self.whole = whole
        return whole[:, list(self.heads)]

    def return_whole(self, _: nn.Module, __: Any, output: tuple[Any, ...]) -> tuple[Any, ...]:
        """Forward hook: return the bias of all heads as the module's second output."""
        whole, self.whole = self.whole, None
        return (output[0], whole, *output[2:])


class NoHeadsWithBias(NoHeads):
    """An attention module without heads that still returns, and in the first layer computes, the shared bias."""

    def __init__(self, former: nn.Module, *, argument: str, maker: str, table: str, **settings: Any) -> None:
        """Take the table from the replaced module, under the same name, if that module has it.

        Args:
            former: The replaced module; it is not used elsewhere afterwards.
            argument: Name of its argument that holds the bias.
            maker: Name of its method that computes the bias from the numbers of present and attended tokens.
            table: Name of its submodule that the method reads.
            settings: Arguments of `NoHeads`.
        """
        super().__init__(**settings)
        self.argument, self.maker, self.table = argument, maker, table
        module = dict(former.named_children()).get(table)
        if module is not None:
            self.add_module(table, module)
            for name in [name for name, _ in former.named_children() if name != table]:
                delattr(former, name)
        # Not a submodule: the table is already registered here.
        vars(self)["former"] = None if module is None else former

    def forward(
        self,
        hidden_states: torch.Tensor,
        *_: Any,
        past_key_values: Any = None,
        key_value_states: Any = None,
        **others: Any,
    ) -> tuple[Any, ...]:
        """As `NoHeads`, with the bias of all heads as the second output."""
        whole, former = others.get(self.argument), vars(self)["former"]
        past = 0 if past_key_values is None else past_key_values.get_seq_length(self.layer_idx)
        context, _ = super().forward(hidden_states)
        length = self.enter_cache(past_key_values, hidden_states, key_value_states)
        if whole is None and former is not None:
            make = getattr(type(former), self.maker)
            whole = make(former, hidden_states.shape[1], length, device=hidden_states.device, past_seen_tokens=past)
        return context, whole, None


def restrict_shared_bias(attention: nn.Module, argument: str, kept: Sequence[int], *, maker: str | None = None) -> None:
    """Make an attention module use only the part of the shared bias for the heads that it keeps.

    Args:
        attention: The module; it may have been pruned before.
        argument: Name of its argument that holds the bias.
        kept: Positions of the kept heads among its present heads.
        maker: Name of its method that computes the bias, if layers return it.
    """
    hook = getattr(attention, BIAS_HOOK, None)
    if hook is not None:
        hook.heads = tuple(hook.heads[position] for position in kept)
        return
    place = list(inspect.signature(attention.forward).parameters).index(argument)
    attach(attention, SharedBiasHook(argument, place, kept, maker))


def attach(attention: nn.Module, hook: SharedBiasHook) -> None:
    """Register the hooks on a module, which also stores them for later pruning."""
    setattr(attention, BIAS_HOOK, hook)
    attention.register_forward_pre_hook(hook, with_kwargs=True)
    if hook.maker is not None:
        setattr(attention, hook.maker, functools.partial(hook.make, attention))
        attention.register_forward_hook(hook.return_whole)
