"""Encoding of labels (words, numbers, lists, 0/1 columns) as a loss takes them."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from prunelora.data import checks
from prunelora.data.settings import TaskType
from prunelora.data.tags import encode_tags
from prunelora.errors import DataError, advice, option

ProblemType = Literal[
    "single_label_classification", "multi_label_classification", "regression", "token_classification", "causal_lm"
]

# More classes than this are more likely a regression target or a wrong column than a task: ask instead of guessing.
MOST_GUESSED_CLASSES = 200

# "01" is a code word, not the number 1: "01" and "1" must stay two classes.
_CODE_WORD = re.compile(r"[+-]?0\d+")
# "0,5" with a decimal comma, and "1,234", which is 1.234 or 1234.
_COMMA_NUMBER = re.compile(r"[+-]?\d+,\d+")
_THOUSANDS = re.compile(r"[+-]?\d{1,3},\d{3}")
# "['a', 'b']": a list that became text in a CSV.
_WRITTEN_LIST = re.compile(r"\[.*\]", re.DOTALL)
# Zero-width characters, which spreadsheets and web pages leave at the ends of words.
_NO_WIDTH = "\u200b\u2060\ufeff"
# "12" and "12.0", whose digits are read exactly.
_WHOLE_NUMBER = re.compile(r"([+-]?\d+)(\.0*)?")


@dataclass(frozen=True)
class EncodedLabels:
    """Labels by split, encoded.

    Attributes:
        problem_type: As `transformers` spells it in a configuration.
        names: Names of the classes by id; empty for regression and for language modelling.
        by_split: Class ids, floats, lists of 0.0 and 1.0, lists of ids, or None where there are no labels; by split.
        notes: Unusual properties of the labels.
    """

    problem_type: ProblemType
    names: tuple[str, ...]
    by_split: dict[str, list[Any]]
    notes: tuple[str, ...] = ()


def encode_labels(
    raw: dict[str, list[Any]],
    *,
    columns: Sequence[str],
    class_names: tuple[str, ...] = (),
    task_type: TaskType = "auto",
    by_token: bool = False,
) -> EncodedLabels:
    """Decide the kind of task and encode the labels of every split.

    Classes are those of the training split: words sorted alphabetically, whole numbers by value, or `class_names` in
    their own order. With `task_type="auto"`:

        several columns, or a column of lists   -> multi_label_classification
        words; whole numbers (1, "1", 1.0)      -> single_label_classification
        numbers, some with a fraction           -> regression

    A tag for every word is token classification, and no label column is language modelling.

    Args:
        raw: Labels by split, "train" among them, as the columns hold them; a list a row if `columns` are several.
        columns: Names of the label columns.
        class_names: Names of integer labels, if the data has them.
        task_type: Kind of task, or "auto".
        by_token: Whether labels are lists of tags, one for every word.

    Raises:
        DataError: If labels are missing, unknown to training, not finite, all the same, or do not fit `task_type`.
    """
    if not columns:
        return EncodedLabels("causal_lm", (), raw)
    column = ",".join(columns)
    if by_token:
        return EncodedLabels("token_classification", *encode_tags(raw, column=column, class_names=class_names))
    for split, labels in raw.items():
        checks.check_labels_present(labels, column=column, where=split)
    all_labels = list(_flat(raw))
    lists = len(columns) > 1 or any(isinstance(label, (list, tuple)) for label in all_labels)
    problem_type = _problem_type(all_labels, lists=lists, named=bool(class_names), task_type=task_type, column=column)
    if problem_type == "multi_label_classification":
        return _encode_multi_label(raw, columns=columns, class_names=class_names)
    if problem_type == "regression":
        return _encode_regression(raw, column=column)
    return _encode_single_label(raw, column=column, class_names=class_names, guessed=task_type == "auto")


def as_number(value: object) -> float | None:
    """The number in a label cell, or None for a word."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    if isinstance(value, str) and (_CODE_WORD.fullmatch(value.strip()) or "_" in value):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):  # 10**400 is a name
        return None


def _as_whole_number(value: object) -> int | None:
    """The whole number in a label cell, exactly; None if there is none."""
    number = as_number(value)
    if number is None or not number.is_integer():
        return None
    if isinstance(value, int):
        return value
    # As floats, 9007199254740993 and 9007199254740992 would be one class.
    digits = _WHOLE_NUMBER.fullmatch(value.strip()) if isinstance(value, str) else None
    return int(digits[1]) if digits else int(number)


def _flat(by_split: dict[str, list[Any]]) -> Iterable[Any]:
    return (value for values in by_split.values() for value in values)


def _problem_type(labels: Sequence[Any], *, lists: bool, named: bool, task_type: TaskType, column: str) -> ProblemType:
    if lists and task_type not in ("auto", "multi_label_classification"):
        raise DataError(
            f"{option('task_type', task_type)}: column {column!r} holds several labels a row. "
            "Use multi_label_classification, or one column with one label a row."
        )
    if not lists and task_type == "multi_label_classification":
        raise DataError(
            f"{option('task_type', 'multi_label_classification')}: column {column!r} holds one label a row. "
            f"Name several 0/1 columns joined by commas with {advice('label')}, or use a column of lists."
        )
    if task_type != "auto":
        return task_type
    if lists:
        return "multi_label_classification"
    numbers = [as_number(label) for label in labels]
    _check_not_ambiguous(labels, numbers, column=column)
    if named or any(number is None for number in numbers):
        return "single_label_classification"
    finite = [number for number in numbers if number is not None and math.isfinite(number)]
    return "single_label_classification" if all(number.is_integer() for number in finite) else "regression"


def _check_not_ambiguous(labels: Sequence[Any], numbers: Sequence[float | None], *, column: str) -> None:
    """Raises DataError if words are probably numbers with a comma, or lists written as text."""
    words = [label for label, number in zip(labels, numbers, strict=True) if number is None and isinstance(label, str)]
    if not words:
        return
    as_class_names = f"{advice('task_type', 'single_label_classification')} takes it as the name of a class"
    if len(words) == len(labels) and all(_WRITTEN_LIST.fullmatch(word.strip()) for word in words):
        raise DataError(
            f"Column {column!r} holds lists that are written as text, such as {words[0]!r}. Give lists (JSON lines, "
            f"Parquet), or several 0/1 columns; {as_class_names}."
        )
    if all(_COMMA_NUMBER.fullmatch(word.strip()) for word in words):
        raise DataError(
            f"Column {column!r} holds {words[0]!r}. If the comma is a decimal comma, give "
            f"{advice('task_type', 'regression')}; {as_class_names}; if it joins several labels, give lists (JSON "
            "lines, Parquet)."
        )


def _encode_single_label(
    raw: dict[str, list[Any]], *, column: str, class_names: tuple[str, ...], guessed: bool
) -> EncodedLabels:
    _check_finite_if_all_are_numbers(raw, column=column)
    keys: dict[str, list[Any]] = {split: [_as_whole_number(label) for label in each] for split, each in raw.items()}
    whole = None not in _flat(keys)
    notes: tuple[str, ...] = ()
    if not whole:
        keys, notes = _as_words(raw)
    checks.check_more_than_one(keys["train"], column=column, what="class")
    classes = sorted(set(keys["train"]))
    if guessed and not class_names and len(classes) > MOST_GUESSED_CLASSES:
        raise DataError(
            f"Column {column!r} holds {len(classes):,} different labels in {len(keys['train']):,} rows. If they are "
            f"classes, give {advice('task_type', 'single_label_classification')}; if they are quantities, "
            f"{advice('task_type', 'regression')}; otherwise name another {advice('label')}."
        )
    for split, labels in keys.items():
        checks.check_known_labels(labels, classes, column=column, where=split)
    names = tuple(map(str, classes))
    if class_names and whole:
        for number in classes:
            checks.class_name(number, class_names, column=column, where="train")
        classes, names = list(range(len(class_names))), class_names
    ids = {label: index for index, label in enumerate(classes)}
    by_split = {split: [ids[label] for label in labels] for split, labels in keys.items()}
    return EncodedLabels("single_label_classification", names, by_split, notes)


def _as_words(raw: dict[str, list[Any]]) -> tuple[dict[str, list[Any]], tuple[str, ...]]:
    """Names of classes without invisible characters at their ends, and notes on names that differ in case alone."""
    words = {split: [str(label).strip().strip(_NO_WIDTH).strip() for label in labels] for split, labels in raw.items()}
    spellings: dict[str, set[str]] = {}
    for word in _flat(words):
        spellings.setdefault(word.casefold(), set()).add(word)
    alike = "; ".join(sorted(", ".join(sorted(each)) for each in spellings.values() if len(each) > 1))
    if not alike:
        return words, ()
    if spellings.keys() <= {"true", "false"}:  # Spreadsheets write TRUE.
        merged = {split: [word.capitalize() for word in each] for split, each in words.items()}
        return merged, (f"labels taken as the same: {alike}",)
    return words, (f"warning: labels that differ in case alone are different classes: {alike}",)


def _check_finite_if_all_are_numbers(raw: dict[str, list[Any]], *, column: str) -> None:
    # Among words "nan" and "inf" are words.
    numbers = {split: [as_number(label) for label in labels] for split, labels in raw.items()}
    if None not in _flat(numbers):
        for split, values in numbers.items():
            checks.check_finite(values, column=column, where=split, what="label")  # type: ignore[arg-type]


def _encode_regression(raw: dict[str, list[Any]], *, column: str) -> EncodedLabels:
    by_split: dict[str, list[Any]] = {}
    commas = [label for label in _flat(raw) if _has_decimal_comma(label)]
    if commas and all(_THOUSANDS.fullmatch(label.strip()) for label in commas):
        raise DataError(
            f"Column {column!r} holds {commas[0]!r}, whose comma may be a decimal comma or a thousands separator. "
            "Write decimals with a point, and thousands without a comma."
        )
    for split, labels in raw.items():
        numbers = [as_number(label.replace(",", ".") if _has_decimal_comma(label) else label) for label in labels]
        if None in numbers:
            row = numbers.index(None)
            raise DataError(
                f"{split}: column {column!r} holds {labels[row]!r} in row {row + 1:,}, which is no number, but the "
                f"task is regression. Correct the row, or use {advice('task_type', 'single_label_classification')}."
            )
        by_split[split] = numbers
        checks.check_finite(by_split[split], column=column, where=split)
    checks.check_more_than_one(by_split["train"], column=column, what="target")
    notes = (f"labels: the comma is a decimal comma ({commas[0].strip()})",) if commas else ()
    return EncodedLabels("regression", (), by_split, notes)


def _has_decimal_comma(label: object) -> bool:
    return isinstance(label, str) and _COMMA_NUMBER.fullmatch(label.strip()) is not None


def _encode_multi_label(
    raw: dict[str, list[Any]], *, columns: Sequence[str], class_names: tuple[str, ...]
) -> EncodedLabels:
    column = ",".join(columns)
    if len(columns) == 1:
        _check_lists(raw, column=column)
    names: tuple[str, ...]
    if len(columns) > 1:
        names, by_split = tuple(columns), _zero_one(raw, column)
    elif not class_names and _are_indicator_lists(raw):
        names, by_split = tuple(map(str, range(len(raw["train"][0])))), _zero_one(raw, column)
    else:
        names, by_split = _indicators(raw, column=column, class_names=class_names)
    train = by_split["train"]
    checks.check_more_than_one([tuple(row) for row in train], column=column, what="combination of labels")
    known = [name for index, name in enumerate(names) if any(row[index] for row in train)]
    for split, rows in by_split.items():
        for index, name in enumerate(names):
            if name not in known and any(row[index] for row in rows):
                first = [name if row[index] else known[0] if known else "" for row in rows]
                checks.check_known_labels(first, known, column=column, where=split)
    return EncodedLabels("multi_label_classification", names, by_split)


def _check_lists(raw: dict[str, list[Any]], *, column: str) -> None:
    for split, rows in raw.items():
        for number, row in enumerate(rows, 1):
            if not isinstance(row, (list, tuple)):
                raise DataError(
                    f"{split}: row {number:,} has {row!r} in column {column!r}, where other rows have lists. "
                    "Write a list in every row."
                )
    numeric = all(as_number(value) is not None for row in _flat(raw) for value in row)
    for split, rows in raw.items():
        for number, row in enumerate(rows, 1):
            if any(checks.is_missing(value) or (numeric and not math.isfinite(float(value))) for value in row):
                raise DataError(
                    f"{split}: row {number:,} has {list(row)} in column {column!r}, which holds a value that is no "
                    "label. Write only labels into a list, and an empty list for a row without labels."
                )


def _are_indicator_lists(raw: dict[str, list[Any]]) -> bool:
    rows = list(_flat(raw))
    same_width = len({len(row) for row in rows}) == 1 and len(rows[0]) > 1
    return same_width and all(as_number(value) in (0.0, 1.0) for row in rows for value in row)


def _zero_one(raw: dict[str, list[Any]], column: str) -> dict[str, list[Any]]:
    by_split: dict[str, list[Any]] = {}
    for split, rows in raw.items():
        by_split[split] = [[_zero_or_one(value) for value in row] for row in rows]
        for number, (row, values) in enumerate(zip(rows, by_split[split], strict=True), 1):
            if any(value not in (0.0, 1.0) for value in values):
                raise DataError(
                    f"{split}: row {number:,} has {list(row)} in the columns {column}. "
                    "Several label columns must each hold 0 or 1."
                )
    return by_split


def _zero_or_one(value: object) -> float | None:
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return float(value.strip().lower() == "true")
    return float(value) if isinstance(value, bool) else as_number(value)


def _indicators(
    raw: dict[str, list[Any]], *, column: str, class_names: tuple[str, ...]
) -> tuple[tuple[str, ...], dict[str, list[Any]]]:
    # Lists of class ids or class words, of any length: [["a"], [], ["a", "b"]] -> [[1, 0], [0, 0], [1, 1]]
    named = {
        split: [
            [
                checks.class_name(value, class_names, column=column, where=split) if class_names else str(value).strip()
                for value in row
            ]
            for row in rows
        ]
        for split, rows in raw.items()
    }
    names = class_names or tuple(sorted({name for row in named["train"] for name in row}))
    if not names:
        raise DataError(f"Column {column!r} is an empty list in every training row, so there is nothing to learn.")
    known = set(names)
    by_split: dict[str, list[Any]] = {}
    for split, rows in named.items():
        first = [next((name for name in row if name not in known), names[0]) for row in rows]
        checks.check_known_labels(first, names, column=column, where=split)
        by_split[split] = [[float(name in row) for name in names] for row in rows]
    return names, by_split
