"""The vectors that a task head reads from the encoder's output."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from prunelora.models.anatomy import Anatomy
from prunelora.models.padding import real_tokens
from prunelora.models.problem_types import BY_TOKEN, problem_type_of

# Inputs that a model computes its loss from.
TARGETS = ("labels", "start_positions", "end_positions")

# Ends of the names of further classes whose head reads every token.
_OF_EVERY_TOKEN = ("ForQuestionAnswering", "ForMaskedLM", "ForConditionalGeneration")


def last_hidden_state(anatomy: Anatomy, base: nn.Module, inputs: Mapping[str, Any]) -> torch.Tensor:
    """Last hidden state of the base model (B, T, D); in an encoder-decoder, of its decoder.

    Args:
        anatomy: The model.
        base: Its base model, which another module may replace in the model.
        inputs: As `model(**inputs)` takes them; a decoder may make its inputs from the labels.
    """
    ids = inputs.get("input_ids")
    if not anatomy.family.encoder_decoder and (ids is None or ids.dim() < 3):
        unlabelled = {name: value for name, value in inputs.items() if name not in TARGETS}
        hidden: torch.Tensor = base(**unlabelled).last_hidden_state
        return hidden
    # The model with its head makes the decoder's inputs, and rows of the choices of an example.
    outputs: list[torch.Tensor] = []
    handle = base.register_forward_hook(lambda _, __, output: outputs.append(output.last_hidden_state))
    try:
        anatomy.model(**inputs)
    finally:
        handle.remove()
    return outputs[0]


def head_inputs(anatomy: Anatomy, hidden: torch.Tensor, inputs: Mapping[str, Any]) -> torch.Tensor:
    """The vectors that the task head reads: (B, T, D) -> (B, 1, D), (B, 2, D) for two vectors, or all (B, T, D).

    For a model without a task head, the mean over the real tokens, which sentence embeddings are.
    """
    config: Any = anatomy.model.config
    reads = anatomy.family.reads
    if reads_every_token(anatomy.model):
        return hidden.clone()
    if anatomy.base is anatomy.model or (reads == "pooling" and config.classifier_pooling == "mean"):
        weights = real_tokens(inputs, hidden, decoder=anatomy.family.encoder_decoder).to(hidden)[..., None]
        return (hidden * weights).sum(1, keepdim=True) / weights.sum(1, keepdim=True)
    if reads == "last" and config.pad_token_id is None:
        return hidden[:, -1:].clone()
    if reads in ("last", "end"):
        ids = inputs["input_ids"]
        candidates = ids != config.pad_token_id if reads == "last" else ids == config.eos_token_id
        last = (torch.arange(hidden.shape[1], device=hidden.device) * candidates).argmax(-1)
        return hidden[torch.arange(len(hidden), device=hidden.device), last][:, None].clone()
    if reads == "first_and_mean":
        return torch.stack([hidden[:, 0], hidden[:, 1:].mean(1)], dim=1)
    return hidden[:, :1].clone()


def reads_every_token(model: nn.Module) -> bool:
    """Whether the task head reads the vector of every token."""
    return problem_type_of(model) in BY_TOKEN or type(model).__name__.endswith(_OF_EVERY_TOKEN)
