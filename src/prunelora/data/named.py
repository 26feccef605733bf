"""Reading of a named task: the files of each split, and the columns and labels in the task's row."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prunelora.data import checks
from prunelora.data.columns import Columns
from prunelora.data.glue import GLUE, GLUE_ON_THE_HUB, NamedTask
from prunelora.data.labels import as_number
from prunelora.data.sources import Source, check_encoding_is_used, read_hub
from prunelora.data.tables import Table, describe_columns, read_folder, read_table, read_tsv
from prunelora.errors import DataError, advice, option

# train-00000-of-00002: one of the files of a split on the hub.
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})")

Reader = Callable[[], Table]


@dataclass(frozen=True)
class _Labelled:
    """Labelled rows of a split: texts and labels by column, and the numbers of broken and unlabelled rows left out."""

    columns: Columns
    cells: dict[str, list[Any]]
    broken: int = 0
    unlabelled: int = 0


def read_named(task: NamedTask, data_dir: str | None, encoding: str | None = None) -> Source:
    """Read a named task from files or from the hub.

    Files are in the folder itself or in a folder of the task's name (in any case, also its official name): train.tsv
    with validation.tsv or dev.tsv, also as .csv, .json, .jsonl or .parquet; Parquet files in shards, also in a folder
    data; or a data set saved by `datasets.save_to_disk`.

    The given validation rows are reported if there are any; a test split is not read then. (GLUE's own test splits
    have no labels; MRPC's has some on the hub, and none in the official files.)

    Args:
        task: Row of the task.
        data_dir: Folder; the Hugging Face hub if None.
        encoding: Encoding of text files that are not UTF-8.

    Returns:
        Source with `columns`; the labels are class ids, or numbers.

    Raises:
        DataError: If files, columns or labels do not match the task's row.
    """
    if data_dir is None:
        where = f"{GLUE_ON_THE_HUB} ({task.name})"
        readers = _readers_of(_from_hub(task))
    else:
        folder = _folder(task, Path(data_dir).expanduser())
        where, readers = str(folder), _file_readers(task, folder, encoding)
    names = _name_splits(task, readers, where=where)
    splits: dict[str, Table] = {}
    notes: list[str] = []
    columns: Columns | None = None
    encodings: set[str | None] = set()
    for split, name in names.items():
        tables = [read() for read in readers[name]]
        notes += [note for table in tables for note in table.notes]
        encodings |= {table.encoding for table in tables}
        selected = [_select(task, table, where=f"{where}, split {name}", is_test=split == "test") for table in tables]
        parts = [part for part in selected if part is not None]
        if not parts:
            notes.append("the given test split has no labels: left out")
            continue
        columns = columns or parts[0].columns
        splits[split] = _joined(task, parts, columns)
        broken, unlabelled = sum(part.broken for part in parts), sum(part.unlabelled for part in parts)
        if broken:
            notes.append(f"{split}: rows with cells missing or empty left out: {broken:,}")
        if unlabelled:
            no_label = " or ".join((*task.no_label, "-1"))
            notes.append(f"{split}: rows without a label ({no_label}) left out: {unlabelled:,}")
    check_encoding_is_used(encoding, encodings, where=where)
    if "validation" in splits and any(name in readers for name in task.stems["test"]):
        notes.append("left out: test (the given validation is reported)")
    more_tests = tuple(part for part in task.parts[1:] if part in splits)
    if more_tests:
        notes.append(f"reported: {' and '.join((task.parts[0], *more_tests))}")
    return Source(
        name=task.name,
        splits=splits,
        where={split: f"{where}, split {names[split]}" for split in splits},
        notes=tuple(notes),
        columns=columns,
        test_name=task.parts[0] if more_tests else "test",
        more_tests=more_tests,
    )


def _asked(task: NamedTask) -> str:
    """The task as it was typed."""
    return option("task", task.name)


def _from_hub(task: NamedTask) -> dict[str, Table]:
    return read_hub(
        GLUE_ON_THE_HUB,
        task.name,
        asked=f"{_asked(task)}: no {option('data_dir')} was given, and",
        instead=f"Give the folder of its files with {advice('data_dir')}",
    )


def _readers_of(tables: Mapping[str, Table]) -> dict[str, list[Reader]]:
    return {name.lower(): [lambda table=table: table] for name, table in tables.items()}  # type: ignore[misc]


# Files ----------------------------------------------------------------------------------------------------------------


def _folder(task: NamedTask, given: Path) -> Path:
    checks.check_exists(given)
    if not given.is_dir():
        raise DataError(
            f"{option('data_dir', str(given))} is a file. Give its folder, or leave {option('task')} out and give the "
            f"file with {advice('data')}."
        )
    below = {path.name.lower(): path for path in sorted(given.iterdir()) if path.is_dir()}
    for name in task.folders:
        if name in below:
            return below[name]
    given_name = given.resolve().name.lower()
    for other in GLUE.values():
        # Columns of several tasks have the same names, so the same number would be read as another class.
        if other is not task and given_name in other.folders:
            raise DataError(
                f"{_asked(task)}: {given} is the folder of another task, {other.name}. "
                f"Give the folder of {task.name}, or the parent folder of both, with {advice('data_dir')}."
            )
    return given


def _file_readers(task: NamedTask, folder: Path, encoding: str | None) -> dict[str, list[Reader]]:
    if (folder / "dataset_dict.json").exists():
        return _readers_of(read_folder(folder))
    inner = folder / "data"
    for place in (folder, inner) if inner.is_dir() else (folder,):
        files = _files_by_stem(task, place)
        if files:
            return {
                stem: [lambda path=path: _read(task, path, encoding) for path in paths]  # type: ignore[misc]
                for stem, paths in files.items()
            }
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    raise _no_training_rows(task, names, where=str(folder))


def _files_by_stem(task: NamedTask, folder: Path) -> dict[str, list[Path]]:
    """Files of the task's splits by stem: one file each, or all its shards in order."""
    original = [stem for _, stem in task.other_files]
    known = {*original, *(stem for stems in task.stems.values() for stem in stems)}
    files: dict[str, list[Path]] = {}
    shards: dict[str, list[tuple[int, int]]] = {}  # (1, 3): the second of three
    for path in sorted(folder.iterdir()):
        shard = _SHARD.fullmatch(path.stem.lower())
        stem = shard[1] if shard else path.stem.lower()
        suffixes = (*checks.TABLE_SUFFIXES, ".txt") if stem in original else checks.TABLE_SUFFIXES
        if stem not in known or path.suffix.lower() not in suffixes:
            continue
        files.setdefault(stem, []).append(path)
        if shard:
            shards.setdefault(stem, []).append((int(shard[2]), int(shard[3])))
    for stem, paths in files.items():
        numbered = shards.get(stem, [(0, 1)])
        count = max(1, numbered[0][1])
        if len(paths) > count or len(numbered) != len(paths) or len({total for _, total in numbered}) > 1:
            raise DataError(
                f"{folder} has two files for the split {stem!r}: {paths[0].name} and {paths[1].name}. Keep one."
            )
        absent = sorted(set(range(count)) - {number for number, _ in numbered})
        if absent:
            raise DataError(
                f"{folder} has {len(paths)} of the {count} files of the split {stem!r}. Fetch the missing "
                f"{stem}-{absent[0]:05d}-of-{count:05d} too."
            )
    return files


def _read(task: NamedTask, path: Path, encoding: str | None) -> Table:
    if path.suffix.lower() in (".tsv", ".txt"):
        return read_tsv(path, encoding=encoding, no_header=task.no_header, pad_short=task.broken_rows)
    return read_table(path, encoding=encoding)


def _name_splits(task: NamedTask, names: Mapping[str, Any], *, where: str) -> dict[str, str]:
    """Names of the splits in the data: {"train": "train", "validation": "dev_matched", ...}."""
    stems = task.stems
    if "train" not in names:
        stems = {split: (stem,) for split, stem in task.other_files if stem in names} or stems
    chosen: dict[str, str] = {}
    for split, known in stems.items():
        present = [name for name in known if name in names]
        if len(present) > 1:
            raise DataError(f"{where} has two {split} splits for {_asked(task)}: {' and '.join(present)}. Keep one.")
        if present:
            chosen[split] = present[0]
    if "train" not in chosen:
        raise _no_training_rows(task, sorted(names), where=where)
    extra = next((part for part in task.parts[1:] if part in chosen), None)
    if extra and "validation" not in chosen:
        raise DataError(
            f"{_asked(task)}: {where} has {chosen[extra]}, but not {' or '.join(stems['validation'][2:])}. "
            "Add this file too."
        )
    if "validation" in chosen:
        chosen.pop("test", None)
    return chosen


def _no_training_rows(task: NamedTask, names: Sequence[str], *, where: str) -> DataError:
    original = [f"{stem}.txt" for split, stem in task.other_files if split == "train"]
    return DataError(
        f"{_asked(task)}: no training rows in {where}. Looked for {', '.join(['train.tsv', *original])} (or train "
        "as .csv, .jsonl, .json, .parquet, or train-00000-of-00001.parquet, there or in a folder data); found "
        f"{describe_columns(names) or 'nothing'}. Give the folder with these files, or one that has them in a folder "
        f"{' or '.join(dict.fromkeys((task.name, task.folder)))}, with {advice('data_dir')}."
    )


# Columns and labels ---------------------------------------------------------------------------------------------------


def _select(task: NamedTask, table: Table, *, where: str, is_test: bool) -> _Labelled | None:
    """The columns in the task's row, with labels as class ids or numbers; None for a test split without labels."""
    checks.check_has_rows(table.num_rows, where=where)
    texts = next((names for names in task.texts if set(names) <= table.columns.keys()), None)
    label = next((name for name in task.labels if name in table.columns), None)
    if label is None and is_test:
        return None
    if texts is None or label is None:
        known = " or ".join(" + ".join(map(repr, names)) for names in task.texts)
        raise DataError(
            f"{where}: {_asked(task)} looks for {'texts in' if task.is_pair else 'the text in'} {known} "
            f"and the label in {' or '.join(map(repr, task.labels))}; "
            f"the columns are {describe_columns(list(table.columns))}. Rename them, or give the files with "
            f"{advice('data')}."
        )
    cells: dict[str, list[Any]] = {name: [] for name in (*texts, label)}
    class_names = table.class_names.get(label, ())
    broken = unlabelled = 0
    rows = zip(*(table.columns[name] for name in (*texts, label)), strict=True)
    for row, (*words, raw) in enumerate(rows, 1):
        if task.broken_rows and any(checks.is_missing(cell) for cell in (*words, raw)):
            broken += 1
        elif raw in task.no_label or as_number(raw) == -1:
            unlabelled += 1
        else:
            for name, word in zip(texts, words, strict=True):
                cells[name].append(word)
            cells[label].append(_label(task, raw, class_names, where=f"{where}, row {row:,}, column {label!r}"))
    if not cells[label]:
        if is_test:
            return None
        checks.check_has_rows(0, where=f"{where}, with a label,")
    columns = Columns(text=texts[0], text_pair=texts[1] if task.is_pair else None, labels=(label,), guessed=())
    return _Labelled(columns, cells, broken, unlabelled)


def _label(task: NamedTask, raw: Any, class_names: Sequence[str], *, where: str) -> int | float:
    number = as_number(raw)
    if task.problem_type == "regression":
        if number is None:
            raise DataError(f"{where}: {raw!r} found, but {_asked(task)} has numbers as targets. Correct the row.")
        # Rounded to float32, as in training: files hold 3.8 as text or as float32, 3.799999952316284.
        return float(str(np.float32(number)))
    class_id = int(number) if number is not None and number.is_integer() else None
    if class_names and class_id is not None and 0 <= class_id < len(class_names):
        raw, class_id = class_names[class_id], None  # The file's own numbering.
    if isinstance(raw, str) and raw.strip() in task.label_names:
        return task.label_names.index(raw.strip())
    if class_id is not None and 0 <= class_id < len(task.label_names):
        return class_id
    known = ", ".join(f"{index} or {name!r}" for index, name in enumerate(task.label_names))
    raise DataError(f"{where}: the label {raw!r} is none of {_asked(task)}, which has {known}. Correct the row.")


def _joined(task: NamedTask, parts: Sequence[_Labelled], columns: Columns) -> Table:
    """The rows of all files of a split, under the column names of train."""
    names = (*columns.texts, columns.label)
    own_names = [(*part.columns.texts, part.columns.label) for part in parts]
    cells = {
        name: [cell for part, own in zip(parts, own_names, strict=True) for cell in part.cells[own[place]]]
        for place, name in enumerate(names)
    }
    return Table(columns=cells, class_names={columns.label: task.label_names} if task.label_names else {})
