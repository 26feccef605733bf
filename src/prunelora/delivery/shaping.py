"""Giving a freshly built model the layers that a pruned one has, from sizes alone.

This file also goes, as it stands but for its imports, into the modelling file beside a saved model (see `standalone`):
it may use nothing but torch, transformers, and what `prunelora.models.empty`, `layer_config` and `shared_bias` define.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from prunelora.models.empty import BiasOnly, NoHeads, NoNeurons
from prunelora.models.layer_config import LayerConfig
from prunelora.models.shared_bias import NoHeadsWithBias, SharedBiasHook, attach


def make_layer(how: Sequence[Any]) -> nn.Module:
    """Build ["linear", in, out, bias], ["conv1d", in, out], ["bias_only", out, bias] or ["no_neurons", in, bias]."""
    kind, *sizes = how
    if kind == "linear":
        return nn.Linear(sizes[0], sizes[1], bias=sizes[2])
    if kind == "conv1d":
        return Conv1D(sizes[1], sizes[0])
    if kind == "no_neurons":
        return NoNeurons(sizes[0], had_bias=sizes[1])
    probe = nn.Linear(1, sizes[0], bias=sizes[1])
    return BiasOnly(sizes[0], probe.bias)


def shape_block(block: nn.Module, shape: Mapping[str, Any]) -> None:
    """Give one block its layers.

    Args:
        block: As the model's class built it.
        shape: "layers", by path, as `make_layer` takes them; "attention", the path of that module; "no_heads", the
            arguments of `NoHeads` if no head is kept, or None; "shared_bias", more arguments of `NoHeadsWithBias`, or
            None; "counts" and "config", the numbers of heads to set in the module, or in the configuration that it
            reads; "bias_hook", the arguments of `SharedBiasHook`, or None.
    """
    if shape["no_heads"] is not None:
        settings, former = dict(shape["no_heads"]), block.get_submodule(shape["attention"])
        inside, norm_name = settings["output"], settings["norm_name"]
        settings["output"] = None if inside is None else make_layer(inside)
        settings["norm"] = None if norm_name is None else former.get_submodule(norm_name)
        bias_settings = shape["shared_bias"]
        stand_in = NoHeadsWithBias(former, **bias_settings, **settings) if bias_settings else NoHeads(**settings)
        block.set_submodule(shape["attention"], stand_in)
    for path, how in shape["layers"].items():
        block.set_submodule(path, make_layer(how))
    attention: Any = block.get_submodule(shape["attention"])
    for name, value in shape["counts"].items():
        setattr(attention, name, value)
    if shape["config"]:
        attention.config = LayerConfig(attention.config, **shape["config"])
    if shape["bias_hook"] is not None:
        attach(attention, SharedBiasHook(**shape["bias_hook"]))


def shape_blocks(base: nn.Module, shapes: Sequence[Mapping[str, Any]]) -> None:
    """Give all blocks of a base model their layers; each shape says also which "block" it is for, by its path."""
    for shape in shapes:
        shape_block(base.get_submodule(shape["block"]), shape)
