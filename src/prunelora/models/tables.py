"""Tables that a model looks its inputs up in, and the check that no input lies beyond them.

An index beyond a table is a bare IndexError on a CPU, and on a GPU an assertion that ends the process.
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

_OWN_TOKENIZER = (
    "Is the tokenizer the model's own? Give a model with the tokenizer that it was trained with; where tokens were "
    "added to the tokenizer, call model.resize_token_embeddings(len(tokenizer)) and save both."
)
_WITHOUT_TYPES = 'Leave them out: tokenizer.model_input_names = ["input_ids", "attention_mask"]'


@dataclass(frozen=True)
class LookedUp:
    """What some rows look up.

    Attributes:
        longest: Tokens of the longest row.
        tokens: Lowest and highest token id; None where there are none.
        types: The same of token types.
        ends: Least and most tokens of a row that end a text, where that is asked for.
    """

    longest: int
    tokens: tuple[int, int] | None
    types: tuple[int, int] | None = None
    ends: tuple[int, int] | None = None


@dataclass(frozen=True)
class Tables:
    """Sizes of a model's tables.

    Attributes:
        name: Of the model, for messages.
        tokens: Rows of the embedding of tokens; None where it has none.
        types: Rows of the embedding of token types; None where it has none.
        positions: Tokens of the longest row; None where positions are no table.
        types_are_tokens: Whether token types are looked up among the tokens.
        end: Token whose vector the task head reads, of which all rows need equally many; None where it reads others.
        padding: Token that rows are padded with; None where none is known.
    """

    name: str
    tokens: int | None
    types: int | None
    positions: int | None
    types_are_tokens: bool
    end: int | None
    padding: int | None

    @classmethod
    def of(cls, model: Any) -> "Tables":
        """Read them off a model; one that reads no tokens has none."""
        config: Any = getattr(model, "config", None)
        family = family_of_model_type(getattr(config, "model_type", ""))
        name = str(getattr(config, "name_or_path", "") or type(model).__name__)
        if family is None or family.images:
            return cls(name, None, None, None, False, None, None)
        words = model.get_input_embeddings()
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
            tokens=getattr(words, "num_embeddings", None),
            types=types,
            positions=longest_input(model),
            types_are_tokens=types is None and family.decoder and takes_token_types(config),
            end=config.eos_token_id if family.reads == "end" and problem_type_of(model) in OF_CONFIG else None,
            padding=getattr(config, "pad_token_id", None),
        )

    def check(self, found: LookedUp, where: str) -> None:
        """Hold rows to stay within the tables.

        Args:
            found: What they look up.
            where: What each of them is, for messages: "a train row".

        Raises:
            UnsupportedModelError: If a row is too long, has a token or token type that is in no table, or does not have
                the token that the task head reads.
        """
        if self.positions is not None and found.longest > self.positions:
            raise UnsupportedModelError(
                f"{where} has {found.longest} tokens, and {self.name} has positions for {self.positions}. Ask for "
                f"{advice('max_length', self.positions)} or fewer; longer rows are then cut off."
            )
        if self.tokens is not None and found.tokens is not None and not _within(found.tokens, self.tokens):
            raise UnsupportedModelError(
                f"{where} has the token {_outside(found.tokens)}, and the embedding of {self.name} has {self.tokens:,} "
                f"tokens, 0 to {self.tokens - 1}. {_OWN_TOKENIZER}"
            )
        if found.types is not None and self.types_are_tokens:
            raise UnsupportedModelError(
                f"{where} has token_type_ids, and {self.name} would look these up among its tokens. {_WITHOUT_TYPES}"
            )
        if found.types is not None and self.types is not None and not _within(found.types, self.types):
            raise UnsupportedModelError(
                f"{where} has the token type {_outside(found.types)} (token_type_ids), and {self.name} has "
                f"{self.types} of them, counted from 0 (type_vocab_size). {_WITHOUT_TYPES}"
            )
        if found.ends is not None and (found.ends[0] < 1 or found.ends[0] != found.ends[1]):
            counts = (
                f"{found.ends[0]} in one row and {found.ends[1]} in another" if any(found.ends) else "no row has it"
            )
            raise UnsupportedModelError(
                f"The task head of {self.name} reads the token {self.end} that ends a text, equally many in every row; "
                f"found for {where}: {counts}. {_OWN_TOKENIZER}"
            )

    def check_padding(self) -> None:
        """Hold the token that rows are padded with to be in the table.

        Raises:
            UnsupportedModelError: If it is not; some conversions write -1.
        """
        if self.padding is not None and self.tokens is not None and not 0 <= self.padding < self.tokens:
            raise UnsupportedModelError(
                f"Rows are padded with the token {self.padding} (pad_token_id), and the embedding of {self.name} has "
                f"{self.tokens:,} tokens, 0 to {self.tokens - 1}. Pad with one of these: tokenizer.pad_token = "
                "tokenizer.eos_token, and model.config.pad_token_id = tokenizer.pad_token_id; save both."
            )


def check_batch(model: nn.Module, batch: Mapping[str, Any]) -> None:
    """Hold a batch to stay within a model's tables.

    Args:
        model: That will read it.
        batch: As `model(**batch)` takes it.

    Raises:
        UnsupportedModelError: If it does not; see `Tables.check`.
    """
    ids, types, mask = (batch.get(name) for name in ("input_ids", "token_type_ids", "attention_mask"))
    if not torch.is_tensor(ids) or not ids.numel():
        return
    # What is in the padding is replaced by the model's own: see `prunelora.models.padding`.
    counted = mask != 0 if torch.is_tensor(mask) and mask.shape == ids.shape else torch.ones_like(ids, dtype=torch.bool)
    tables = Tables.of(model)
    ends = ((ids == tables.end) & counted).sum(-1) if tables.end is not None else None
    tables.check(
        LookedUp(
            longest=ids.shape[-1],
            tokens=_ends(ids[counted]),
            types=_ends(types) if torch.is_tensor(types) else None,
            ends=_ends(ends) if ends is not None else None,
        ),
        "a row of the batch",
    )


def _ends(values: torch.Tensor) -> tuple[int, int] | None:
    return (int(values.min()), int(values.max())) if values.numel() else None


def _within(ids: tuple[int, int], rows: int) -> bool:
    return ids[0] >= 0 and ids[1] < rows


def _outside(ids: tuple[int, int]) -> int:
    return ids[0] if ids[0] < 0 else ids[1]
