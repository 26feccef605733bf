"""Labels as found (words, numbers, lists, 0/1 columns) turned into what a loss takes."""

import math
import re
from collections.abc import Sequence
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

# "01" is a code word, not the number 1: two such codes must not become one class.
_CODE_WORD = re.compile(r"[+-]?0\d+")
# "0,5" as spreadsheets write it in half of the world, and "1,234", which is that or 1234.
_COMMA_NUMBER = re.compile(r"[+-]?\d+,\d+")
_THOUSANDS = re.compile(r"[+-]?\d{1,3},\d{3}")
# "['a', 'b']": a list that became text in a CSV.
_WRITTEN_LIST = re.compile(r"\[.*\]", re.DOTALL)
# Characters of no width, which spreadsheets and web pages leave at the ends of words.
_NO_WIDTH = "\u200b\u2060\ufeff"
# "12" and "12.0", whose digits are taken as they stand.
_WHOLE_NUMBER = re.compile(r"([+-]?\d+)(\.0*)?")


@dataclass(frozen=True)
class EncodedLabels:
    """Labels by split, encoded.

    Attributes:
        problem_type: As `transformers` spells it in a configuration.
        names: Names of the classes by id; empty for regression and for language modelling.
        by_split: Class ids, floats, lists of 0.0 and 1.0, lists of ids, or None where there are no labels; by split.
        notes: What was unusual about them.
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

    A tag for every word is token classification, and no label column at all is language modelling.

    Args:
        raw: Labels by split, "train" among them, as the columns hold them; a list a row where `columns` are several.
        columns: Names of the label columns.
        class_names: Names of integer labels, where the data brings them.
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
    everything = [label for labels in raw.values() for label in labels]
    lists = len(columns) > 1 or any(isinstance(label, (list, tuple)) for label in everything)
    problem_type = _problem_type(everything, lists=lists, named=bool(class_names), task_type=task_type, column=column)
    if problem_type == "multi_label_classification":
        return _encode_multi_label(raw, columns=columns, class_names=class_names)
    if problem_type == "regression":
        return _encode_regression(raw, column=column)
    return _encode_single_label(raw, column=column, class_names=class_names, guessed=task_type == "auto")


def as_number(value: object) -> float | None:
    """The number in a label cell, or None where it is a word."""
    if isinstance(value, bool):
        return None
    if not isinstance(value, (int, float, str)):
        return None
    if isinstance(value, str) and (_CODE_WORD.fullmatch(value.strip()) or "_" in value):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):  # 10**400 is a name
        return None


def _as_whole_number(value: object) -> int | None:
    """The whole number in a label cell, exactly; None where there is none."""
    number = as_number(value)
    if number is None or not number.is_integer():
        return None
    if isinstance(value, int):
        return value
    # Through float, 9007199254740993 and 9007199254740992 would be one class.
    written = _WHOLE_NUMBER.fullmatch(value.strip()) if isinstance(value, str) else None
    return int(written[1]) if written else int(number)


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
    return "single_label_classification" if all(n.is_integer() for n in finite) else "regression"


def _check_not_ambiguous(labels: Sequence[Any], numbers: Sequence[float | None], *, column: str) -> None:
    """Refuse words that are probably none: numbers with a comma, and lists written as text."""
    words = [label for label, number in zip(labels, numbers, strict=True) if number is None and isinstance(label, str)]
    if not words:
        return
    as_they_are = f"{advice('task_type', 'single_label_classification')} takes it as the name of a class"
    if len(words) == len(labels) and all(_WRITTEN_LIST.fullmatch(word.strip()) for word in words):
        raise DataError(
            f"Column {column!r} holds lists that are written as text, such as {words[0]!r}. Give lists (JSON lines, "
            f"Parquet), or several 0/1 columns; {as_they_are}."
        )
    if all(_COMMA_NUMBER.fullmatch(word.strip()) for word in words):
        raise DataError(
            f"Column {column!r} holds {words[0]!r}. If the comma is a decimal comma say "
            f"{advice('task_type', 'regression')}; {as_they_are}; where it joins several labels, give lists (JSON "
            "lines, Parquet)."
        )


def _encode_single_label(
    raw: dict[str, list[Any]], *, column: str, class_names: tuple[str, ...], guessed: bool
) -> EncodedLabels:
    _check_finite_where_all_are_numbers(raw, column=column)
    keys: dict[str, list[Any]] = {split: [_as_whole_number(label) for label in each] for split, each in raw.items()}
    whole = all(number is not None for each in keys.values() for number in each)
    notes: tuple[str, ...] = ()
    if not whole:
        keys, notes = _as_words(raw)
    checks.check_more_than_one(keys["train"], column=column, what="class")
    classes = sorted(set(keys["train"]))
    if guessed and not class_names and len(classes) > MOST_GUESSED_CLASSES:
        raise DataError(
            f"Column {column!r} holds {len(classes):,} different labels in {len(keys['train']):,} rows. If they are "
            f"classes say {advice('task_type', 'single_label_classification')}, if they are quantities "
            f"{advice('task_type', 'regression')}; "
            f"otherwise name another {advice('label')}."
        )
    for split, labels in keys.items():
        checks.check_known_labels(labels, classes, column=column, where=split)
    names = tuple(str(each) for each in classes)
    if class_names and whole:
        outside = [each for each in classes if not 0 <= each < len(class_names)]
        if outside:
            raise DataError(
                f"Column {column!r} has the label {outside[0]}, but its {len(class_names)} class names number "
                f"0 to {len(class_names) - 1}. Correct the label or the names."
            )
        classes, names = list(range(len(class_names))), class_names
    ids = {each: index for index, each in enumerate(classes)}
    by_split = {split: [ids[label] for label in labels] for split, labels in keys.items()}
    return EncodedLabels("single_label_classification", names, by_split, notes)


def _as_words(raw: dict[str, list[Any]]) -> tuple[dict[str, list[Any]], tuple[str, ...]]:
    """Names of classes without what is at their ends and cannot be seen, and what is to be said about them."""
    words = {split: [str(label).strip().strip(_NO_WIDTH).strip() for label in labels] for split, labels in raw.items()}
    spelled: dict[str, set[str]] = {}
    for each in words.values():
        for word in each:
            spelled.setdefault(word.casefold(), set()).add(word)
    alike = [", ".join(sorted(each)) for each in spelled.values() if len(each) > 1]
    if not alike:
        return words, ()
    if spelled.keys() <= {"true", "false"}:  # Spreadsheets write TRUE.
        return {split: [word.capitalize() for word in each] for split, each in words.items()}, (
            f"labels that are one: {'; '.join(sorted(alike))}",
        )
    return words, (
        f"warning: labels that differ in their case alone are different classes: {'; '.join(sorted(alike))}",
    )


def _check_finite_where_all_are_numbers(raw: dict[str, list[Any]], *, column: str) -> None:
    # Among words "nan" and "inf" are words.
    numbers = {split: [as_number(label) for label in labels] for split, labels in raw.items()}
    if any(number is None for each in numbers.values() for number in each):
        return
    for split, each in numbers.items():
        found = [number for number in each if number is not None]
        checks.check_finite(found, column=column, where=split, what="label")


def _encode_regression(raw: dict[str, list[Any]], *, column: str) -> EncodedLabels:
    by_split: dict[str, list[Any]] = {}
    commas = [label for labels in raw.values() for label in labels if _has_decimal_comma(label)]
    if commas and all(_THOUSANDS.fullmatch(label.strip()) for label in commas):
        raise DataError(
            f"Column {column!r} holds {commas[0]!r}, whose comma may be a decimal comma or one between thousands. "
            "Write decimals with a point, and thousands without a comma."
        )
    for split, labels in raw.items():
        numbers = [as_number(label.replace(",", ".") if _has_decimal_comma(label) else label) for label in labels]
        words = [row for row, number in enumerate(numbers, 1) if number is None]
        if words:
            raise DataError(
                f"{split}: column {column!r} holds {labels[words[0] - 1]!r} in row {words[0]:,}, which is no number, "
                "but the task is regression. Correct the row, or use "
                f"{advice('task_type', 'single_label_classification')}."
            )
        by_split[split] = [number for number in numbers if number is not None]
        checks.check_finite(by_split[split], column=column, where=split)
    checks.check_more_than_one(by_split["train"], column=column, what="target")
    note = f"labels: the comma is a decimal comma ({commas[0].strip()})" if commas else ""
    return EncodedLabels("regression", (), by_split, (note,) if note else ())


def _has_decimal_comma(label: object) -> bool:
    return isinstance(label, str) and _COMMA_NUMBER.fullmatch(label.strip()) is not None


def _encode_multi_label(
    raw: dict[str, list[Any]], *, columns: Sequence[str], class_names: tuple[str, ...]
) -> EncodedLabels:
    column = ",".join(columns)
    if len(columns) == 1:
        _check_lists(raw, column=column)
    if len(columns) > 1:
        names, by_split = tuple(columns), {split: _zero_one(rows, column, split) for split, rows in raw.items()}
    elif not class_names and _are_indicator_lists(raw):
        width = len(raw["train"][0])
        names = tuple(str(index) for index in range(width))
        by_split = {split: _zero_one(rows, column, split) for split, rows in raw.items()}
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
    everything = [as_number(value) for rows in raw.values() for row in rows for value in row]
    numeric = all(number is not None for number in everything)
    for split, rows in raw.items():
        for number, row in enumerate(rows, 1):
            if any(checks.is_missing(one) or (numeric and not math.isfinite(as_number(one) or 0.0)) for one in row):
                raise DataError(
                    f"{split}: row {number:,} has {list(row)} in column {column!r}, of which one is no label. Write "
                    "only labels into a list; an empty list where a row has none."
                )


def _are_indicator_lists(raw: dict[str, list[Any]]) -> bool:
    rows = [row for each in raw.values() for row in each]
    same_width = len({len(row) for row in rows}) == 1 and len(rows[0]) > 1
    return same_width and all(as_number(value) in (0.0, 1.0) for row in rows for value in row)


def _zero_one(rows: Sequence[Sequence[Any]], column: str, split: str) -> list[list[float]]:
    encoded = []
    for number, row in enumerate(rows, 1):
        values = [_zero_or_one(value) for value in row]
        if any(value not in (0.0, 1.0) for value in values):
            raise DataError(
                f"{split}: row {number:,} has {list(row)} in the columns {column}. "
                "Several label columns must each hold 0 or 1."
            )
        encoded.append([float(value or 0.0) for value in values])
    return encoded


def _zero_or_one(value: object) -> float | None:
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return float(value.strip().lower() == "true")
    return float(value) if isinstance(value, bool) else as_number(value)


def _indicators(
    raw: dict[str, list[Any]], *, column: str, class_names: tuple[str, ...]
) -> tuple[tuple[str, ...], dict[str, list[Any]]]:
    # Lists of class ids or class words, of any length: [["a"], [], ["a", "b"]] -> [[1, 0], [0, 0], [1, 1]]
    keys = {
        split: [[_class_name(value, class_names, column=column, split=split) for value in row] for row in rows]
        for split, rows in raw.items()
    }
    names = class_names or tuple(sorted({name for row in keys["train"] for name in row}))
    if not names:
        raise DataError(f"Column {column!r} is an empty list in every training row; there is nothing to learn.")
    ids = {name: index for index, name in enumerate(names)}
    by_split: dict[str, list[Any]] = {}
    for split, rows in keys.items():
        first = [next((name for name in row if name not in ids), row[0] if row else names[0]) for row in rows]
        checks.check_known_labels(first, names, column=column, where=split)
        by_split[split] = [[float(name in row) for name in names] for row in rows]
    return names, by_split


def _class_name(value: object, class_names: tuple[str, ...], *, column: str, split: str) -> str:
    if not class_names:
        return str(value).strip()
    if isinstance(value, int) and 0 <= value < len(class_names):
        return class_names[value]
    raise DataError(
        f"{split}: column {column!r} has the label {value!r}, but its {len(class_names)} class names number "
        f"0 to {len(class_names) - 1}. Correct the label or the names."
    )
