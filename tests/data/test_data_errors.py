"""Every bad input has an error of its own, with the values, before any training."""

import pickle
import re

import pytest

from prunelora.data.load import load_task
from prunelora.data.settings import DataSettings
from prunelora.errors import DataError

GOOD = "".join(f"good text {n},{n % 2}\n" for n in range(20))


def refusal(data, **options) -> str:
    with pytest.raises(DataError) as caught:
        load_task(DataSettings(data=str(data), **options))
    return str(caught.value)


@pytest.fixture
def written(tmp_path):
    def write(text, name="data.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_missing_column_names_the_closest_one(written):
    message = refusal(written("text,label\n" + GOOD), text="txet")
    assert message.startswith("text='txet'")
    assert "Did you mean 'text'?" in message
    assert "Columns: text, label" in message
    assert "label='polarity'" in refusal(written("text,label\n" + GOOD), label="text,polarity")


def test_missing_column_in_one_split_names_the_split(written, tmp_path):
    written("text,label\n" + GOOD, "train.csv")
    written("text,lable\nx,1\n", "validation.csv")
    message = refusal(tmp_path)
    assert "split validation" in message
    assert "Did you mean 'lable'?" in message


def test_empty_text_says_how_many_and_where(written):
    message = refusal(written("text,label\n" + GOOD + " ,1\nfine,0\n,1\n"))
    assert "2 rows (first: row 21," in message
    assert "empty text in column 'text'" in message


def test_pair_with_one_side_missing_is_its_own_error(written):
    rows = "".join(f"one {n},two {n},{n % 2}\n" for n in range(10))
    message = refusal(written("sentence1,sentence2,label\n" + rows + "one,,1\n"))
    assert "1 row (first: row 11," in message
    assert "one side missing (column 'sentence2'" in message
    assert "empty text in columns" in refusal(written("sentence1,sentence2,label\n" + rows + ",,1\n"))


def test_one_class_only(written):
    assert "only 1 as class" in refusal(written("text,label\na,1\nb,1\n"))


def test_one_regression_target_only(written):
    assert "only 1.5 as target" in refusal(written("text,label\na,1.5\nb,1.5\n"))


@pytest.mark.parametrize("split", ["validation", "test"])
def test_label_that_training_lacks(split, written, tmp_path):
    written("text,label\n" + GOOD, "train.csv")
    written("text,label\nx,1\ny,2\n", f"{split}.csv")
    message = refusal(tmp_path)
    assert message.startswith(f"{split}: 1 row (first: row 2")
    assert "lack: 2." in message
    assert "Training has 0, 1." in message


def test_label_missing(written):
    message = refusal(written("text,label\n" + GOOD + "fine,\n"))
    assert "1 row (first: row 21" in message
    assert "no label in column 'label'" in message


@pytest.mark.parametrize(
    ("text", "name"), [("", "a.csv"), ("text,label\n", "a.csv"), ("text\tlabel\n", "a.tsv"), ("[]", "a.json")]
)
def test_no_rows(text, name, written):
    assert "has no rows" in refusal(written(text, name))


@pytest.mark.parametrize("name", ["nothing.csv", "some/folder/here", "./folder", "notes.pkl", "/nowhere"])
def test_a_path_that_does_not_exist_is_not_looked_up_on_the_hub(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.load_dataset", lambda *_: pytest.fail("asked the hub"))
    assert "does not exist" in refusal(name)


@pytest.mark.parametrize("target", ["nan", "inf"])
def test_regression_target_that_is_not_finite(target, written):
    message = refusal(written(f"text,label\na,0.5\nb,1.5\nc,{target}\n"))
    assert "1 row (first: row 3" in message
    assert f"not a finite number ({target})" in message


def test_unknown_extension_lists_the_known_ones(written):
    message = refusal(written("text\n", "data.xlsx"))
    assert "the extension .xlsx" in message
    assert ".parquet or .conll" in message


def test_pickles_are_refused_unopened(written):
    class Bomb:
        def __reduce__(self):
            return pytest.fail, ("the pickle was opened",)

    assert "pickle or array file (.pkl)" in refusal(written(pickle.dumps(Bomb()), "data.pkl"))


def test_damaged_files_say_the_line(written):
    assert "line 2: 3 cells" in refusal(written("text,label\na,b,1\n"))
    assert "quotation marks" in refusal(written('text,label\n"never closed,1\nb,0\n'))
    assert "line 2: not JSON" in refusal(written('{"text": "a", "label": 1}\n{"text": \n', "a.jsonl"))
    assert "record 1: list found" in refusal(written("[[1, 2]]", "a.json"))
    assert "a.parquet" in refusal(written("PAR1 but not really", "a.parquet"))
    assert "'text', 'text'" in refusal(written("text,text\na,1\n"))


@pytest.mark.parametrize("cell", ["[" * 100_000, "9" * 5000])
@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_json_that_python_cannot_read_names_the_file(cell, name, written):
    text = f'{{"text": "a", "label": {cell}}}'
    assert re.search(f"{name}.*not JSON", refusal(written(f"[{text}]" if name == "a.json" else text, name)))


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet", "train.txt"])
def test_a_pointer_of_git_lfs_is_no_data(name, written):
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 6123456\n"
    message = refusal(written(pointer, name), task_type="causal_lm" if name == "train.txt" else "auto")
    assert f"{name} is a git-lfs pointer" in message


@pytest.mark.parametrize("options", [{"data": ""}, {"task": "sst2", "data_dir": ""}])
def test_no_name_is_not_the_present_folder(options):
    with pytest.raises(ValueError, match="at least 1 character"):
        DataSettings(**options)


def test_texts_that_are_no_texts(written):
    assert "row 1 of column 'text' holds dict" in refusal(written('[{"text": {"a": 1}, "label": 1}]', "a.json"))


def test_folder_without_training_rows(written, tmp_path):
    assert "has no data files" in refusal(tmp_path)
    written("text,label\nx,1\n", "validation.csv")
    assert "found validation" in refusal(tmp_path)


def test_two_files_for_one_split(written, tmp_path):
    written("text,label\n" + GOOD, "train.csv")
    written("text\tlabel\n", "train.tsv")
    assert "two files for the split 'train'" in refusal(tmp_path)


def test_too_few_rows_to_cut(written):
    assert "test_fraction=0.1 of 2 rows" in refusal(written("text,label\na,0\nb,1\n"))


def test_settings_refuse_fractions_that_leave_nothing():
    with pytest.raises(ValueError, match="leave no rows to train on"):
        DataSettings(data="x.csv", validation_fraction=0.5, test_fraction=0.5)


def test_every_setting_is_described():
    assert all(field.description for field in DataSettings.model_fields.values())
    assert len(DataSettings.model_fields) == 14


@pytest.mark.parametrize("nothing", ["NaN", "Infinity"])
def test_json_numbers_that_are_none_are_no_labels(nothing, written):
    lines = "".join(f'{{"text": "good {n}", "label": {n % 2}}}\n' for n in range(20))
    message = refusal(written(lines + f'{{"text": "more", "label": {nothing}}}\n', "a.jsonl"))
    assert "1 row (first: row 21" in message


def test_half_of_a_character_names_the_row(written):
    lines = "".join(f'{{"text": "good {n} \\ud83d\\ude00", "label": {n % 2}}}\n' for n in range(20))
    load_task(DataSettings(data=str(written(lines, "whole.jsonl"))))
    message = refusal(written(lines + '{"text": "cut \\ud83d", "label": 1}\n', "half.jsonl"))
    assert "1 row (first: row 21" in message
    assert r"'\ud83d', a lone surrogate) in column 'text'" in message
    words = '{"tokens": ["a", "b"], "tags": ["O", "X"]}\n{"tokens": ["c", "\\udc00"], "tags": ["O", "X"]}\n'
    assert "first: row 2, " in refusal(written(words, "b.jsonl"))


def test_a_configuration_of_what_is_not_of_the_hub_is_an_error(written, tmp_path):
    path = written("text,label\n" + GOOD, "train.csv")
    assert f"data_config='sst2': {path} is a file" in refusal(path, data_config="sst2")
    assert f"data_config='sst2': {tmp_path} is a folder" in refusal(tmp_path, data_config="sst2")
    assert "is the embedded example" in refusal("rotten-tomatoes", data_config="sst2")
