"""Tokenisation of the rows of each kind of task, with the labels of their tokens."""

from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from transformers import PreTrainedTokenizerBase

from prunelora.data.metrics import IGNORED
from prunelora.errors import DataError

# The smallest types, since the rows of all splits stay in memory. Batches are int64 all the same.
_IDS, _MASK = (datasets.Sequence(datasets.Value(kind)) for kind in ("int32", "int8"))

# Tokens pass through Python lists once; parts of this size keep these small beside the resulting Arrow table.
ROWS_AT_ONCE = 10_000


def encode_rows(
    rows: datasets.Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int | None, start: int = 0
) -> datasets.Dataset:
    """Tokenise rows at once; their columns decide between language modelling, words with tags, and texts.

    Args:
        rows: As `prunelora.data.tokens.tokenise` takes them.
        tokenizer: Tokenizer of the model.
        max_length: Longest input in tokens, special tokens included; None to cut nothing off.
        start: Number of rows before these, for errors.

    Raises:
        DataError: If a row gives no tokens, or the tokenizer cannot tell the word of a token.
    """
    if "label" not in rows.column_names:
        encoded, labels, label_type = *_language_modelling(rows, tokenizer, max_length), _IDS
    elif holds_words(rows):
        encoded, labels, label_type = *_words(rows, tokenizer, max_length), _IDS
    else:
        encoded = _texts(rows, tokenizer, max_length)
        labels, label_type = list(rows["label"]), rows.features["label"]
    for row, ids in enumerate(encoded["input_ids"]):
        if not ids:
            raise DataError(f"Row {start + row + 1:,} gives no tokens with this tokenizer: {rows['text'][row]!r}.")
    inputs = {name: _MASK if name == "attention_mask" else _IDS for name in encoded}
    features = datasets.Features({**inputs, "labels": label_type})
    return datasets.Dataset.from_dict({**encoded, "labels": labels}, features=features)


def lengths_of(tokenised: datasets.Dataset) -> np.ndarray:
    """Number of tokens of every row, (N,)."""
    table: pa.Table = tokenised.select_columns("input_ids").with_format("arrow")[:]
    lengths: np.ndarray = pc.list_value_length(table["input_ids"]).to_numpy()
    return lengths


def holds_words(rows: datasets.Dataset) -> bool:
    """Whether a text is a list of words, each with a label."""
    return not isinstance(rows.features["text"], datasets.Value)


def _texts(rows: datasets.Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int | None) -> dict[str, list]:
    pairs = list(rows["text_pair"]) if "text_pair" in rows.column_names else None
    return dict(tokenizer(list(rows["text"]), pairs, **_cut_to(max_length)))


def _words(
    rows: datasets.Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int | None
) -> tuple[dict[str, list], list[list[int]]]:
    if not tokenizer.is_fast:
        raise DataError(
            f"{type(tokenizer).__name__} cannot tell the word of a token. Token classification needs a fast "
            "tokenizer: save the model's folder with its tokenizer.json."
        )
    encoded: Any = tokenizer(list(rows["text"]), is_split_into_words=True, **_cut_to(max_length))
    labels = [_first_of_word(encoded.word_ids(row), tags) for row, tags in enumerate(rows["label"])]
    return dict(encoded), labels


def _first_of_word(words: list[int | None], tags: list[int]) -> list[int]:
    # [None, 0, 1, 1, None] and [3, 7] -> [IGNORED, 3, 7, IGNORED, IGNORED]
    previous = [None, *words[:-1]]
    return [IGNORED if word is None or word == last else tags[word] for word, last in zip(words, previous, strict=True)]


def _language_modelling(
    rows: datasets.Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int | None
) -> tuple[dict[str, list], list[list[int]]]:
    end = tokenizer.eos_token_id
    encoded = tokenizer(list(rows["text"]), **_cut_to(max_length))
    inputs = {name: [list(row) for row in encoded[name]] for name in ("input_ids", "attention_mask")}
    for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True):
        whole = max_length is None or len(ids) < max_length  # A text that is cut off has no end.
        if end is not None and whole and ids[-1:] != [end]:
            ids.append(end)
            mask.append(1)
    return inputs, [list(ids) for ids in inputs["input_ids"]]


def _cut_to(max_length: int | None) -> dict[str, Any]:
    """Options of a tokenizer; `verbose` silences its warning of rows longer than its own limit."""
    return {"truncation": max_length is not None, "max_length": max_length, "padding": False, "verbose": False}
