"""Files and data sets read into plain tables: lists of Python values, no caches, no network."""

import csv
import io
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import datasets
import pyarrow
import pyarrow.parquet

from prunelora.data import checks
from prunelora.data.conll import read_conll
from prunelora.errors import DataError

# A field longer than this is an unbalanced quote that swallowed the rest of the file, not a text.
LONGEST_FIELD = 10_000_000


@dataclass(frozen=True)
class Table:
    """Columns of one split as they were found.

    Attributes:
        columns: Values by column; cells of CSV and TSV files are always strings.
        class_names: Names of the integer labels, for columns that carry them (`datasets.ClassLabel`).
    """

    columns: dict[str, list[Any]]
    class_names: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return max((len(values) for values in self.columns.values()), default=0)


def read_table(path: Path) -> Table:
    """Read one CSV, TSV, JSON, JSON lines or Parquet file, or one in CoNLL style.

    CSV cells may be quoted; TSV cells are taken as they stand, so that a quotation mark is text. "NA", "null" and
    numbers stay text.
    """
    checks.check_exists(path)
    checks.check_suffix(path)
    match path.suffix.lower():
        case ".csv":
            return _read_delimited(path, delimiter=",", quoting=csv.QUOTE_MINIMAL)
        case ".tsv":
            return _read_delimited(path, delimiter="\t", quoting=csv.QUOTE_NONE)
        case ".parquet":
            return _read_parquet(path)
        case ".conll":
            return Table(columns=read_conll(path))
        case _:
            return _read_json(path)


def read_tsv(path: Path, *, no_header: Sequence[str] = (), pad_short: bool = False) -> Table:
    """Read a tab-separated file, whatever its extension.

    Args:
        path: The file.
        no_header: Names of the columns if the first line is no header: if it has so many cells and none of these names.
        pad_short: Whether missing cells at the end of a line are None. If not, they are an error.
    """
    checks.check_exists(path)
    return _read_delimited(path, delimiter="\t", quoting=csv.QUOTE_NONE, no_header=no_header, pad_short=pad_short)


def read_folder(folder: Path) -> dict[str, Table]:
    """Read every table file of a folder, or the data set that `datasets.save_to_disk` wrote there, by split name."""
    if (folder / "dataset_dict.json").exists() or (folder / "state.json").exists():
        return _read_saved(folder)
    tables: dict[str, Table] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in checks.TABLE_SUFFIXES or path.name.startswith("."):
            continue
        name = path.stem.lower()
        if name in tables:
            raise DataError(
                f"{folder} has two files for the split {name!r}, one of them {path.name}. Keep one, or pass one file."
            )
        tables[name] = read_table(path)
    if not tables:
        raise DataError(
            f"{folder} has no data files. Give a folder with files named train, validation and test "
            f"({', '.join(checks.TABLE_SUFFIXES)}), or one saved by datasets.save_to_disk."
        )
    return tables


def from_dataset(dataset: datasets.Dataset) -> Table:
    """Take a `datasets.Dataset` apart, keeping the class names of its label columns."""
    arrow: pyarrow.Table = dataset.with_format("arrow")[:]
    try:
        columns = {name: arrow.column(name).to_pylist() for name in arrow.column_names}
    except UnicodeDecodeError as error:
        raise DataError(f"A text is not UTF-8: {error}. Write the data again as UTF-8.") from error
    class_names: dict[str, tuple[str, ...]] = {}
    for name, feature in dataset.features.items():
        inner = getattr(feature, "feature", feature)
        if isinstance(inner, datasets.ClassLabel) and inner.names:
            class_names[name] = tuple(inner.names)
    return Table(columns=columns, class_names=class_names)


def _read_delimited(
    path: Path, *, delimiter: str, quoting: Literal[0, 3], no_header: Sequence[str] = (), pad_short: bool = False
) -> Table:
    rows = _delimited_rows(path, delimiter=delimiter, quoting=quoting)
    line, header = next(rows, (0, []))
    checks.check_has_rows(len(header), where=str(path))
    if len(header) == len(no_header) and not set(header) & set(no_header):
        rows = itertools.chain([(line, header)], rows)
        header = list(no_header)
    if len(set(header)) != len(header) or not all(name.strip() for name in header):
        raise DataError(
            f"{path}: the first line must name every column once, and reads {', '.join(map(repr, header))}. "
            "Add a header line with distinct names."
        )
    cells: list[list[str | None]] = [[] for _ in header]
    for line, found in rows:
        missing = len(header) - len(found)
        row = [*found, *[None] * missing] if pad_short else found
        if len(row) != len(header):
            raise DataError(
                f"{path}, line {line:,}: {len(row)} cells, but the header names {len(header)} columns "
                f"({', '.join(header)}). Check the separators and the quotation marks of this line."
            )
        for column, cell in zip(cells, row, strict=True):
            column.append(cell)
    return Table(columns=dict(zip(header, cells, strict=True)))


def _delimited_rows(path: Path, *, delimiter: str, quoting: Literal[0, 3]) -> Iterator[tuple[int, list[str]]]:
    text = checks.decoded(path)
    # The limit is global to the csv module: it is put back, so that other users of the module see no change.
    before = csv.field_size_limit(LONGEST_FIELD)
    try:
        # strict: a quote that never closes, or that closes in the middle of a cell, is an error and not a guess.
        lines = io.StringIO(text, newline="")
        reader = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)
        try:
            for row in reader:
                if row:  # a blank line
                    yield reader.line_num, row
        except csv.Error as error:
            raise DataError(
                f"{path}, line {reader.line_num:,}: {error}. Check the quotation marks up to this line."
            ) from error
    finally:
        csv.field_size_limit(before)


def _read_json(path: Path) -> Table:
    text = checks.decoded(path)
    # Both extensions are used for both forms, so the text decides.
    if text.lstrip().startswith("["):
        try:
            records = json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, line {error.lineno:,}: not JSON ({error.msg}). Correct this line.") from error
    else:
        records = [_json_line(path, number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    for number, record in enumerate(records, 1):
        if not isinstance(record, dict):
            raise DataError(
                f"{path}, record {number:,}: {type(record).__name__} found, object expected. "
                'Write one object a row, such as {"text": "...", "label": "..."}.'
            )
    names = list(dict.fromkeys(name for record in records for name in record))
    return Table(columns={name: [record.get(name) for record in records] for name in names})


def _json_line(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}, line {number:,}: not JSON ({error.msg}). Write one object a line, or a list of objects."
        ) from error


def _read_parquet(path: Path) -> Table:
    try:
        table = pyarrow.parquet.read_table(path)
        # Through Dataset, because class names travel in the file's metadata and only `datasets` reads them.
        dataset = datasets.Dataset(datasets.table.InMemoryTable(table))
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}. Write the file again.") from error
    return from_dataset(dataset)


def _read_saved(folder: Path) -> dict[str, Table]:
    try:
        saved = datasets.load_from_disk(str(folder), keep_in_memory=True)
    except Exception as error:  # `datasets` raises whatever its readers meet in a damaged folder
        raise DataError(
            f"{folder} looks saved by datasets.save_to_disk but cannot be loaded: {error}. Save it again."
        ) from error
    return tables_of(saved)


def tables_of(data: datasets.Dataset | datasets.DatasetDict) -> dict[str, Table]:
    """Tables by split name; a data set without splits is one table called "train"."""
    if isinstance(data, datasets.DatasetDict):
        return {str(name): from_dataset(split) for name, split in data.items()}
    return {"train": from_dataset(data)}


def describe_columns(names: Sequence[str]) -> str:
    """Columns of a table in one line, shortened when there are many."""
    shown = ", ".join(names[:20])
    return shown if len(names) <= 20 else f"{shown} and {len(names) - 20} more"
