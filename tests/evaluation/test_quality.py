from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
from tiny import VOCABULARY, language_model
from tokenizers import Tokenizer, models
from torch import nn
from transformers import PreTrainedTokenizerFast

from prunelora.evaluation import quality
from prunelora.evaluation.quality import evaluate, predict, predict_rows


class Echo(nn.Module):
    """Logits are read off the first two tokens; padding would show."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.widths = []

    def forward(self, input_ids, attention_mask, **others):
        assert not others, f"labels must not reach the model: {sorted(others)}"
        assert not self.training
        self.widths.append(input_ids.shape[1])
        assert bool((attention_mask.sum(1) >= 2).all())
        return SimpleNamespace(logits=input_ids[:, :2].float() * self.scale)


@pytest.fixture(scope="module")
def tokenizer():
    vocabulary = {"[PAD]": 0, "[UNK]": 1} | {f"w{i}": i for i in range(2, 20)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]")),
        pad_token="[PAD]",
        unk_token="[UNK]",
    )


ROWS = [[5, 3, 9, 9, 9, 9], [2, 7], [4, 6, 8], [9, 3, 3], [8, 2]]


def tokenised(labels):
    return datasets.Dataset.from_dict(
        {"input_ids": ROWS, "attention_mask": [[1] * len(row) for row in ROWS], "labels": labels}
    )


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_metrics_do_not_depend_on_batch_size_and_labels_stay_with_their_rows(tokenizer, batch_size):
    # Answers are 0, 1, 1, 0, 0: the fourth is wrong.
    found = evaluate(
        Echo(),
        tokenised([0, 1, 1, 1, 0]),
        tokenizer,
        problem_type="single_label_classification",
        batch_size=batch_size,
    )
    assert found["accuracy"] == pytest.approx(0.8)
    assert found["f1_macro"] == pytest.approx(0.8)


def test_rows_of_one_length_share_a_batch(tokenizer):
    model = Echo()
    evaluate(model, tokenised([0] * 5), tokenizer, problem_type="single_label_classification", batch_size=2)
    assert model.widths == [2, 3, 6]


def test_batches_of_a_language_model_have_no_more_logits_than_a_limit(tokenizer, monkeypatch):
    model = language_model("gpt2").float()
    data = tokenised(ROWS)
    seen: list[int] = []
    model.register_forward_hook(lambda _, __, output: seen.append(output.logits.numel()))
    whole = predict_rows(model, data, tokenizer, problem_type="causal_lm")
    assert max(seen) == 5 * 6 * VOCABULARY
    seen.clear()
    monkeypatch.setattr(quality, "MOST_LOGITS", 2 * 6 * VOCABULARY)
    found = predict_rows(model, data, tokenizer, problem_type="causal_lm")
    assert seen == [200, 300, 300]  # Two rows of two tokens, two of three, one of six.
    assert whole.shape == (5, 6)
    for row, tokens in enumerate(map(len, ROWS)):
        np.testing.assert_allclose(found[row, :tokens], whole[row, :tokens], rtol=1e-6)


def test_multi_label_metrics_take_lists_of_labels(tokenizer):
    labels = [[1.0, 1.0], [1.0, 1.0], [1.0, 0.0], [1.0, 1.0], [1.0, 1.0]]
    found = evaluate(Echo(), tokenised(labels), tokenizer, problem_type="multi_label_classification")
    assert found["accuracy"] == pytest.approx(0.8)


def test_predictions_keep_the_order_and_leave_the_model_as_found():
    model = Echo().train()
    batches = [
        {"input_ids": torch.tensor([[5, 3], [2, 7]]), "attention_mask": torch.ones(2, 2), "labels": torch.zeros(2)},
        {"input_ids": torch.tensor([[4, 6, 8]]), "attention_mask": torch.ones(1, 3), "labels": torch.zeros(1)},
    ]
    found = predict(model, batches)
    np.testing.assert_array_equal(found, [[5, 3], [2, 7], [4, 6]])
    assert found.dtype == np.float32
    assert model.training
    assert model.scale.requires_grad
