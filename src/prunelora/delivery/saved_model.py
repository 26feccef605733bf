"""Loads a model that `save` wrote."""

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
    as_checkpoint_error,
    read_about,
    read_plan,
    read_tensors,
)
from prunelora.delivery.standalone import stock_config
from prunelora.errors import CheckpointError, PruneLoraError
from prunelora.models.source import check_source
from prunelora.planning.plan import Plan
from prunelora.pruning.surgery import prune_


def load_model(path: Path) -> PreTrainedModel:
    """Build a model from its configuration, prune it by its plan, and load the saved weights.

    Raises:
        CheckpointError: If a file is missing or damaged, or the files do not belong together.
    """
    check_source(path, pruned=True)
    about = read_about(path, "model", DENSE)
    plan = read_plan(path, about)
    with as_checkpoint_error(path, "config.json"):
        config = stock_config(path)
    model_class = getattr(transformers, str(about.get("model_class")), None)
    if not (isinstance(model_class, type) and issubclass(model_class, PreTrainedModel)):
        raise CheckpointError(f"{path / ABOUT}: model_class {about.get('model_class')!r} is no class of transformers.")
    tensors = read_tensors(path / WEIGHTS)
    model = model_class._from_config(config, dtype=_dtype_of(tensors))
    if model.can_generate() and (path / GENERATION_CONFIG_NAME).exists():
        with as_checkpoint_error(path, GENERATION_CONFIG_NAME):
            model.generation_config = GenerationConfig.from_pretrained(str(path))
    if about["kind"] != DENSE:
        prune_as(model, plan, path)
    for name, parameter in model.named_parameters():
        if name in tensors:  # Weights of one model may have several dtypes.
            parameter.data = parameter.data.to(tensors[name].dtype)
    try:
        model.load_state_dict(tensors | _tied(model, tensors), strict=True)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path / WEIGHTS} does not fit {PLAN}: {' '.join(str(error).split())[:300]} The files are from two "
            "models, or one was edited. Copy the folder again, or save it again."
        ) from error
    if about["kind"] == DENSE:
        prune_as(model, plan, path)
    model.config.name_or_path = str(path)
    return model.eval()


def _tied(model: nn.Module, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Weights that are saved under another name only, because the model shares them, such as word embeddings."""
    state = model.state_dict()
    names: dict[int, list[str]] = {}
    for name, value in state.items():
        names.setdefault(value.data_ptr(), []).append(name)
    tied = {}
    for name in state.keys() - tensors.keys():
        saved_names = [other for other in names[state[name].data_ptr()] if other in tensors]
        if saved_names and state[name].numel():
            tied[name] = tensors[saved_names[0]]
    return tied


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
