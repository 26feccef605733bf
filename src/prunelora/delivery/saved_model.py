"""Loading of a model that `save` wrote."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from torch import nn
from transformers import GenerationConfig, PreTrainedModel
from transformers.utils import GENERATION_CONFIG_NAME

from prunelora.delivery.saved_files import (
    ABOUT,
    DENSE,
    PLAN,
    WEIGHTS,
    read_about,
    read_plan,
    read_tensors,
    told_as_checkpoint_error,
)
from prunelora.delivery.standalone import stock_config
from prunelora.errors import CheckpointError, PruneLoraError
from prunelora.models.source import check_source
from prunelora.planning.plan import Plan
from prunelora.pruning.surgery import prune_


def load_model(path: Path) -> PreTrainedModel:
    """Build a model from its configuration, cut it by its plan, and fill in the saved weights.

    Raises:
        CheckpointError: If something is missing, damaged, or does not belong together.
    """
    check_source(path, pruned=True)
    about = read_about(path, "model", DENSE)
    plan = read_plan(path, about)
    with told_as_checkpoint_error(path, "config.json"):
        config = stock_config(path)
    model_class = getattr(transformers, str(about.get("model_class")), None)
    if not (isinstance(model_class, type) and issubclass(model_class, PreTrainedModel)):
        raise CheckpointError(f"{path / ABOUT}: model_class {about.get('model_class')!r} is no class of transformers.")
    tensors = read_tensors(path / WEIGHTS)
    model = model_class._from_config(config, dtype=_dtype_of(tensors))
    if model.can_generate() and (path / GENERATION_CONFIG_NAME).exists():
        with told_as_checkpoint_error(path, GENERATION_CONFIG_NAME):
            model.generation_config = GenerationConfig.from_pretrained(str(path))
    if about["kind"] != DENSE:
        prune_as(model, plan, path)
    for name, parameter in model.named_parameters():
        if name in tensors:  # Some models have weights of several types.
            parameter.data = parameter.data.to(tensors[name].dtype)
    try:
        model.load_state_dict(tensors | _tied(model, tensors), strict=True)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path / WEIGHTS} does not fit {PLAN}: {' '.join(str(error).split())[:300]} The folder was put together "
            "from two models, or one file was edited."
        ) from error
    if about["kind"] == DENSE:
        prune_as(model, plan, path)
    model.config.name_or_path = str(path)
    return model.eval()


def _tied(model: nn.Module, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Weights that the file leaves out because the model holds them under another name too, as word embeddings."""
    state = model.state_dict()
    names: dict[int, list[str]] = {}
    for name, value in state.items():
        names.setdefault(value.data_ptr(), []).append(name)
    found = {}
    for name in state.keys() - tensors.keys():
        others = [other for other in names[state[name].data_ptr()] if other in tensors]
        if others and state[name].numel():
            found[name] = tensors[others[0]]
    return found


def prune_as(model: nn.Module, plan: Plan, path: Path) -> None:
    """Prune a model by the plan of a folder.

    Raises:
        CheckpointError: If the plan is for another model.
    """
    try:
        prune_(model, plan)
    except PruneLoraError as error:
        raise CheckpointError(f"{path}: {PLAN} and the model do not belong together. {error}") from error


def _dtype_of(tensors: Mapping[str, Any]) -> Any:
    return next(tensor.dtype for tensor in tensors.values() if tensor.is_floating_point())
