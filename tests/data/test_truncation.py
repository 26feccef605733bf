"""How much of the rows is cut off."""

import datasets
import numpy as np
import pytest
from transformers import AutoTokenizer

from prunelora.data.tokens import tokenise
from prunelora.data.truncation import KEPT_WHOLE, Truncation


@pytest.fixture(scope="module")
def tokenizer(minilm_path):
    return AutoTokenizer.from_pretrained(str(minilm_path))


def split(kind: str) -> datasets.Dataset:
    lengths = np.random.default_rng(0).integers(1, 60, size=80)
    texts = [" ".join(["film"] * length) for length in lengths]
    if kind == "texts":
        return datasets.Dataset.from_dict({"text": texts, "label": [0] * 80})
    if kind == "pairs":
        return datasets.Dataset.from_dict({"text": texts, "text_pair": texts[::-1], "label": [0] * 80})
    if kind == "words":
        words = [text.split() for text in texts]
        return datasets.Dataset.from_dict({"text": words, "label": [[0] * len(row) for row in words]})
    return datasets.Dataset.from_dict({"text": texts})


@pytest.mark.parametrize("kind", ["texts", "pairs", "words", "language modelling"])
@pytest.mark.parametrize("max_length", [8, 33, 200])
def test_what_is_cut_off_is_what_a_longer_limit_would_keep(tokenizer, kind, max_length):
    rows = split(kind)
    if kind == "language modelling":
        tokenizer.eos_token = "[SEP]"
    whole = [len(ids) for ids in tokenise(rows, tokenizer, max_length=1000)["input_ids"]]
    kept = tokenise(rows, tokenizer, max_length=max_length)
    found = Truncation.of(rows, kept, tokenizer, max_length=max_length)
    assert found.rows_cut == sum(length > max_length for length in whole)
    assert found.tokens == sum(whole)
    assert found.tokens_cut == sum(whole) - sum(map(len, kept["input_ids"]))
    assert found.median_tokens == np.median(whole)


@pytest.mark.parametrize("kind", ["texts", "pairs"])
def test_the_length_that_is_advised_keeps_most_rows_whole_and_none_below_does(tokenizer, kind):
    rows = split(kind)
    advised = Truncation.of(rows, tokenise(rows, tokenizer, max_length=8), tokenizer, max_length=8).keeps_most
    cut = {}
    for length in (advised, advised - 1):
        cut[length] = Truncation.of(rows, tokenise(rows, tokenizer, max_length=length), tokenizer, max_length=length)
    assert cut[advised].rows_cut <= (1 - KEPT_WHOLE) * len(rows) < cut[advised - 1].rows_cut


def test_nothing_is_said_where_nothing_is_cut_off(tokenizer):
    rows = split("texts")
    assert (
        Truncation.of(rows, tokenise(rows, tokenizer, max_length=64), tokenizer, max_length=64).describe("train")
        is None
    )


def test_no_longer_limit_is_advised_where_most_rows_are_whole(tokenizer):
    rows = split("texts")
    whole = Truncation.of(rows, tokenise(rows, tokenizer, max_length=8), tokenizer, max_length=8).keeps_most
    kept = tokenise(rows, tokenizer, max_length=whole)
    said = Truncation.of(rows, kept, tokenizer, max_length=whole).describe("train")
    assert said is not None
    assert "would keep" not in said
    assert "but the model has positions for 16" in (
        Truncation.of(rows, tokenise(rows, tokenizer, max_length=8), tokenizer, max_length=8).describe(
            "train", longest=16
        )
    )
