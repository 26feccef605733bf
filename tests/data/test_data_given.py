"""Rows given in Python are the same task as the same rows in a file, and a recipe file says that they are in none."""

import subprocess
import sys

import datasets
import numpy as np
import pandas
import pytest

from prunelora.data.load import load_task
from prunelora.data.settings import DataSettings
from prunelora.errors import DataError
from prunelora.run.recipe import Recipe, load_recipe

FRAME = pandas.DataFrame(
    {"text": [f"text {n}, with a comma" for n in range(40)], "label": [("bad", "good")[n % 2] for n in range(40)]}
)


def load(data, **options):
    return load_task(DataSettings(data=data, **options))


def refusal(data, **options) -> str:
    with pytest.raises(DataError) as caught:
        load(data, **options)
    return str(caught.value)


@pytest.fixture
def reference(tmp_path):
    FRAME.to_csv(tmp_path / "rows.csv", index=False)
    return load(tmp_path / "rows.csv")


@pytest.mark.parametrize(
    "data",
    [
        FRAME,
        FRAME.set_index(np.arange(40)[::-1]),
        FRAME.astype({"label": "category", "text": "string"}),
        datasets.Dataset.from_pandas(FRAME),
        datasets.Dataset.from_pandas(FRAME.iloc[::-1]).select(range(39, -1, -1)),
        {"train": FRAME},
        datasets.DatasetDict({"train": datasets.Dataset.from_pandas(FRAME)}),
    ],
    ids=["frame", "index", "dtypes", "dataset", "selected", "dict", "dataset dict"],
)
def test_rows_are_the_same_task_from_python_as_from_a_file(data, reference):
    task = load(data)
    assert (task.fingerprint, task.columns, task.label_names) == (
        reference.fingerprint,
        reference.columns,
        reference.label_names,
    )


def test_numbers_of_a_frame_are_the_labels_that_a_file_has(tmp_path):
    for labels in ([n % 2 for n in range(40)], [n / 4 for n in range(40)], [float(n % 2) for n in range(40)]):
        frame = FRAME.assign(label=labels)
        frame.to_csv(tmp_path / "rows.csv", index=False)
        assert load(frame).fingerprint == load(tmp_path / "rows.csv").fingerprint


@pytest.mark.parametrize("nothing", [None, float("nan"), pandas.NA, pandas.NaT])
@pytest.mark.parametrize("column", ["text", "label"])
def test_a_missing_cell_of_a_frame_is_missing_and_no_word(column, nothing):
    frame = FRAME.astype(object)
    frame.loc[3, column] = nothing
    assert "1 row (first: row 4" in refusal(frame)


def test_lists_of_words_and_splits_come_from_frames_too():
    words = pandas.DataFrame({"tokens": [np.array(["a", str(n)]) for n in range(20)], "tags": [["O", "X"]] * 20})
    task = load({"train": words, "test": words[:5]})
    assert (task.problem_type, len(task.test)) == ("token_classification", 5)


def test_class_names_of_a_data_set_are_kept():
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["z", "a"])})
    rows = {"text": list(FRAME["text"]), "label": [n % 2 for n in range(40)]}
    assert load(datasets.Dataset.from_dict(rows, features=features)).label_names == ("z", "a")


def test_settings_and_recipes_keep_the_rows_when_others_change():
    recipe = Recipe().with_options({"data": FRAME}).with_options({"epochs": 1, "text": "text"}).with_baseline()
    assert load_task(recipe.task).fingerprint == load(FRAME).fingerprint
    assert recipe.with_options({"data": "rotten-tomatoes"}).task.given is None


def test_a_recipe_file_describes_rows_and_says_what_to_give_in_their_place(tmp_path):
    recipe = Recipe().with_options({"data": FRAME})
    recipe.save(tmp_path / "recipe.yaml")
    read = load_recipe(tmp_path / "recipe.yaml")
    assert "DataFrame with the columns text, label; rows: train 40; content" in str(read.task.data)
    with pytest.raises(DataError, match=r"given in Python: .* in no file"):
        load_task(read.task)
    wide = pandas.concat([FRAME, pandas.DataFrame(0, FRAME.index, [f"column number {n}" for n in range(300)])], axis=1)
    with pytest.raises(DataError, match="are in no file"):
        load(DataSettings(data=wide).data)
    changed = FRAME.assign(label=FRAME["label"].str.upper())
    assert DataSettings(data=changed).data != DataSettings(data=FRAME).data == DataSettings(data=FRAME.copy()).data


@pytest.mark.parametrize("data", [3, [1], {}, {"train": 3}, {"train": "a.csv"}, FRAME["text"], np.zeros(3)])
def test_what_is_no_data_says_what_is(data):
    assert "a pandas DataFrame" in refusal(data)


def test_what_belongs_to_other_data_is_an_error():
    assert "data_config='sst2'" in refusal(FRAME, data_config="sst2")
    assert "encoding='cp1252'" in refusal(FRAME, encoding="cp1252")
    double = pandas.concat([FRAME, FRAME[["text"]]], axis=1)
    assert "two columns 'text'" in refusal(double)


def test_a_name_that_no_file_can_have_is_an_error_of_this_family():
    assert "no file can have this name" in refusal("x" * 5000 + ".csv")


def test_pandas_is_not_imported_for_a_name():
    code = "import sys; from prunelora.data.settings import DataSettings; DataSettings(data='a.csv'); "
    heavy = "print(sorted({'pandas', 'datasets', 'pyarrow', 'torch', 'transformers'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code + heavy], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
