"""Cached inputs of the task head: the vectors that it reads from the frozen encoder's output, for every batch."""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPast, BaseModelOutputWithPooling, Seq2SeqModelOutput

from prunelora.errors import ScoreError
from prunelora.importance.head_inputs import head_inputs, last_hidden_state
from prunelora.importance.losses import count_losses
from prunelora.models.anatomy import Anatomy
from prunelora.models.family import Family
from prunelora.models.padding import prepare_batch
from prunelora.models.problem_types import TOKENS, problem_type_of
from prunelora.models.state import left_as_found

# Maximum size of the cache for a head that labels tokens, which reads T vectors per row.
MAX_BYTES = 1024**3


class Features:
    """The task head's inputs, (B, 1, D) or more tokens if the head reads them, and labels of every batch with a label.

    Attributes:
        cached: Features and labels; for a head that labels tokens, up to `MAX_BYTES`.
        uncached: The remaining batches, whose features are computed again for each use.
    """

    def __init__(self, anatomy: Anatomy, batches: Sequence[Mapping[str, Any]]) -> None:
        self.anatomy = anatomy
        self.base = anatomy.base  # `encoder_replaced` replaces it in the model.
        self.cached: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.uncached: list[dict[str, Any]] = []
        size, max_size = 0, MAX_BYTES if problem_type_of(anatomy.model) == TOKENS else math.inf
        with left_as_found(anatomy.model):
            anatomy.model.eval()
            for number, batch in enumerate(batches):
                if batch.get("labels") is None:
                    raise ScoreError(f"Batch {number} has no labels: its keys are {sorted(batch)}.")
                inputs = prepare_batch(batch, anatomy.model)
                if not count_losses(anatomy.model, inputs, len(inputs["labels"])):
                    continue
                if size >= max_size:
                    self.uncached.append(inputs)
                    continue
                self.cached.append(self._compute(inputs))
                size += self.cached[-1][0].numel() * self.cached[-1][0].element_size()

    def __len__(self) -> int:
        """Number of batches with a label."""
        return len(self.cached) + len(self.uncached)

    def of(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Features and labels of one of the batches with a label; the model must be in eval mode."""
        beyond = number - len(self.cached)
        return self.cached[number] if beyond < 0 else self._compute(self.uncached[beyond])

    @torch.no_grad()
    def _compute(self, batch: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        inputs = dict(batch)
        labels = inputs.pop("labels")
        return head_inputs(self.anatomy, last_hidden_state(self.anatomy, self.base, inputs), inputs), labels


class _FeatureEncoder(nn.Module):
    """Replaces the encoder: returns given features, passed through the pooler if the family has one."""

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
def encoder_replaced(anatomy: Anatomy) -> Iterator[Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]:
    """Replace the encoder by given features, so that the model runs its own head and loss alone.

    Yields:
        A function from features and labels of a batch to the model's loss.
    """
    base, name, family = anatomy.base, anatomy.base_prefix.rstrip("."), anatomy.family
    config: Any = anatomy.model.config
    encoder = _FeatureEncoder(
        getattr(base, family.pooler, None) if family.pooler else None,
        activation=getattr(base, family.pooler_activation) if family.pooler_activation else None,
        family=family,
    )

    def loss_of(hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        encoder.hidden = hidden
        # A head that reads the end-of-text token looks for it in the ids; the features are that token's alone.
        inputs = (
            {"input_ids": torch.full(hidden.shape[:2], config.eos_token_id, device=hidden.device)}
            if family.reads == "end"
            else {"input_ids": None, "inputs_embeds": hidden}
        )
        loss: torch.Tensor = anatomy.model(**inputs, labels=labels).loss
        return loss

    setattr(anatomy.model, name, encoder)
    try:
        yield loss_of
    finally:
        setattr(anatomy.model, name, base)
