"""Labels of token classification: one tag a word."""

from collections.abc import Sequence
from typing import Any

from prunelora.data import checks
from prunelora.data.metrics import IGNORED
from prunelora.errors import DataError


def encode_tags(
    raw: dict[str, list[Any]], *, column: str, class_names: tuple[str, ...]
) -> tuple[tuple[str, ...], dict[str, list[list[int]]]]:
    """Tags as ids, by split, and their names.

    Args:
        raw: A list of tags a row, by split, "train" among them: words, or numbers into `class_names`.
        column: Name of the column, for errors.
        class_names: Names of numbers, where the data brings them.

    Raises:
        DataError: If a row has no list, a word no tag, or a tag is unknown to training or no number of a class.
    """
    named = {
        split: [_names(row, number, column, class_names, where=split) for number, row in enumerate(rows, 1)]
        for split, rows in raw.items()
    }
    names = class_names or tuple(sorted({tag for row in named["train"] for tag in row}))
    checks.check_more_than_one([tag for row in named["train"] for tag in row], column=column, what="tag")
    ids = {name: number for number, name in enumerate(names)}
    for split, rows in named.items():
        # The first tag of a row that training lacks, or any that it has.
        first = [next((tag for tag in row if tag not in ids), names[0]) for row in rows]
        checks.check_known_labels(first, names, column=column, where=split)
    return names, {split: [[ids[tag] for tag in row] for row in rows] for split, rows in named.items()}


def _names(row: Any, number: int, column: str, class_names: tuple[str, ...], *, where: str) -> list[str]:
    if not isinstance(row, list | tuple):
        raise DataError(
            f"{where}: row {number:,} of column {column!r} holds {row!r}; a list with a tag for every word is expected."
        )
    nothing = [word for word, tag in enumerate(row, 1) if _is_no_tag(tag)]
    if nothing:
        raise DataError(
            f"{where}: row {number:,} of column {column!r} has {row[nothing[0] - 1]!r} for word {nothing[0]:,}, which "
            "is no tag. Give every word a tag (such as 'O' outside of all chunks), or remove the row."
        )
    if not class_names:
        return [str(tag).strip() for tag in row]
    outside = [tag for tag in row if not (isinstance(tag, int) and 0 <= tag < len(class_names))]
    if outside:
        raise DataError(
            f"{where}: row {number:,} of column {column!r} has the tag {outside[0]!r}, but its {len(class_names)} tags "
            f"are numbered 0 to {len(class_names) - 1}. Correct it."
        )
    return [class_names[tag] for tag in row]


def _is_no_tag(tag: object) -> bool:
    # -100 says of a token, not of a word, that it counts nowhere.
    return checks.is_missing(tag) or tag == IGNORED or (isinstance(tag, str) and tag.strip() == str(IGNORED))


def check_tags_fit(words: Sequence[Sequence[str]], tags: Sequence[Sequence[Any]], *, where: str) -> None:
    """Refuse rows that have not one tag for every word."""
    for number, (row, found) in enumerate(zip(words, tags, strict=True), 1):
        if isinstance(found, list | tuple) and len(row) != len(found):
            raise DataError(
                f"{where}: row {number:,} has {len(row)} words and {len(found)} tags. Give one tag for every word."
            )
