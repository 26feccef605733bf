"""Choice of the columns of the text, the second text and the label: named by the user, or guessed from their names."""

from collections.abc import Sequence
from dataclasses import dataclass

from prunelora.data import checks
from prunelora.data.images import is_image_cell
from prunelora.data.settings import DataSettings
from prunelora.data.tables import Table, describe_columns
from prunelora.errors import DataError, advice, option

# Two tiers: a name of the first tier wins over names of the second ("label" over "score").
LABEL_NAMES = (
    ("label", "labels", "gold_label", "target"),
    ("class", "y", "score", "stars", "rating", "sentiment", "category"),
)
PAIR_NAMES = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question", "sentence"),
    ("question1", "question2"),
    ("text1", "text2"),
    ("text_a", "text_b"),
)
TEXT_NAMES = ("sentence", "text", "review", "content", "document", "comment")
# For token classification: lists of words, and lists of tags.
WORDS_NAMES = ("tokens", "words")
TAGS_NAMES = (("tags", "ner_tags", "labels", "label"), ("ner", "pos_tags", "upos", "chunk_tags"))


@dataclass(frozen=True)
class Columns:
    """Chosen columns.

    Attributes:
        text: Column of the (first) text.
        text_pair: Column of the second text, or None.
        labels: One label column, or the 0/1 columns of a multi-label task; none for language modelling.
        guessed: Roles ("text" or "image", "text_pair", "label") of the guessed columns.
        by_token: Whether rows are lists of words and of tags.
        images: Whether column `text` holds images.
    """

    text: str
    text_pair: str | None
    labels: tuple[str, ...]
    guessed: tuple[str, ...]
    by_token: bool = False
    images: bool = False

    @property
    def label(self) -> str:
        """Label columns as the option `label` takes them."""
        return ",".join(self.labels)

    @property
    def texts(self) -> tuple[str, ...]:
        """The text column, or both of a pair."""
        return (self.text,) if self.text_pair is None else (self.text, self.text_pair)

    @property
    def by_role(self) -> dict[str, str]:
        """Chosen columns by role: text (or image), text_pair and label."""
        pair = {} if self.text_pair is None else {"text_pair": self.text_pair}
        return {"image" if self.images else "text": self.text, **pair} | ({"label": self.label} if self.labels else {})


def choose_columns(table: Table, settings: DataSettings, *, where: str) -> Columns:
    """The columns that `settings` names; the others are guessed.

    If only `text` is named, the task has one text, even if another column looks like its pair.
    """
    names = list(table.columns)
    pictures = [name for name, cells in table.columns.items() if is_image_cell(next(iter(cells), None))]
    if pictures and settings.text in (None, *pictures):
        return _image_and_label(pictures, table, settings, where=where)
    if settings.task_type == "causal_lm":
        return _text_alone(table, settings, where=where)
    if settings.task_type == "token_classification" or (settings.task_type == "auto" and _has_words(table, settings)):
        return _words_and_tags(table, settings, where=where)
    for role, column in (("text", settings.text), ("text_pair", settings.text_pair)):
        if column is not None:
            checks.check_has_column(column, names, role=role, where=where)
    labels = _labels(table, settings, where=where)
    text, pair = settings.text, settings.text_pair
    if text is None:
        remaining = [name for name in names if name not in (*labels, pair)]
        guess = _guess_texts(table, remaining, want_pair=pair is None, where=where)
        text = guess[0]
        pair = pair or (guess[1] if len(guess) == 2 else None)
    if _is_words_name(text) and _is_written_list(next(iter(table.columns[text]), None)):
        raise DataError(
            f"{where}: column {text!r} holds lists of words that are written as text. Give lists (JSON lines, "
            "Parquet), or a .conll file."
        )
    chosen = [text, *([pair] if pair else []), *labels]
    if len(set(chosen)) != len(chosen):
        raise DataError(
            f"One column is used twice: text {text!r}, second text {pair!r}, label {', '.join(labels)}. "
            f"Name distinct columns with {checks.column_options()}."
        )
    guessed = [role for role in ("text", "text_pair", "label") if getattr(settings, role) is None]
    if settings.text is not None or pair is None:
        guessed = [role for role in guessed if role != "text_pair"]
    return Columns(text=text, text_pair=pair, labels=labels, guessed=tuple(guessed))


def _text_alone(table: Table, settings: DataSettings, *, where: str) -> Columns:
    for role, column in (("label", settings.label), ("text_pair", settings.text_pair)):
        if column is not None:
            raise DataError(
                f"{option(role, column)}: language modelling has one text a row and no label. Leave it out."
            )
    if settings.text is not None:
        checks.check_has_column(settings.text, list(table.columns), role="text", where=where)
        return Columns(settings.text, None, (), ())
    (text,) = _guess_texts(table, list(table.columns), want_pair=False, where=where)
    return Columns(text, None, (), ("text",))


def _image_and_label(pictures: Sequence[str], table: Table, settings: DataSettings, *, where: str) -> Columns:
    if settings.text is None and len(pictures) > 1:
        raise DataError(f"{where}: the image could be any of {', '.join(pictures)}. Name it with {advice('text')}.")
    if settings.text_pair is not None or settings.task_type in ("token_classification", "causal_lm"):
        raise DataError(
            f"{where}: column {pictures[0]!r} holds images, which are classified one by one. Leave out "
            f"{advice('text_pair')} and {advice('task_type')}."
        )
    labels = _labels(table, settings, where=where)
    guessed = [role for role, named in (("image", settings.text), ("label", settings.label)) if named is None]
    return Columns(settings.text or pictures[0], None, labels, tuple(guessed), images=True)


def _has_words(table: Table, settings: DataSettings) -> bool:
    """Whether the text column, named or guessed, holds lists of words."""
    names = [settings.text] if settings.text is not None else [name for name in table.columns if _is_words_name(name)]
    return any(isinstance(next(iter(table.columns.get(name, ())), None), list | tuple) for name in names)


def _is_written_list(cell: object) -> bool:
    return isinstance(cell, str) and cell.startswith("[") and cell.endswith("]")


def _is_words_name(name: str) -> bool:
    return name.lower() in WORDS_NAMES


def _words_and_tags(table: Table, settings: DataSettings, *, where: str) -> Columns:
    names = list(table.columns)
    if settings.text_pair is not None:
        raise DataError(
            f"{option('text_pair', settings.text_pair)}: token classification has one text a row. Leave it out."
        )
    lowered = {name.lower(): name for name in names}
    guesses = {
        "text": next((name for name in names if _is_words_name(name)), None),
        "label": next((lowered[name] for tier in TAGS_NAMES for name in tier if name in lowered), None),
    }
    chosen: dict[str, str] = {}
    for role, content, known in (("text", "words", WORDS_NAMES), ("label", "tags", TAGS_NAMES[0])):
        column = getattr(settings, role) or guesses[role]
        if column is None:
            raise DataError(
                f"{where}: no column has a name known for {content} ({', '.join(known)}). "
                f"Columns: {describe_columns(names)}. Name it with {advice(role)}."
            )
        checks.check_has_column(column, names, role=role, where=where)
        chosen[role] = column
    guessed = tuple(role for role in chosen if getattr(settings, role) is None)
    return Columns(chosen["text"], None, (chosen["label"],), guessed, by_token=True)


def _labels(table: Table, settings: DataSettings, *, where: str) -> tuple[str, ...]:
    """The label columns: named, or the guessed one."""
    label, names = settings.label, list(table.columns)
    if label is None:
        return (_guess_label(table, settings, where=where),)
    if label in names:  # a name may hold a comma
        return (label,)
    columns = tuple(column.strip() for column in label.split(",") if column.strip()) or (label,)
    for column in columns:
        checks.check_has_column(column, names, role="label", where=where)
    return columns


def _guess_label(table: Table, settings: DataSettings, *, where: str) -> str:
    names = list(table.columns)
    remaining = [name for name in names if name not in (settings.text, settings.text_pair)]
    for tier in LABEL_NAMES:
        candidates = [name for name in remaining if name.lower() in tier]
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            raise DataError(
                f"{where}: the label could be any of {', '.join(candidates)}. Name it with {advice('label')}. "
                f"Columns: {describe_columns(names)}."
            )
    raise DataError(
        f"{where}: no column has a name known for labels ({', '.join(LABEL_NAMES[0])}, ...). "
        f"Columns: {describe_columns(names)}. Name them with {checks.column_options()}.{_header_advice(table)}"
    )


def _header_advice(table: Table) -> str:
    """A sentence for a first line that is a row and no header, which shows if a column's name is one of its cells."""
    names = [name for name, cells in table.columns.items() if name in cells]
    return f" The first line seems to be a row ({names[0]!r} stands below it too): add a header line." if names else ""


def _guess_texts(table: Table, names: Sequence[str], *, want_pair: bool, where: str) -> tuple[str, ...]:
    lowered = {name.lower(): name for name in names}
    candidates: list[tuple[str, ...]] = []
    if want_pair:
        candidates = [(lowered[a], lowered[b]) for a, b in PAIR_NAMES if a in lowered and b in lowered]
    if not candidates:
        candidates = [(lowered[name],) for name in TEXT_NAMES if name in lowered]
    if not candidates:
        candidates = [(name,) for name in names if _holds_words(table.columns[name])]
    if len(candidates) == 1:
        return candidates[0]
    listed = ", ".join(" + ".join(each) for each in candidates)
    problem = f"the text could be any of {listed}" if candidates else "no column looks like text"
    raise DataError(
        f"{where}: {problem}. Columns: {describe_columns(list(table.columns))}. Name them with "
        f"{checks.column_options()}.{_header_advice(table)}"
    )


def _holds_words(values: Sequence[object]) -> bool:
    # Identifiers and counts are numbers in every row; most rows of a text column hold letters.
    sample = [value for value in values[:1000] if value is not None]
    with_letters = sum(isinstance(value, str) and any(map(str.isalpha, value)) for value in sample)
    return with_letters * 2 > len(sample)
