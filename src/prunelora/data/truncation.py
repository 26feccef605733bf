"""What of the rows is cut off at the longest input that was asked for, and how long it must be to keep most whole."""

from dataclasses import asdict, dataclass
from typing import Any

import datasets
import numpy as np
from transformers import PreTrainedTokenizerBase

from prunelora.data.encoding import encode_rows, lengths_of
from prunelora.errors import advice, option

# Of the rows, this share is kept whole by the length that is advised.
KEPT_WHOLE = 0.95
_ROWS_AT_ONCE = 10_000


@dataclass(frozen=True)
class Truncation:
    """What is cut off of a split's rows.

    Attributes:
        max_length: Longest input in tokens; what is longer is cut off.
        rows: Rows in all.
        rows_cut: Rows that are cut off.
        tokens: Tokens in all, before the cut.
        tokens_cut: Tokens that are cut off.
        median_tokens: Of the lengths before the cut.
        keeps_most: Longest input, in tokens, that would keep KEPT_WHOLE of the rows whole.
    """

    max_length: int
    rows: int
    rows_cut: int
    tokens: int
    tokens_cut: int
    median_tokens: float
    keeps_most: int

    @classmethod
    def of(
        cls,
        split: datasets.Dataset,
        tokenised: datasets.Dataset,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int,
    ) -> "Truncation":
        """Count it; only rows that are as long as they may be are tokenised again, to see how long they are.

        Args:
            split: Texts; at least one.
            tokenised: The same rows as `prunelora.data.tokens.tokenise` made them for `max_length`.
            tokenizer: That made them.
            max_length: Longest input in tokens.
        """
        kept = lengths_of(tokenised)
        whole = kept.copy()
        full = np.flatnonzero(kept >= max_length)
        for start in range(0, len(full), _ROWS_AT_ONCE):
            some = full[start : start + _ROWS_AT_ONCE]
            whole[some] = lengths_of(encode_rows(split.select(some), tokenizer, None))
        return cls(
            max_length=max_length,
            rows=len(whole),
            rows_cut=int((whole > kept).sum()),
            tokens=int(whole.sum()),
            tokens_cut=int((whole - kept).sum()),
            median_tokens=float(np.median(whole)),
            keeps_most=int(np.quantile(whole, KEPT_WHOLE, method="inverted_cdf")),
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def describe(self, split: str, *, longest: int | None = None) -> str | None:
        """A sentence for people; None where nothing is cut off.

        Args:
            split: Name of the rows, such as "train".
            longest: Most tokens that the model has positions for; None where there is no such number.
        """
        if not self.rows_cut:
            return None
        longer = ""
        if self.keeps_most > self.max_length:
            longer = f": {advice('max_length', self.keeps_most)} would keep {KEPT_WHOLE:.0%} of them whole"
            if longest is not None and self.keeps_most > longest:
                longer += f", but the model has positions for {longest}"
        return (
            f"{self.rows_cut:,} of {self.rows:,} {split} rows ({self.rows_cut / self.rows:.0%}) are longer than "
            f"{option('max_length', self.max_length)} and are cut off, {self.tokens_cut / self.tokens:.0%} of all "
            f"their tokens{longer}"
        )
