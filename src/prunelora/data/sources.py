"""Finding the data that a person named: embedded example, file, folder or hub."""

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from prunelora.data import checks
from prunelora.data.columns import Columns
from prunelora.data.embedded import EMBEDDED_DATA, EMBEDDED_LABELS, EMBEDDED_SOURCE, embedded_data_path
from prunelora.data.given import check_is_here
from prunelora.data.images import LABEL, is_image_folder, read_image_folder
from prunelora.data.settings import DataSettings
from prunelora.data.tables import Table, read_folder, read_table, tables_of
from prunelora.errors import DataError, advice, first_line, option

# "sst2" or "nyu-mll/glue": what the hub accepts as a name.
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "validation_matched", "dev_matched"),
    "test": ("test", "test_matched"),
}


@dataclass(frozen=True)
class Source:
    """Tables as given.

    Attributes:
        name: Short name of the task.
        splits: Tables by "train", "validation" and "test"; always "train". And those of `more_tests`.
        where: How an error names each split.
        notes: What was left out.
        columns: Where the task is known by name, so that nothing is to be guessed; None before any choice of columns.
        test_name: What the reported split is called, where more than one is.
        more_tests: Splits that are reported beside it.
    """

    name: str
    splits: dict[str, Table]
    where: dict[str, str]
    notes: tuple[str, ...] = ()
    columns: Columns | None = None
    test_name: str = "test"
    more_tests: tuple[str, ...] = ()


def read_source(settings: DataSettings) -> Source:
    """Read what `settings.data` names.

    Raises:
        DataError: If it does not exist, cannot be read, has a configuration without being of the hub or an encoding
            without being a text file, or the hub does not give it.
    """
    source = _read_source(settings)
    check_encoding_is_used(
        settings.encoding, {table.encoding for table in source.splits.values()}, where=str(settings.data)
    )
    notes = [note for table in source.splits.values() for note in table.notes]
    return replace(source, notes=(*notes, *source.notes))


def check_encoding_is_used(encoding: str | None, found: Collection[str | None], *, where: str) -> None:
    """Refuse an encoding where none of the encodings of what was read is that of a text file."""
    if encoding is not None and not any(found):
        raise DataError(f"{option('encoding', encoding)}: nothing of {where} is a text file. Leave it out.")


def _read_source(settings: DataSettings) -> Source:
    data, rows = str(settings.data), settings.given
    if rows is None:
        check_is_here(data)
    path = Path(data).expanduser()
    exists = rows is None and _exists(path)
    if settings.data_config and (rows is not None or data == EMBEDDED_DATA or exists):
        kinds = {data == EMBEDDED_DATA: "the embedded example", rows is not None: "rows given in Python"}
        found = kinds.get(True) or f"a {'folder' if path.is_dir() else 'file'} here"
        raise DataError(
            f"{option('data_config', settings.data_config)}: {data} is {found}, and only data sets of the hub have "
            "configurations. Leave it out, or name the file or folder that you mean."
        )
    if rows is not None:
        return _by_split(rows.kind, rows.tables, where=f"the {rows.kind}")
    if data == EMBEDDED_DATA:
        return _read_embedded()
    lines = settings.task_type == "causal_lm"
    if path.is_dir():
        images = is_image_folder(path)
        tables = _read_images(path) if images else read_folder(path, encoding=settings.encoding, lines=lines)
        return _by_split(path.resolve().name, tables, where=str(path))
    if exists or _looks_like_path(data):
        table = read_table(path, encoding=settings.encoding, lines=lines)
        return Source(path.stem, {"train": table}, {"train": str(path)})
    asked = f"{data} ({settings.data_config})" if settings.data_config else data
    tables = read_hub(
        data,
        settings.data_config,
        asked=f"{asked}: no file or folder of this name is here, and",
        instead=f"Pass a local file or folder instead ({', '.join(checks.TABLE_SUFFIXES)}), or check the name and "
        f"{advice('data_config')}",
    )
    return _by_split(f"{data}/{settings.data_config}" if settings.data_config else data, tables, where=asked)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:  # too long
        raise DataError(f"{option('data', str(path))}: no file can have this name ({type(error).__name__}).") from error


def _read_images(folder: Path) -> dict[str, Table]:
    found = read_image_folder(folder)
    return {split: Table(columns, {LABEL: names}) for split, (columns, names) in found.items()}


def _looks_like_path(data: str) -> bool:
    suffixes = (*checks.TABLE_SUFFIXES, *checks.PICKLE_SUFFIXES, checks.LINES_SUFFIX, ".xlsx", ".xls")
    return Path(data).suffix.lower() in suffixes or _HUB_NAME.fullmatch(data) is None


def _read_embedded() -> Source:
    table = read_table(embedded_data_path())
    rows = [row for row, source in enumerate(table.columns["source"]) if source == EMBEDDED_SOURCE]
    columns = {name: [table.columns[name][row] for row in rows] for name in ("text", "label")}
    chosen = Table(columns, {"label": EMBEDDED_LABELS})
    return Source(EMBEDDED_DATA, {"train": chosen}, {"train": EMBEDDED_DATA})


def read_hub(name: str, config: str | None, *, asked: str, instead: str) -> dict[str, Table]:
    """Tables of a data set of the Hugging Face hub by split name.

    Args:
        name: Name on the hub.
        config: Configuration of the data set.
        asked: How an error begins: what was asked for.
        instead: What an error tells to do where the hub does not give it.

    Raises:
        DataError: If the hub does not give it.
    """
    import datasets

    try:
        data = datasets.load_dataset(name, config)
    except ConnectionError as error:
        raise DataError(
            f"{asked} the Hugging Face hub could not be reached ({first_line(error)}). "
            f"{instead}, or try again with a network."
        ) from error
    except Exception as error:  # `datasets` raises many kinds here: not found, gated, unknown configuration, scripts
        raise DataError(f"{asked} the Hugging Face hub does not give it ({first_line(error)}). {instead}.") from error
    return tables_of(data)


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
