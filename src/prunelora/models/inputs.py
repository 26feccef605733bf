"""A model's inputs: their names, the maximum length, image sizes, and random inputs."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_MAPPING
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING

from prunelora.errors import UnsupportedModelError
from prunelora.models.families import family_of_model_type

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_IMAGES = "pixel_values"

# Key in a model's configuration, so that the value is saved with the model.
_GIVEN_SIZE = "given_image_size"


def input_names(model: nn.Module) -> tuple[str, ...]:
    """Inputs that the family's tokenizer returns and `forward` accepts: token_type_ids in BERT, not in RoBERTa."""
    if reads_images(model):
        return (_IMAGES,)
    config: Any = model.config
    return _made_and_taken(type(config), model.forward)


def give_inputs_of_(tokenizer: Any, model_type: str) -> None:
    """Remove inputs that the model does not use from a tokenizer's `model_input_names`, which is saved with it.

    GPT-2 looks token types up in its token embedding, so it must not receive those of a BERT tokenizer.

    Args:
        tokenizer: Changed in place.
        model_type: From the model's configuration; the tokenizer stays as it is if transformers does not know the type.
    """
    family = family_of_model_type(model_type)
    if family is None or family.images or model_type not in CONFIG_MAPPING:
        return
    config = CONFIG_MAPPING[model_type]
    used = _made_and_taken(config, _base_forward(config))
    names = [name for name in tokenizer.model_input_names if name not in _INPUTS or name in used]
    if names != list(tokenizer.model_input_names):
        tokenizer.model_input_names = names
        tokenizer.init_kwargs["model_input_names"] = names  # What `save_pretrained` writes.


def takes_token_types(config: Any) -> bool:
    """Whether `forward` of a configuration's base model accepts token_type_ids."""
    return "token_type_ids" in inspect.signature(_base_forward(type(config))).parameters


def _base_forward(config: type) -> Callable[..., Any]:
    """`forward` of the configuration's model without a task head."""
    base: Any = MODEL_MAPPING[config]
    forward: Callable[..., Any] = base.forward
    return forward


def _made_and_taken(config: type, forward: Callable[..., Any]) -> tuple[str, ...]:
    accepted = inspect.signature(forward).parameters
    try:
        classes = TOKENIZER_MAPPING[config]
    except KeyError:
        tokenised = set(_INPUTS)
    else:
        # Early versions of transformers 5 map to a pair of classes, either of which may be None.
        pair = classes if isinstance(classes, tuple) else (classes,)
        tokenised = set(next(kind for kind in pair if kind is not None).model_input_names)
    return tuple(name for name in _INPUTS if name in accepted and name in tokenised)


def reads_images(model: nn.Module) -> bool:
    """Whether the model reads images, all of one size (see `image_size`)."""
    family = family_of_model_type(getattr(model.config, "model_type", ""))
    return family is not None and family.images


def reads_end(model: nn.Module) -> bool:
    """Whether the task head reads the end-of-text token, of which every row must then have the same number."""
    family = family_of_model_type(getattr(model.config, "model_type", ""))
    return family is not None and family.reads == "end"


def longest_input(model: nn.Module) -> int | None:
    """Number of positions in the model's position embedding; None if it has no such table."""
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in ("position_embeddings", "wpe") and isinstance(module, nn.Embedding):
            # RoBERTa's positions start after the padding index: 514 rows are 512 positions.
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
        if name.rpartition(".")[2] == "embed_positions" and isinstance(module, nn.Embedding):
            return module.num_embeddings - int(getattr(module, "offset", 0))  # The first two rows of BART's are unused.
    return None


def image_size(model: nn.Module) -> tuple[int, int]:
    """Height and width of a model's images: the size that `give_images_of_` set, or the configuration's."""
    config: Any = model.config
    return _both(getattr(config, _GIVEN_SIZE, None) or config.image_size)


def give_images_of_(model: nn.Module, size: tuple[int, int] | None) -> None:
    """Record the size of a model's images, if its processor's size differs from the configuration's.

    DINOv2's configurations say 518 x 518, and their processors resize to 224 x 224, a quarter of the work.

    Args:
        model: A model that reads images.
        size: Height and width; None if the processor does not define a size.

    Raises:
        UnsupportedModelError: If the family supports only the configuration's size.
    """
    config: Any = model.config
    configured = _both(config.image_size)
    if size is None or size == configured:
        return
    family = family_of_model_type(getattr(config, "model_type", ""))
    if family is None or not family.any_image_size:
        raise UnsupportedModelError(
            f"The model reads images of {configured[0]} x {configured[1]}, and its image processor returns "
            f"{size[0]} x {size[1]}. "
            "Set the size in its preprocessor_config.json."
        )
    setattr(config, _GIVEN_SIZE, list(size))


def image_tokens(model: nn.Module) -> int:
    """Number of vectors per image: its patches and the tokens that the model adds."""
    for name, parameter in model.named_parameters():
        if name.rpartition(".")[2] == "position_embeddings":
            config: Any = model.config
            added = int(parameter.shape[1]) - _patches(config, _both(config.image_size))
            return added + _patches(config, image_size(model))
    raise UnsupportedModelError(f"{type(model).__name__} has no position_embeddings, which give an image's length.")


def _patches(config: Any, size: tuple[int, int]) -> int:
    height, width = _both(config.patch_size)
    return (size[0] // height) * (size[1] // width)


def _both(size: Any) -> tuple[int, int]:
    """Height and width, from a pair or from a square's side."""
    height, width = size if isinstance(size, list | tuple) else (size, size)
    return int(height), int(width)


def random_inputs(
    model: nn.Module, *, batch_size: int, tokens: int, generator: torch.Generator, padded: bool = False
) -> dict[str, torch.Tensor]:
    """Random tokens of the model's vocabulary, or random images, on the CPU.

    Args:
        model: The model to make inputs for.
        batch_size: B.
        tokens: T; ignored for images. The decoder of an encoder-decoder reads as many tokens as its encoder.
        generator: Source of random numbers.
        padded: Whether to pad all rows but the first, each to a different length.

    Returns:
        A tensor for each of the model's `input_names`: (B, T), or (B, channels, height, width) for images.
    """
    config: Any = model.config
    if reads_images(model):
        height, width = image_size(model)
        return {_IMAGES: torch.randn(batch_size, config.num_channels, height, width, generator=generator)}
    shape = (batch_size, tokens)
    padding = config.pad_token_id if getattr(config, "pad_token_id", None) is not None else 0
    ids = torch.randint(0, config.vocab_size, shape, generator=generator)
    # RoBERTa derives positions from `input_ids != padding`, so padding must not occur inside a text.
    ids = torch.where(ids == padding, (padding + 1) % config.vocab_size, ids)
    mask = torch.ones_like(ids)
    if padded:
        for row in range(1, batch_size):
            mask[row, max(1, tokens - row * tokens // batch_size) :] = 0
    if reads_end(model):
        special = (padding, config.eos_token_id)
        plain = torch.tensor([token for token in range(config.vocab_size) if token not in special])
        ids = plain[ids % len(plain)].scatter(1, mask.sum(1, keepdim=True) - 1, config.eos_token_id)
    segments = max(1, int(getattr(config, "type_vocab_size", 1)))
    inputs = {
        "input_ids": torch.where(mask == 0, padding, ids),
        "attention_mask": mask,
        "token_type_ids": torch.randint(0, segments, shape, generator=generator),
    }
    return {name: inputs[name] for name in input_names(model)}
