"""An update, and an evaluation, do not depend on how their rows are split into batches."""

import copy

import pytest
import torch
from datasets import Dataset, Features, Sequence, Value
from tiny import END, PAD, VOCABULARY, tiny_config, tiny_model
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification, PreTrainedTokenizerFast

import prunelora as pl
from prunelora.data.answers import answers_of, mean_loss
from prunelora.data.images import IMAGE
from prunelora.finetuning.distillation import TEACHER

LENGTHS = (2, 8, 5, 3, 7, 4, 6, 2, 8, 3)
# An update of four rows; of ten rows the last update has two.
SPLITS = ((4, 1), (2, 2), (1, 4))


@pytest.fixture(scope="module")
def tokenizer():
    vocabulary = {"[UNK]": 0, "[PAD]": PAD, "[END]": END} | {f"w{i}": i for i in range(3, VOCABULARY)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]")), pad_token="[PAD]",
        unk_token="[UNK]", eos_token="[END]",
    )  # fmt: skip


def rows(kind: str, count: int = len(LENGTHS)) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    ids = [[*torch.randint(3, VOCABULARY, (n - 1,), generator=generator).tolist(), END] for n in LENGTHS[:count]]
    columns = {"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids]}
    label: object = Value("int64")
    if kind == "token_classification":
        # Of the third row no token has a label.
        labels = [[-100 if row == 2 or n % 3 == 1 else n % 2 for n in range(len(one))] for row, one in enumerate(ids)]
        label = Sequence(Value("int64"))
    elif kind == "causal_lm":
        labels, label = (
            [[-100] * len(one) if row == 2 else one for row, one in enumerate(ids)],
            Sequence(Value("int64")),
        )
    elif kind == "regression":
        labels, label = torch.randn(count, generator=generator).tolist(), Value("float32")
    elif kind == "multi_label_classification":
        labels = torch.randint(0, 2, (count, 3), generator=generator).float().tolist()
        label = Sequence(Value("float32"))
    else:
        labels = [-100 if row == 2 else row % 3 for row in range(count)]
    ints = Sequence(Value("int64"))
    features = {"input_ids": ints, "attention_mask": ints, "labels": label}
    if kind == "distillation":
        columns[TEACHER] = torch.randn(count, 3, generator=generator).tolist()
        features[TEACHER] = Sequence(Value("float32"))
    return Dataset.from_dict({**columns, "labels": labels}, features=Features(features))


def model_for(kind: str):
    if kind == "causal_lm":
        return AutoModelForCausalLM.from_config(tiny_config("llama"), dtype=torch.float64)
    if kind == "token_classification":
        config = tiny_config("bert", num_labels=2)
        return AutoModelForTokenClassification.from_config(config, dtype=torch.float64)
    if kind in ("encoder-decoder", "distillation"):
        return tiny_model("bart" if kind == "encoder-decoder" else "bert")
    return tiny_model("bert", problem_type=kind, num_labels=1 if kind == "regression" else 3)


def updates(model, data, tokenizer, *, batch_size: int, accumulation_steps: int, validation=None, **options):
    """Norms of the gradients of the first epoch's updates, the weights after it, and the loss on all rows."""
    model = copy.deepcopy(model).requires_grad_(True)
    result = pl.finetune(
        model, data, validation or data, tokenizer=tokenizer, epochs=1, batch_size=batch_size,
        accumulation_steps=accumulation_steps, dropout=0.0, group_by_length=False, precision="float32", progress=False,
        max_grad_norm=1e9, learning_rate=1e-2, **options,
    )  # fmt: skip
    norms = [entry["grad_norm"] for entry in result.history if "grad_norm" in entry]
    return torch.tensor(norms), torch.cat([one.detach().flatten() for one in model.parameters()]), result


KINDS = (
    "single_label_classification", "multi_label_classification", "regression", "token_classification", "causal_lm",
    "encoder-decoder", "distillation",
)  # fmt: skip


@pytest.mark.parametrize("options", [{}, {"gradient_checkpointing": True}], ids=["", "checkpointing"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_update_is_the_same_in_one_batch_and_in_many(kind, options, tokenizer):
    model, data = model_for(kind), rows(kind)
    options = options | ({"distillation": 0.4} if kind == "distillation" else {})
    found = {split: updates(model, data, tokenizer, batch_size=split[0], accumulation_steps=split[1], **options)
             for split in SPLITS}  # fmt: skip
    norms, weights, result = found[4, 1]
    assert result.steps == 3
    assert float(norms.min()) > 1e-4
    # Losses of tokens are computed in float32 whatever the weights are.
    close = {"rtol": 1e-5, "atol": 1e-7} if kind in ("token_classification", "causal_lm") else {"rtol": 1e-9, "atol": 0}
    for other_norms, other_weights, _ in found.values():
        assert torch.allclose(norms, other_norms, rtol=1e-5)
        assert torch.allclose(weights, other_weights, **(close | {"atol": 1e-5}))


@pytest.mark.parametrize("kind", KINDS)
def test_the_validation_loss_is_the_mean_over_all_labels(kind, tokenizer):
    if kind == "distillation":
        pytest.skip("validation rows have no teacher")
    model, data = model_for(kind).eval(), rows(kind)
    total, count = 0.0, 0
    for row in data.with_format("torch"):
        batch = {name: value[None] for name, value in row.items()}
        labels = batch["labels"][:, 1:] if kind == "causal_lm" else batch["labels"]
        number = int((labels != -100).sum()) if labels.dtype == torch.long else 1
        if number:
            with torch.no_grad():
                total, count = total + number * float(model(**batch).loss), count + number
    for batch_size in (1, 4):
        _, _, result = updates(model, data, tokenizer, batch_size=batch_size, accumulation_steps=1, keep_start=True)
        assert result.history[0]["validation_loss"] == pytest.approx(total / count, rel=1e-5)


def test_a_mean_loss_is_the_models_own():
    for kind in KINDS[:-1]:
        model, data = model_for(kind).eval(), rows(kind, 1).with_format("torch")
        batch = {name: value[None] for name, value in data[0].items()}
        with torch.no_grad():
            output = model(**batch)
        problem = "single_label_classification" if kind == "encoder-decoder" else kind
        answers = answers_of(output.logits, batch["labels"], problem)
        assert mean_loss(answers.numpy(), batch["labels"].numpy(), problem) == pytest.approx(
            float(output.loss), rel=1e-5
        )


def test_updates_of_images_are_the_same_too():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(6, 3, 12, 12, generator=generator, dtype=torch.float64)
    data = Dataset.from_dict({IMAGE: list(range(6)), "labels": [0, 1, 2, 0, 1, 2]}).with_transform(
        lambda some: {"pixel_values": [pixels[row] for row in some[IMAGE]]} | {"labels": some["labels"]}
    )
    model = tiny_model("vit")
    found = [updates(model, data, None, batch_size=size, accumulation_steps=steps) for size, steps in ((4, 1), (1, 4))]
    assert torch.allclose(found[0][0], found[1][0], rtol=1e-6)
    assert torch.allclose(found[0][1], found[1][1], atol=1e-6)
