"""Rows of one split: texts, second texts and labels, in columns of equal length."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prunelora.data import checks
from prunelora.data.columns import Columns
from prunelora.data.images import Picture, is_image_cell
from prunelora.data.tables import Table
from prunelora.data.tags import check_tags_fit
from prunelora.errors import DataError


@dataclass(frozen=True)
class Rows:
    """Columns of equal length.

    Attributes:
        texts: The (first) text of every row; for token classification its list of words; or a Picture.
        pairs: The second text of every row, or None if the task has one text.
        labels: The label of every row: as found, or encoded; None if the task has none.
    """

    texts: list[Any]
    pairs: list[str] | None
    labels: list[Any]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.texts)

    def select(self, indices: Sequence[int]) -> "Rows":
        """The rows at `indices`, in that order."""
        return Rows(
            texts=[self.texts[index] for index in indices],
            pairs=None if self.pairs is None else [self.pairs[index] for index in indices],
            labels=[self.labels[index] for index in indices],
        )

    def inputs(self) -> list[tuple[Any, ...]]:
        """Keys of the rows; rows with equal keys are the same input."""
        if self.pairs is None:
            return [(_key(text),) for text in self.texts]
        return list(zip(self.texts, self.pairs, strict=True))


def _key(text: Any) -> Any:
    if isinstance(text, Picture):
        return text.digest
    return text if isinstance(text, str) else tuple(text)


def read_rows(table: Table, columns: Columns, *, where: str) -> Rows:
    """Select the chosen columns of a table and check their texts.

    Raises:
        DataError: If there are no rows, a column is missing, a text is empty or no text, or one side of a pair is
            missing.
    """
    checks.check_has_rows(table.num_rows, where=where)
    names = list(table.columns)
    roles = ["text", "text_pair"][: len(columns.texts)] + ["label"] * len(columns.labels)
    for role, column in zip(roles, (*columns.texts, *columns.labels), strict=True):
        checks.check_has_column(column, names, role=role, where=where)
    labels = raw_labels(table, columns)
    if columns.images:
        return Rows(_as_pictures(table.columns[columns.text], column=columns.text, where=where), None, labels)
    if columns.by_token:
        words = _as_words(table.columns[columns.text], column=columns.text, where=where)
        check_tags_fit(words, labels, where=where)
        return Rows(words, None, labels)
    texts = [_as_texts(table.columns[column], column=column, where=where) for column in columns.texts]
    pairs = texts[1] if len(texts) == 2 else None
    checks.check_texts(texts[0], pairs, columns=columns.texts, where=where)
    return Rows(texts[0], pairs, labels)


def raw_labels(table: Table, columns: Columns) -> list[Any]:
    """Labels as found: a value a row, or a list a row if there are several label columns; None if there are none."""
    if not columns.labels:
        return [None] * table.num_rows
    if len(columns.labels) == 1:
        return list(table.columns[columns.labels[0]])
    return [list(row) for row in zip(*(table.columns[column] for column in columns.labels), strict=True)]


def _as_pictures(values: Sequence[Any], *, column: str, where: str) -> list[Picture]:
    pictures = []
    for row, value in enumerate(values, 1):
        if not is_image_cell(value):
            raise DataError(f"{where}: row {row:,} of column {column!r} holds no image, but {type(value).__name__}.")
        try:
            pictures.append(Picture.of(value))
        except (DataError, OSError) as error:
            raise DataError(f"{where}: row {row:,} of column {column!r}: {error}") from error
    return pictures


def _as_words(values: Sequence[Any], *, column: str, where: str) -> list[list[str]]:
    for row, value in enumerate(values, 1):
        if not isinstance(value, list | tuple) or not all(isinstance(word, str) for word in value):
            raise DataError(
                f"{where}: row {row:,} of column {column!r} holds {type(value).__name__}, where a list of words is "
                "expected. Give lists of words (Parquet, JSON lines), or a .conll file."
            )
        if not value:
            raise DataError(f"{where}: row {row:,} of column {column!r} has no words. Remove such rows.")
    checks.check_encodable([" ".join(value) for value in values], column=column, where=where)
    return [list(value) for value in values]


def _as_texts(values: Sequence[Any], *, column: str, where: str) -> list[str]:
    texts = []
    for row, value in enumerate(values, 1):
        if checks.is_missing(value):
            texts.append("")
        elif isinstance(value, (str, int, float)):
            texts.append(str(value))
        else:
            raise DataError(
                f"{where}: row {row:,} of column {column!r} holds {type(value).__name__}, not text. "
                f"Name a text column with {checks.column_options()}."
            )
    checks.check_encodable(texts, column=column, where=where)
    return texts
