"""Tokenised rows as a model reads them: without inputs that it ignores, and none beyond its embedding tables."""

from typing import Any, cast

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prunelora.data.encoding import lengths_of
from prunelora.data.images import holds_images
from prunelora.errors import UnsupportedModelError
from prunelora.models.embedding_sizes import EmbeddingSizes, IndexRanges
from prunelora.models.inputs import image_size

TYPES = "token_type_ids"

# A tokenizer with fewer tokens than this share of the model's embedding may belong to another model.
FEW = 0.9


def fitting(model: Any, rows: datasets.Dataset, *, where: str = "row") -> datasets.Dataset:
    """Rows as a model reads them, checked to stay within its embedding tables.

    Token types are removed for a model that has no table of them. A GPT-2 would look them up in its token embedding.

    Args:
        model: The model that will read the rows; only the sizes of its weights are used.
        rows: As `prunelora.data.tokens.tokenise` makes them.
        where: Name of a row in messages, such as "train row".

    Raises:
        UnsupportedModelError: If a row is too long for the model, has a token or token type that its tables lack, or
            lacks the token that its head reads; or if an image has another size or number of channels.
    """
    if holds_images(rows):
        _check_image(model, rows, where)
        return rows
    tables = EmbeddingSizes.of(model)
    if tables.types is None and TYPES in rows.column_names:
        rows = rows.remove_columns(TYPES)
    tables.check_padding()
    if len(rows):
        tables.check(_looked_up(rows, tables), f"a {where}")
    return rows


def vocabulary_note(model: Any, tokenizer: Any) -> str | None:
    """A sentence for people if a tokenizer has more tokens than a model, or many fewer; None if it fits."""
    tables = EmbeddingSizes.of(model)
    if tables.tokens is None:
        return None
    counts = f"the tokenizer has {len(tokenizer):,} tokens, and the embedding of {tables.name} {tables.tokens:,}"
    if len(tokenizer) > tables.tokens:
        return f"{counts}: a text with one of the last {len(tokenizer) - tables.tokens:,} cannot be read"
    # Tables are often padded to a multiple of 64 or 128, and some have room for a thousand more tokens.
    if len(tokenizer) < FEW * tables.tokens:
        return f"{counts}: is it the model's own tokenizer?"
    return None


def _looked_up(rows: datasets.Dataset, tables: EmbeddingSizes) -> IndexRanges:
    table: pa.Table = rows.select_columns(
        [name for name in ("input_ids", TYPES) if name in rows.column_names]
    ).with_format("arrow")[:]
    ids, lengths = table["input_ids"], lengths_of(rows)
    return IndexRanges(
        longest=int(lengths.max()),
        tokens=_ends(ids),
        types=_ends(table[TYPES]) if TYPES in table.column_names else None,
        ends=_counts(ids, lengths, tables.end) if tables.end is not None else None,
    )


def _ends(lists: pa.ChunkedArray) -> tuple[int, int]:
    ends = pc.min_max(pc.list_flatten(lists)).as_py()
    return int(ends["min"]), int(ends["max"])


def _counts(lists: pa.ChunkedArray, lengths: np.ndarray, token: int) -> tuple[int, int]:
    """Least and most occurrences of a token in a row."""
    rows = np.repeat(np.arange(len(lengths)), lengths)
    counts = np.bincount(rows[pc.list_flatten(lists).to_numpy() == token], minlength=len(lengths))
    return int(counts.min()), int(counts.max())


def _check_image(model: Any, rows: datasets.Dataset, where: str) -> None:
    """Raises UnsupportedModelError if the first image has another shape than the model reads; all images have one."""
    if not len(rows):
        return
    pixels = np.asarray(rows[0]["pixel_values"])
    expected = (int(cast(Any, model.config).num_channels), *image_size(model))
    if pixels.shape != expected:
        raise UnsupportedModelError(
            f"The image processor makes a {where} of (channels, height, width) {pixels.shape}, and the model reads "
            f"{expected}. Images are RGB, with 3 channels; set the size in the model's preprocessor_config.json."
        )
