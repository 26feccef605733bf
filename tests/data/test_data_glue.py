"""Tasks known by name: every published layout of their files, what is reported, and how they are asked for."""

import json
from pathlib import Path

import datasets
import numpy as np
import pytest

import prunelora as pl
from prunelora.data.glue import GLUE, GLUE_ON_THE_HUB
from prunelora.data.load import load_task
from prunelora.data.metrics import choosing_metrics, default_metrics, metrics
from prunelora.data.settings import DataSettings
from prunelora.data.task import TaskData
from prunelora.errors import DataError, RecipeError
from prunelora.evaluation.feasibility import check
from prunelora.models import problem_types as judging
from prunelora.report.check_tables import check_tables
from prunelora.run.recipe import Recipe, read_recipe

SHARED = Path(__file__).parents[3] / "shared" / "glue"

# What is known of the published files, written down here a second time and on purpose: the table is held to it.
WORDS = {
    "mnli": ("entailment", "neutral", "contradiction"),
    "qnli": ("entailment", "not_entailment"),
    "rte": ("entailment", "not_entailment"),
}
ON_THE_HUB = {
    "cola": (("sentence",), ("unacceptable", "acceptable")),
    "mnli": (("premise", "hypothesis"), WORDS["mnli"]),
    "mrpc": (("sentence1", "sentence2"), ("not_equivalent", "equivalent")),
    "qnli": (("question", "sentence"), WORDS["qnli"]),
    "qqp": (("question1", "question2"), ("not_duplicate", "duplicate")),
    "rte": (("sentence1", "sentence2"), WORDS["rte"]),
    "sst2": (("sentence",), ("negative", "positive")),
    "stsb": (("sentence1", "sentence2"), ()),
    "wnli": (("sentence1", "sentence2"), ("not_entailment", "entailment")),
}
FOLDERS = {
    "cola": "CoLA", "mnli": "MNLI", "mrpc": "MRPC", "qnli": "QNLI", "qqp": "QQP", "rte": "RTE", "sst2": "SST-2",
    "stsb": "STS-B", "wnli": "WNLI",
}  # fmt: skip
STSB = ["index", "genre", "filename", "year", "old_index", "source1", "source2", "sentence1", "sentence2", "score"]
MNLI = ["index", "promptID", "pairID", "genre", "b1", "b2", "p1", "p2", "sentence1", "sentence2", "label1"]

Row = tuple[tuple[str, ...], int | float]


def made_up(task: str, split: str, count: int) -> list[Row]:
    """Rows with a quotation mark that is never closed, as the files have them."""
    sides = len(ON_THE_HUB[task][0])
    classes = len(ON_THE_HUB[task][1])
    return [
        (
            tuple(f'{split} "text {number}, side {side}' for side in range(sides)),
            number % classes if classes else round(5 * number / count, 3),
        )
        for number in range(count)
    ]


ROWS = {"train": 25, "validation": 7, "mismatched": 5}


def rows_of(task: str) -> dict[str, list[Row]]:
    return {name: made_up(task, name, count) for name, count in ROWS.items() if name != "mismatched" or task == "mnli"}


def write_lines(path: Path, lines, *, start: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(start + "".join("\t".join(map(str, line)) + "\n" for line in lines), encoding="utf-8")


def write_plain(folder: Path, task: str) -> Path:
    """train.tsv and validation.tsv with plain names and ids."""
    names = ("sentence",) if len(ON_THE_HUB[task][0]) == 1 else ("sentence1", "sentence2")
    for split, rows in rows_of(task).items():
        name = "validation_mismatched" if split == "mismatched" else split
        write_lines(folder / task / f"{name}.tsv", [(*names, "label"), *((*texts, label) for texts, label in rows)])
    if task == "mnli":
        (folder / task / "validation.tsv").rename(folder / task / "validation_matched.tsv")
    return folder


def official_lines(task: str, rows: list[Row], split: str) -> list[list]:
    def word(label) -> str:
        return WORDS[task][label] if task in WORDS else str(label)

    match task:
        case "cola":
            return [["gj04", label, "" if label else "*", *texts] for texts, label in rows]
        case "mrpc":
            header = ["Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"]
            return [header, *([label, 700, 701, *texts] for texts, label in rows)]
        case "qqp":
            header = ["id", "qid1", "qid2", "question1", "question2", "is_duplicate"]
            return [header, *([n, 1, 2, *texts, label] for n, (texts, label) in enumerate(rows))]
        case "stsb":
            filler = ["main", "MSRvid", "2012test", "1", "none", "none"]
            return [STSB, *([n, *filler, *texts, f"{label:.3f}"] for n, (texts, label) in enumerate(rows))]
        case "mnli":
            # The development files have the labels of five annotators, the training file of one.
            votes = 1 if split == "train" else 5
            header = [*MNLI, *(f"label{n}" for n in range(2, votes + 1)), "gold_label"]
            filler = ["31193", "31193n", "government", "( b )", "( b )", "(ROOT)", "(ROOT)"]
            return [
                header,
                *([n, *filler, *texts, *["neutral"] * votes, word(label)] for n, (texts, label) in enumerate(rows)),
            ]
        case "sst2":
            return [["sentence", "label"], *([*texts, label] for texts, label in rows)]
    first = ("question", "sentence") if task == "qnli" else ("sentence1", "sentence2")
    return [["index", *first, "label"], *([n, *texts, word(label)] for n, (texts, label) in enumerate(rows))]


def write_official(folder: Path, task: str) -> Path:
    dev = {"validation": "dev_matched" if task == "mnli" else "dev", "mismatched": "dev_mismatched"}
    for split, rows in rows_of(task).items():
        start = "\ufeff" if task == "mrpc" else ""
        lines = official_lines(task, rows, split)
        write_lines(folder / FOLDERS[task] / f"{dev.get(split, split)}.tsv", lines, start=start)
    texts = ON_THE_HUB[task][0]
    for name in ("test_matched", "test_mismatched") if task == "mnli" else ("test",):
        write_lines(folder / FOLDERS[task] / f"{name}.tsv", [("index", *texts), (0, *["no label"] * len(texts))])
    write_lines(folder / FOLDERS[task] / "dev_ids.tsv", [("1", "2")])
    return folder


def as_parquet(task: str, rows: list[Row], path: Path, *, label: object = None) -> None:
    names, classes = ON_THE_HUB[task]
    columns: dict = {name: [texts[side] for texts, _ in rows] for side, name in enumerate(names)}
    columns["label"] = [each if label is None else label for _, each in rows]
    columns["idx"] = list(range(len(rows)))
    kind = datasets.ClassLabel(names=list(classes)) if classes else datasets.Value("float32")
    features = {name: datasets.Value("string") for name in names} | {"label": kind, "idx": datasets.Value("int32")}
    path.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict(columns, features=datasets.Features(features)).to_parquet(path)


def write_parquet(folder: Path, task: str) -> Path:
    """Files as on the hub, train in two shards; those of sst2 in a folder data."""
    place = folder / task / "data" if task == "sst2" else folder / task
    rows = rows_of(task)
    for number, part in enumerate((rows["train"][:10], rows["train"][10:])):
        as_parquet(task, part, place / f"train-{number:05d}-of-00002.parquet")
    as_parquet(
        task,
        rows["validation"],
        place / f"{'validation_matched' if task == 'mnli' else 'validation'}-00000-of-00001.parquet",
    )
    if task == "mnli":
        as_parquet(task, rows["mismatched"], place / "validation_mismatched-00000-of-00001.parquet")
    test = "test_matched" if task == "mnli" else "test"
    as_parquet(task, rows["validation"], place / f"{test}-00000-of-00001.parquet", label=-1)
    return folder


LAYOUTS = {"plain": write_plain, "official": write_official, "parquet": write_parquet}
CASES = [(task, layout) for task in GLUE for layout in LAYOUTS]


def load(task: str, folder: Path, **options) -> TaskData:
    return load_task(DataSettings(task=task, data_dir=str(folder), **options))


def read_back(split: datasets.Dataset) -> list[Row]:
    sides = [name for name in ("text", "text_pair") if name in split.column_names]
    return [(tuple(row[side] for side in sides), pytest.approx(row["label"])) for row in split]


def test_the_table_has_every_task_of_glue_and_all_are_tried_in_every_layout():
    assert set(GLUE) == set(ON_THE_HUB) == set(FOLDERS)
    assert len(CASES) == 27


@pytest.mark.parametrize(("name", "layout"), CASES)
def test_every_layout_of_a_task_gives_the_same_rows(name, layout, tmp_path):
    task = load(name, LAYOUTS[layout](tmp_path, name))
    expected = rows_of(name)
    assert task.name == name
    assert task.label_names == ON_THE_HUB[name][1]
    assert task.problem_type == ("regression" if name == "stsb" else "single_label_classification")
    assert read_back(task.test) == expected["validation"]
    assert sorted(read_back(task.train) + read_back(task.validation), key=str) == sorted(expected["train"], key=str)
    assert all("guessed" not in note for note in task.notes)
    assert ("left out: test (the given validation is reported)" in task.notes) == (layout != "plain")
    reference = load(name, write_plain(tmp_path / "reference", name))
    assert task.fingerprint == reference.fingerprint
    if layout != "official":
        own = ON_THE_HUB[name][0] if layout == "parquet" else ("sentence", "sentence1")[len(ON_THE_HUB[name][0]) - 1 :]
        assert (task.columns["text"], task.columns["label"]) == (own[0], "label")


@pytest.mark.parametrize("inside", ["sst2", "SST-2", "sst-2", "SST2", "."])
def test_the_folder_is_the_one_given_or_the_tasks_own_in_it(inside, tmp_path):
    write_plain(tmp_path / "written", "sst2")
    (tmp_path / "given").mkdir()
    (tmp_path / "written" / "sst2").rename(tmp_path / "given" / inside if inside != "." else tmp_path / "given2")
    folder = tmp_path / ("given" if inside != "." else "given2")
    assert len(load("sst2", folder).test) == ROWS["validation"]


# MNLI -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_mnli_reports_matched_and_mismatched(layout, tmp_path):
    task = load("mnli", LAYOUTS[layout](tmp_path, "mnli"))
    assert list(task.reported) == ["matched", "mismatched"]
    assert task.reported["matched"] is task.test
    assert read_back(task.reported["mismatched"]) == rows_of("mnli")["mismatched"]
    assert f"matched {ROWS['validation']}, mismatched {ROWS['mismatched']}" in task.notes[-1]
    # Train has class 0 one time more often than the others: 3 of 7 rows, 2 of 5.
    assert task.majority_rates == {"matched": 3 / 7, "mismatched": 2 / 5}
    assert task.majority_rate == 3 / 7


def test_the_fingerprint_depends_on_every_reported_split(tmp_path):
    both = load("mnli", write_plain(tmp_path, "mnli"))
    (tmp_path / "mnli" / "validation_mismatched.tsv").unlink()
    alone = load("mnli", tmp_path)
    assert list(alone.reported) == ["test"]
    assert alone.majority_rates == {"test": 3 / 7}
    assert read_back(alone.test) == read_back(both.test)
    assert alone.fingerprint != both.fingerprint


def test_mismatched_alone_is_an_error(tmp_path):
    write_official(tmp_path, "mnli")
    (tmp_path / "MNLI" / "dev_matched.tsv").unlink()
    with pytest.raises(DataError, match="dev_mismatched, but not validation_matched or dev_matched"):
        load("mnli", tmp_path)


def test_rows_on_which_annotators_did_not_agree_are_left_out_and_counted(tmp_path):
    write_official(tmp_path, "mnli")
    for name in ("dev_matched", "dev_mismatched"):
        path = tmp_path / "MNLI" / f"{name}.tsv"
        lines = path.read_text(encoding="utf-8").splitlines()
        path.write_text("\n".join([lines[0], lines[1].rpartition("\t")[0] + "\t-", *lines[2:]]), encoding="utf-8")
    task = load("mnli", tmp_path)
    assert (len(task.test), len(task.more_tests["mismatched"])) == (ROWS["validation"] - 1, ROWS["mismatched"] - 1)
    assert "validation: rows without a label (- or -1) left out: 1" in task.notes
    assert "mismatched: rows without a label (- or -1) left out: 1" in task.notes


# What single tasks' files are like ------------------------------------------------------------------------------------


def test_qqps_broken_rows_are_left_out_and_counted(tmp_path):
    write_official(tmp_path, "qqp")
    with (tmp_path / "QQP" / "train.tsv").open("a", encoding="utf-8") as file:
        file.write("90\t1\t2\ta question without an answer\nthe rest of it\t1\n91\t1\t2\t\ta question\t0\n")
    task = load("qqp", tmp_path)
    assert len(task.train) + len(task.validation) == ROWS["train"]
    assert "train: rows with cells missing or empty left out: 3" in task.notes


def test_broken_rows_of_a_task_that_has_none_are_an_error(tmp_path):
    write_official(tmp_path, "rte")
    with (tmp_path / "RTE" / "train.tsv").open("a", encoding="utf-8") as file:
        file.write("90\tone cell too few\tentailment\n")
    with pytest.raises(DataError, match=r"train.tsv, line 27: 3 cells"):
        load("rte", tmp_path)


def test_mrpcs_original_files_are_read_where_there_is_no_train_tsv(tmp_path):
    rows = rows_of("mrpc")
    for split, name in (("train", "msr_paraphrase_train"), ("validation", "msr_paraphrase_test")):
        write_lines(tmp_path / f"{name}.txt", official_lines("mrpc", rows[split], split), start="\ufeff")
    (tmp_path / "train.txt").write_text("not a table")
    task = load("mrpc", tmp_path)
    assert read_back(task.test) == rows["validation"]
    assert "the given validation is reported" not in " ".join(task.notes)
    write_official(tmp_path, "mrpc")
    assert len(load("mrpc", tmp_path / "MRPC").test) == ROWS["validation"]


def test_the_given_validation_is_reported_even_beside_a_test_with_labels(tmp_path):
    write_plain(tmp_path, "mrpc")
    before = load("mrpc", tmp_path)
    lines = [("sentence1", "sentence2", "label"), ("one", "two", 1), ("three", "four", 0)]
    write_lines(tmp_path / "mrpc" / "test.tsv", lines)
    assert load("mrpc", tmp_path).fingerprint == before.fingerprint


@pytest.mark.parametrize("label", [-1, None])
def test_a_test_split_without_labels_is_left_out_where_there_is_no_validation(label, tmp_path):
    train = rows_of("rte")["train"]
    as_parquet("rte", train, tmp_path / "train.parquet")
    if label is None:
        write_lines(tmp_path / "test.tsv", [("sentence1", "sentence2"), ("one", "two")])
    else:
        as_parquet("rte", train[:3], tmp_path / "test.parquet", label=label)
    task = load("rte", tmp_path)
    assert "the given test split has no labels: left out" in task.notes
    assert len(task.train) + len(task.validation) + len(task.test) == ROWS["train"]


def test_the_class_names_of_a_file_decide_what_its_numbers_mean(tmp_path):
    rows = rows_of("rte")
    for split in ("train", "validation"):
        columns = {
            "sentence1": [texts[0] for texts, _ in rows[split]],
            "sentence2": [texts[1] for texts, _ in rows[split]],
            "label": [1 - label for _, label in rows[split]],
        }
        features = datasets.Features(
            {
                "sentence1": datasets.Value("string"),
                "sentence2": datasets.Value("string"),
                "label": datasets.ClassLabel(names=["not_entailment", "entailment"]),
            }
        )
        datasets.Dataset.from_dict(columns, features=features).to_parquet(tmp_path / f"{split}.parquet")
    assert read_back(load("rte", tmp_path).test) == rows["validation"]


def test_a_saved_data_set_and_the_hub_are_read_by_the_same_row(tmp_path, monkeypatch):
    write_parquet(tmp_path, "mnli")
    named = {
        path.name.partition("-")[0]: datasets.Dataset.from_parquet(str(path), cache_dir=str(tmp_path / "cache"))
        for path in sorted((tmp_path / "mnli").glob("*-of-00001.parquet"))
    }
    saved = datasets.DatasetDict(named | {"train": named["validation_matched"]})
    saved.save_to_disk(tmp_path / "saved")
    from_disk = load("mnli", tmp_path / "saved")
    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *names: asked.append(names) or saved)
    from_hub = load_task(DataSettings(task="mnli"))
    assert asked == [(GLUE_ON_THE_HUB, "mnli")]
    assert list(from_hub.reported) == ["matched", "mismatched"]
    assert from_hub.fingerprint == from_disk.fingerprint


# Errors ---------------------------------------------------------------------------------------------------------------


def test_columns_that_are_not_the_tasks_are_an_error_that_names_both(tmp_path):
    write_lines(tmp_path / "train.tsv", [("headline", "body", "label"), ("a", "b", 0)])
    message = "'question1' .* 'sentence2' and the label in 'label' or 'is_duplicate'; .* headline, body, label"
    with pytest.raises(DataError, match=message):
        load("qqp", tmp_path)
    with pytest.raises(DataError, match="'sentence' and the label in 'label'"):
        load("cola", tmp_path)


@pytest.mark.parametrize(
    ("task", "label", "message"),
    [
        ("rte", "2", "row 2, column 'label': the label '2' .* 0 or 'entailment', 1 or"),
        ("rte", "contradiction", "the label 'contradiction'"),
        ("rte", "", "the label ''"),
        ("stsb", "high", "'high' found, but task='stsb'"),
    ],
)
def test_a_label_that_the_task_does_not_have_is_an_error(task, label, message, tmp_path):
    write_lines(tmp_path / "train.tsv", [("sentence1", "sentence2", "label"), ("a", "b", 0), ("c", "d", label)])
    with pytest.raises(DataError, match=message):
        load(task, tmp_path)


def test_a_folder_without_the_files_is_an_error_that_says_what_was_looked_for(tmp_path):
    (tmp_path / "notes.md").write_text("nothing")
    with pytest.raises(DataError, match=r"train.tsv, msr_paraphrase_train.txt .*found notes.md.*mrpc or MRPC"):
        load("mrpc", tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        load("mrpc", tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"notes.md' is a file"):
        load("mrpc", tmp_path / "notes.md")
    write_lines(tmp_path / "dev.tsv", [("sentence", "label"), ("a", 0)])
    with pytest.raises(DataError, match=r"no training rows in .*found dev"):
        load("sst2", tmp_path)


def test_the_folder_of_another_task_is_an_error(tmp_path):
    write_plain(tmp_path, "mrpc")
    with pytest.raises(DataError, match=r"task='rte': .* another task, mrpc"):
        load("rte", tmp_path / "mrpc")


def test_two_files_for_one_split_and_a_missing_shard_are_errors(tmp_path):
    write_parquet(tmp_path, "rte")
    folder = tmp_path / "rte"
    (folder / "train-00001-of-00002.parquet").rename(tmp_path / "aside.parquet")
    with pytest.raises(DataError, match=r"'train'.* train-00001-of-00002"):
        load("rte", folder)
    (tmp_path / "aside.parquet").rename(folder / "train-00001-of-00002.parquet")
    write_lines(folder / "dev.tsv", [("sentence1", "sentence2", "label"), ("a", "b", 0)])
    with pytest.raises(DataError, match="task='rte': validation and dev"):
        load("rte", folder)
    (folder / "dev.tsv").rename(folder / "train.tsv")
    with pytest.raises(DataError, match="two files for the split 'train'"):
        load("rte", folder)


def test_no_hub_and_no_folder_is_an_error_that_names_the_option(monkeypatch):
    def unreachable(*_):
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(DataError, match="task='rte': no data_dir"):
        load_task(DataSettings(task="rte"))
    with pytest.raises(
        DataError,
        match=r"task='sst': no task of this name. Did you mean 'sst2'\? Use one of: cola, mnli, mrpc, qnli, qqp",
    ):
        load_task(DataSettings(task="sst"))


# Metrics --------------------------------------------------------------------------------------------------------------

METRICS = {
    "cola": ("matthews",),
    "mnli": ("accuracy",),
    "mrpc": ("accuracy", "f1"),
    "qnli": ("accuracy",),
    "qqp": ("accuracy", "f1"),
    "rte": ("accuracy",),
    "sst2": ("accuracy",),
    "stsb": ("pearson", "spearman"),
    "wnli": ("accuracy",),
}


@pytest.mark.parametrize("name", GLUE)
def test_a_task_is_judged_by_glues_own_metrics(name, tmp_path):
    task = load(name, write_plain(tmp_path, name))
    assert task.metrics == METRICS[name]
    logits = np.random.default_rng(0).normal(size=(len(task.test), task.num_labels))
    assert set(task.metrics) <= metrics(logits, np.asarray(task.test["label"]), task.problem_type).keys()
    assert task.metrics[0] in choosing_metrics(task.problem_type, task.label_names)


def test_a_persons_own_task_is_judged_by_its_kind(tmp_path):
    write_lines(tmp_path / "own.tsv", [("text", "label"), *((f"text {n}", n % 2) for n in range(30))])
    task = load_task(DataSettings(data=str(tmp_path / "own.tsv")))
    assert task.metrics == default_metrics("single_label_classification") == ("accuracy",)
    assert list(task.reported) == ["test"]
    assert task.majority_rates == {"test": task.majority_rate}


def test_f1_and_matthews_are_what_their_formulas_say():
    wanted, given = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0], [1, 1, 1, 0, 1, 1, 0, 0, 0, 0]
    true_positive, false_positive, false_negative, true_negative = 3, 2, 1, 4
    found = metrics(np.eye(2)[given], np.array(wanted), judging.SINGLE_LABEL)
    assert found["f1"] == pytest.approx(2 * true_positive / (2 * true_positive + false_positive + false_negative))
    product = true_positive * true_negative - false_positive * false_negative
    assert found["matthews"] == pytest.approx(product / (5 * 4 * 6 * 5) ** 0.5)
    swapped = metrics(np.eye(2)[given][:, ::-1], 1 - np.array(wanted), judging.SINGLE_LABEL)
    assert swapped["f1"] == pytest.approx(8 / 11)
    assert swapped["matthews"] == pytest.approx(found["matthews"])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("answer", [0, 1])
def test_always_one_answer_has_no_correlation_and_warns_of_nothing(answer):
    for wanted in ([0, 1, 1], [1, 1, 1], [0, 0, 0]):
        found = metrics(np.eye(2)[[answer] * 3], np.array(wanted), judging.SINGLE_LABEL)
        assert found["matthews"] == 0.0
    assert "f1" not in metrics(np.eye(3), np.arange(3), judging.SINGLE_LABEL)


@pytest.mark.parametrize(
    ("problem_type", "labels", "columns", "less_is_better"),
    [
        (judging.SINGLE_LABEL, [0, 1, 1], 2, set()),
        (judging.SINGLE_LABEL, [0, 1, 2], 3, set()),
        (judging.MULTI_LABEL, [[0, 1], [1, 1], [1, 0]], 2, set()),
        (judging.REGRESSION, [0.0, 1.0, 2.0], 1, {"mse"}),
    ],
)
def test_every_metric_of_which_more_is_better_can_choose(problem_type, labels, columns, less_is_better):
    found = metrics(np.random.default_rng(0).normal(size=(3, columns)), np.array(labels), problem_type)
    names = [str(column) for column in range(columns)]
    assert set(choosing_metrics(problem_type, names)) == found.keys() - less_is_better


def test_the_metric_named_chooses_the_checkpoint(tmp_path, monkeypatch):
    import torch
    from tiny import tiny_model
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    from prunelora.finetuning import training

    vocabulary = {"[UNK]": 0, "[PAD]": 1}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]")), pad_token="[PAD]"
    )
    rows = datasets.Dataset.from_dict({"input_ids": [[7, 8]] * 8, "attention_mask": [[1, 1]] * 8, "labels": [0, 1] * 4})

    def best_step(**options) -> int:
        found = iter([{"accuracy": 0.1, "matthews": 0.9}, {"accuracy": 0.8, "matthews": 0.3}])
        monkeypatch.setattr(training, "metrics", lambda *_: next(found))
        model = tiny_model(dtype=torch.float32, num_labels=2)
        return training.finetune(
            model, rows, rows, tokenizer=tokenizer, epochs=2, batch_size=8, progress=False, **options
        ).best_step

    assert best_step() == 2
    assert best_step(main_metric="matthews") == 1
    with pytest.raises(DataError, match=r"main_metric='mse'.* accuracy"):
        best_step(main_metric="mse")


# Recipes and commands -------------------------------------------------------------------------------------------------


def test_a_named_task_takes_the_place_of_data_and_the_other_way_round():
    own = Recipe().with_settings({"task.data": "yes", "task.text": "1", "task.label": "no", "task.max_length": "64"})
    named = own.with_settings({own.key_of("task"): "sst2", own.key_of("data_dir"): "2024"})
    assert named.task == DataSettings(task="sst2", data_dir="2024", max_length=64)
    other = named.with_settings({"task.task": "rte"})
    assert other.task == DataSettings(task="rte", data_dir="2024", max_length=64)
    back = named.with_settings({"task.data": "reviews.csv", "task.text": "review"})
    assert back.task == DataSettings(data="reviews.csv", text="review", max_length=64)
    assert read_recipe(named.model_dump(mode="json"), source="test") == named


def test_bare_names_of_a_named_task_mean_the_data():
    assert Recipe().key_of("task") == "task.task"
    assert Recipe().key_of("data_dir") == "task.data_dir"
    with pytest.raises(RecipeError, match=r"task: no such setting. Did you mean 'task.task'\?"):
        Recipe().with_settings({"task": "sst2"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task.data": "a.csv", "task.task": "rte"}, "data='a.csv' and task='rte' were both given. Give one of them"),
        ({"task.data_dir": "here"}, "data_dir='here' belongs to a named task: give task, or the folder as data.$"),
        ({"task.task": "rte", "task.text": "review"}, "text='review': columns and labels of task='rte' are known"),
        ({"task.task": "rte", "task.task_type": "regression"}, "task_type='regression': columns and labels of"),
    ],
)
def test_settings_that_contradict_each_other_are_an_error(changes, message):
    with pytest.raises(RecipeError, match=message):
        Recipe().with_settings(changes)


def test_run_takes_a_task_in_place_of_data(prunelora, tmp_path):
    arguments = ("run", "--model", "here", "--task", "sst2", "--data-dir", "glue", "--out", str(tmp_path), "--dry-run")
    code, out, err = prunelora(*arguments)
    assert code == 0, err
    assert out.startswith("model here, task sst2, seed 0, into ")
    code, out, _ = prunelora(*arguments, "--json")
    task = json.loads(out)["task"]
    assert (task["task"], task["data_dir"], task["data"]) == ("sst2", "glue", None)


def plan_of(work):
    return next(one["settings"] for one in work["stages"] if one["stage"] == "plan")


def test_a_run_begun_with_one_task_starts_anew_with_another(prunelora, tmp_path):
    from prunelora.run.folder import RunFolder

    begun = RunFolder(tmp_path)
    begun.write_recipe(Recipe().with_settings({"task.data": "reviews.csv", "plan.keep_heads": "0.25"}))
    code, out, err = prunelora("run", "--model", "m", "--task", "rte", "--out", str(tmp_path), "--dry-run", "--json")
    assert code == 0, err
    settings = plan_of(json.loads(out))
    assert (settings["keep_macs"], settings["keep_heads"]) == (0.5, None)
    code, out, err = prunelora("run", "--task", "rte", "--out", str(tmp_path), "--dry-run", "--json")
    assert code == 0, err
    assert plan_of(json.loads(out))["keep_heads"] == 0.25
    assert json.loads(out)["task"]["task"] == "rte"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "--model", "m", "--task", "rte", "--data", "x.csv", "--out", "r"), "--data x.csv and --task rte were"),
        (("score", "r", "--model", "m", "--task", "rte", "--data", "x.csv"), "--data x.csv and --task rte were both"),
        (("score", "r", "--model", "m"), "--data missing: a run needs --data (or --task in its"),
        (
            ("run", "--model", "m", "--data", "x.csv", "--data-dir", "d", "--out", "r"),
            "--data-dir d belongs to a named",
        ),
        (("run", "--task", "rte"), "No run folder was given"),
        (("check", "--task", "rte", "--data", "x.csv"), "--data x.csv and --task rte were both"),
        (("check", "--data-dir", "d"), "--data-dir d: belongs to data, and no data was named"),
    ],
)
def test_a_command_that_names_data_twice_or_not_at_all_is_an_error(
    arguments, message, prunelora, tmp_path, monkeypatch, minilm_path
):
    monkeypatch.chdir(tmp_path)
    code, _, err = prunelora(*arguments)
    assert code == 1
    assert message in err


def test_compress_takes_a_task_in_place_of_data(monkeypatch):
    asked = []
    monkeypatch.setattr("prunelora.run.execute.execute", lambda recipe, out, **_: asked.append(recipe))
    pl.compress(task="rte", data_dir="glue", out="r", keep_heads=3)
    pl.compress(out="r", recipe=asked[0])
    pl.compress(data="x.csv", out="r", recipe=asked[0])
    assert asked[0].task == asked[1].task == DataSettings(task="rte", data_dir="glue")
    assert asked[2].task == DataSettings(data="x.csv")
    assert asked[0].model == "minilm"
    assert next(stage for stage in asked[0].stages if stage.stage == "plan").keep_heads == 3


def test_check_looks_at_every_reported_split(tmp_path, minilm_path):
    found = check("minilm", data=DataSettings(task="mnli", data_dir=str(write_official(tmp_path, "mnli"))))
    assert found.data["rows"] == {"train": 23, "validation": 2, "matched": 7, "mismatched": 5}
    *_, last = check_tables(found)
    assert "23 training rows, 7 matched rows, 5 mismatched rows" in last
    assert "42.9 % (matched)" in last
    assert "40.0 % (mismatched)" in last


# The real files -------------------------------------------------------------------------------------------------------

COUNTS = {
    "sst2": (67_349, 872), "mrpc": (3_668, 408), "rte": (2_490, 277), "wnli": (635, 71), "qnli": (4_519, 944),
    "mnli": (9_888, 6_238),
}  # fmt: skip
MAJORITY = {"mrpc": "68.38 %", "wnli": "56.34 %"}


@pytest.mark.skipif(not SHARED.is_dir(), reason="the GLUE files are not part of the repository")
@pytest.mark.parametrize("name", COUNTS)
def test_the_real_files_have_their_rows_and_their_majority_rate(name):
    task = load(name, SHARED)
    assert (len(task.train) + len(task.validation), len(task.test)) == COUNTS[name]
    assert task.label_names == ON_THE_HUB[name][1]
    if name in MAJORITY:
        assert f"{100 * task.majority_rate:.2f} %" == MAJORITY[name]
