"""Reading of the data that a user names: embedded example, file, folder or hub."""

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

# Names that the hub accepts: "sst2" or "nyu-mll/glue".
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "validation_matched", "dev_matched"),
    "test": ("test", "test_matched"),
}


@dataclass(frozen=True)
class Source:
    """Tables of a task, as found.

    Attributes:
        name: Short name of the task.
        splits: Tables by split: always "train", and "validation", "test" and `more_tests` if there are any.
        where: Name of each split in errors.
        notes: Omitted splits and rows, and unusual properties of files.
        columns: Columns of a named task; None if they are to be chosen.
        test_name: Name of the split "test" in reports.
        more_tests: Further reported splits.
    """

    name: str
    splits: dict[str, Table]
    where: dict[str, str]
    notes: tuple[str, ...] = ()
    columns: Columns | None = None
    test_name: str = "test"
    more_tests: tuple[str, ...] = ()


def read_source(settings: DataSettings) -> Source:
    """Read the data that `settings.data` names.

    Raises:
        DataError: If it does not exist or cannot be read, the hub does not provide it, a configuration is given for
            data that is not of the hub, or an encoding for data that is no text file.
    """
    source = _read_source(settings)
    check_encoding_is_used(
        settings.encoding, {table.encoding for table in source.splits.values()}, where=str(settings.data)
    )
    notes = [note for table in source.splits.values() for note in table.notes]
    return replace(source, notes=(*notes, *source.notes))


def check_encoding_is_used(encoding: str | None, encodings: Collection[str | None], *, where: str) -> None:
    """Raises DataError if an encoding is given, but none of the tables, by their `encodings`, is from a text file."""
    if encoding is not None and not any(encodings):
        raise DataError(f"{option('encoding', encoding)}: nothing of {where} is a text file. Leave it out.")


def _read_source(settings: DataSettings) -> Source:
    data, rows = str(settings.data), settings.given
    if rows is None:
        check_is_here(data)
    path = Path(data).expanduser()
    exists = rows is None and _exists(path)
    if settings.data_config and (rows is not None or data == EMBEDDED_DATA or exists):
        kinds = {data == EMBEDDED_DATA: "the embedded example", rows is not None: "rows given in Python"}
        kind = kinds.get(True) or f"a {'folder' if path.is_dir() else 'file'} here"
        raise DataError(
            f"{option('data_config', settings.data_config)}: {data} is {kind}, and only data sets of the hub have "
            "configurations. Leave it out."
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
        asked=f"{asked}: no file or folder of this name exists here, and",
        instead=f"Pass a local file or folder instead ({', '.join(checks.TABLE_SUFFIXES)}), or check the name and "
        f"{advice('data_config')}",
    )
    return _by_split(f"{data}/{settings.data_config}" if settings.data_config else data, tables, where=asked)


def check_named(settings: DataSettings) -> None:
    """Raises DataError if the data's path does not exist or has an unknown suffix; reads no rows."""
    if settings.data_dir is not None:
        checks.check_exists(Path(settings.data_dir).expanduser())
    data = str(settings.data)
    if settings.data is None or settings.given is not None or data == EMBEDDED_DATA:
        return
    check_is_here(data)
    path = Path(data).expanduser()
    if not path.is_dir() and (_exists(path) or _looks_like_path(data)):
        checks.check_exists(path)
        checks.check_suffix(path, lines=settings.task_type == "causal_lm")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:  # too long
        raise DataError(f"{option('data', str(path))}: no file can have this name ({type(error).__name__}).") from error


def _read_images(folder: Path) -> dict[str, Table]:
    return {split: Table(columns, {LABEL: names}) for split, (columns, names) in read_image_folder(folder).items()}


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
        asked: Beginning of an error: the requested data.
        instead: End of an error: what to do instead.

    Raises:
        DataError: If the hub does not provide it.
    """
    import datasets

    try:
        data = datasets.load_dataset(name, config)
    except ConnectionError as error:
        raise DataError(
            f"{asked} the Hugging Face hub could not be reached ({first_line(error)}). "
            f"{instead}, or try again with a network."
        ) from error
    except Exception as error:  # Many kinds of errors: not found, gated, unknown configuration, scripts
        raise DataError(
            f"{asked} the Hugging Face hub does not provide it ({first_line(error)}). {instead}."
        ) from error
    return tables_of(data)


def _by_split(name: str, tables: dict[str, Table], *, where: str) -> Source:
    lowered = {given.lower(): given for given in tables}
    if len(tables) == 1 and not any(given in names for given in lowered for names in SPLIT_NAMES.values()):
        (only,) = tables
        return Source(name, {"train": tables[only]}, {"train": f"{where}, split {only}"})
    used = {
        split: next(lowered[known] for known in names if known in lowered)
        for split, names in SPLIT_NAMES.items()
        if not lowered.keys().isdisjoint(names)
    }
    if "train" not in used:
        raise DataError(
            f"{where} has no split named train; found {', '.join(tables)}. "
            "Name one of them train, or pass one file to have it split."
        )
    unused = [given for given in tables if given not in used.values()]
    return Source(
        name,
        splits={split: tables[given] for split, given in used.items()},
        where={split: f"{where}, split {given}" for split, given in used.items()},
        notes=(f"left out: {', '.join(unused)} (not train, validation or test)",) if unused else (),
    )
