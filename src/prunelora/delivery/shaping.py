"""Replaces the layers of a newly built model by layers of a pruned model's sizes.

The functions are also copied into the modelling file of a saved model (see `standalone`). They may use only torch,
transformers, and the definitions of `prunelora.models.empty`, `layer_config` and `shared_bias`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from prunelora.models.empty import BiasOnly, NoHeads, NoNeurons
from prunelora.models.layer_config import LayerConfig
from prunelora.models.shared_bias import NoHeadsWithBias, SharedBiasHook, attach


def make_layer(description: Sequence[Any]) -> nn.Module:
    """Build ["linear", in, out, bias], ["conv1d", in, out], ["bias_only", out, bias] or ["no_neurons", in, bias]."""
    kind, *sizes = description
    if kind == "linear":
        return nn.Linear(sizes[0], sizes[1], bias=sizes[2])
    if kind == "conv1d":
        return Conv1D(sizes[1], sizes[0])
    if kind == "no_neurons":
        return NoNeurons(sizes[0], had_bias=sizes[1])
    linear = nn.Linear(1, sizes[0], bias=sizes[1])
    return BiasOnly(sizes[0], linear.bias)


def shape_block(block: nn.Module, shape: Mapping[str, Any]) -> None:
    """Replace the layers of one block.

    Args:
        block: The block as the model's class builds it.
        shape: "layers", descriptions for `make_layer` by path; "attention", the path of the attention module;
            "no_heads", arguments of `NoHeads` if no head is kept, otherwise None; "shared_bias", more arguments of
            `NoHeadsWithBias` or None; "counts" and "config", attributes of the attention module and of its
            configuration that depend on the number of heads; "bias_hook", arguments of `SharedBiasHook` or None.
    """
    if shape["no_heads"] is not None:
        settings, former = dict(shape["no_heads"]), block.get_submodule(shape["attention"])
        output, norm_name = settings["output"], settings["norm_name"]
        settings["output"] = None if output is None else make_layer(output)
        settings["norm"] = None if norm_name is None else former.get_submodule(norm_name)
        bias_settings = shape["shared_bias"]
        replacement = NoHeadsWithBias(former, **bias_settings, **settings) if bias_settings else NoHeads(**settings)
        block.set_submodule(shape["attention"], replacement)
    for path, description in shape["layers"].items():
        block.set_submodule(path, make_layer(description))
    attention: Any = block.get_submodule(shape["attention"])
    for name, value in shape["counts"].items():
        setattr(attention, name, value)
    if shape["config"]:
        attention.config = LayerConfig(attention.config, **shape["config"])
    if shape["bias_hook"] is not None:
        attach(attention, SharedBiasHook(**shape["bias_hook"]))


def shape_blocks(base: nn.Module, shapes: Sequence[Mapping[str, Any]]) -> None:
    """Replace the layers of all blocks of a base model; each shape also has the path of its "block"."""
    for shape in shapes:
        shape_block(base.get_submodule(shape["block"]), shape)
