"""Labels of token classification: one tag a word."""

from collections.abc import Sequence
from typing import Any

from prunelora.data import checks
from prunelora.data.metrics import IGNORED
from prunelora.errors import DataError


def encode_tags(
    raw: dict[str, list[Any]], *, column: str, class_names: tuple[str, ...]
) -> tuple[tuple[str, ...], dict[str, list[list[int]]]]:
    """Names of the tags, and tags as ids by split.

    Args:
        raw: A list of tags a row, by split, "train" among them: words, or numbers into `class_names`.
        column: Name of the column, for errors.
        class_names: Names of numeric tags, if the data has them.

    Raises:
        DataError: If a row has no list, a word has no tag, or a tag is unknown to training or no number of a class.
    """
    named = {
        split: [
            _named(row, class_names, column=column, where=f"{split}: row {number:,}")
            for number, row in enumerate(rows, 1)
        ]
        for split, rows in raw.items()
    }
    train = [tag for row in named["train"] for tag in row]
    names = class_names or tuple(sorted(set(train)))
    checks.check_more_than_one(train, column=column, what="tag")
    ids = {name: number for number, name in enumerate(names)}
    for split, rows in named.items():
        # Of each row its first tag that training lacks, or any known tag.
        first = [next((tag for tag in row if tag not in ids), names[0]) for row in rows]
        checks.check_known_labels(first, names, column=column, where=split)
    return names, {split: [[ids[tag] for tag in row] for row in rows] for split, rows in named.items()}


def _named(row: Any, class_names: tuple[str, ...], *, column: str, where: str) -> list[str]:
    if not isinstance(row, list | tuple):
        raise DataError(f"{where} of column {column!r} holds {row!r}. Give a list with a tag for every word.")
    missing = next((word for word, tag in enumerate(row, 1) if _is_no_tag(tag)), None)
    if missing is not None:
        raise DataError(
            f"{where} of column {column!r} has {row[missing - 1]!r} for word {missing:,}, which is no tag. Give every "
            "word a tag (such as 'O' outside of all chunks), or remove the row."
        )
    if not class_names:
        return [str(tag).strip() for tag in row]
    return [checks.class_name(tag, class_names, column=column, where=where) for tag in row]


def _is_no_tag(tag: object) -> bool:
    # -100 marks a token that counts nowhere; it is no tag of a word.
    return checks.is_missing(tag) or tag == IGNORED or (isinstance(tag, str) and tag.strip() == str(IGNORED))


def check_tags_fit(words: Sequence[Sequence[str]], tags: Sequence[Sequence[Any]], *, where: str) -> None:
    """Raises DataError if a row does not have one tag for every word."""
    for number, (row, row_tags) in enumerate(zip(words, tags, strict=True), 1):
        if isinstance(row_tags, list | tuple) and len(row) != len(row_tags):
            raise DataError(
                f"{where}: row {number:,} has {len(row)} words and {len(row_tags)} tags. Give one tag for every word."
            )
