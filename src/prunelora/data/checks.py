"""Bad data, each with an error of its own, before any training."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prunelora.errors import DataError, advice, did_you_mean, option
from prunelora.storage import is_lfs_pointer

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".parquet", ".conll")
LINES_SUFFIX = ".txt"
PICKLE_SUFFIXES = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".joblib", ".npy", ".npz", ".ckpt")

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def check_exists(path: Path) -> None:
    """Refuse a path where nothing is, or only git's pointer to a file."""
    if not path.exists():
        raise DataError(f"{path} does not exist. Check the spelling; relative paths start from {Path.cwd()}.")
    if path.is_file() and is_lfs_pointer(path):
        raise DataError(
            f"{path} is a pointer of git-lfs, a few lines in place of the file. Install git-lfs, and in {path.parent} "
            "run: git lfs install && git lfs pull"
        )


def check_suffix(path: Path, *, lines: bool = False) -> None:
    """Refuse a file that is not one of the table types, pickles above all; or a text file, where rows are no lines."""
    suffix = path.suffix.lower()
    if suffix == LINES_SUFFIX:
        if lines:
            return
        raise DataError(
            f"{path} is a text file, whose lines are rows for language modelling alone: say "
            f"{advice('task_type', 'causal_lm')} for that. If it holds a table, rename it to .csv or .tsv; else give "
            f"{_either(TABLE_SUFFIXES)}."
        )
    if suffix in PICKLE_SUFFIXES:
        raise DataError(
            f"{path} is a pickle or array file ({suffix}); opening one can run any code, so it is not read. "
            f"Save the rows as {_either(TABLE_SUFFIXES)}."
        )
    if suffix not in TABLE_SUFFIXES:
        found = f"the extension {suffix}" if suffix else "no extension"
        raise DataError(f"{path} has {found}. Data files are {_either(TABLE_SUFFIXES)}.")


def check_has_rows(num_rows: int, *, where: str) -> None:
    """Refuse a split with a header and nothing below it, or nothing at all."""
    if num_rows == 0:
        raise DataError(f"{where} has no rows. Give data with a header line and at least a few labelled rows.")


def column_options() -> str:
    """The options that name columns, as they can be typed."""
    return f"{advice('text')}, {advice('text_pair')} and {advice('label')}"


def check_has_column(column: str, available: Sequence[str], *, role: str, where: str) -> None:
    """Refuse a column that is not there, naming the closest one that is."""
    if column in available:
        return
    raise DataError(
        f"{option(role, column)}: {where} has no such column.{did_you_mean(column, available)} "
        f"Columns: {', '.join(available)}."
    )


def check_texts(texts: Sequence[str], pairs: Sequence[str] | None, *, columns: Sequence[str], where: str) -> None:
    """Refuse empty texts, and pairs with one side missing."""
    if pairs is None:
        empty = [row for row, text in enumerate(texts, 1) if not text.strip()]
        if empty:
            raise DataError(
                f"{where}: {_rows(empty)} empty text in column {columns[0]!r}. Remove these rows or fill them in."
            )
        return
    both = [row for row, (a, b) in enumerate(zip(texts, pairs, strict=True), 1) if not a.strip() and not b.strip()]
    if both:
        raise DataError(
            f"{where}: {_rows(both)} empty text in columns {columns[0]!r} and {columns[1]!r}. "
            "Remove these rows or fill them in."
        )
    sides = ((columns[0], texts), (columns[1], pairs))
    for column, values in sides:
        missing = [row for row, text in enumerate(values, 1) if not text.strip()]
        if missing:
            raise DataError(
                f"{where}: {_rows(missing)} a text pair with one side missing (column {column!r} is empty). "
                f"Remove these rows, fill them in, or use one text column with {advice('text')}."
            )


def check_encodable(texts: Sequence[str], *, column: str, where: str) -> None:
    """Refuse texts that UTF-8 cannot hold: half of a character, which JSON can write."""
    bad = [row for row, text in enumerate(texts, 1) if _LONE_SURROGATE.search(text)]
    if bad:
        found = _LONE_SURROGATE.findall(texts[bad[0] - 1])[0]
        raise DataError(
            f"{where}: {_rows(bad)} half of a character ({found!a}, a lone surrogate) in column {column!r}, which "
            "is no text. Correct or remove these rows."
        )


def check_labels_present(labels: Sequence[Any], *, column: str, where: str) -> None:
    """Refuse rows that have no label at all."""
    missing = [row for row, label in enumerate(labels, 1) if is_missing(label)]
    if missing:
        raise DataError(f"{where}: {_rows(missing)} no label in column {column!r}. Remove these rows or label them.")


def is_missing(label: object) -> bool:
    """Whether a label cell holds nothing: null, the number NaN, or an empty string; the word "nan" is a label."""
    if isinstance(label, float):
        return math.isnan(label)
    return label is None or (isinstance(label, str) and not label.strip())


def check_finite(values: Sequence[float], *, column: str, where: str, what: str = "target") -> None:
    """Refuse regression targets, or labels that are all numbers, that are not finite."""
    bad = [row for row, value in enumerate(values, 1) if not math.isfinite(value)]
    if bad:
        raise DataError(
            f"{where}: {_rows(bad)} a {what} in column {column!r} that is not a finite number "
            f"({values[bad[0] - 1]}). Remove or correct these rows."
        )


def check_more_than_one(values: Sequence[Any], *, column: str, what: str) -> None:
    """Refuse training rows that all have the same class or target."""
    if len(set(values)) < 2:
        found = f"only {values[0]!r}" if values else "none"
        raise DataError(
            f"Column {column!r} has {found} as {what} in all {len(values):,} training rows; there is nothing to learn. "
            f"Give rows of at least two, or another {advice('label')}."
        )


def check_known_labels(labels: Sequence[Any], known: Sequence[Any], *, column: str, where: str) -> None:
    """Refuse labels that the training rows lack: a model cannot learn what it never saw."""
    seen = set(known)
    unknown = [row for row, label in enumerate(labels, 1) if label not in seen]
    if unknown:
        names = ", ".join(sorted({repr(labels[row - 1]) for row in unknown})[:5])
        raise DataError(
            f"{where}: {_rows(unknown)} a label in column {column!r} that the training rows lack: {names}. "
            f"Training has {', '.join(repr(name) for name in list(known)[:10])}. "
            "Add training rows of it, or remove these rows."
        )


def _rows(rows: Sequence[int]) -> str:
    # [17, 20] -> "2 rows (first: row 17, counted from 1 below the header) have"
    counted = "1 row" if len(rows) == 1 else f"{len(rows):,} rows"
    return f"{counted} (first: row {rows[0]:,}, counted from 1 below the header) {'has' if len(rows) == 1 else 'have'}"


def _either(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
