"""Tokenizers as they are loaded beside a model."""

import pytest
import torch
from tiny import logits, tiny_model
from transformers import AutoTokenizer

from prunelora.delivery.processors import load_tokenizer
from prunelora.models.families import FAMILIES
from prunelora.models.inputs import input_names


@pytest.fixture
def beside(tmp_path, minilm_path):
    """A folder with a model and the tokenizer of a BERT, which makes token types."""

    def make(model):
        model.save_pretrained(str(tmp_path))
        AutoTokenizer.from_pretrained(str(minilm_path)).save_pretrained(str(tmp_path))
        return tmp_path

    return make


@pytest.mark.parametrize("family", [name for name, row in FAMILIES.items() if not row.images])
def test_a_tokenizer_makes_the_inputs_that_the_family_uses_and_no_others(beside, family):
    model = tiny_model(family, dtype=torch.float32)
    made = load_tokenizer(beside(model))("a film", "a word")
    assert set(made) == set(input_names(model))


def test_the_delivered_tokenizer_makes_the_inputs_that_the_model_was_judged_with(beside, tmp_path):
    model = tiny_model("gpt2", dtype=torch.float32, vocab_size=30522)
    tokenizer = load_tokenizer(beside(model))
    tokenizer.save_pretrained(str(tmp_path / "delivered"))
    # As a person loads it, without prunelora.
    given = AutoTokenizer.from_pretrained(str(tmp_path / "delivered"))("a film", "a word", return_tensors="pt")
    bare = {name: given[name] for name in ("input_ids", "attention_mask")}
    assert torch.equal(logits(model, dict(given)), logits(model, bare))


def test_a_tokenizer_without_a_model_is_left_as_it_is(tmp_path, minilm_path):
    AutoTokenizer.from_pretrained(str(minilm_path)).save_pretrained(str(tmp_path))
    assert "token_type_ids" in load_tokenizer(tmp_path)("a film")
