"""Reading files, folders and saved data sets into tasks."""

import csv
import json
from pathlib import Path

import datasets
import pandas
import pytest

from prunelora.data.load import load_task
from prunelora.data.settings import DataSettings
from prunelora.data.task import TaskData
from prunelora.errors import DataError

GLUE = Path(__file__).parents[3] / "shared" / "glue"
ROWS = [(f"sentence number {n}, with a comma", ("bad", "good")[n % 2]) for n in range(40)]


def load(path: Path | str, **options) -> TaskData:
    return load_task(DataSettings(data=str(path), **options))


def write_csv(path: Path, rows, header=("text", "label")) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def write_tsv(path: Path, rows, header=("text", "label")) -> Path:
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in [header, *rows]), encoding="utf-8")
    return path


def write_jsonl(path: Path, rows, header=("text", "label")) -> Path:
    path.write_text("".join(json.dumps(dict(zip(header, row, strict=True))) + "\n" for row in rows), encoding="utf-8")
    return path


def write_json(path: Path, rows, header=("text", "label")) -> Path:
    path.write_text(json.dumps([dict(zip(header, row, strict=True)) for row in rows], indent=1), encoding="utf-8")
    return path


def write_parquet(path: Path, rows, header=("text", "label")) -> Path:
    pandas.DataFrame(rows, columns=list(header)).to_parquet(path)
    return path


WRITERS = {"csv": write_csv, "tsv": write_tsv, "jsonl": write_jsonl, "json": write_json, "parquet": write_parquet}


def everything(task: TaskData) -> list[tuple[str, str]]:
    splits = (task.train, task.validation, task.test)
    return sorted((row["text"], task.label_names[row["label"]]) for split in splits for row in split)


@pytest.mark.parametrize("kind", WRITERS)
def test_every_file_type_gives_the_same_task(kind, tmp_path):
    task = load(WRITERS[kind](tmp_path / f"reviews.{kind}", ROWS))
    reference = load(write_csv(tmp_path / "reference.csv", ROWS))
    assert everything(task) == sorted(ROWS)
    assert task.name == "reviews"
    assert task.label_names == ("bad", "good")
    assert task.problem_type == "single_label_classification"
    assert (len(task.train), len(task.validation), len(task.test)) == (32, 4, 4)
    assert task.fingerprint == reference.fingerprint


def test_fingerprint_depends_on_rows_and_not_on_the_path(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    first = load(write_csv(tmp_path / "a.csv", ROWS))
    moved = load(write_csv(tmp_path / "elsewhere" / "b.csv", ROWS))
    changed = load(write_csv(tmp_path / "c.csv", [("another sentence", "bad"), *ROWS[1:]]))
    relabelled = load(write_csv(tmp_path / "d.csv", [(text, {"bad": "awful"}.get(word, word)) for text, word in ROWS]))
    assert first.fingerprint == moved.fingerprint
    assert len({first.fingerprint, changed.fingerprint, relabelled.fingerprint}) == 3


def test_fingerprint_depends_on_the_split_seed(tmp_path):
    path = write_csv(tmp_path / "a.csv", ROWS)
    assert load(path).fingerprint != load(path, split_seed=1).fingerprint


def test_cells_that_look_like_numbers_or_nulls_stay_text(tmp_path):
    texts = ["007", "NA", "null", "nan", "1e5", "None", "True", "3.10"]
    rows = [(text, n % 2) for n, text in enumerate(texts)]
    task = load(write_csv(tmp_path / "odd.csv", rows), validation_fraction=0.25, test_fraction=0.25)
    assert sorted(text for text, _ in everything(task)) == sorted(texts)


def test_quotes_are_text_in_tsv_and_quoting_in_csv(tmp_path):
    rows = [(f'"unbalanced {n}', n % 2) for n in range(20)]
    assert all(text.startswith('"') for text, _ in everything(load(write_tsv(tmp_path / "q.tsv", rows))))
    rows = [(f'he said "{n}",\nthen left', n % 2) for n in range(20)]
    assert sorted(text for text, _ in everything(load(write_csv(tmp_path / "q.csv", rows)))) == sorted(
        text for text, _ in rows
    )


def test_byte_order_mark_is_not_part_of_the_first_column(tmp_path):
    path = write_csv(tmp_path / "bom.csv", ROWS)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load(path).columns == {"text": "text", "label": "label"}


def test_three_given_splits_are_used_as_they_are(tmp_path):
    write_csv(tmp_path / "train.csv", ROWS[:20])
    write_tsv(tmp_path / "dev.tsv", ROWS[20:30])
    write_jsonl(tmp_path / "test.jsonl", ROWS[30:])
    task = load(tmp_path)
    assert list(task.train["text"]) == [text for text, _ in ROWS[:20]]
    assert list(task.validation["text"]) == [text for text, _ in ROWS[20:30]]
    assert list(task.test["text"]) == [text for text, _ in ROWS[30:]]


def test_given_validation_is_reported_and_another_is_cut_off_train(tmp_path):
    write_csv(tmp_path / "train.csv", ROWS[:30])
    write_csv(tmp_path / "validation.csv", ROWS[30:])
    task = load(tmp_path)
    assert list(task.test["text"]) == [text for text, _ in ROWS[30:]]
    assert len(task.validation) == 3
    assert sorted([*task.train["text"], *task.validation["text"]]) == sorted(text for text, _ in ROWS[:30])
    assert any("given validation is reported as test" in note for note in task.notes)


def test_validation_is_cut_off_train_where_only_test_is_given(tmp_path):
    write_csv(tmp_path / "train.csv", ROWS[:30])
    write_csv(tmp_path / "test.csv", ROWS[30:])
    task = load(tmp_path)
    assert list(task.test["text"]) == [text for text, _ in ROWS[30:]]
    assert (len(task.train), len(task.validation)) == (27, 3)


@pytest.mark.parametrize("hidden", ["-1", "", None])
def test_unlabelled_test_split_is_left_out_with_a_note(hidden, tmp_path):
    write_csv(tmp_path / "train.csv", [(text, n % 2) for n, (text, _) in enumerate(ROWS[:30])])
    write_csv(tmp_path / "validation.csv", [("seen at last", 0), ("not bad", 1)])
    if hidden is None:
        write_csv(tmp_path / "test.csv", [("unlabelled",)], header=("text",))
    else:
        write_csv(tmp_path / "test.csv", [("unlabelled", hidden), ("too", hidden)])
    task = load(tmp_path)
    assert list(task.test["text"]) == ["seen at last", "not bad"]
    assert any("test split" in note and "left out" in note for note in task.notes)


def test_labelled_test_split_is_kept_where_no_target_is_one_of_trainings(tmp_path):
    write_csv(tmp_path / "train.csv", [(text, n + 0.5) for n, (text, _) in enumerate(ROWS[:30])])
    write_csv(tmp_path / "test.csv", [("new", 0.25), ("newer", -1)])
    assert list(load(tmp_path).test["label"]) == [0.25, -1.0]


def test_minus_one_is_a_class_where_training_has_it(tmp_path):
    write_csv(tmp_path / "train.csv", [(text, n % 3 - 1) for n, (text, _) in enumerate(ROWS[:30])])
    write_csv(tmp_path / "test.csv", [("all bad", -1)])
    task = load(tmp_path)
    assert task.label_names == ("-1", "0", "1")
    assert list(task.test["label"]) == [0]


def test_saved_data_set_keeps_its_class_names_and_gets_no_cache_files(tmp_path):
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["zebra", "ape", "never seen"])}
    )
    columns = {"text": [text for text, _ in ROWS], "label": [n % 2 for n in range(len(ROWS))]}
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(str(tmp_path / "saved"))
    before = sorted(path.name for path in (tmp_path / "saved").rglob("*"))
    task = load(tmp_path / "saved")
    assert task.label_names == ("zebra", "ape", "never seen")
    assert len(task.train) == 32
    assert sorted(path.name for path in (tmp_path / "saved").rglob("*")) == before


def test_saved_splits_with_class_names_lose_rows_marked_as_unlabelled(tmp_path):
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    labels = [-1, *(n % 2 for n in range(1, len(ROWS)))]
    train = datasets.Dataset.from_dict({"text": [text for text, _ in ROWS], "label": labels}, features=features)
    test = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [-1, -1]}, features=features)
    datasets.DatasetDict({"train": train, "test": test}).save_to_disk(str(tmp_path / "saved"))
    task = load(tmp_path / "saved")
    assert len(task.train) + len(task.validation) + len(task.test) == len(ROWS) - 1
    assert "train: rows without a label (-1) left out: 1" in task.notes


def test_parquet_metadata_brings_class_names(tmp_path):
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    columns = {"text": [text for text, _ in ROWS], "label": [n % 2 for n in range(len(ROWS))]}
    datasets.Dataset.from_dict(columns, features=features).to_parquet(str(tmp_path / "rows.parquet"))
    assert load(tmp_path / "rows.parquet").label_names == ("no", "yes")


def test_most_training_rows_are_stratified_and_leave_the_test_rows_alone(tmp_path):
    path = write_csv(tmp_path / "a.csv", [(f"row {n}", n % 4 == 0) for n in range(400)])
    full, few = load(path), load(path, max_train_rows=90)
    assert list(few.test["text"]) == list(full.test["text"])
    # 90 rows, a ninth of what is left after the test rows to validation
    assert (len(few.train), len(few.validation)) == (80, 10)
    assert set(few.train["text"]).isdisjoint(few.test["text"])
    assert abs(sum(few.train["label"]) - 20) <= 1


def test_notes_say_what_was_guessed_and_what_was_not(tmp_path):
    path = write_csv(tmp_path / "a.csv", ROWS)
    assert "text column: text (guessed; text to change)" in load(path).notes
    assert "text column: text" in load(path, text="text").notes
    assert load(path).notes[-1] == "rows: train 32, validation 4, test 4"


def test_texts_that_given_splits_share_are_noted(tmp_path):
    write_csv(tmp_path / "train.csv", ROWS[:30])
    write_csv(tmp_path / "validation.csv", ROWS[30:])
    write_csv(tmp_path / "test.csv", [*ROWS[:2], *ROWS[30:]])
    assert "warning: 2 rows of the given test have a text that train has too" in load(tmp_path).notes


def test_majority_rate_is_what_always_answering_trains_most_frequent_class_gets(tmp_path):
    write_csv(tmp_path / "train.csv", [(text, "a" if n < 20 else "b") for n, (text, _) in enumerate(ROWS[:30])])
    write_csv(tmp_path / "test.csv", [("one", "b"), ("two", "b"), ("three", "a"), ("four", "b")])
    assert load(tmp_path).majority_rate == 0.25


def test_regression_has_no_majority_rate_and_one_output(tmp_path):
    task = load(write_csv(tmp_path / "a.csv", [(text, n / 4) for n, (text, _) in enumerate(ROWS)]))
    assert (task.problem_type, task.label_names, task.num_labels) == ("regression", (), 1)
    assert task.majority_rate is None
    assert task.train.features["label"].dtype == "float32"


def test_two_text_columns_make_a_pair(tmp_path):
    rows = [(text, f"and {n}", word) for n, (text, word) in enumerate(ROWS)]
    task = load(write_tsv(tmp_path / "a.tsv", rows, header=("premise", "hypothesis", "gold_label")))
    assert task.is_pair
    assert task.columns == {"text": "premise", "text_pair": "hypothesis", "label": "gold_label"}
    assert not load(tmp_path / "a.tsv", text="premise").is_pair


def test_a_hub_name_that_cannot_be_reached_says_what_to_pass_instead(monkeypatch):
    def unreachable(*_):
        raise ConnectionError("Couldn't reach the Hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(DataError, match=r"nyu-mll/glue \(sst2\)"):
        load("nyu-mll/glue", data_config="sst2")


def test_a_hub_data_set_with_a_hidden_test_split_is_loaded(monkeypatch):
    features = datasets.Features({"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["n", "p"])})

    def split(count, label):
        rows = {"sentence": [f"{count} {n}" for n in range(count)], "label": [label(n) for n in range(count)]}
        return datasets.Dataset.from_dict(rows, features=features)

    hub = {"train": split(30, lambda n: n % 2), "validation": split(4, lambda n: n % 2), "test": split(6, lambda n: -1)}
    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *names: asked.append(names) or datasets.DatasetDict(hub))
    task = load("nyu-mll/glue", data_config="sst2")
    assert asked == [("nyu-mll/glue", "sst2")]
    assert (task.name, task.label_names) == ("nyu-mll/glue/sst2", ("n", "p"))
    assert (len(task.train), len(task.validation), len(task.test)) == (27, 3, 4)


# Rows of the files, columns, and what always answering train's majority gets on the reported split.
GLUE_TASKS = {
    "mrpc": (3668, 408, ("sentence1", "sentence2"), 0.6838),
    "rte": (2490, 277, ("sentence1", "sentence2"), 0.5271),
    "wnli": (635, 71, ("sentence1", "sentence2"), 0.5634),
    "sst2": (67349, 872, ("sentence",), 0.5092),
}


@pytest.mark.parametrize("name", GLUE_TASKS)
def test_glue_files_load_with_every_row(name):
    if not (GLUE / name).is_dir():
        pytest.skip(f"the GLUE files are not here ({GLUE / name})")
    train, validation, texts, majority = GLUE_TASKS[name]
    task = load(GLUE / name)
    assert len(task.train) + len(task.validation) == train
    assert len(task.test) == validation
    assert tuple(column for role, column in task.columns.items() if role != "label") == texts
    assert task.majority_rate == pytest.approx(majority, abs=5e-5)
