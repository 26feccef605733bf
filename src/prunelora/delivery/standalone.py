"""Makes a saved model loadable without prunelora, by sizes in config.json and a modelling file.

transformers' `from_pretrained(folder, trust_remote_code=True)` builds a model by the class in the modelling file: a
subclass of the family's class, whose blocks are replaced by blocks of the pruned sizes. The configuration has its own
model_type, so that transformers asks for `trust_remote_code` instead of building the family's class at full size.
"""

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import transformers
from torch import nn
from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from prunelora.delivery import shaping
from prunelora.models.anatomy import Anatomy
from prunelora.models.block import Block, find
from prunelora.models.empty import BiasOnly, NoHeads, NoNeurons
from prunelora.models.families import family_of_model_type
from prunelora.models.layer_config import LayerConfig
from prunelora.models.shared_bias import BIAS_HOOK, NoHeadsWithBias, SharedBiasHook, attach
from prunelora.models.source import SHAPES_KEY
from prunelora.storage import write_json, write_text

MODULE = "modeling_prunelora"
OWN_KEYS = (SHAPES_KEY, "auto_map")
# Prefix of the family's model_type in the configuration of a pruned model.
TYPE_PREFIX = "prunelora-"

AUTO_CLASSES = (
    "AutoModel",
    "AutoModelForSequenceClassification",
    "AutoModelForTokenClassification",
    "AutoModelForQuestionAnswering",
    "AutoModelForMultipleChoice",
    "AutoModelForMaskedLM",
    "AutoModelForCausalLM",
    "AutoModelForImageClassification",
)
# Other Auto classes make a model of the decoder alone, or of the encoder alone.
AUTO_CLASSES_OF_ENCODER_DECODERS = (
    "AutoModel",
    "AutoModelForSequenceClassification",
    "AutoModelForQuestionAnswering",
    "AutoModelForSeq2SeqLM",
)

_HEADER = '''"""{title}, pruned by prunelora (plan {plan_id}): layers have different numbers of heads and neurons.

Written by prunelora {version} with the weights, so that transformers loads them without prunelora:

    {auto}.from_pretrained(folder, trust_remote_code=True)
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import transformers
from torch import nn
from transformers.cache_utils import EncoderDecoderCache
from transformers.pytorch_utils import Conv1D
'''

_CONFIG = '''class Pruned{name}(transformers.{name}):
    """{name} with the sizes of the pruned layers."""

    model_type = "{model_type}"
'''

_CLASS = '''class Pruned{name}(transformers.{name}):
    """{name} with pruned layers."""

    config_class = Pruned{config}

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        """Build the whole model, then replace its layers by layers of the sizes in the configuration."""
        super().__init__(config, *args, **kwargs)
        if not isinstance(self.base_model, Pruned{base}) or self.base_model is self:
            shape_blocks(self.base_model, config.prunelora["shapes"])
'''

# In some families, classes with a task head build the base model by AutoModel.
_REGISTER = "transformers.AutoModel.register(Pruned{config}, Pruned{base}, exist_ok=True)"


# Definitions that the modelling file contains.
_COPIED = (
    BiasOnly, NoNeurons, NoHeads, LayerConfig, SharedBiasHook, NoHeadsWithBias, attach,
    shaping.make_layer, shaping.shape_block, shaping.shape_blocks,
)  # fmt: skip


def write_standalone(folder: Path, anatomy: Anatomy, *, plan_id: str) -> None:
    """Add sizes to config.json and write the modelling file, in a folder that `save_pretrained` wrote."""
    from prunelora.version import __version__

    classes = dict(auto_classes(anatomy.model))
    config = type(cast(Any, anatomy.model.config)).__name__
    base = classes["AutoModel"]
    path = folder / "config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["model_type"] = f"{TYPE_PREFIX}{content['model_type']}"
    content["prunelora"] = {"plan_id": plan_id, "shapes": shapes_of(anatomy)}
    class_names = {"AutoConfig": config} | classes
    content["auto_map"] = {auto: f"{MODULE}.Pruned{name}" for auto, name in class_names.items()}
    write_json(path, content)
    parts = [
        _HEADER.format(
            title=anatomy.family.title,
            plan_id=plan_id,
            version=__version__,
            auto=own_auto_class(anatomy.model),
        ).strip(),
        f'{BIAS_HOOK.upper()} = "{BIAS_HOOK}"',
        *(inspect.getsource(definition).strip() for definition in _COPIED),
        _CONFIG.format(name=config, model_type=content["model_type"]).strip(),
        *(_CLASS.format(name=name, config=config, base=base).strip() for name in dict.fromkeys(classes.values())),
        _REGISTER.format(config=config, base=base),
    ]
    write_text(folder / f"{MODULE}.py", "\n\n\n".join(parts) + "\n")


def is_pruned(folder: Path) -> bool:
    """Whether a folder has a pruned model that `save` wrote in the format "pruned"."""
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and SHAPES_KEY in content


def stock_config(folder: Path) -> PreTrainedConfig:
    """The family's configuration in a folder that `save` wrote, without the keys of this module.

    Raises:
        ValueError: If transformers does not know its model_type.
    """
    content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for key in OWN_KEYS:
        content.pop(key, None)
    content["model_type"] = str(content.get("model_type")).removeprefix(TYPE_PREFIX)
    if content["model_type"] not in CONFIG_MAPPING:
        raise ValueError(f"transformers {transformers.__version__} knows no model_type {content['model_type']!r}")
    config: PreTrainedConfig = CONFIG_MAPPING[content["model_type"]].from_dict(content)
    return config


def stock_class(model: nn.Module) -> type[PreTrainedModel]:
    """The class of a model in transformers, also for a model whose class is in a modelling file."""
    return next(kind for kind in type(model).__mro__ if getattr(transformers, kind.__name__, None) is kind)


def auto_classes(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Names of the Auto classes that support the model's family, with the names of the classes that they build."""
    config: Any = model.config
    family = family_of_model_type(config.model_type)
    for name in AUTO_CLASSES_OF_ENCODER_DECODERS if family and family.encoder_decoder else AUTO_CLASSES:
        mapping = getattr(transformers, name)._model_mapping
        kinds = mapping.get(type(config), None)
        if kinds is not None:
            yield name, (kinds[0] if isinstance(kinds, tuple) else kinds).__name__


def own_auto_class(model: nn.Module) -> str:
    """Name of the Auto class that builds models of this class."""
    class_name = stock_class(model).__name__
    return next((auto for auto, name in auto_classes(model) if name == class_name), "AutoModel")


def shapes_of(anatomy: Anatomy) -> list[dict[str, Any]]:
    """Paths and layers of all blocks of the base model, as `shaping.shape_blocks` takes them."""
    return [{"block": block.prefix.removeprefix(anatomy.base_prefix), **_shape(block)} for block in anatomy.blocks]


def _shape(block: Block) -> dict[str, Any]:
    family, attention = block.family, block.part("attention")
    headless, bias_hook = isinstance(attention, NoHeads), getattr(attention, BIAS_HOOK, None)
    removed = ("query", "key", "value") if headless else ()
    paths = [family.path(name) for name in family.projections if name not in removed]
    if isinstance(attention, NoHeads):
        paths = [path for path in paths if path != f"{family.attention}.{attention.output_name}"]
    else:
        paths += [path for path in family.with_heads if find(block.module, path) is not None]
    return {
        "attention": family.attention,
        "layers": {path: _description(block.module.get_submodule(path)) for path in dict.fromkeys(paths)},
        "no_heads": _settings(attention) if isinstance(attention, NoHeads) else None,
        "shared_bias": family.shared_bias_settings if headless else None,
        "counts": {} if headless else {name: getattr(attention, name) for name in family.counts},
        "bias_hook": None if bias_hook is None else {name: getattr(bias_hook, name) for name in _HOOK_SETTINGS},
        "config": {} if headless else {name: getattr(attention.config, name) for name in family.config_counts},
    }


_HOOK_SETTINGS = ("argument", "place", "heads", "maker")


def _settings(empty: NoHeads) -> dict[str, Any]:
    """Arguments of `NoHeads` for `shaping.shape_block`."""
    return {
        "head_dim": empty.head_dim,
        "output_name": empty.output_name,
        "output": None if empty.output_name is None else _description(empty.get_submodule(empty.output_name)),
        "had_bias": empty.had_bias,
        "position_projections": empty.position_projections,
        "layer_idx": empty.layer_idx,
        "norm_name": empty.norm_name,
    }


def _description(layer: nn.Module) -> list[Any]:
    """The description of a layer for `shaping.make_layer`."""
    if isinstance(layer, Conv1D):
        return ["conv1d", layer.nx, layer.nf]
    if isinstance(layer, BiasOnly):
        return ["bias_only", layer.out_features, layer.bias is not None]
    if isinstance(layer, NoNeurons):
        return ["no_neurons", layer.in_features, layer.had_bias]
    if isinstance(layer, nn.Linear):
        return ["linear", layer.in_features, layer.out_features, layer.bias is not None]
    raise TypeError(f"{type(layer).__name__} is not a layer of a pruned model.")
