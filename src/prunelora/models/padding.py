"""Batches with all padding on the right, whichever side it was given on.

Most models count positions from the first column of a batch, and a causal model predicts a token from the column before
it. With padding on the left, both depend on the longest row of the batch. With padding on the right, neither does::

    input_ids       0 0 5 6 7      ->    5 6 7 0 0
    attention_mask  0 0 1 1 1      ->    1 1 1 0 0
    labels          0 0 5 6 7      ->    5 6 7 -100 -100
"""

from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

import torch
from torch import nn

from prunelora.errors import DataError
from prunelora.models.device import on_device
from prunelora.models.families import family_of_model_type
from prunelora.models.problem_types import OF_CONFIG, problem_type_of

IGNORED = -100

# Inputs with one entry per token, and targets that are token positions within the row.
_BY_TOKEN = ("input_ids", "inputs_embeds", "token_type_ids", "position_ids", "special_tokens_mask")
_OF_DECODER = ("decoder_input_ids", "decoder_inputs_embeds", "decoder_position_ids")
_POSITIONS = ("start_positions", "end_positions")


def prepare_batch(batch: Mapping[str, Any], model: nn.Module) -> dict[str, Any]:
    """Copy of a batch on the model's device, with padding as in `pad_for_model`."""
    return pad_for_model(on_device(batch, model), model)


def pad_for_model(batch: Mapping[str, Any], model: nn.Module) -> dict[str, Any]:
    """Copy of a batch with padding on the right, the model's padding id there, and no labels there.

    Padding is the part before the first and after the last token that `attention_mask` includes; without a mask there
    is none.

    Args:
        batch: As `model(**batch)` takes it.
        model: The model that will read the batch.

    Raises:
        DataError: If the padding cannot be moved, or the model's task head cannot find the last token of a row.
    """
    config: Any = getattr(model, "config", None)
    family = family_of_model_type(getattr(config, "model_type", ""))
    encoder_decoder = bool(getattr(config, "is_encoder_decoder", False))
    inputs = padded_right(batch, encoder_decoder=encoder_decoder)
    mask, padding = inputs.get("attention_mask"), getattr(config, "pad_token_id", None)
    ids = inputs.get("input_ids")
    if ids is None or mask is None or mask.shape != ids.shape:
        return inputs
    after = _after_last_token(mask)
    if family is not None and family.reads == "last" and problem_type_of(model) in OF_CONFIG:
        _check_last_token(config, len(ids), padded=bool(after.any()))
    if padding is not None:
        inputs["input_ids"] = torch.where(after, padding, ids)
    return inputs


def padded_right(batch: Mapping[str, Any], *, encoder_decoder: bool = False) -> dict[str, Any]:
    """Copy of a batch with every row's padding after its last token, in all inputs with one entry per token.

    Args:
        batch: Padded on the left, on the right, or each row differently.
        encoder_decoder: Whether `labels` belong to a decoder; they then move with the decoder's own padding.

    Raises:
        DataError: If an unknown input may have one entry per token, or a target position lies in the padding.
    """
    moved = dict(batch)
    mask = batch.get("attention_mask")
    if torch.is_tensor(mask) and _is_by_token(mask, batch, "input_ids", "inputs_embeds"):
        labelled = () if encoder_decoder else ("labels",)
        _move_(moved, "attention_mask", (*_BY_TOKEN, *labelled))
    if not encoder_decoder:
        return moved
    labels = batch.get("labels")
    mask = batch.get("decoder_attention_mask")
    if torch.is_tensor(mask) and _is_by_token(mask, batch, "decoder_input_ids", "decoder_inputs_embeds", "labels"):
        _move_(moved, "decoder_attention_mask", (*_OF_DECODER, "labels"))
    elif not any(name in batch for name in _OF_DECODER) and _are_ids(labels):
        # Without decoder inputs, the model shifts the labels right to make them.
        moved["labels"] = _rolled(labels, _first_token(labels != IGNORED))
    return moved


def real_tokens(inputs: Mapping[str, Any], hidden: torch.Tensor, *, decoder: bool) -> torch.Tensor:
    """Which tokens of hidden states (B, T, D) are not padding, (B, T), bool.

    Args:
        inputs: As the model takes them, padded on the right.
        hidden: Hidden states of an encoder or a decoder.
        decoder: Whether they are of a decoder that attends to an encoder.
    """
    mask = inputs.get("attention_mask")
    if decoder:
        labels = inputs.get("labels")
        if inputs.get("decoder_attention_mask") is not None:
            mask = inputs["decoder_attention_mask"]
        elif labels is not None and labels.dtype == torch.long and labels.shape == hidden.shape[:2]:
            mask = labels != IGNORED  # One target token for each token that the decoder reads.
        elif mask is not None and mask.shape != hidden.shape[:2]:
            mask = None
    return torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device) if mask is None else mask.bool()


def _move_(batch: dict[str, Any], mask_name: str, names: tuple[str, ...]) -> None:
    mask = batch[mask_name]
    first = _first_token(mask != 0)
    if bool(first.any()):
        if mask_name == "attention_mask":
            _check_known(batch, mask)
            for name in _positions_in(batch):
                batch[name] = _counted_from(first, batch[name], name)
        for name in filter(batch.__contains__, (mask_name, *names)):
            value = batch[name]
            if torch.is_tensor(value) and name == "position_ids" and value.shape[-1] == mask.shape[-1]:
                value = value.expand(mask.shape)
            if _has_entry_for_each_token(name, value, mask):
                batch[name] = _rolled(value, first)
    labels = batch.get("labels")
    if "labels" in names and torch.is_tensor(labels) and _has_entry_for_each_token("labels", labels, mask):
        batch["labels"] = labels.masked_fill(_after_last_token(batch[mask_name]), IGNORED)


def _rolled(value: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
    """A tensor (..., T) or (..., T, D) with each row's first `first` entries moved to its end."""
    rows, tokens = first.dim(), value.shape[first.dim()]
    index = (torch.arange(tokens, device=value.device) + first[..., None]) % tokens
    index = index.reshape(*index.shape, *[1] * (value.dim() - rows - 1))
    return value.gather(rows, index.expand(value.shape))


def _first_token(included: torch.Tensor) -> torch.Tensor:
    """Index of each row's first included token (...,); 0 if there is none."""
    return included.to(torch.uint8).argmax(-1)


def _after_last_token(mask: torch.Tensor) -> torch.Tensor:
    """Which entries come after the last included token of their row."""
    return (mask != 0).to(torch.int32).flip(-1).cumsum(-1).flip(-1) == 0


def _is_by_token(mask: torch.Tensor, batch: Mapping[str, Any], *names: str) -> bool:
    """Whether a mask has one entry for every token of the first of these inputs that the batch has."""
    for name in names:
        if torch.is_tensor(batch.get(name)):
            return mask.dim() > 1 and batch[name].shape[: mask.dim()] == mask.shape
    return False


def _has_entry_for_each_token(name: str, value: Any, mask: torch.Tensor) -> bool:
    if not torch.is_tensor(value) or value.shape[: mask.dim()] != mask.shape:
        return False
    return name != "labels" or _are_ids(value)  # Floating-point labels are multi-label targets of the row.


def _are_ids(labels: Any) -> TypeGuard[torch.Tensor]:
    return torch.is_tensor(labels) and labels.dim() > 1 and not labels.is_floating_point()


def _positions_in(batch: Mapping[str, Any]) -> Iterator[str]:
    return (name for name in _POSITIONS if torch.is_tensor(batch.get(name)))


def _counted_from(first: torch.Tensor, positions: torch.Tensor, name: str) -> torch.Tensor:
    counted = positions - first.reshape(positions.shape)
    if bool((counted < 0).any()):
        row = int((counted < 0).flatten().nonzero()[0])
        raise DataError(
            f"{name} of row {row} is {int(positions.flatten()[row])}, which is padding: the row begins at "
            f"{int(first.flatten()[row])}. Count positions within the padded row."
        )
    return counted


def _check_known(batch: Mapping[str, Any], mask: torch.Tensor) -> None:
    known = (*_BY_TOKEN, *_OF_DECODER, "attention_mask", "decoder_attention_mask", "labels")
    for name, value in batch.items():
        if name not in known and torch.is_tensor(value) and value.shape[: mask.dim()] == mask.shape:
            raise DataError(
                f"The batch is padded on the left, and it is unknown whether {name} {tuple(value.shape)} has one entry "
                "per token. Pad the batch on the right: tokenizer.padding_side = 'right'."
            )


def _check_last_token(config: Any, rows: int, *, padded: bool) -> None:
    if config.pad_token_id is None and (padded or rows > 1):
        raise DataError(
            f"The task head of {config.model_type} reads the last token before the padding, and its configuration has "
            f"pad_token_id=None, for a batch of {rows} rows. Set model.config.pad_token_id = tokenizer.pad_token_id."
        )
