"""Loading of a task: read the data, choose columns, check, encode labels, split."""

from dataclasses import replace
from typing import Any

from prunelora.data import checks
from prunelora.data.columns import Columns, choose_columns
from prunelora.data.glue import named_task
from prunelora.data.labels import EncodedLabels, as_number, encode_labels
from prunelora.data.metrics import default_metrics
from prunelora.data.named import read_named
from prunelora.data.rows import Rows, raw_labels, read_rows
from prunelora.data.settings import DataSettings
from prunelora.data.sources import Source, read_source
from prunelora.data.splits import cut_rows
from prunelora.data.tables import Table
from prunelora.data.task import TaskData, as_dataset, fingerprint_of
from prunelora.errors import DataError, advice, option


def load_task(settings: DataSettings) -> TaskData:
    """Read, check, encode and split the task data that `settings` names.

    Given splits:

        train, validation, test  -> used as they are
        train, validation        -> the given validation is reported (`test`); a new one is cut off train
        train, test              -> validation is cut off train
        one table                -> test and validation are cut off

    A given test split without labels is left out, with a note. Cuts are stratified by class, seeded, and never
    separate rows with identical text. A named task always reports the given validation rows, in all parts (MNLI).

    Raises:
        DataError: If the data cannot be read, or cannot be trained on.
        MissingExtraError: If the packages of the embedded example are needed and not installed.
    """
    known = named_task(settings.task) if settings.task is not None else None
    source = read_named(known, settings.data_dir, settings.encoding) if known else read_source(settings)
    checks.check_has_rows(source.splits["train"].num_rows, where=source.where["train"])
    columns = source.columns or choose_columns(source.splits["train"], settings, where=source.where["train"])
    source = _without_unlabelled_test(source, columns)
    raw: dict[str, Rows] = {}
    notes = [*_column_notes(columns), *source.notes]
    for split, table in source.splits.items():
        labelled, num_unlabelled = _without_unlabelled_rows(table, columns)
        raw[split] = read_rows(labelled, columns, where=source.where[split])
        if num_unlabelled:
            notes.append(f"{split}: rows without a label (-1) left out: {num_unlabelled:,}")
    encoded = encode_labels(
        {split: rows.labels for split, rows in raw.items()},
        columns=columns.labels,
        class_names=_class_names(source, columns),
        task_type=known.problem_type if known else settings.task_type,
        by_token=columns.by_token,
    )
    given = {split: replace(rows, labels=encoded.by_split[split]) for split, rows in raw.items()}
    splits, split_notes = _make_splits(given, settings, encoded)
    more_tests = {split: given[split] for split in source.more_tests}
    split_notes += _overlap_notes(splits | more_tests)
    splits |= more_tests
    _check_classes_reach_train(splits, encoded, columns)
    by_split = {split: as_dataset(rows, problem_type=encoded.problem_type) for split, rows in splits.items()}
    shown = {split: source.test_name if split == "test" else split for split in splits}
    counts = ", ".join(f"{shown[split]} {len(rows):,}" for split, rows in splits.items())
    return TaskData(
        name=source.name,
        train=by_split["train"],
        validation=by_split["validation"],
        test=by_split["test"],
        label_names=encoded.names,
        problem_type=encoded.problem_type,
        fingerprint=fingerprint_of(splits, label_names=encoded.names, problem_type=encoded.problem_type),
        columns=columns.by_role,
        notes=(*notes, _label_note(encoded), *encoded.notes, *split_notes, f"rows: {counts}"),
        metrics=known.metrics if known else default_metrics(encoded.problem_type, encoded.names),
        test_name=source.test_name,
        more_tests={split: by_split[split] for split in source.more_tests},
    )


def _without_unlabelled_test(source: Source, columns: Columns) -> Source:
    test = source.splits.get("test")
    if test is None or not columns.labels:
        return source
    if not test.num_rows or any(column not in test.columns for column in columns.labels):
        reason = "has no rows" if not test.num_rows else f"has no column {columns.label!r}"
    else:
        train, _ = _without_unlabelled_rows(source.splits["train"], columns)
        train_values = set(map(repr, raw_labels(train, columns)))
        labels = raw_labels(test, columns)
        hidden = all(checks.is_missing(label) or as_number(label) == -1 for label in labels)
        if not hidden or any(repr(label) in train_values for label in labels):
            return source
        reason = "has no labels (all -1 or empty)"
    splits = {split: table for split, table in source.splits.items() if split != "test"}
    return replace(source, splits=splits, notes=(*source.notes, f"the given test split {reason}: left out"))


def _without_unlabelled_rows(table: Table, columns: Columns) -> tuple[Table, int]:
    # In a column with class names -1 means "no label" in `datasets`, for instance in SNLI.
    column = columns.labels[0] if columns.labels else ""
    if len(columns.labels) != 1 or columns.by_token or column not in table.class_names or column not in table.columns:
        return table, 0
    kept = [row for row, label in enumerate(table.columns[column]) if label != -1]
    cells = {name: [values[row] for row in kept] for name, values in table.columns.items()}
    return replace(table, columns=cells), table.num_rows - len(kept)


def _class_names(source: Source, columns: Columns) -> tuple[str, ...]:
    if len(columns.labels) != 1:
        return ()
    by_split = {split: table.class_names.get(columns.labels[0], ()) for split, table in source.splits.items()}
    train = by_split["train"]
    for split, names in by_split.items():
        if names != train:
            raise DataError(
                f"{source.where[split]}: column {columns.label!r} has the class names {', '.join(names) or '(none)'}, "
                f"but train has {', '.join(train) or '(none)'}. Save the splits with the same class names."
            )
    return train


def _make_splits(
    given: dict[str, Rows], settings: DataSettings, encoded: EncodedLabels
) -> tuple[dict[str, Rows], list[str]]:
    stratified = encoded.problem_type == "single_label_classification"
    how = f"{'stratified, ' if stratified else ''}seed {settings.split_seed}"
    train, notes = given["train"], []
    validation, test = given.get("validation"), given.get("test")
    share = settings.validation_fraction
    if test is None and validation is not None:
        test, validation = validation, None
        notes.append("splits: the given validation is reported as test")
    elif test is None:
        train, test = _cut(train, settings.test_fraction, settings, stratified, name="test_fraction")
        # Both fractions are of the whole table, of which 1 - test_fraction remains.
        share /= 1 - settings.test_fraction
        notes.append(f"splits: test cut off ({settings.test_fraction:.0%} of the rows, {how})")
    if settings.max_train_rows is not None and len(train) > settings.max_train_rows:
        strata = train.labels if stratified else None
        given_rows = len(train)
        surplus = given_rows - settings.max_train_rows
        train = train.select(cut_rows(train.inputs(), strata=strata, num_rows=surplus, seed=settings.split_seed).rest)
        notes.append(f"max_train_rows: {len(train):,} of {given_rows:,} training rows used ({how})")
    if validation is None:
        train, validation = _cut(train, share, settings, stratified, name="validation_fraction")
        notes.append(f"splits: validation cut off train ({share:.0%} of its rows, {how})")
    return {"train": train, "validation": validation, "test": test}, notes


def _overlap_notes(splits: dict[str, Rows]) -> list[str]:
    train = set(splits["train"].inputs())
    shared = {split: sum(key in train for key in rows.inputs()) for split, rows in splits.items() if split != "train"}
    return [
        f"warning: {count:,} rows of the given {split} have a text that train has too"
        for split, count in shared.items()
        if count
    ]


def _cut(rows: Rows, fraction: float, settings: DataSettings, stratified: bool, *, name: str) -> tuple[Rows, Rows]:
    num_rows = max(1, round(fraction * len(rows)))
    strata: list[Any] | None = rows.labels if stratified else None
    rest, cut = cut_rows(rows.inputs(), strata=strata, num_rows=num_rows, seed=settings.split_seed)
    if not cut:
        raise DataError(
            f"{option(name, getattr(settings, name))} of {len(rows):,} rows cannot be cut off: every class needs at "
            "least two different texts. Give more rows, or give train, validation and test as files of one folder."
        )
    return rows.select(rest), rows.select(cut)


def _check_classes_reach_train(splits: dict[str, Rows], encoded: EncodedLabels, columns: Columns) -> None:
    if encoded.problem_type == "single_label_classification":
        train = [encoded.names[label] for label in splits["train"].labels]
        checks.check_more_than_one(train, column=columns.label, what="class")
        for split in (name for name in splits if name != "train"):
            labels = [encoded.names[label] for label in splits[split].labels]
            checks.check_known_labels(labels, sorted(set(train)), column=columns.label, where=split)


def _column_notes(columns: Columns) -> list[str]:
    options = {"text": "text", "image": "text", "text_pair": "text_pair", "label": "label"}
    return [
        f"{role} column: {column}"
        + (f" (guessed; {advice(options[role])} to change)" if role in columns.guessed else "")
        for role, column in columns.by_role.items()
    ]


def _label_note(encoded: EncodedLabels) -> str:
    if encoded.problem_type in _WITHOUT_CLASSES:
        return f"task: {_WITHOUT_CLASSES[encoded.problem_type]}"
    names = encoded.names if len(encoded.names) <= 10 else (*encoded.names[:10], "...")
    return f"task: {_CLASSIFICATION[encoded.problem_type]}, {len(encoded.names)} labels ({', '.join(names)})"


_WITHOUT_CLASSES = {"regression": "regression", "causal_lm": "causal language modelling"}
_CLASSIFICATION = {
    "single_label_classification": "single-label classification",
    "multi_label_classification": "multi-label classification",
    "token_classification": "token classification",
}
