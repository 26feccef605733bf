"""What a run finds out about its rows before any stage."""

import csv
import random

import pytest
from small_run import make_data, make_model
from transformers import AutoTokenizer, BertConfig, BertModel

from prunelora.errors import UnsupportedModelError
from prunelora.run.execute import execute
from prunelora.run.recipe import read_recipe

STAGES = [{"stage": "finetune", "epochs": 1}, {"stage": "merge"}]


def recipe(model, data, **task):
    return read_recipe({"model": str(model), "task": {"data": str(data), **task}, "stages": STAGES}, source="test")


@pytest.fixture(scope="module")
def model(tmp_path_factory, minilm_path):
    return make_model(tmp_path_factory.mktemp("model") / "model", minilm_path)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory, minilm_path):
    """A model whose embedding has all tokens of the tokenizer but the last thousand."""
    folder, tokenizer = tmp_path_factory.mktemp("narrow"), AutoTokenizer.from_pretrained(str(minilm_path))
    sizes = {"hidden_size": 24, "num_attention_heads": 4, "num_hidden_layers": 1, "intermediate_size": 32}
    BertModel(BertConfig(**sizes, vocab_size=len(tokenizer) - 1000)).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


def rare_word(folder):
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    pieces = tokenizer.convert_ids_to_tokens(range(len(tokenizer) - 1000, len(tokenizer)))
    words = (f"a{piece.removeprefix('##')}" for piece in pieces)
    return next(word for word in words if max(tokenizer(word)["input_ids"]) >= len(tokenizer) - 1000)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_row_that_the_model_cannot_read_is_an_error_before_any_training_whatever_its_split(narrow, tmp_path, split):
    data = tmp_path / "data"
    data.mkdir()
    for name, rows in (("train", 20), ("validation", 4), ("test", 4)):
        path = make_data(data / f"{name}.csv", rows=rows)
        if name == split:
            with path.open("a", newline="") as file:
                csv.writer(file).writerow([f"good {rare_word(narrow)}", "good"])
    with pytest.raises(UnsupportedModelError, match=rf"a {split} row has the token \d+"):
        execute(recipe(narrow, data), tmp_path / "run", progress=False)
    assert not list((tmp_path / "run" / "stages").glob("*"))


def test_a_vocabulary_that_is_larger_than_the_embedding_is_told(narrow, tmp_path):
    told = []
    execute(
        recipe(narrow, make_data(tmp_path / "data.csv", rows=20)), tmp_path / "run", tell=told.append, progress=False
    )
    assert [note for note in told if "the last 1,000 cannot be read" in note]


def test_what_is_cut_off_is_told_and_left_in_the_run(model, tmp_path, minilm_path):
    words, rng = AutoTokenizer.from_pretrained(str(minilm_path)), random.Random(0)
    rows = [" ".join(["good" if n % 2 else "bad"] * rng.randint(1, 40)) + f" {n}" for n in range(100)]
    with (tmp_path / "data.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [("text", "label"), *((text, ("bad", "good")[n % 2]) for n, text in enumerate(rows))]
        )
    told = []
    outcome = execute(
        recipe(model, tmp_path / "data.csv", max_length=20), tmp_path / "run", tell=told.append, progress=False
    )
    found = outcome.results.facts("finetune")["truncation"]
    assert sum(split["rows"] for split in found.values()) == len(rows)
    lengths = [len(words(text)["input_ids"]) for text in rows]
    assert sum(split["tokens"] for split in found.values()) == sum(lengths)
    assert sum(split["rows_cut"] for split in found.values()) == sum(length > 20 for length in lengths) > 10
    assert sum(split["tokens_cut"] for split in found.values()) == sum(max(0, length - 20) for length in lengths)
    assert len([note for note in told if "are cut off" in note]) == 3
    again = execute(recipe(model, tmp_path / "data.csv", max_length=20), tmp_path / "run", progress=False)
    assert again.results.facts("finetune")["truncation"] == found
