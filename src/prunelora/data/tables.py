"""Reading of files and data sets into plain tables: lists of Python values, no caches, no network."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunelora.data import checks
from prunelora.data.conll import read_conll
from prunelora.data.delimited import Parsed, read_as_it_stands, read_delimited
from prunelora.data.text_files import TextFile, text_file
from prunelora.errors import DataError, first_line

if TYPE_CHECKING:
    import datasets


@dataclass(frozen=True)
class Table:
    """Columns of one split as found.

    Attributes:
        columns: Values by column; cells of CSV and TSV files are always strings.
        class_names: Names of the integer labels, for columns that have them (`datasets.ClassLabel`).
        notes: Unusual properties of the file, and omitted parts of it.
        encoding: Encoding of the text file; None if the table does not come from one.
    """

    columns: dict[str, list[Any]]
    class_names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    encoding: str | None = None

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return max((len(values) for values in self.columns.values()), default=0)


def read_table(path: Path, *, encoding: str | None = None, lines: bool = False) -> Table:
    """Read one CSV, TSV, JSON, JSON lines or Parquet file, one in CoNLL style, or the lines of a text file.

    "NA", "null" and numbers stay text. `prunelora.data.delimited` detects separators and quotation marks.

    Args:
        path: The file.
        encoding: Encoding of a text file that is not UTF-8.
        lines: Whether a .txt file is accepted, with a row a line.
    """
    checks.check_exists(path)
    checks.check_suffix(path, lines=lines)
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _read_parquet(path)
    file = text_file(path, encoding)
    match suffix:
        case ".csv":
            return _table(file, read_delimited(file, ","))
        case ".tsv":
            return _table(file, read_delimited(file, "\t"))
        case checks.LINES_SUFFIX:
            return _read_lines(file)
        case ".conll":
            return Table(read_conll(file), notes=file.notes, encoding=file.encoding)
        case _:
            return Table(_read_json(file), notes=file.notes, encoding=file.encoding)


def read_tsv(
    path: Path, *, encoding: str | None = None, no_header: Sequence[str] = (), pad_short: bool = False
) -> Table:
    """Read a tab-separated file of any extension, in which every quotation mark is text.

    Args:
        path: The file.
        encoding: Encoding of a file that is not UTF-8.
        no_header: As `read_as_it_stands` takes it.
        pad_short: As `read_as_it_stands` takes it.
    """
    checks.check_exists(path)
    file = text_file(path, encoding)
    return _table(file, read_as_it_stands(file, no_header=no_header, pad_short=pad_short))


def _read_lines(file: TextFile) -> Table:
    """The column "text": every line that is not blank is a row, as in the `datasets` loader "text"."""
    lines = [line.removesuffix("\n") for line in file.lines()]
    texts = [line for line in lines if line.strip()]
    num_blank = len(lines) - len(texts)
    blank_lines = f"; blank lines left out: {num_blank:,}" if num_blank else ""
    note = f"{file.path.name}: every line is a row{blank_lines}"
    return Table({"text": texts}, notes=(*file.notes, note), encoding=file.encoding)


def _table(file: TextFile, parsed: Parsed) -> Table:
    return Table(dict(parsed.columns), notes=(*file.notes, *parsed.notes), encoding=file.encoding)


def read_folder(folder: Path, *, encoding: str | None = None, lines: bool = False) -> dict[str, Table]:
    """Read every table file of a folder, or the data set that `datasets.save_to_disk` wrote there, by split name.

    Args:
        folder: The folder.
        encoding: Encoding of text files that are not UTF-8.
        lines: Whether .txt files are read too, with a row a line; otherwise they are ignored.
    """
    if (folder / "dataset_dict.json").exists() or (folder / "state.json").exists():
        return _read_saved(folder)
    tables: dict[str, Table] = {}
    suffixes = (*checks.TABLE_SUFFIXES, checks.LINES_SUFFIX) if lines else checks.TABLE_SUFFIXES
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in suffixes or path.name.startswith("."):
            continue
        name = path.stem.lower()
        if name in tables:
            raise DataError(
                f"{folder} has two files for the split {name!r}, one of them {path.name}. Keep one, or pass one file."
            )
        tables[name] = read_table(path, encoding=encoding, lines=lines)
    if not tables:
        for path in sorted(path for path in folder.iterdir() if path.suffix.lower() == checks.LINES_SUFFIX):
            checks.check_suffix(path)
        raise DataError(
            f"{folder} has no data files. Give a folder with files named train, validation and test "
            f"({', '.join(checks.TABLE_SUFFIXES)}), or one saved by datasets.save_to_disk."
        )
    return tables


def from_dataset(dataset: "datasets.Dataset") -> Table:
    """The columns of a `datasets.Dataset`, and the class names of its label columns."""
    import datasets

    arrow = dataset.with_format("arrow")[:]
    try:
        columns = {name: arrow.column(name).to_pylist() for name in arrow.column_names}
    except UnicodeDecodeError as error:
        raise DataError(f"A text is not UTF-8: {error}. Write the data again as UTF-8.") from error
    class_names: dict[str, tuple[str, ...]] = {}
    for name, feature in dataset.features.items():
        element = getattr(feature, "feature", feature)
        if isinstance(element, datasets.ClassLabel) and element.names:
            class_names[name] = tuple(element.names)
    return Table(columns=columns, class_names=class_names)


def _read_json(file: TextFile) -> dict[str, list[Any]]:
    # Both extensions are used for both forms, so the first line decides.
    first = next((line.lstrip() for line in file.lines("\n") if line.strip()), "")
    if first.startswith("["):
        try:
            records = json.loads(file.read())
        except (ValueError, RecursionError) as error:
            line = f", line {error.lineno:,}" if isinstance(error, json.JSONDecodeError) else ""
            raise DataError(f"{file.path}{line}: not JSON ({_complaint(error)}). Correct it.") from error
    else:
        lines = enumerate(file.lines("\n"), 1)
        records = [_json_line(file.path, number, line) for number, line in lines if line.strip()]
    for number, record in enumerate(records, 1):
        if not isinstance(record, dict):
            raise DataError(
                f"{file.path}, record {number:,}: {type(record).__name__} found, object expected. "
                'Write one object a row, such as {"text": "...", "label": "..."}.'
            )
    names = list(dict.fromkeys(name for record in records for name in record))
    return {name: [record.get(name) for record in records] for name in names}


def _json_line(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path}, line {number:,}: not JSON ({_complaint(error)}). Write one object a line, or a list of objects."
        ) from error


def _complaint(error: Exception) -> str:
    # Valid JSON may also hold numbers with more digits, or deeper lists, than Python reads.
    return error.msg if isinstance(error, json.JSONDecodeError) else first_line(error)


def _read_parquet(path: Path) -> Table:
    import datasets
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
        # As a Dataset, since class names are in the file's metadata, which only `datasets` reads.
        dataset = datasets.Dataset(datasets.table.InMemoryTable(table))
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}. Write the file again.") from error
    return from_dataset(dataset)


def _read_saved(folder: Path) -> dict[str, Table]:
    import datasets

    try:
        saved = datasets.load_from_disk(str(folder), keep_in_memory=True)
    except Exception as error:  # `datasets` raises many kinds of errors for a damaged folder
        raise DataError(
            f"{folder} looks saved by datasets.save_to_disk but cannot be loaded: {error}. Save it again."
        ) from error
    return tables_of(saved)


def tables_of(data: "datasets.Dataset | datasets.DatasetDict") -> dict[str, Table]:
    """Tables by split name; a data set without splits is one table called "train"."""
    if isinstance(data, Mapping):
        return {str(name): from_dataset(split) for name, split in data.items()}
    return {"train": from_dataset(data)}


def describe_columns(names: Sequence[str]) -> str:
    """Names of columns in one line, at most 20 of them."""
    shown = ", ".join(names[:20])
    return shown if len(names) <= 20 else f"{shown} and {len(names) - 20} more"
