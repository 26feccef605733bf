"""Rows given in Python, as a pandas DataFrame or a `datasets.Dataset`, in place of the name of a file."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from prunelora.data.tables import Table, describe_columns, from_dataset
from prunelora.errors import DataError, option

# Prefix of the description that a recipe file holds in place of the rows.
_GIVEN = "given in Python: "

_DATA_FRAME = ("pandas", "DataFrame")
_DATASET = ("datasets", "Dataset")


@dataclass(frozen=True)
class Given:
    """Tables given in Python.

    Attributes:
        described: Description for a recipe file: kind, rows, columns and a hash of the content.
        kind: Name of the Python type.
        tables: Tables by split; "train" if there are no splits.
    """

    described: str
    kind: str = field(compare=False)
    tables: dict[str, Table] = field(compare=False, repr=False)


def as_named_or_given(data: Any) -> str | Given | None:
    """Convert a path to text and rows to tables; return a name as it is.

    Raises:
        DataError: If `data` is of another type.
    """
    if data is None or isinstance(data, str | Given):
        return data
    if isinstance(data, os.PathLike):
        return str(os.fspath(data))
    if isinstance(data, Mapping) and data:
        return _given(_type_name(data), {str(split): _table(rows) for split, rows in data.items()})
    return _given(_type_name(data), {"train": _table(data)})


def check_is_here(data: str) -> None:
    """Raises DataError if `data` is the description of rows that were given in Python, which no file holds."""
    if data.startswith(_GIVEN):
        raise DataError(
            f"{option('data')}: the rows of this run were {data}, and are in no file. Call compress again with the "
            "same rows as data and the same folder, which keeps the finished stages; or write the rows to a file and "
            "give it as data: the same rows in the same order count as the same data."
        )


def _given(kind: str, tables: dict[str, Table]) -> Given:
    digest = hashlib.sha256()
    for split, table in tables.items():
        for name, cells in table.columns.items():
            digest.update(json.dumps([split, name, cells, table.class_names.get(name)], default=repr).encode())
    rows = ", ".join(f"{split} {table.num_rows:,}" for split, table in tables.items())
    names = describe_columns(list(next(iter(tables.values())).columns))
    described = f"{_GIVEN}{kind} with the columns {names}; rows: {rows}; content {digest.hexdigest()[:16]}"
    return Given(described, kind, tables)


def _type_name(data: object) -> str:
    return type(data).__name__


def _is(data: object, known: tuple[str, str]) -> bool:
    """Whether a value is an instance of a class, given by package and name, without importing the package."""
    return any((base.__module__.partition(".")[0], base.__name__) == known for base in type(data).__mro__)


def _table(data: Any) -> Table:
    if _is(data, _DATASET):
        return from_dataset(data)
    if _is(data, _DATA_FRAME):
        return _from_frame(data)
    raise DataError(
        f"{option('data')}: {_type_name(data)} given. Give the name of a file, folder or data set; a pandas DataFrame; "
        "a datasets.Dataset; or a dict of these by split (train, validation, test), such as a DatasetDict."
    )


def _from_frame(frame: Any) -> Table:
    names = [str(name) for name in frame.columns]
    if len(set(names)) != len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise DataError(
            f"{option('data')}: the DataFrame has two columns {repeated!r}. Give every column its own name."
        )
    return Table({name: _plain_cells(frame.iloc[:, place]) for place, name in enumerate(names)})


def _plain_cells(series: Any) -> list[Any]:
    """Cells as plain Python values; None for cells that pandas counts as missing."""
    cells = zip(series.tolist(), series.isna().tolist(), strict=True)
    return [None if is_missing else _plain(cell) for cell, is_missing in cells]


def _plain(cell: Any) -> Any:
    return cell.tolist() if type(cell).__module__ == "numpy" else cell
