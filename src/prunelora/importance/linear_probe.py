"""Linear probe: train the task head alone, on features that the frozen encoder computes once.

A task head that was just initialised points its gradients in random directions, and with them the scores. It is small,
and its inputs do not change while the encoder is frozen, so a few hundred steps cost little more than one forward pass.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPast, BaseModelOutputWithPooling, Seq2SeqModelOutput

from prunelora.errors import DivergenceError, ScoreError, check_count
from prunelora.importance.losses import count_losses
from prunelora.models.anatomy import Anatomy, dissect
from prunelora.models.family import Family
from prunelora.models.padding import readable
from prunelora.models.problem_types import TOKENS, problem_type_of
from prunelora.models.state import left_as_found
from prunelora.progress import over

LEARNING_RATE = 1e-3
WEIGHT_DECAY = 0.01
# Of features that are kept. A head that labels tokens reads T vectors a row, which of many rows would fill the memory.
MOST_BYTES = 1024**3


def train_linear_probe_(
    model: nn.Module,
    batches: Sequence[Mapping[str, Any]],
    *,
    steps: int,
    seed: int = 0,
    learning_rate: float = LEARNING_RATE,
) -> float:
    """Train the task head of `model` in place; everything else stays as it is.

    The encoder runs once over every batch, in eval mode and without gradients, and only the vector that the head reads
    is kept, (B, 1, D): the first token's, a decoder's last token's, that of the sequence's end, or the mean. A head
    that labels tokens reads all; beyond `MOST_BYTES` the encoder runs again for every step on such a batch.

    Args:
        model: A model of a supported family with a head that labels sequences, tokens or images.
        batches: Dicts as `model(**batch)` takes them, with `labels`; training rows only.
        steps: Optimiser steps (AdamW, one batch each), in a seeded random order of the batches.
        seed: For that order.
        learning_rate: Of AdamW.

    Returns:
        Mean loss over the last tenth of the steps.

    Raises:
        ScoreError: If there is no batch, a batch has no labels, or `steps` or `learning_rate` cannot be trained with.
        DivergenceError: If a loss is not finite; the task head then is as it was.
    """
    check_count(ScoreError, "steps", steps)
    if not 0 < learning_rate < math.inf:
        raise ScoreError(f"learning_rate={learning_rate!r}: expected a number above 0, such as {LEARNING_RATE}.")
    if not batches:
        raise ScoreError("No batch to warm the task head up with: `batches` was empty.")
    anatomy = dissect(model)
    names = anatomy.task_head_names()
    if anatomy.base is model or not names:
        raise ScoreError(
            f"{type(model).__name__} has no task head to train. Use a model such as AutoModelForSequenceClassification."
        )
    features = _Features(anatomy, batches)
    if not len(features):
        raise ScoreError(f"No label to warm the task head up with, in {len(batches)} batches.")
    parameters = [parameter for name in names for parameter in model.get_submodule(name).parameters()]
    losses = []
    with left_as_found(model), torch.enable_grad(), head_restored(model, after_errors_only=True):
        model.requires_grad_(False)
        for parameter in parameters:
            parameter.requires_grad_(True)
        model.eval()
        optimiser = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=WEIGHT_DECAY)
        order = torch.Generator().manual_seed(seed)
        with _encoder_replaced(anatomy) as feed:
            queue: list[int] = []
            for _ in over(range(steps), "warming up"):
                queue = queue or torch.randperm(len(features), generator=order).tolist()
                hidden, labels = features.of(queue.pop())
                feed(hidden)
                loss = model(**_of_features(anatomy, hidden), labels=labels).loss
                losses.append(float(loss.detach()))
                if not math.isfinite(losses[-1]):
                    raise DivergenceError(
                        f"Linear probe: in step {len(losses)} the loss is {losses[-1]:.4g}. Try a lower "
                        f"learning_rate than {learning_rate:g}, and check that the weights and inputs are finite."
                    )
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if not all(bool(parameter.isfinite().all()) for parameter in parameters):
            raise DivergenceError(
                f"Linear probe: after step {steps} weights of the task head are not finite. Try a lower "
                f"learning_rate than {learning_rate:g}."
            )
    tail = losses[-max(1, len(losses) // 10) :]
    return sum(tail) / len(tail)


@contextlib.contextmanager
def head_restored(model: nn.Module, *, after_errors_only: bool = False) -> Iterator[None]:
    """Put the task head's weights back as they were when the block began; if asked, only where the block fails."""
    names = dissect(model).task_head_names()
    before = {name: {k: v.clone() for k, v in model.get_submodule(name).state_dict().items()} for name in names}
    restore = not after_errors_only
    try:
        yield
    except BaseException:
        restore = True
        raise
    finally:
        for name, state in before.items() if restore else ():
            model.get_submodule(name).load_state_dict(state)


class _Features:
    """What the task head reads of every batch, (B, 1, D) or as many tokens as it needs, and the labels.

    Attributes:
        kept: Features and labels of batches with a label (a mean over none is no loss). Of a head that labels tokens
            up to `MOST_BYTES`.
        inputs: Of the other batches, whose features are computed whenever they are asked for.
    """

    def __init__(self, anatomy: Anatomy, batches: Sequence[Mapping[str, Any]]) -> None:
        self.anatomy = anatomy
        self.base = anatomy.base  # It is replaced while the head is trained.
        self.kept: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.inputs: list[dict[str, Any]] = []
        size, most = 0, MOST_BYTES if problem_type_of(anatomy.model) == TOKENS else math.inf
        with left_as_found(anatomy.model):
            anatomy.model.eval()
            for number, batch in enumerate(batches):
                if batch.get("labels") is None:
                    raise ScoreError(f"Batch {number} has no labels: its keys are {sorted(batch)}.")
                inputs = readable(batch, anatomy.model)
                if not count_losses(anatomy.model, inputs, len(inputs["labels"])):
                    continue
                if size >= most:
                    self.inputs.append(inputs)
                    continue
                self.kept.append(self._computed(inputs))
                size += self.kept[-1][0].numel() * self.kept[-1][0].element_size()

    def __len__(self) -> int:
        """How many batches have a label."""
        return len(self.kept) + len(self.inputs)

    def of(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Those of a batch, in the order of those that have a label; the model is in eval mode."""
        more = number - len(self.kept)
        return self.kept[number] if more < 0 else self._computed(self.inputs[more])

    @torch.no_grad()
    def _computed(self, batch: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        inputs = dict(batch)
        labels = inputs.pop("labels")
        return _read_by_head(self.anatomy, self._last_hidden_state(inputs), inputs), labels

    def _last_hidden_state(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        """What the base model gives, (B, T, D); that of an encoder-decoder is the decoder's."""
        if not self.anatomy.family.encoder_decoder:
            hidden: torch.Tensor = self.base(**inputs).last_hidden_state
            return hidden
        found: list[torch.Tensor] = []
        handle = self.base.register_forward_hook(lambda _, __, output: found.append(output.last_hidden_state))
        try:
            self.anatomy.model(**inputs)  # Some make what the decoder reads in the model around the base.
        finally:
            handle.remove()
        return found[0]


def _of_features(anatomy: Anatomy, hidden: torch.Tensor) -> dict[str, Any]:
    """What the model is called with while its encoder is replaced: one token, where the head asks for the inputs."""
    if anatomy.family.reads == "end":
        config: Any = anatomy.model.config
        return {"input_ids": torch.full(hidden.shape[:2], config.eos_token_id, device=hidden.device)}
    return {"input_ids": None, "inputs_embeds": hidden}


def _read_by_head(anatomy: Anatomy, hidden: torch.Tensor, inputs: Mapping[str, Any]) -> torch.Tensor:
    """What the task head is given of every row: (B, T, D) -> (B, 1, D), (B, 2, D) where it is two vectors, or all."""
    config: Any = anatomy.model.config
    if problem_type_of(anatomy.model) == TOKENS:
        return hidden.clone()
    if anatomy.family.reads == "last":
        padding = config.pad_token_id
        if padding is None:
            return hidden[:, -1:].clone()
        places = torch.arange(hidden.shape[1], device=hidden.device)
        last = (places * (inputs["input_ids"] != padding)).argmax(-1)
        return hidden[torch.arange(len(hidden), device=hidden.device), last][:, None].clone()
    if anatomy.family.reads == "end":
        places = torch.arange(hidden.shape[1], device=hidden.device)
        last = (places * (inputs["input_ids"] == config.eos_token_id)).argmax(-1)
        return hidden[torch.arange(len(hidden), device=hidden.device), last][:, None].clone()
    if anatomy.family.reads == "pooling" and config.classifier_pooling == "mean":
        mask = inputs.get("attention_mask")
        weights = torch.ones(hidden.shape[:2], device=hidden.device) if mask is None else mask
        weights = weights.to(hidden)[..., None]
        return (hidden * weights).sum(1, keepdim=True) / weights.sum(1, keepdim=True)
    if anatomy.family.reads == "first_and_mean":
        return torch.stack([hidden[:, 0], hidden[:, 1:].mean(1)], dim=1)
    return hidden[:, :1].clone()


class _Feed(nn.Module):
    """Stands in for the encoder: gives the features it was fed, through the pooler where the family has one."""

    def __init__(self, pooler: nn.Module | None, *, activation: nn.Module | None, family: Family) -> None:
        super().__init__()
        self.pooler = pooler
        self.activation = activation
        self.family = family
        self.hidden: torch.Tensor | None = None

    def forward(self, *_: Any, **__: Any) -> Any:
        if self.family.encoder_decoder:
            return Seq2SeqModelOutput(last_hidden_state=self.hidden)
        if self.family.decoder:
            return BaseModelOutputWithPast(last_hidden_state=self.hidden)
        pooled = None
        if self.pooler is not None and self.hidden is not None:
            pooled = self.activation(self.pooler(self.hidden[:, 0])) if self.activation else self.pooler(self.hidden)
        return BaseModelOutputWithPooling(last_hidden_state=self.hidden, pooler_output=pooled)


@contextlib.contextmanager
def _encoder_replaced(anatomy: Anatomy) -> Iterator[Any]:
    """Swap the encoder for a feed while the block runs, so that the model's own head and loss are what is trained."""
    base, name = anatomy.base, anatomy.base_prefix.rstrip(".")
    pooler = getattr(base, anatomy.family.pooler, None) if anatomy.family.pooler else None
    activation = getattr(base, anatomy.family.pooler_activation) if anatomy.family.pooler_activation else None
    feed = _Feed(pooler, activation=activation, family=anatomy.family)
    setattr(anatomy.model, name, feed)

    def give(hidden: torch.Tensor) -> None:
        feed.hidden = hidden

    try:
        yield give
    finally:
        setattr(anatomy.model, name, base)
