"""Rows that a model cannot read are an error of the family, wherever they meet the model."""

import datasets
import numpy as np
import pytest
import torch
from tiny import END, VOCABULARY, tiny_batch, tiny_model
from transformers import PreTrainedTokenizerFast

import prunelora as pl
from prunelora.data.fit import fitting
from prunelora.errors import UnsupportedModelError
from prunelora.evaluation.quality import evaluate
from prunelora.models.families import FAMILIES

TEXTS = [name for name, row in FAMILIES.items() if not row.images]


def rows(ids, types=None):
    made = {
        "input_ids": ids,
        "attention_mask": [[1] * len(row) for row in ids],
        "labels": [n % 2 for n in range(len(ids))],
    }
    return datasets.Dataset.from_dict(made if types is None else {**made, "token_type_ids": types})


def readable(length=5):
    return [[3, *[5] * (length - 2), END], [4, 6, END]]


@pytest.fixture
def tokenizer():
    from tokenizers import Tokenizer, models

    words = {f"w{n}": n for n in range(VOCABULARY)}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="w0")), pad_token="w1")


@pytest.mark.parametrize("family", TEXTS)
def test_tokens_beyond_the_embedding_are_an_error_of_every_family(family):
    model = tiny_model(family)
    within, beyond = readable(), readable()
    within[0][1], beyond[0][1] = VOCABULARY - 1, VOCABULARY
    assert fitting(model, rows(within)).num_rows == 2
    with pytest.raises(
        UnsupportedModelError, match=f"token {VOCABULARY}, .* {VOCABULARY} tokens, 0 to {VOCABULARY - 1}"
    ):
        fitting(model, rows(beyond))


@pytest.mark.parametrize("family", TEXTS)
def test_rows_longer_than_the_table_of_positions_are_an_error_and_the_longest_is_none(family):
    """With RoBERTa's layout two of the 40 rows of the table belong to no position."""
    model = tiny_model(family)
    longest = {"roberta": 38, "xlm-roberta": 38, "camembert": 38, "mpnet": 38}.get(family, 40)
    tabled = (
        family in ("bert", "electra", "albert", "distilbert", "deberta-v2", "gpt2", "bart", "mbart") or longest == 38
    )
    ids = torch.tensor(readable(longest)[:1])
    model(input_ids=ids, attention_mask=torch.ones_like(ids))
    assert fitting(model, rows(readable(longest))).num_rows == 2
    if tabled:
        with pytest.raises(UnsupportedModelError, match=f"{longest + 1} tokens, .* positions for {longest}"):
            fitting(model, rows(readable(longest + 1)))
    else:
        fitting(model, rows(readable(longest + 1)))


@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "albert", "nomic_bert"])
def test_token_types_beyond_their_table_are_an_error(family):
    types = [[0, 0, 1, 1, 1], [0, 0, 0]]
    assert "token_type_ids" in fitting(tiny_model(family), rows(readable(), types)).column_names
    with pytest.raises(UnsupportedModelError, match=r"token type 1 .* has 1 types"):
        fitting(tiny_model(family, type_vocab_size=1), rows(readable(), types))


def test_token_types_that_a_model_would_look_up_among_its_tokens_change_nothing(tokenizer):
    model = tiny_model("gpt2", num_labels=2)
    given = rows(readable(), [[0, 0, 1, 1, 1], [0, 0, 0]])
    found = evaluate(model, given, tokenizer, problem_type="single_label_classification")
    assert found == evaluate(model, rows(readable()), tokenizer, problem_type="single_label_classification")
    batch = tiny_batch(num_labels=2)
    with pytest.raises(UnsupportedModelError, match="token_type_ids"):
        pl.score(model, [batch | {"token_type_ids": torch.zeros_like(batch["input_ids"])}])


@pytest.mark.parametrize("family", ["bart", "t5"])
def test_rows_without_the_token_that_the_head_reads_are_an_error(family):
    without = [[3, 5, 6], [4, 6, 7]]
    with pytest.raises(UnsupportedModelError, match=f"token {END}.* none in any row"):
        fitting(tiny_model(family), rows(without))
    with pytest.raises(UnsupportedModelError, match="0 in one row and 1 in another"):
        fitting(tiny_model(family), rows([without[0], readable()[1]]))


def test_padding_beyond_the_embedding_is_an_error():
    model = tiny_model("gpt2")
    model.config.pad_token_id = VOCABULARY
    with pytest.raises(UnsupportedModelError, match=f"padded with the token {VOCABULARY}"):
        fitting(model, rows(readable()))


def test_every_door_of_the_api_refuses_tokens_beyond_the_embedding(tokenizer, tmp_path):
    model, beyond = tiny_model("bert", num_labels=2), rows([[3, VOCABULARY, 4], [3, 4, 5]])
    batch = tiny_batch(num_labels=2)
    batch["input_ids"][0, 0] = VOCABULARY
    plan = pl.make_plan(pl.score(model, criterion="magnitude"), keep_heads=0.5)
    doors = {
        "score": lambda: pl.score(model, [batch]),
        "score with surgeon": lambda: pl.score(model, [batch], criterion="obs"),
        "linear probe": lambda: pl.score(model, [batch], probe_steps=1),
        "repair": lambda: pl.prune_(model, plan, repair_with=[batch]),
        "training rows": lambda: pl.finetune(model, beyond, rows(readable()), tokenizer=tokenizer, progress=False),
        "validation rows": lambda: pl.finetune(model, rows(readable()), beyond, tokenizer=tokenizer, progress=False),
        "evaluate": lambda: evaluate(model, beyond, tokenizer, problem_type="single_label_classification"),
    }
    for door in doors.values():
        with pytest.raises(UnsupportedModelError, match=f"token {VOCABULARY}"):
            door()


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 12, 12)])
def test_images_of_another_size_or_number_of_channels_are_an_error(shape):
    made = datasets.Dataset.from_dict({"image": [0], "labels": [0]}).with_transform(
        lambda some: {"pixel_values": [np.zeros(shape, np.float32) for _ in some["image"]], "labels": some["labels"]}
    )
    with pytest.raises(UnsupportedModelError, match=r"the model reads \(3, 12, 12\)"):
        fitting(tiny_model("vit"), made)
