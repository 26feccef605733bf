"""Truncation: the share of the rows and tokens that the longest input cuts off, and the length that would keep most."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from prunelora.errors import advice, option

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedTokenizerBase

# The advised length keeps this share of the rows whole.
KEPT_WHOLE = 0.95


@dataclass(frozen=True)
class Truncation:
    """Counts of the truncated rows and tokens of a split.

    Attributes:
        max_length: Longest input in tokens; longer rows are cut off.
        rows: Number of rows.
        rows_cut: Rows that are cut off.
        tokens: Number of tokens before the cut.
        tokens_cut: Tokens that are cut off.
        median_tokens: Median length before the cut.
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
        split: "datasets.Dataset",
        tokenised: "datasets.Dataset",
        tokenizer: "PreTrainedTokenizerBase",
        *,
        max_length: int,
    ) -> "Truncation":
        """Count the truncated rows and tokens; only rows of the full length are tokenised again.

        Args:
            split: Texts; at least one.
            tokenised: The same rows, tokenised by `prunelora.data.tokens.tokenise` for `max_length`.
            tokenizer: Their tokenizer.
            max_length: Longest input in tokens.
        """
        from prunelora.data.encoding import ROWS_AT_ONCE, encode_rows, lengths_of

        kept = lengths_of(tokenised)
        whole = kept.copy()
        full = np.flatnonzero(kept >= max_length)
        for start in range(0, len(full), ROWS_AT_ONCE):
            rows = full[start : start + ROWS_AT_ONCE]
            whole[rows] = lengths_of(encode_rows(split.select(rows), tokenizer, None))
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
        """Plain values for JSON."""
        return asdict(self)

    def describe(self, split: str, *, longest: int | None = None) -> str | None:
        """A sentence for people; None if nothing is cut off.

        Args:
            split: Name of the rows, such as "train".
            longest: Number of positions of the model; None if it has no limit.
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
