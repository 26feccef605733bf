"""Distillation: the loss is the divergence of softened logits, and the student learns the teacher's answers."""

import pytest
import torch
from datasets import Dataset
from small_run import make_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import prunelora as pl
from prunelora.errors import DataError
from prunelora.finetuning.distillation import TEACHER, distance


def test_the_distance_is_the_divergence_of_softened_answers():
    logits, teacher = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[0.0, 1.0], [0.0, 2.0]])
    wanted = torch.softmax(teacher / 2, -1)
    by_hand = (wanted * (wanted / torch.softmax(logits / 2, -1)).log()).sum(-1).mean() * 4
    assert float(distance(logits, teacher, 2.0)) == pytest.approx(float(by_hand), rel=1e-6)
    assert float(distance(teacher, teacher, 3.0)) == pytest.approx(0.0, abs=1e-7)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, minilm_path):
    return make_model(tmp_path_factory.mktemp("model") / "tiny", minilm_path)


def rows(count: int = 32) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1000, 2000, (count, 6), generator=generator)
    return Dataset.from_dict(
        {
            "input_ids": ids.tolist(),
            "attention_mask": torch.ones_like(ids).tolist(),
            "labels": [number % 2 for number in range(count)],
        }
    )


def student(folder):
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_pretrained(str(folder), num_labels=2)


def test_a_student_learns_the_teachers_answers_where_labels_say_nothing(folder):
    """The teacher always prefers class 1; the labels are half and half, unrelated to the text."""
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    train = rows().add_column(TEACHER, [[-2.0, 2.0]] * 32)
    model = student(folder)
    # The checkpoint that is kept is the one that agrees best with the teacher.
    ones = rows(8).remove_columns("labels").add_column("labels", [1] * 8)
    options = {"distillation": 1.0, "epochs": 8, "batch_size": 4, "learning_rate": 5e-3}
    pl.finetune(model, train, ones, tokenizer=tokenizer, progress=False, **options)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor(rows()["input_ids"])).logits
    assert float((logits[:, 1] - logits[:, 0]).min()) > 0.3


def test_without_a_teachers_answers_distillation_is_an_error(folder):
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    with pytest.raises(DataError, match=r"'teacher_logits'.*input_ids, attention_mask, labels"):
        pl.finetune(student(folder), rows(), rows(8), tokenizer=tokenizer, distillation=0.5, progress=False)
    model = student(folder)
    model.config.problem_type = "regression"
    train = rows().add_column(TEACHER, [[-2.0, 2.0]] * 32)
    with pytest.raises(DataError, match="regression"):
        pl.finetune(model, train, rows(8), tokenizer=tokenizer, distillation=0.5, progress=False)
