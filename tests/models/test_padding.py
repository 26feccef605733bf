"""The side, amount and ids of padding change no result of a batch."""

import copy

import numpy as np
import pytest
import torch
from datasets import Dataset
from tiny import END, HIDDEN, PAD, VOCABULARY, random_plan, tiny_batch, tiny_config, tiny_model
from tokenizers import Tokenizer, models
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForTokenClassification,
    PreTrainedTokenizerFast,
)

import prunelora as pl
from prunelora.data.tokens import batches
from prunelora.errors import DataError
from prunelora.evaluation.quality import evaluate, predict
from prunelora.importance.criteria import CRITERIA
from prunelora.importance.linear_probe import train_linear_probe_
from prunelora.models.families import FAMILIES
from prunelora.models.padding import padded_right, prepare_batch

# Tolerance for families that compute norms, rotations or losses in float32.
CLOSE = 1e-5
BY_TOKEN = ("input_ids", "attention_mask", "token_type_ids", "position_ids", "inputs_embeds")


def lengths(batch) -> list[int]:
    return batch["attention_mask"].sum(1).tolist()


def moved(batch, shifts, *names: str):
    """The same rows, each rolled right by its shift."""
    result = dict(batch)
    for name in names:
        rows = zip(batch[name], shifts, strict=True)
        result[name] = torch.stack([row.roll(int(shift), 0) for row, shift in rows])
    return result


def on_the_left(batch, *names: str):
    """The same rows with all padding on the left."""
    columns = batch["attention_mask"].shape[1]
    return moved(batch, [columns - length for length in lengths(batch)], *names)


def on_both_sides(batch, *names: str):
    columns = batch["attention_mask"].shape[1]
    return moved(batch, [(columns - length) // 2 for length in lengths(batch)], *names)


def one_by_one(batch, *names: str):
    for row, length in enumerate(lengths(batch)):
        yield {k: v[row : row + 1, :length] if k in names else v[row : row + 1] for k, v in batch.items()}


def scores_of(model, batches, criterion="gradient") -> np.ndarray:
    importance = pl.score(model, batches, criterion=criterion)
    return np.concatenate([*importance.heads, *importance.neurons])


@pytest.fixture
def text_family(family):
    if FAMILIES[family].images:
        pytest.skip("reads images")
    return family


def test_logits_and_losses_do_not_depend_on_the_side_of_padding(text_family):
    model, batch = tiny_model(text_family), tiny_batch(family=text_family)
    names = ("input_ids", "attention_mask")
    alone = np.concatenate([predict(model, [row]) for row in one_by_one(batch, *names)])
    with torch.no_grad():
        wanted = model(**prepare_batch(batch, model)).loss
        for padded in (batch, on_the_left(batch, *names), on_both_sides(batch, *names)):
            assert np.abs(predict(model, [padded]) - alone).max() < CLOSE
            assert torch.equal(model(**prepare_batch(padded, model)).loss, wanted)


def test_scores_and_repair_do_not_depend_on_the_side_of_padding(text_family):
    model, batch = tiny_model(text_family), tiny_batch(family=text_family)
    names = ("input_ids", "attention_mask")
    left, single = on_the_left(batch, *names), list(one_by_one(batch, *names))
    wanted = scores_of(model, [batch])
    assert np.array_equal(scores_of(model, [left]), wanted)
    assert np.allclose(scores_of(model, single), wanted, rtol=1e-4, atol=1e-4 * wanted.max())
    if FAMILIES[text_family].repeated:
        return  # Layers that run several times cannot be repaired.
    plan = random_plan(model)
    repaired = [
        pl.prune_(copy.deepcopy(model), plan, repair_with=[padded], repair_weights="loss") for padded in (batch, left)
    ]
    for weight, other in zip(repaired[0].parameters(), repaired[1].parameters(), strict=True):
        assert torch.equal(weight, other)


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "bart"])
@pytest.mark.parametrize("criterion", sorted(CRITERIA))
def test_scores_of_no_criterion_depend_on_the_side_of_padding(name, criterion):
    model, batch = tiny_model(name), tiny_batch(family=name)
    wanted = scores_of(model, [batch], criterion)
    assert np.array_equal(scores_of(model, [on_the_left(batch, "input_ids", "attention_mask")], criterion), wanted)


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "bart", "modernbert"])
def test_a_linear_probe_does_not_depend_on_the_side_of_padding(name):
    batch = tiny_batch(family=name)
    weights = []
    for padded in (batch, on_the_left(batch, "input_ids", "attention_mask")):
        model = tiny_model(name)
        train_linear_probe_(model, [padded], steps=3)
        weights.append([parameter.detach() for parameter in model.parameters()])
    assert all(map(torch.equal, *weights))


@pytest.mark.parametrize("name", ["gpt2", "llama", "phi3"])
def test_a_language_model_is_not_told_from_padding_nor_judged_by_it(name):
    model = AutoModelForCausalLM.from_config(tiny_config(name), dtype=torch.float64).eval()
    batch = tiny_batch()
    names = ("input_ids", "attention_mask", "labels")
    batch["labels"] = batch["input_ids"].clone()  # Padding included, as many write it.
    single, left = list(one_by_one(batch, *names)), on_the_left(batch, *names)
    wanted = scores_of(model, single)
    for padded in (batch, left, on_both_sides(batch, *names)):
        assert np.allclose(scores_of(model, [padded]), wanted, rtol=1e-4, atol=1e-5 * wanted.max())
    sums = [predict(model, [padded], "causal_lm") for padded in (batch, left)]
    assert np.array_equal(*sums)
    alone = [predict(model, [row], "causal_lm") for row in single]
    assert sum(map(np.sum, alone)) == pytest.approx(sums[0].sum(), rel=1e-5)


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
def test_scores_by_labels_of_tokens_do_not_depend_on_the_side_of_padding(name):
    model = AutoModelForTokenClassification.from_config(tiny_config(name), dtype=torch.float64).eval()
    batch, names = tiny_batch(), ("input_ids", "attention_mask", "labels")
    batch["labels"] = batch["input_ids"] % 3
    wanted = scores_of(model, list(one_by_one(batch, *names)))
    for padded in (batch, on_the_left(batch, *names)):
        assert np.allclose(scores_of(model, [padded]), wanted, rtol=1e-4, atol=1e-5 * wanted.max())


def test_what_an_encoder_decoder_says_does_not_depend_on_padding_of_either_side():
    for name in ("bart", "t5"):
        model = AutoModelForSeq2SeqLM.from_config(tiny_config(name), dtype=torch.float64).eval()
        batch, words = tiny_batch(4), tiny_batch(4, seed=1)
        batch["labels"] = words["input_ids"].masked_fill(words["attention_mask"] == 0, -100)
        columns, said = words["input_ids"].shape[1], lengths(words)
        left = on_the_left(batch, "input_ids", "attention_mask")
        left["labels"] = moved(batch, [columns - length for length in said], "labels")["labels"]
        assert np.array_equal(scores_of(model, [left]), scores_of(model, [batch]))
        given = dict(left) | {
            "decoder_attention_mask": (left["labels"] != -100).long(),
            "decoder_input_ids": left["labels"].clamp(min=0).roll(1, 1),
        }
        straight = padded_right(given, encoder_decoder=True)
        assert torch.equal(straight["labels"], batch["labels"])
        assert torch.equal(straight["decoder_attention_mask"], words["attention_mask"])


def test_every_input_with_an_entry_a_token_moves_and_no_other():
    batch = tiny_batch()
    batch["token_type_ids"] = torch.arange(54).reshape(6, 9)
    batch["position_ids"] = torch.arange(54).reshape(6, 9)
    batch["inputs_embeds"] = torch.randn(6, 9, HIDDEN)
    batch["labels"] = torch.rand(6, 9)  # Nine labels a row.
    straight = padded_right(on_the_left(batch, *BY_TOKEN))
    assert all(torch.equal(straight[name], value) for name, value in batch.items())
    assert all(torch.equal(value, batch[name]) for name, value in padded_right(batch).items())


def test_tokens_excluded_within_a_row_stay_where_they_are():
    mask = torch.tensor([[0, 1, 0, 1, 0], [1, 0, 1, 1, 1]])
    ids = torch.arange(10).reshape(2, 5)
    straight = padded_right({"input_ids": ids, "attention_mask": mask, "labels": ids})
    assert straight["input_ids"].tolist() == [[1, 2, 3, 4, 0], [5, 6, 7, 8, 9]]
    assert straight["labels"].tolist() == [[1, 2, 3, -100, -100], [5, 6, 7, 8, 9]]


def test_positions_of_an_answer_are_counted_from_the_first_token():
    batch = tiny_batch()
    batch["start_positions"] = torch.zeros(6, dtype=torch.long)
    left = on_the_left(batch, "input_ids", "attention_mask")
    with pytest.raises(DataError, match="start_positions"):
        padded_right(left)
    left["start_positions"] = (1 - left["attention_mask"]).sum(1)
    assert padded_right(left)["start_positions"].tolist() == [0] * 6


def test_an_input_that_may_have_an_entry_a_token_is_refused():
    left = on_the_left(tiny_batch(), "input_ids", "attention_mask")
    with pytest.raises(DataError, match="depths"):
        padded_right(left | {"depths": torch.zeros(6, 9)})


@pytest.mark.parametrize("name", ["gpt2", "llama", "bart"])
def test_padding_has_the_id_that_the_task_head_takes_for_it(name):
    model, batch = tiny_model(name), tiny_batch(family=name)
    other = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, END if name == "bart" else VOCABULARY - 1)
    assert np.array_equal(predict(model, [batch]), predict(model, [batch | {"input_ids": other}]))
    if name != "bart":
        model.config.pad_token_id = None
        with pytest.raises(DataError, match="pad_token_id"):
            predict(model, [batch])


@pytest.fixture(params=["right", "left"])
def tokenizer(request):
    vocabulary = {"[UNK]": 0, "[PAD]": PAD, "[END]": END} | {f"w{i}": i for i in range(3, VOCABULARY)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]")),
        pad_token="[PAD]",
        unk_token="[UNK]",
        eos_token="[END]",
        padding_side=request.param,
    )


def test_batches_are_padded_on_the_right_and_the_tokenizer_keeps_its_side(tokenizer):
    side = tokenizer.padding_side
    tokenised = Dataset.from_dict({"input_ids": [[3, 4, 5], [6]], "attention_mask": [[1] * 3, [1]], "labels": [0, 1]})
    (batch,) = batches(tokenised, tokenizer, batch_size=2)
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert tokenizer.padding_side == side


def test_a_training_does_not_depend_on_the_side_of_padding_nor_on_rows_padded_before(tokenizer):
    ids = [[3, 4, 5, 6], [7, 8], [9, 10, 11], [12, 13, 14, 15]]
    rows = {"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids], "labels": ids}
    left = {
        name: [[0 if name == "attention_mask" else PAD] * (4 - len(row)) + row for row in rows[name]] for name in rows
    }
    results = []
    for columns in (rows, left):
        tokenised = Dataset.from_dict(columns)
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(tiny_config("gpt2"))
        result = pl.finetune(
            model, tokenised, tokenised, tokenizer=tokenizer, epochs=1, batch_size=2, dropout=0.0, progress=False,
            group_by_length=False,
        )  # fmt: skip
        judged = [evaluate(model, tokenised, tokenizer, problem_type="causal_lm", batch_size=size) for size in (1, 4)]
        assert judged[0] == pytest.approx(judged[1], rel=1e-5)
        assert judged[0]["log_likelihood"] == pytest.approx(result.best["validation_log_likelihood"], rel=1e-5)
        results.append((result.best["validation_loss"], [parameter.detach() for parameter in model.parameters()]))
    assert results[0][0] == results[1][0]
    assert all(map(torch.equal, results[0][1], results[1][1]))
