"""Token classification: a tag for every word, from CoNLL files and from lists."""

import json

import datasets
import numpy as np
import pytest
from transformers import AutoTokenizer

from prunelora.data.answers import labels_of, stacked
from prunelora.data.load import load_task
from prunelora.data.metrics import IGNORED, choosing_metrics, default_metrics, metrics
from prunelora.data.settings import DataSettings
from prunelora.data.tokens import batches, calibration_batches, tokenise
from prunelora.errors import DataError
from prunelora.models.problem_types import TOKENS

SENTENCES = [
    (["Ada", "Lovelace", "wrote", f"letter{n}", "in", "London"], ["B-PER", "I-PER", "O", "O", "O", "B-LOC"])
    for n in range(30)
] + [(["nothing", f"here{n}"], ["O", "O"]) for n in range(10)]


def conll(path, sentences=SENTENCES, separator=" ", middle=("NNP",)):
    lines = ["-DOCSTART- -X- O", ""]
    for words, tags in sentences:
        lines += [separator.join([word, *middle, tag]) for word, tag in zip(words, tags, strict=True)] + [""]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def load(path, **options):
    return load_task(DataSettings(data=str(path), **options))


@pytest.mark.parametrize("separator", [" ", "\t"])
def test_a_conll_file_is_a_task_of_tags(separator, tmp_path):
    task = load(conll(tmp_path / "ner.conll", separator=separator))
    assert (task.problem_type, task.label_names) == (TOKENS, ("B-LOC", "B-PER", "I-PER", "O"))
    assert len(task.train) + len(task.validation) + len(task.test) == 40
    row = next(row for row in task.train if len(row["text"]) == 6)
    assert row["text"][:3] == ["Ada", "Lovelace", "wrote"]
    assert [task.label_names[tag] for tag in row["label"]] == ["B-PER", "I-PER", "O", "O", "O", "B-LOC"]
    assert task.metrics == ("entity_f1", "accuracy")
    assert any(note.startswith("task: token classification, 4 labels") for note in task.notes)
    words = [tag for row in task.test["label"] for tag in row]
    assert task.majority_rate == words.count(3) / len(words) < 1


def test_lists_are_the_same_task_as_a_conll_file(tmp_path):
    whole = load(conll(tmp_path / "ner.conll"))
    lines = [json.dumps({"tokens": words, "ner_tags": tags}) for words, tags in SENTENCES]
    (tmp_path / "ner.jsonl").write_text("\n".join(lines))
    assert load(tmp_path / "ner.jsonl").fingerprint == whole.fingerprint
    names = datasets.ClassLabel(names=["B-LOC", "B-PER", "I-PER", "O"])
    features = {"words": datasets.Sequence(datasets.Value("string")), "ner": datasets.Sequence(names)}
    rows = {"words": [words for words, _ in SENTENCES], "ner": [names.str2int(tags) for _, tags in SENTENCES]}
    datasets.Dataset.from_dict(rows, features=datasets.Features(features)).to_parquet(tmp_path / "ner.parquet")
    assert load(tmp_path / "ner.parquet").fingerprint == whole.fingerprint


def test_comments_stand_before_a_sentence_and_a_hash_may_be_a_word(tmp_path):
    (tmp_path / "x.conll").write_text("# id = 7\nAda B-PER\n# O\n\n" + "".join(f"w{n} O\n\n" for n in range(12)))
    task = load(tmp_path / "x.conll", validation_fraction=0.2, test_fraction=0.2)
    rows = [row["text"] for split in (task.train, task.validation, task.test) for row in split]
    assert ["Ada", "#"] in rows


@pytest.mark.parametrize(
    ("comments", "row"),
    [
        ("# sent_id = 3\n# text = #1 = Ada\n", "{} _ _ O"),  # as many cells as words have
        ("# id 5239d808-f300 domain=en\n", "{} _ _ O"),
        ("# id 5239d808-f300\tdomain=en\n", "{} _ _ O"),
        ("# id 5239d808-f300\tdomain=en\n", "{}\tO"),
        ("# newpar\n# a note on it\n", "{} O"),
    ],
)
def test_a_comment_is_no_word_however_many_cells_it_has(comments, row, tmp_path):
    rows = [comments + row.format(f"w{n}") + "\n" + row.format("end").replace("O", "X") for n in range(12)]
    (tmp_path / "x.conll").write_text("\n\n".join(rows) + "\n")
    task = load(tmp_path / "x.conll", validation_fraction=0.2, test_fraction=0.2)
    found = [row["text"] for split in (task.train, task.validation, task.test) for row in split]
    assert sorted(found) == sorted([f"w{n}", "end"] for n in range(12))


def test_a_sentence_may_begin_with_a_hash(tmp_path):
    (tmp_path / "x.conll").write_text("# O\n1 X\n\n" + "".join(f"w{n} O\n\n# O\n{n} X\n\n" for n in range(12)))
    task = load(tmp_path / "x.conll", validation_fraction=0.2, test_fraction=0.2)
    rows = [row["text"] for split in (task.train, task.validation, task.test) for row in split]
    assert sum(row[0] == "#" for row in rows) == 13


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Ada\n", r"line 1: 1 cells, 2 expected"),
        ("Ada B-PER\nwrote X O\n", r"line 2: 3 cells, 2 expected"),
    ],
)
def test_a_line_without_a_tag_is_an_error(text, message, tmp_path):
    (tmp_path / "x.conll").write_text(text)
    with pytest.raises(DataError, match=message):
        load(tmp_path / "x.conll")


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([{"tokens": ["a", "b"], "tags": ["O"]}], {}, "row 1 has 2 words and 1 tags"),
        ([{"tokens": [], "tags": []}], {}, "has no words"),
        ([{"tokens": ["a"], "other": ["O"]}], {}, "known for tags"),
        ([{"tokens": ["a"], "tags": "O"}], {}, "a list with a tag for every word"),
        ([{"tokens": ["a"], "tags": ["O"]}] * 3, {}, "nothing to learn"),
        (
            [{"tokens": ["a", "b"], "tags": ["O", "X"]}, {"tokens": ["a", "b"], "tags": ["O", None]}],
            {},
            "row 2 of column 'tags' has None for word 2",
        ),
        ([{"tokens": ["a", "b"], "tags": ["O", ""]}], {}, "has '' for word 2"),
        ([{"tokens": ["a", "b", "c"], "tags": [0, 1, float("nan")]}], {}, "has nan for word 3"),
        ([{"tokens": ["a", "b", "c"], "tags": [-100, 0, 1]}], {}, "has -100 for word 1"),
        ([{"tokens": ["a", "b", "c"], "tags": ["-100", "O", "X"]}], {}, "has '-100' for word 1"),
        ([{"text": "a", "tags": ["O"]}], {"task_type": TOKENS}, "known for words"),
        ([{"text": "a", "tags": ["O"]}], {"task_type": TOKENS, "text": "text"}, "a list of words is expected"),
        ([{"tokens": ["a"], "tags": ["O"]}], {"text_pair": "tags"}, "one text a row"),
    ],
)
def test_rows_that_do_not_fit_are_errors(rows, options, message, tmp_path):
    (tmp_path / "x.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    with pytest.raises(DataError, match=message):
        load(tmp_path / "x.jsonl", **options)


def test_a_tag_that_training_lacks_is_an_error(tmp_path):
    conll(tmp_path / "train.conll")
    conll(tmp_path / "validation.conll", [(["Paris"], ["B-ORG"])])
    with pytest.raises(DataError, match="B-ORG"):
        load(tmp_path)


@pytest.fixture(scope="module")
def tokenizer(minilm_path):
    return AutoTokenizer.from_pretrained(str(minilm_path))


def test_the_first_token_of_a_word_has_its_tag(tmp_path, tokenizer):
    task = load(conll(tmp_path / "ner.conll", [(["Lovelaceish", "wrote"], ["B-PER", "O"])] * 2 + SENTENCES))
    tokenised = tokenise(task.train, tokenizer, max_length=16)
    for words, tags, row in zip(task.train["text"], task.train["label"], tokenised, strict=True):
        assert row["input_ids"] == tokenizer(words, is_split_into_words=True)["input_ids"]
        assert [label for label in row["labels"] if label != IGNORED] == tags
        assert (row["labels"][0], row["labels"][-1]) == (IGNORED, IGNORED)
    cut = tokenise(task.train, tokenizer, max_length=4)
    assert max(len(row["labels"]) for row in cut) == max(len(row["input_ids"]) for row in cut) == 4


def test_batches_are_padded_with_labels_that_do_not_count(tmp_path, tokenizer):
    task = load(conll(tmp_path / "ner.conll"))
    for batch in calibration_batches(task, tokenizer, batch_size=7):
        assert batch["labels"].shape == batch["input_ids"].shape
        assert bool((batch["labels"][batch["attention_mask"] == 0] == IGNORED).all())
    tokenised = tokenise(task.train, tokenizer, max_length=16)
    wanted = stacked([batch["labels"].numpy() for batch in batches(tokenised, tokenizer, batch_size=5)])
    np.testing.assert_array_equal(labels_of(tokenised), wanted)


NAMES = ("B-LOC", "B-PER", "I-PER", "O")


def logits_for(tags):
    return np.eye(len(NAMES))[np.where(tags == IGNORED, 0, tags)]


def test_chunks_are_right_or_wrong_as_a_whole():
    # Ada Lovelace, London; of the second row only "Ada" is found of "Ada Lovelace".
    labels = np.array([[IGNORED, 1, 2, 3, 0], [1, 2, 3, IGNORED, IGNORED]])
    given = np.array([[3, 1, 2, 3, 0], [1, 3, 3, 0, 0]])
    found = metrics(logits_for(given), labels, TOKENS, NAMES)
    assert found["accuracy"] == pytest.approx(6 / 7)
    assert (found["entity_precision"], found["entity_recall"], found["entity_f1"]) == pytest.approx((2 / 3,) * 3)
    assert metrics(logits_for(labels), labels, TOKENS, NAMES)["entity_f1"] == 1
    nothing = metrics(logits_for(np.full_like(labels, 3)), labels, TOKENS, NAMES)
    assert nothing["entity_f1"] == 0
    assert set(choosing_metrics(TOKENS, NAMES)) == found.keys()


def test_parts_of_speech_have_no_chunks():
    names = ("DET", "NOUN", "VERB", "X")
    labels = np.array([[0, 1, 2, 3]])
    assert metrics(logits_for(labels), labels, TOKENS, names) == {"accuracy": 1.0}
    assert default_metrics(TOKENS, names) == choosing_metrics(TOKENS, names) == ("accuracy",)
