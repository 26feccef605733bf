"""What a model is under while it trains, and is itself again afterwards: dropout, precision, what is computed again."""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from prunelora.errors import UnsupportedModelError
from prunelora.finetuning.recomputation import recomputing
from prunelora.finetuning.settings import FineTuneSettings


def check_checkpointing(model: Any, settings: FineTuneSettings) -> None:
    """See that a model's layers can be computed a second time, where settings ask for it.

    Raises:
        UnsupportedModelError: If transformers cannot do so for this kind of model.
    """
    if settings.gradient_checkpointing and not model.supports_gradient_checkpointing:
        raise UnsupportedModelError(
            f"gradient_checkpointing=True, and the layers of {type(model).__name__} cannot be computed again. Leave it "
            "out; selective_recomputation, which is on by default, is for every model."
        )


def in_bfloat16(settings: FineTuneSettings) -> bool:
    """Whether a training's forward passes run in bfloat16 mixed precision."""
    if settings.precision != "auto":
        return settings.precision == "bfloat16"
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported()


def precision_of(model: nn.Module, settings: FineTuneSettings) -> contextlib.AbstractContextManager[Any]:
    """What forward passes of a training run under, as the Trainer has it."""
    if not in_bfloat16(settings):
        return contextlib.nullcontext()
    return torch.autocast(next(model.parameters()).device.type, torch.bfloat16)


@contextlib.contextmanager
def checkpointing_of(model: nn.Module, settings: FineTuneSettings) -> Iterator[None]:
    """Compute layers a second time in the backward pass while the block runs, where settings ask for it.

    One that is on already stays as it is.

    Raises:
        UnsupportedModelError: If transformers cannot do so for this kind of model.
    """
    own: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    on = any(getattr(module, "gradient_checkpointing", False) for module in own.modules())
    if on or not settings.gradient_checkpointing:
        yield
        return
    check_checkpointing(own, settings)
    # Newer transformers calls it by another name, and warns of the old one.
    name = "activation" if hasattr(own, "activation_checkpointing_enable") else "gradient"
    getattr(own, f"{name}_checkpointing_enable")()
    try:
        yield
    finally:
        getattr(own, f"{name}_checkpointing_disable")()
        own.disable_input_require_grads()


@contextlib.contextmanager
def own_forward(model: nn.Module) -> Iterator[None]:
    """Give the model its own forward pass back after the block: in bfloat16 the Trainer leaves its own in its place."""
    names = ("forward", "_original_forward")
    before = {name: vars(model)[name] for name in names if name in vars(model)}
    try:
        yield
    finally:
        for name in names:
            vars(model).pop(name, None)
        vars(model).update(before)


def recomputation_of(settings: FineTuneSettings) -> contextlib.AbstractContextManager[Any]:
    """What forward passes of a training run under."""
    return recomputing() if settings.recomputes else contextlib.nullcontext()


@contextlib.contextmanager
def dropout_of(model: nn.Module, probability: float | None) -> Iterator[None]:
    """Give every dropout of the model itself, not LoRA's own, another probability while the block runs.

    Some families have modules for it; in others, or in their attention, it is a number that a module holds.
    """
    found = [
        (module, name, value)
        for path, module in model.named_modules()
        if "lora_dropout" not in path
        for name, value in vars(module).items()
        if isinstance(value, float) and ("dropout" in name or (name == "p" and isinstance(module, nn.Dropout)))
    ]
    if probability is not None:
        for module, name, _ in found:
            setattr(module, name, probability)
    try:
        yield
    finally:
        for module, name, before in found:
            setattr(module, name, before)


@contextlib.contextmanager
def under_own_names(model: nn.Module) -> Iterator[None]:
    """Save checkpoints under the names that the weights have in the model while the block runs.

    The Trainer saves them under those of a family's first checkpoints, and reads them back by the names of now: of some
    families, ViT for one, most weights of the best checkpoint would not be found in it.
    """
    if isinstance(model, PreTrainedModel):
        # In the instance, over the class's.
        vars(model)["save_pretrained"] = functools.partial(model.save_pretrained, save_original_format=False)
    try:
        yield
    finally:
        vars(model).pop("save_pretrained", None)
