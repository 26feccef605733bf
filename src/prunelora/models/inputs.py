"""What a model reads: the names of its inputs, their longest length, and random ones to try it with."""

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

# In a model's configuration, so that it is saved with the model.
_GIVEN_SIZE = "given_image_size"


def input_names(model: nn.Module) -> tuple[str, ...]:
    """Inputs that the family's tokenizer makes and forward takes: token_type_ids in BERT, not in RoBERTa."""
    if reads_images(model):
        return (_IMAGES,)
    config: Any = model.config
    return _made_and_taken(type(config), model.forward)


def give_inputs_of_(tokenizer: Any, model_type: str) -> None:
    """Let a tokenizer make no input that models of a family do not use; it is saved with this setting.

    A GPT-2 that is given token types, as the tokenizer of a BERT makes them, looks them up among its words.

    Args:
        tokenizer: Changed in place.
        model_type: As in the configuration of the model; nothing is changed for one that transformers does not know.
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
    """Whether models of a configuration's kind take token types, whatever they do with them."""
    return "token_type_ids" in inspect.signature(_base_forward(type(config))).parameters


def _base_forward(config: type) -> Callable[..., Any]:
    """The forward of the model without a task head."""
    base: Any = MODEL_MAPPING[config]
    forward: Callable[..., Any] = base.forward
    return forward


def _made_and_taken(config: type, forward: Callable[..., Any]) -> tuple[str, ...]:
    accepted = inspect.signature(forward).parameters
    try:
        classes = TOKENIZER_MAPPING[config]
    except KeyError:
        made = set(_INPUTS)
    else:
        # Before transformers 5 had one class a family, the mapping held a pair, either of which may be None.
        first = next(one for one in (classes if isinstance(classes, tuple) else (classes,)) if one is not None)
        made = set(first.model_input_names)
    return tuple(name for name in _INPUTS if name in accepted and name in made)


def reads_images(model: nn.Module) -> bool:
    """Whether a model of a supported family takes images, all of one size (see `image_size`)."""
    family = family_of_model_type(getattr(model.config, "model_type", ""))
    return family is not None and family.images


def reads_end(model: nn.Module) -> bool:
    """Whether the task head reads the token that ends a text, of which every row must then have equally many."""
    family = family_of_model_type(getattr(model.config, "model_type", ""))
    return family is not None and family.reads == "end"


def longest_input(model: nn.Module) -> int | None:
    """Most tokens the model has positions for; None where its positions are no table."""
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in ("position_embeddings", "wpe") and isinstance(module, nn.Embedding):
            # RoBERTa counts positions from behind the padding index: 514 rows are 512 positions.
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
        if name.rpartition(".")[2] == "embed_positions" and isinstance(module, nn.Embedding):
            return module.num_embeddings - int(getattr(module, "offset", 0))  # BART's begins with two for nothing.
    return None


def image_size(model: nn.Module) -> tuple[int, int]:
    """Height and width of the images that a model is given: the configuration's, or what `give_images_of_` said."""
    config: Any = model.config
    return _both(getattr(config, _GIVEN_SIZE, None) or config.image_size)


def give_images_of_(model: nn.Module, size: tuple[int, int] | None) -> None:
    """Say of what size the images are that a model is given, where its processor makes them of another than it names.

    DINOv2's published models name 518 x 518, and their processors make 224 x 224, a quarter of the work.

    Args:
        model: Of a family that reads images.
        size: Height and width; None where the processor does not say.

    Raises:
        UnsupportedModelError: If the family reads no other size than its configuration's.
    """
    config: Any = model.config
    named = _both(config.image_size)
    if size is None or size == named:
        return
    family = family_of_model_type(getattr(config, "model_type", ""))
    if family is None or not family.any_image_size:
        raise UnsupportedModelError(
            f"The model reads images of {named[0]} x {named[1]}, and its image processor makes {size[0]} x {size[1]}. "
            "Set the size in its preprocessor_config.json."
        )
    setattr(config, _GIVEN_SIZE, list(size))


def image_tokens(model: nn.Module) -> int:
    """Vectors that an image becomes in a model that reads images: its patches, and the tokens that the model adds."""
    for name, parameter in model.named_parameters():
        if name.rpartition(".")[2] == "position_embeddings":
            config: Any = model.config
            added = int(parameter.shape[1]) - _patches(config, _both(config.image_size))
            return added + _patches(config, image_size(model))
    raise UnsupportedModelError(f"{type(model).__name__} has no position_embeddings to tell an image's length from.")


def _patches(config: Any, size: tuple[int, int]) -> int:
    height, width = _both(config.patch_size)
    return (size[0] // height) * (size[1] // width)


def _both(size: Any) -> tuple[int, int]:
    """A square's side, or height and width."""
    height, width = size if isinstance(size, list | tuple) else (size, size)
    return int(height), int(width)


def random_inputs(
    model: nn.Module, *, batch_size: int, tokens: int, generator: torch.Generator, padded: bool = False
) -> dict[str, torch.Tensor]:
    """Random tokens of the model's vocabulary, or random images, on the CPU.

    Args:
        model: Whose vocabulary and inputs.
        batch_size: B.
        tokens: T; images have as many as their size makes. An encoder-decoder's decoder reads as many as its encoder.
        generator: Source of the numbers.
        padded: Pad every row but the first, each by another length; else every token counts.

    Returns:
        The model's `input_names`, each (B, T); of images (B, channels, height, width).
    """
    config: Any = model.config
    if reads_images(model):
        height, width = image_size(model)
        return {_IMAGES: torch.randn(batch_size, config.num_channels, height, width, generator=generator)}
    shape = (batch_size, tokens)
    padding = config.pad_token_id if getattr(config, "pad_token_id", None) is not None else 0
    ids = torch.randint(0, config.vocab_size, shape, generator=generator)
    # Families that count positions by `input_ids != padding` must not find padding in the middle of a text.
    ids = torch.where(ids == padding, (padding + 1) % config.vocab_size, ids)
    mask = torch.ones_like(ids)
    if padded:
        for row in range(1, batch_size):
            mask[row, max(1, tokens - row * tokens // batch_size) :] = 0
    if reads_end(model):
        words = torch.tensor([word for word in range(config.vocab_size) if word not in (padding, config.eos_token_id)])
        ids = words[ids % len(words)].scatter(1, mask.sum(1, keepdim=True) - 1, config.eos_token_id)
    segments = max(1, int(getattr(config, "type_vocab_size", 1)))
    made = {
        "input_ids": torch.where(mask == 0, padding, ids),
        "attention_mask": mask,
        "token_type_ids": torch.randint(0, segments, shape, generator=generator),
    }
    return {name: made[name] for name in input_names(model)}
