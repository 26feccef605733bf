"""The real MiniLM under every kind of head: scored, cut to half, adapted, merged, saved and loaded."""

import numpy as np
import pytest
import torch
import transformers
from tiny import stir
from transformers import AutoTokenizer

import prunelora as pl
from prunelora.data.metrics import IGNORED
from prunelora.models.anatomy import dissect

TEXTS = ["a moving film about nothing much", "dull", "the cast is great and the plot is not", "it was long , very long"]
HEADS = {
    "AutoModelForSequenceClassification": "logits",
    "AutoModelForTokenClassification": "logits",
    "AutoModelForQuestionAnswering": "start_logits",
    "AutoModelForMaskedLM": "logits",
}


@pytest.fixture(scope="module")
def tokens(minilm_path):
    return dict(AutoTokenizer.from_pretrained(str(minilm_path))(TEXTS, padding=True, return_tensors="pt"))


def labelled(tokens, auto):
    mask = tokens["attention_mask"]
    places = torch.arange(mask.shape[1]).expand_as(mask)
    if auto == "AutoModelForQuestionAnswering":
        return tokens | {"start_positions": torch.tensor([1, 1, 2, 1]), "end_positions": torch.tensor([2, 1, 5, 3])}
    if auto == "AutoModelForSequenceClassification":
        return tokens | {"labels": torch.tensor([1, 0, 1, 0])}
    labels = places % 2 if auto == "AutoModelForTokenClassification" else tokens["input_ids"]
    return tokens | {"labels": labels.masked_fill(mask == 0, IGNORED)}


def rows_of(batch):
    return [{name: value[row : row + 1] for name, value in batch.items()} for row in range(len(TEXTS))]


def answers(model, tokens, auto):
    with torch.no_grad():
        return getattr(model(**tokens), HEADS[auto])


@pytest.mark.parametrize("auto", HEADS)
def test_every_head_goes_all_the_way(auto, minilm_path, tokens, tmp_path):
    torch.manual_seed(0)
    model = getattr(transformers, auto).from_pretrained(str(minilm_path)).eval()
    batch = labelled(tokens, auto)
    importance = pl.score(model, [batch])
    by_row = pl.score(model, rows_of(batch))
    np.testing.assert_allclose(np.concatenate(importance.neurons), np.concatenate(by_row.neurons), rtol=2e-3, atol=1e-9)
    plan = pl.make_plan(importance, keep_macs=0.5)
    with pl.masked(model, plan):
        wanted = answers(model, tokens, auto)
    pl.prune_(model, plan)
    assert torch.allclose(answers(model, tokens, auto), wanted, atol=1e-4)
    assert dissect(model).architecture == plan.architecture
    adapted = pl.add_adapter(model, plan)
    adapted(**batch).loss.backward()
    others = [name for name, one in adapted.named_parameters() if one.requires_grad and "lora_" not in name]
    assert any("LayerNorm" in name for name in others)
    assert all(one.grad is not None for one in adapted.parameters() if one.requires_grad)
    stir(adapted)
    tuned = answers(adapted.eval(), tokens, auto)
    assert not torch.allclose(tuned, wanted, atol=2e-3)
    pl.save(pl.merge(adapted), tmp_path / "model")
    loaded = pl.load(tmp_path / "model")
    assert type(loaded) is type(model)
    assert torch.allclose(answers(loaded, tokens, auto), tuned, atol=1e-4)


def test_a_span_is_an_answer_to_score_by(minilm_path, tokens):
    """Against the definition: one row at a time, by finite differences of its loss."""
    torch.manual_seed(0)
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(str(minilm_path)).double().eval()
    batch = labelled(tokens, "AutoModelForQuestionAnswering")
    found = pl.score(model, [batch]).heads[2][5]
    output, width = dissect(model).blocks[2].part("output"), dissect(model).blocks[2].head_dim
    total, step = 0.0, 1e-5
    for row in rows_of(batch):
        losses = []
        for factor in (1 + step, 1 - step):
            with torch.no_grad():
                output.weight[:, 5 * width : 6 * width] *= factor
                losses.append(model(**row).loss.item())
                output.weight[:, 5 * width : 6 * width] /= factor
        total += abs(losses[0] - losses[1]) / (2 * step)
    assert found == pytest.approx(total / int(tokens["attention_mask"].sum()), rel=1e-4)


def test_a_batch_without_any_target_is_an_error(minilm_path, tokens):
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(str(minilm_path))
    with pytest.raises(pl.PruneLoraError, match="start_positions"):
        pl.score(model, [tokens])
