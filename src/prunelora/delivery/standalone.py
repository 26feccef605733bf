"""What a saved model needs to load without prunelora: sizes in config.json, and a modelling file beside it.

transformers' own `from_pretrained(folder, trust_remote_code=True)` builds a model by the class in the modelling file:
the family's own class, whose blocks are then given the layers that are left. The configuration has a type of its own,
which transformers does not know: so it says that `trust_remote_code` is needed, instead of building the family's class
at its full size.
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
# Before the family's own model_type, in the configuration of a pruned model.
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
# Others make a model of the decoder alone, or of the encoder alone.
AUTO_CLASSES_OF_ENCODER_DECODERS = (
    "AutoModel",
    "AutoModelForSequenceClassification",
    "AutoModelForQuestionAnswering",
    "AutoModelForSeq2SeqLM",
)

_HEADER = '''"""{title}, cut by prunelora (plan {plan_id}): every layer has the heads and neurons that are left in it.

Written by prunelora {version} beside the weights, so that transformers loads them without prunelora:

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
    """{name} with the sizes of the layers that are left."""

    model_type = "{model_type}"
'''

_CLASS = '''class Pruned{name}(transformers.{name}):
    """{name} with the layers that are left."""

    config_class = Pruned{config}

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        """Build it whole, then give its blocks the sizes that the configuration says."""
        super().__init__(config, *args, **kwargs)
        if not isinstance(self.base_model, Pruned{base}) or self.base_model is self:
            shape_blocks(self.base_model, config.prunelora["shapes"])
'''

# Some families' classes with a head build the base model through AutoModel.
_REGISTER = "transformers.AutoModel.register(Pruned{config}, Pruned{base}, exist_ok=True)"


_MODULES = (BiasOnly, NoNeurons, NoHeads, LayerConfig, SharedBiasHook, NoHeadsWithBias, attach)


def write_standalone(folder: Path, anatomy: Anatomy, *, plan_id: str) -> None:
    """Make a folder that `save_pretrained` wrote load without prunelora, by config.json and the modelling file."""
    from prunelora.version import __version__

    classes = dict(auto_classes(anatomy.model))
    config = type(cast(Any, anatomy.model.config)).__name__
    base = classes["AutoModel"]
    path = folder / "config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["model_type"] = f"{TYPE_PREFIX}{content['model_type']}"
    content["prunelora"] = {"plan_id": plan_id, "shapes": shapes_of(anatomy)}
    named = {"AutoConfig": config} | classes
    content["auto_map"] = {auto: f"{MODULE}.Pruned{name}" for auto, name in named.items()}
    write_json(path, content)
    parts = [
        _HEADER.format(
            title=anatomy.family.title,
            plan_id=plan_id,
            version=__version__,
            auto=own_auto_class(anatomy.model),
        ).strip(),
        f'{BIAS_HOOK.upper()} = "{BIAS_HOOK}"',
        *(inspect.getsource(one).strip() for one in _MODULES),
        *(inspect.getsource(one).strip() for one in (shaping.make_layer, shaping.shape_block, shaping.shape_blocks)),
        _CONFIG.format(name=config, model_type=content["model_type"]).strip(),
        *(_CLASS.format(name=name, config=config, base=base).strip() for name in dict.fromkeys(classes.values())),
        _REGISTER.format(config=config, base=base),
    ]
    write_text(folder / f"{MODULE}.py", "\n\n\n".join(parts) + "\n")


def is_pruned(folder: Path) -> bool:
    """Whether a folder holds a pruned model that `save` wrote, and not one that was saved at its full size."""
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and SHAPES_KEY in content


def stock_config(folder: Path) -> PreTrainedConfig:
    """The family's own configuration of a folder that `save` wrote, without what builds it without prunelora.

    Raises:
        ValueError: If it is of no model type that transformers knows.
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
    """The class of transformers that a model is of, also where a modelling file has one of its own on top."""
    return next(kind for kind in type(model).__mro__ if getattr(transformers, kind.__name__, None) is kind)


def auto_classes(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Names of the Auto classes that know the model's family, and of the class that each makes of it."""
    config: Any = model.config
    family = family_of_model_type(config.model_type)
    for name in AUTO_CLASSES_OF_ENCODER_DECODERS if family and family.encoder_decoder else AUTO_CLASSES:
        mapping = getattr(transformers, name)._model_mapping
        kinds = mapping.get(type(config), None)
        if kinds is not None:
            yield name, (kinds[0] if isinstance(kinds, tuple) else kinds).__name__


def own_auto_class(model: nn.Module) -> str:
    """Name of the Auto class that makes models of this one's class."""
    own = stock_class(model).__name__
    return next((auto for auto, name in auto_classes(model) if name == own), "AutoModel")


def shapes_of(anatomy: Anatomy) -> list[dict[str, Any]]:
    """Where every block is in the base model, and its layers, as `shaping.shape_blocks` takes them."""
    return [{"block": block.prefix.removeprefix(anatomy.base_prefix), **_shape(block)} for block in anatomy.blocks]


def _shape(block: Block) -> dict[str, Any]:
    family, attention = block.family, block.part("attention")
    headless, own = isinstance(attention, NoHeads), getattr(attention, BIAS_HOOK, None)
    gone = ("query", "key", "value") if headless else ()
    paths = [family.path(name) for name in family.projections if name not in gone]
    if isinstance(attention, NoHeads):
        paths = [path for path in paths if path != f"{family.attention}.{attention.output_name}"]
    else:
        paths += [path for path in family.with_heads if find(block.module, path) is not None]
    return {
        "attention": family.attention,
        "layers": {path: _how(block.module.get_submodule(path)) for path in dict.fromkeys(paths)},
        "no_heads": _settings(attention) if isinstance(attention, NoHeads) else None,
        "shared_bias": family.shared_bias_settings if headless else None,
        "counts": {} if headless else {name: getattr(attention, name) for name in family.counts},
        "bias_hook": None if own is None else {name: getattr(own, name) for name in _HOOK_SETTINGS},
        "config": {} if headless else {name: getattr(attention.config, name) for name in family.config_counts},
    }


_HOOK_SETTINGS = ("argument", "place", "heads", "maker")


def _settings(empty: NoHeads) -> dict[str, Any]:
    return {
        "head_dim": empty.head_dim,
        "output_name": empty.output_name,
        "output": None if empty.output_name is None else _how(empty.get_submodule(empty.output_name)),
        "had_bias": empty.had_bias,
        "position_projections": empty.position_projections,
        "layer_idx": empty.layer_idx,
        "norm_name": empty.norm_name,
    }


def _how(layer: nn.Module) -> list[Any]:
    """A layer as `shaping.make_layer` takes it."""
    if isinstance(layer, Conv1D):
        return ["conv1d", layer.nx, layer.nf]
    if isinstance(layer, BiasOnly):
        return ["bias_only", layer.out_features, layer.bias is not None]
    if isinstance(layer, NoNeurons):
        return ["no_neurons", layer.in_features, layer.had_bias]
    if isinstance(layer, nn.Linear):
        return ["linear", layer.in_features, layer.out_features, layer.bias is not None]
    raise TypeError(f"{type(layer).__name__} is no layer that a cut leaves.")
