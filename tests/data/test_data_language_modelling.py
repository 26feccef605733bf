"""Causal language modelling: texts without labels."""

import numpy as np
import pytest
import torch
from tiny import tiny_batch, tiny_config
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.nn import functional
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from prunelora.data.answers import answers_of, labels_of
from prunelora.data.load import load_task
from prunelora.data.metrics import IGNORED, metrics
from prunelora.data.settings import DataSettings
from prunelora.data.tokens import calibration_batches, tokenise
from prunelora.errors import DataError
from prunelora.evaluation.quality import evaluate
from prunelora.models.problem_types import CAUSAL_LM


@pytest.fixture(scope="module")
def tokenizer():
    words = {"[PAD]": 1, "[UNK]": 0, "[END]": 2} | {f"w{n}": n for n in range(3, 50)}
    tiny = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tiny.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tiny, pad_token="[PAD]", unk_token="[UNK]", eos_token="[END]")


@pytest.fixture
def task(tmp_path):
    (tmp_path / "texts.csv").write_text(
        "id,text\n" + "".join(f"{n},{' '.join(['w3'] * (n % 5) + [f'w{n + 4}'])}\n" for n in range(40))
    )
    return load_task(DataSettings(data=str(tmp_path / "texts.csv"), task_type=CAUSAL_LM))


def test_texts_alone_are_a_task(task):
    assert (task.problem_type, task.label_names, task.majority_rate) == (CAUSAL_LM, (), None)
    assert task.columns == {"text": "text"}
    assert task.train.column_names == ["text"]
    assert len(task.train) + len(task.validation) + len(task.test) == 40
    assert task.metrics == ("log_likelihood", "perplexity")
    assert "task: causal language modelling" in task.notes


@pytest.mark.parametrize("option", ["label", "text_pair"])
def test_a_label_is_an_error(option, tmp_path):
    (tmp_path / "texts.csv").write_text("text,label\na b,1\nc d,0\n")
    with pytest.raises(DataError, match=f"{option}='label'"):
        load_task(DataSettings(data=str(tmp_path / "texts.csv"), task_type=CAUSAL_LM, **{option: "label"}))


def test_labels_are_the_text_with_its_end_and_padding_does_not_count(task, tokenizer):
    for text, row in zip(task.train["text"], tokenise(task.train, tokenizer, max_length=16), strict=True):
        assert row["labels"] == row["input_ids"] == [*tokenizer(text)["input_ids"], 2]
    cut = tokenise(task.train, tokenizer, max_length=3)
    assert {len(row["input_ids"]) for row in cut} == {2, 3}
    for batch in calibration_batches(task, tokenizer, batch_size=6):
        assert bool(((batch["labels"] == IGNORED) == (batch["attention_mask"] == 0)).all())


def test_log_likelihood_is_the_models_own_loss(task, tokenizer):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config("llama"), dtype=torch.float64).eval()
    batch = tiny_batch()
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORED)
    with torch.no_grad():
        output = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels)
        said = answers_of(output.logits, labels, CAUSAL_LM)
        alone = functional.log_softmax(output.logits[2].float(), -1)
    found = metrics(said.numpy(), labels.numpy(), CAUSAL_LM)
    assert found["log_likelihood"] == pytest.approx(-output.loss.item(), rel=1e-5)
    assert found["perplexity"] == pytest.approx(np.exp(output.loss.item()), rel=1e-5)
    assert said[2, 1].item() == pytest.approx(alone[0, labels[2, 1]].item(), rel=1e-5)
    rows = tokenise(task.train, tokenizer, max_length=16)
    one, many = (
        evaluate(model, rows, tokenizer, problem_type=CAUSAL_LM, batch_size=size)["log_likelihood"] for size in (1, 16)
    )
    assert one == pytest.approx(many, rel=1e-5)
    assert labels_of(rows).shape == (len(rows), max(len(row["labels"]) for row in rows))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_of_a_text_file_are_rows_and_blank_ones_are_none(end, tmp_path):
    lines = [f'  indented, "quoted" {n}\u2028still the same' for n in range(20)]
    path = tmp_path / "texts.txt"
    path.write_text(end.join(["", *lines[:10], "  ", *lines[10:], ""]), encoding="utf-8", newline="")
    task = load_task(DataSettings(data=str(path), task_type=CAUSAL_LM))
    assert sorted(text for split in (task.train, task.validation, task.test) for text in split["text"]) == sorted(lines)
    assert "texts.txt: every line is a row; blank lines left out: 2" in task.notes


def test_text_files_of_a_folder_are_its_splits(tmp_path):
    for split, count in (("train", 8), ("validation", 3), ("test", 2)):
        (tmp_path / f"{split}.txt").write_text("".join(f"{split} {n}\n" for n in range(count)))
    task = load_task(DataSettings(data=str(tmp_path), task_type=CAUSAL_LM))
    assert (len(task.train), len(task.validation), len(task.test)) == (8, 3, 2)


def test_a_text_file_for_another_task_is_refused_and_beside_tables_passed_over(tmp_path):
    (tmp_path / "train.txt").write_text("a\nb\n")
    for data in (tmp_path, tmp_path / "train.txt"):
        with pytest.raises(DataError, match=r"train.txt is a text file.*task_type='causal_lm'"):
            load_task(DataSettings(data=str(data)))
    rows = "".join(f"text {n},{n % 2}\n" for n in range(20))
    (tmp_path / "train.csv").write_text("text,label\n" + rows)
    assert load_task(DataSettings(data=str(tmp_path))).problem_type == "single_label_classification"
