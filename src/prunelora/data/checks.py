"""Checks of paths, columns, texts and labels, each with its own error, before any training."""

import math
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from prunelora.errors import DataError, advice, did_you_mean, option
from prunelora.storage import is_lfs_pointer

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".parquet", ".conll")
LINES_SUFFIX = ".txt"
PICKLE_SUFFIXES = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".joblib", ".npy", ".npz", ".ckpt")

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def check_exists(path: Path) -> None:
    """Raises DataError if the path does not exist, or is a git-lfs pointer in place of a file."""
    if not path.exists():
        raise DataError(f"{path} does not exist. Check the spelling; relative paths start from {Path.cwd()}.")
    if path.is_file() and is_lfs_pointer(path):
        raise DataError(
            f"{path} is a git-lfs pointer, a few lines in place of the file. Install git-lfs, and in {path.parent} "
            "run: git lfs install && git lfs pull"
        )


def check_suffix(path: Path, *, lines: bool = False) -> None:
    """Raises DataError if the suffix is of no table type, such as a pickle; .txt is accepted only if `lines` is set."""
    suffix = path.suffix.lower()
    if suffix == LINES_SUFFIX:
        if lines:
            return
        raise DataError(
            f"{path} is a text file. Its lines are rows only for language modelling, with "
            f"{advice('task_type', 'causal_lm')}. If it holds a table, rename it to .csv or .tsv; otherwise give "
            f"{_either(TABLE_SUFFIXES)}."
        )
    if suffix in PICKLE_SUFFIXES:
        raise DataError(
            f"{path} is a pickle or array file ({suffix}). Such a file is not read, because it can run any code when "
            f"it is opened. Save the rows as {_either(TABLE_SUFFIXES)}."
        )
    if suffix not in TABLE_SUFFIXES:
        extension = f"the extension {suffix}" if suffix else "no extension"
        raise DataError(f"{path} has {extension}. Data files are {_either(TABLE_SUFFIXES)}.")


def check_has_rows(num_rows: int, *, where: str) -> None:
    """Raises DataError if a split is empty or has only a header."""
    if num_rows == 0:
        raise DataError(f"{where} has no rows. Give data with a header line and at least a few labelled rows.")


def column_options() -> str:
    """The options that name columns, as they can be typed."""
    return f"{advice('text')}, {advice('text_pair')} and {advice('label')}"


def check_has_column(column: str, available: Sequence[str], *, role: str, where: str) -> None:
    """Raises DataError if a column does not exist; the message names the closest column that does."""
    if column in available:
        return
    raise DataError(
        f"{option(role, column)}: {where} has no such column.{did_you_mean(column, available)} "
        f"Columns: {', '.join(available)}."
    )


def check_texts(texts: Sequence[str], pairs: Sequence[str] | None, *, columns: Sequence[str], where: str) -> None:
    """Raises DataError if a text is empty, or one side of a pair is missing."""
    sides = [texts] if pairs is None else [texts, pairs]
    empty = [{row for row, text in enumerate(side, 1) if not text.strip()} for side in sides]
    names = f"column{'s' if len(sides) > 1 else ''} {' and '.join(map(repr, columns))}"
    _refuse(set.intersection(*empty), f"empty text in {names}", "Remove these rows or fill them in", where=where)
    for column, rows in zip(columns, empty, strict=True):
        _refuse(
            rows,
            f"a text pair with one side missing (column {column!r} is empty)",
            f"Remove these rows, fill them in, or use one text column with {advice('text')}",
            where=where,
        )


def check_encodable(texts: Sequence[str], *, column: str, where: str) -> None:
    """Raises DataError if UTF-8 cannot hold a text: JSON can write half of a surrogate pair."""
    lone = {row: match[0] for row, text in enumerate(texts, 1) if (match := _LONE_SURROGATE.search(text))}
    _refuse(
        lone,
        f"half of a character ({next(iter(lone.values()), '')!a}, a lone surrogate) in column {column!r}",
        "Correct or remove these rows",
        where=where,
    )


def check_labels_present(labels: Sequence[Any], *, column: str, where: str) -> None:
    """Raises DataError if a row has no label."""
    missing = [row for row, label in enumerate(labels, 1) if is_missing(label)]
    _refuse(missing, f"no label in column {column!r}", "Remove these rows or label them", where=where)


def is_missing(label: object) -> bool:
    """Whether a label cell is empty: null, the number NaN, or an empty string; the word "nan" is a label."""
    if isinstance(label, float):
        return math.isnan(label)
    return label is None or (isinstance(label, str) and not label.strip())


def check_finite(values: Sequence[float], *, column: str, where: str, what: str = "target") -> None:
    """Raises DataError if a regression target, or a numeric label, is not finite."""
    infinite = {row: value for row, value in enumerate(values, 1) if not math.isfinite(value)}
    _refuse(
        infinite,
        f"a {what} in column {column!r} that is not a finite number ({next(iter(infinite.values()), '')})",
        "Remove or correct these rows",
        where=where,
    )


def check_more_than_one(values: Sequence[Any], *, column: str, what: str) -> None:
    """Raises DataError if all training rows have the same class or target."""
    if len(set(values)) < 2:
        only = f"only {values[0]!r}" if values else "none"
        raise DataError(
            f"Column {column!r} has {only} as {what} in all {len(values):,} training rows, so there is nothing to "
            f"learn. Give rows with at least two, or another {advice('label')}."
        )


def check_known_labels(labels: Sequence[Any], known: Sequence[Any], *, column: str, where: str) -> None:
    """Raises DataError if the training rows lack a label, which a model then cannot learn."""
    seen = set(known)
    unknown = {row: label for row, label in enumerate(labels, 1) if label not in seen}
    names = ", ".join(sorted(set(map(repr, unknown.values())))[:5])
    _refuse(
        unknown,
        f"a label in column {column!r} that the training rows lack: {names}",
        f"Training has {', '.join(map(repr, known[:10]))}. Add training rows of it, or remove these rows",
        where=where,
    )


def class_name(label: object, class_names: Sequence[str], *, column: str, where: str) -> str:
    """The name of the class that an integer label stands for.

    Raises:
        DataError: If the label is not a number of a class.
    """
    if isinstance(label, int) and 0 <= label < len(class_names):
        return class_names[label]
    raise DataError(
        f"{where}: column {column!r} has the label {label!r}, but its {len(class_names)} class names number "
        f"0 to {len(class_names) - 1}. Correct the label or the names."
    )


def _refuse(rows: Collection[int], problem: str, remedy: str, *, where: str) -> None:
    """Raises DataError if there are `rows`: "x.csv: 2 rows (first: row 17, ...) have no label. Remove them."."""
    if rows:
        counted, has = ("1 row", "has") if len(rows) == 1 else (f"{len(rows):,} rows", "have")
        first = f"first: row {min(rows):,}, counted from 1 below the header"
        raise DataError(f"{where}: {counted} ({first}) {has} {problem}. {remedy}.")


def _either(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
