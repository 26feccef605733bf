"""Finding the data that a person named: embedded example, file, folder or hub."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import datasets

from prunelora.data import checks
from prunelora.data.embedded import EMBEDDED_DATA, EMBEDDED_LABELS, EMBEDDED_SOURCE, embedded_data_path
from prunelora.data.glue import NamedTask, named_task
from prunelora.data.settings import DataSettings
from prunelora.data.tables import Table, read_folder, read_table, tables_of
from prunelora.errors import DataError

# "sst2" or "nyu-mll/glue": what the hub accepts as a name.
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "validation_matched", "dev_matched"),
    "test": ("test", "test_matched"),
}


@dataclass(frozen=True)
class Source:
    """Tables as given, before any choice of columns.

    Attributes:
        name: Short name of the task.
        splits: Tables by "train", "validation" and "test"; always "train".
        where: How an error names each split.
        notes: What was left out.
    """

    name: str
    splits: dict[str, Table]
    where: dict[str, str]
    notes: tuple[str, ...] = ()


def read_source(settings: DataSettings) -> Source:
    """Read what `settings.data` names.

    Raises:
        DataError: If it does not exist, cannot be read, or the hub does not give it.
    """
    if settings.task is not None:
        return _read_named(named_task(settings.task), settings.data_dir)
    data = str(settings.data)
    if data == EMBEDDED_DATA:
        return _read_embedded()
    path = Path(data).expanduser()
    if path.is_dir():
        return _by_split(path.resolve().name, read_folder(path), where=str(path))
    if path.exists() or _looks_like_path(data):
        return Source(path.stem, {"train": read_table(path)}, {"train": str(path)})
    return _read_hub(data, settings.data_config)


def _read_named(task: NamedTask, data_dir: str | None) -> Source:
    if data_dir is None:
        source = _read_hub("nyu-mll/glue", task.name)
    else:
        folder = Path(data_dir).expanduser()
        folder = folder / task.name if (folder / task.name).is_dir() else folder
        checks.check_exists(folder)
        source = _by_split(task.name, read_folder(folder), where=str(folder))
    splits = {name: replace(table, class_names={"label": task.label_names}) for name, table in source.splits.items()}
    return replace(source, name=task.name, splits=splits)


def _looks_like_path(data: str) -> bool:
    suffixes = (*checks.TABLE_SUFFIXES, *checks.PICKLE_SUFFIXES, ".txt", ".xlsx", ".xls")
    return Path(data).suffix.lower() in suffixes or _HUB_NAME.fullmatch(data) is None


def _read_embedded() -> Source:
    table = read_table(embedded_data_path())
    rows = [row for row, source in enumerate(table.columns["source"]) if source == EMBEDDED_SOURCE]
    columns = {name: [table.columns[name][row] for row in rows] for name in ("text", "label")}
    chosen = replace(table, columns=columns, class_names={"label": EMBEDDED_LABELS})
    return Source(EMBEDDED_DATA, {"train": chosen}, {"train": EMBEDDED_DATA})


def _read_hub(name: str, config: str | None) -> Source:
    asked = f"{name} ({config})" if config else name
    instead = f"Pass a local file or folder instead ({', '.join(checks.TABLE_SUFFIXES)})"
    try:
        data = datasets.load_dataset(name, config)
    except ConnectionError as error:
        raise DataError(
            f"{asked}: no file or folder of this name is here, and the Hugging Face hub could not be reached "
            f"({_first_line(error)}). {instead}, or try again with a network."
        ) from error
    except Exception as error:  # `datasets` raises many kinds here: not found, gated, unknown configuration, scripts
        raise DataError(
            f"{asked}: no file or folder of this name is here, and the Hugging Face hub does not give it "
            f"({_first_line(error)}). {instead}, or check the name and --data-config."
        ) from error
    return _by_split(f"{name}/{config}" if config else name, tables_of(data), where=asked)


def _by_split(name: str, tables: dict[str, Table], *, where: str) -> Source:
    if len(tables) == 1 and not any(next(iter(tables)).lower() in names for names in SPLIT_NAMES.values()):
        only = next(iter(tables))
        return Source(name, {"train": tables[only]}, {"train": f"{where}, split {only}"})
    splits: dict[str, Table] = {}
    used: dict[str, str] = {}
    lowered = {found.lower(): found for found in tables}
    for split, names in SPLIT_NAMES.items():
        found = [lowered[each] for each in names if each in lowered]
        if found:
            splits[split], used[split] = tables[found[0]], found[0]
    if "train" not in splits:
        raise DataError(
            f"{where} has no split named train; found {', '.join(tables)}. "
            "Name one of them train, or pass one file to have it split."
        )
    left_out = [each for each in tables if each not in used.values()]
    notes = (f"left out: {', '.join(left_out)} (not train, validation or test)",) if left_out else ()
    return Source(name, splits, {split: f"{where}, split {each}" for split, each in used.items()}, notes)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
