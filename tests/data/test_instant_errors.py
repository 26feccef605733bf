"""Errors of a CSV file come before anything heavy is imported, and a good file needs neither torch nor transformers."""

import json
import subprocess
import sys

import pytest

ROWS = "".join(f"good text {n},{n % 2}\n" for n in range(20))

# Content of the file, options, and a part of the message.
ERRORS = {
    "no such file": (None, {}, "does not exist"),
    "wrong suffix": ("text,label\n" + ROWS, {"data": "data.xlsx"}, ".xlsx"),
    "unknown column": ("text,label\n" + ROWS, {"text": "txet"}, "'text'"),
    "ambiguous column": ("text,review,label\na,b,1\n", {}, "text, review"),
    "no label column": ("text,polarity\n" + ROWS, {}, "polarity"),
    "no label": ("text,label\n" + ROWS + "fine,\n", {}, "row 21"),
    "no text": ("text,label\n" + ROWS + ",1\n", {}, "row 21"),
    "one class": ("text,label\na,1\nb,1\n", {}, "only 1"),
    "no number": ("text,label\n" + ROWS + "more,good\n", {"task_type": "regression"}, "'good'"),
    "too few rows": ("text,label\na,0\nb,1\n", {}, "test_fraction"),
    "not UTF-8": ("text,label\n" + ROWS + "sch\u00f6n,1\n", {}, "encoding='cp1252'"),
    "another encoding": ("text,label\n" + ROWS + "sch\u00f6n,1\n", {"encoding": "utf-16"}, "encoding='cp1252'"),
    "an open quote": ('text,label\n"never closed,1\n' + ROWS, {}, "quotation marks"),
    "too many cells": ("text,label\na,b,1\n", {}, "line 2"),
    "a header with equal names": ("text,text\na,1\n", {}, "first line"),
    "no rows": ("text,label\n", {}, "no rows"),
}

LOAD = """
import json, sys
from prunelora.data.load import load_task
from prunelora.data.settings import DataSettings
from prunelora.errors import DataError

for options in json.load(sys.stdin):
    try:
        rows = len(load_task(DataSettings(**options)).train)
    except DataError as error:
        rows = str(error)
    print(json.dumps([rows, [name for name in sys.modules if "." not in name]]))
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """Outcome of every file in its order, in one new process, and the packages imported until then."""
    options = []
    for case, (text, given, _) in {**ERRORS, "good": ("text,label\n" + ROWS, {}, "")}.items():
        path = tmp_path_factory.mktemp(case.replace(" ", "_")) / given.get("data", "data.csv")
        if text is not None:
            path.write_bytes(text.encode("cp1252"))
        options.append(given | {"data": str(path)})
    done = subprocess.run(
        [sys.executable, "-c", LOAD], input=json.dumps(options), capture_output=True, text=True, check=True
    )
    return dict(zip([*ERRORS, "good"], map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("case", ERRORS)
def test_an_error_of_a_csv_comes_before_heavy_imports(case, loaded):
    message, packages = loaded[case]
    assert ERRORS[case][2] in message
    heavy = {"torch", "transformers", "datasets", "pandas", "pyarrow", "sklearn", "scipy", "PIL"}
    assert heavy.isdisjoint(packages)


def test_a_good_csv_needs_neither_torch_nor_transformers(loaded):
    rows, packages = loaded["good"]
    assert rows == 16
    assert {"torch", "transformers", "sklearn", "scipy", "PIL"}.isdisjoint(packages)
    assert "datasets" in packages
