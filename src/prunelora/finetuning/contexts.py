"""Context managers that change a model for training and restore it afterwards."""

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
    """Check that a model supports gradient checkpointing if the settings ask for it.

    Raises:
        UnsupportedModelError: If transformers does not support it for this class of model.
    """
    if settings.gradient_checkpointing and not model.supports_gradient_checkpointing:
        raise UnsupportedModelError(
            f"gradient_checkpointing=True is not supported by {type(model).__name__}. Leave it out: "
            "selective_recomputation, which is on by default, works with every model."
        )


def in_bfloat16(settings: FineTuneSettings) -> bool:
    """Whether forward passes of a training run in bfloat16 mixed precision."""
    if settings.precision != "auto":
        return settings.precision == "bfloat16"
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported()


def precision_of(model: nn.Module, settings: FineTuneSettings) -> contextlib.AbstractContextManager[Any]:
    """Autocast for the forward pass in the precision of the settings, as in the Trainer."""
    if not in_bfloat16(settings):
        return contextlib.nullcontext()
    return torch.autocast(next(model.parameters()).device.type, torch.bfloat16)


def recomputation_of(settings: FineTuneSettings) -> contextlib.AbstractContextManager[Any]:
    """Selective recomputation for the forward pass, if the settings ask for it."""
    return recomputing() if settings.recomputes else contextlib.nullcontext()


@contextlib.contextmanager
def checkpointing_of(model: nn.Module, settings: FineTuneSettings) -> Iterator[None]:
    """Enable gradient checkpointing inside the block if the settings ask for it and it is not enabled already.

    Raises:
        UnsupportedModelError: If transformers does not support it for this class of model.
    """
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    enabled = any(getattr(module, "gradient_checkpointing", False) for module in base.modules())
    if enabled or not settings.gradient_checkpointing:
        yield
        return
    check_checkpointing(base, settings)
    # Newer versions of transformers rename the methods and warn about the old names.
    name = "activation" if hasattr(base, "activation_checkpointing_enable") else "gradient"
    getattr(base, f"{name}_checkpointing_enable")()
    try:
        yield
    finally:
        getattr(base, f"{name}_checkpointing_disable")()
        base.disable_input_require_grads()


@contextlib.contextmanager
def dropout_of(model: nn.Module, probability: float | None) -> Iterator[None]:
    """Set the probability of every dropout of the model, except LoRA's, inside the block; None changes nothing.

    A dropout is an `nn.Dropout` or a float attribute of a module, as in the attention of many families.
    """
    dropouts = [
        (module, name, value)
        for path, module in model.named_modules()
        if "lora_dropout" not in path
        for name, value in vars(module).items()
        if isinstance(value, float) and ("dropout" in name or (name == "p" and isinstance(module, nn.Dropout)))
    ]
    if probability is not None:
        for module, name, _ in dropouts:
            setattr(module, name, probability)
    try:
        yield
    finally:
        for module, name, value in dropouts:
            setattr(module, name, value)


@contextlib.contextmanager
def forward_restored(model: nn.Module) -> Iterator[None]:
    """Restore the model's `forward` after the block: in bfloat16 the Trainer replaces it and leaves it replaced."""
    names = ("forward", "_original_forward")
    attributes = {name: vars(model)[name] for name in names if name in vars(model)}
    try:
        yield
    finally:
        for name in names:
            vars(model).pop(name, None)
        vars(model).update(attributes)


@contextlib.contextmanager
def saving_current_names(model: nn.Module) -> Iterator[None]:
    """Save checkpoints inside the block under the weights' names in the model.

    The Trainer saves them under the names of a family's first checkpoints and loads them by the present names, so that
    for some families, such as ViT, it would not find most weights of the best checkpoint.
    """
    if isinstance(model, PreTrainedModel):
        # An attribute of the instance hides the method of the class.
        vars(model)["save_pretrained"] = functools.partial(model.save_pretrained, save_original_format=False)
    try:
        yield
    finally:
        vars(model).pop("save_pretrained", None)


@contextlib.contextmanager
def training_contexts(model: nn.Module, settings: FineTuneSettings) -> Iterator[None]:
    """All of these that `finetune` trains under; the Trainer itself applies the precision."""
    with (
        forward_restored(model), checkpointing_of(model, settings), dropout_of(model, settings.dropout),
        recomputation_of(settings), saving_current_names(model),
    ):  # fmt: skip
        yield
