"""Sizes of a model's embeddings, and the check that no input index lies beyond them.

An index beyond an embedding is a bare IndexError on a CPU; on a GPU it is an assertion that ends the process.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from prunelora.errors import UnsupportedModelError, advice
from prunelora.models.families import family_of_model_type
from prunelora.models.inputs import longest_input, takes_token_types
from prunelora.models.problem_types import OF_CONFIG, problem_type_of

_OTHER_TOKENIZER = (
    "Use the tokenizer that the model was trained with. If tokens were added to the tokenizer, call "
    "model.resize_token_embeddings(len(tokenizer)) and save both."
)
_WITHOUT_TYPES = 'Leave them out: tokenizer.model_input_names = ["input_ids", "attention_mask"]'


@dataclass(frozen=True)
class IndexRanges:
    """Ranges of the indices in some rows.

    Attributes:
        longest: Number of tokens in the longest row.
        tokens: Lowest and highest token id; None without tokens.
        types: Lowest and highest token type id; None without token types.
        ends: Lowest and highest number of end-of-text tokens in a row; None if the model's task head does not read it.
    """

    longest: int
    tokens: tuple[int, int] | None
    types: tuple[int, int] | None = None
    ends: tuple[int, int] | None = None


@dataclass(frozen=True)
class EmbeddingSizes:
    """Sizes of a model's embeddings.

    Attributes:
        name: Name of the model, for messages.
        tokens: Rows of the token embedding; None without one.
        types: Rows of the token type embedding; None without one.
        positions: Maximum number of tokens in a row; None without a position embedding.
        types_are_tokens: Whether token types are looked up in the token embedding.
        end: Id of the token whose vector the task head reads, and of which all rows need the same number; None if the
            head reads another vector.
        padding: Id of the padding token; None if unknown.
    """

    name: str
    tokens: int | None
    types: int | None
    positions: int | None
    types_are_tokens: bool
    end: int | None
    padding: int | None

    @classmethod
    def of(cls, model: Any) -> "EmbeddingSizes":
        """The sizes of a model; all None if it does not read tokens."""
        config: Any = getattr(model, "config", None)
        family = family_of_model_type(getattr(config, "model_type", ""))
        name = str(getattr(config, "name_or_path", "") or type(model).__name__)
        if family is None or family.images:
            return cls(name, None, None, None, False, None, None)
        types = next(
            (
                module.num_embeddings
                for path, module in model.named_modules()
                if path.endswith("token_type_embeddings") and isinstance(module, nn.Embedding)
            ),
            None,
        )
        return cls(
            name=name,
            tokens=getattr(model.get_input_embeddings(), "num_embeddings", None),
            types=types,
            positions=longest_input(model),
            types_are_tokens=types is None and family.decoder and takes_token_types(config),
            end=config.eos_token_id if family.reads == "end" and problem_type_of(model) in OF_CONFIG else None,
            padding=getattr(config, "pad_token_id", None),
        )

    def check(self, ranges: IndexRanges, where: str) -> None:
        """Check that the indices of some rows lie within the embeddings.

        Args:
            ranges: Ranges of the indices.
            where: Name of a row, for messages: "a train row".

        Raises:
            UnsupportedModelError: If a row is too long, a token or token type id is out of range, or rows differ in the
                number of tokens that the task head reads.
        """
        if self.positions is not None and ranges.longest > self.positions:
            raise UnsupportedModelError(
                f"{where} has {ranges.longest} tokens, and {self.name} has positions for {self.positions}. Use "
                f"{advice('max_length', self.positions)} or less to truncate longer rows."
            )
        if self.tokens is not None and ranges.tokens is not None and not _within(ranges.tokens, self.tokens):
            raise UnsupportedModelError(
                f"{where} has the token {_outside(ranges.tokens)}, and the embedding of {self.name} has "
                f"{self.tokens:,} tokens, 0 to {self.tokens - 1}. {_OTHER_TOKENIZER}"
            )
        if ranges.types is not None and self.types_are_tokens:
            raise UnsupportedModelError(
                f"{where} has token_type_ids, and {self.name} would look these up in its token embedding. "
                f"{_WITHOUT_TYPES}"
            )
        if ranges.types is not None and self.types is not None and not _within(ranges.types, self.types):
            raise UnsupportedModelError(
                f"{where} has the token type {_outside(ranges.types)} (token_type_ids), and {self.name} has "
                f"{self.types} types, counted from 0 (type_vocab_size). {_WITHOUT_TYPES}"
            )
        if ranges.ends is not None and (ranges.ends[0] < 1 or ranges.ends[0] != ranges.ends[1]):
            fewest, most = ranges.ends
            counts = f"{fewest} in one row and {most} in another" if most else "none in any row"
            raise UnsupportedModelError(
                f"The task head of {self.name} reads the end-of-text token {self.end}, which every row must have the "
                f"same number of times; found for {where}: {counts}. {_OTHER_TOKENIZER}"
            )

    def check_padding(self) -> None:
        """Check that the padding token lies within the token embedding.

        Raises:
            UnsupportedModelError: If it does not; some converted checkpoints have -1.
        """
        if self.padding is not None and self.tokens is not None and not 0 <= self.padding < self.tokens:
            raise UnsupportedModelError(
                f"Rows are padded with the token {self.padding} (pad_token_id), and the embedding of {self.name} has "
                f"{self.tokens:,} tokens, 0 to {self.tokens - 1}. Set tokenizer.pad_token = tokenizer.eos_token and "
                "model.config.pad_token_id = tokenizer.pad_token_id, and save both."
            )


def check_batch(model: nn.Module, batch: Mapping[str, Any]) -> None:
    """Check that the indices of a batch lie within a model's embeddings.

    Args:
        model: The model that will read the batch.
        batch: As `model(**batch)` takes it.

    Raises:
        UnsupportedModelError: If they do not; see `EmbeddingSizes.check`.
    """
    ids, types, mask = (batch.get(name) for name in ("input_ids", "token_type_ids", "attention_mask"))
    if not torch.is_tensor(ids) or not ids.numel():
        return
    # Ids in the padding are replaced by the model's own padding: see `prunelora.models.padding`.
    counted = mask != 0 if torch.is_tensor(mask) and mask.shape == ids.shape else torch.ones_like(ids, dtype=torch.bool)
    sizes = EmbeddingSizes.of(model)
    ends = ((ids == sizes.end) & counted).sum(-1) if sizes.end is not None else None
    sizes.check(
        IndexRanges(
            longest=ids.shape[-1],
            tokens=_range(ids[counted]),
            types=_range(types) if torch.is_tensor(types) else None,
            ends=_range(ends) if ends is not None else None,
        ),
        "a row of the batch",
    )


def _range(values: torch.Tensor) -> tuple[int, int] | None:
    return (int(values.min()), int(values.max())) if values.numel() else None


def _within(ids: tuple[int, int], rows: int) -> bool:
    return ids[0] >= 0 and ids[1] < rows


def _outside(ids: tuple[int, int]) -> int:
    return ids[0] if ids[0] < 0 else ids[1]
