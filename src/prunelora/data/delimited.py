"""Tables of separated cells: which separator and quotation marks a file has, and its columns.

A way to read a file counts only if every row of the whole file then has as many cells as its header names. The csv
module's strict mode makes a quote that never closes, or that closes within a cell, an error and not a guess.
"""

import contextlib
import csv
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from prunelora.data import checks
from prunelora.data.text_files import TextFile
from prunelora.errors import DataError

# A field longer than this is an unbalanced quote that swallowed the rest of the file, not a text.
LONGEST_FIELD = 10_000_000

_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
# The first line that spreadsheets read a separator from.
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\s*')

Columns = dict[str, list[str | None]]


@dataclass(frozen=True)
class Dialect:
    """How the cells of a row are written.

    Attributes:
        separator: What is between cells.
        quote: What a cell may stand in; None if quotation marks are text.
        skip_spaces: Whether spaces after a separator belong to it.
        skip_lines: Lines before the header.
    """

    separator: str
    quote: str | None = '"'
    skip_spaces: bool = False
    skip_lines: int = 0


@dataclass(frozen=True)
class Parsed:
    """Columns by name as a dialect reads them, and what is to be said about it."""

    columns: Columns
    notes: tuple[str, ...] = ()


def read_delimited(file: TextFile, usual: str) -> Parsed:
    """Read a file of separated cells in the one way in which it is a table.

    Separators are commas, semicolons, tabs or vertical bars, whichever the header has; cells may stand in double
    quotes, or in single quotes where double ones do not fit or all cells of a column stand in them; spaces belong to
    the separators before them if every separator of the header, or of the rows, is followed by one. Between tabs
    quotation marks are text, unless all that are there stand where a writer had to put some.

    Args:
        file: The file.
        usual: The separator that its extension stands for; no note is made of it.

    Raises:
        DataError: If it is no table in any way, or in several.
    """
    start = next(file.lines(newline=""), "")
    stated = _SEPARATOR_LINE.fullmatch(start)
    skipped = 1 if stated else 0
    separators = [stated[1]] if stated else _separators_of(file, usual)
    found: list[tuple[Dialect, Parsed]] = []
    failures: list[DataError] = []
    for separator in separators:
        try:
            found.append(_read_between(file, Dialect(separator, skip_lines=skipped)))
        except DataError as error:
            failures.append(error)
    if not found:
        raise failures[0]
    if len(found) > 1:
        names = " and ".join(_NAMES[dialect.separator] for dialect, _ in found)
        raise DataError(
            f"{file.path}: with {names} as separators every row has as many cells as the header, so which of them "
            "separates columns cannot be told. Rename the columns so that the header holds only one of them."
        )
    dialect, parsed = found[0]
    notes = []
    if dialect.separator != usual:
        notes.append(f"columns are separated by {_NAMES.get(dialect.separator, repr(dialect.separator))}")
    if dialect.quote == "'":
        notes.append("cells stand in single quotes")
    if dialect.separator == "\t" and dialect.quote:
        notes.append("cells stand in double quotes")
    if dialect.skip_spaces:
        notes.append("spaces after separators are left out")
    said = (f"{file.path.name}: {', '.join(notes)}",) if notes else ()
    return Parsed(parsed.columns, (*said, *parsed.notes))


def read_as_it_stands(file: TextFile, *, no_header: Sequence[str] = (), pad_short: bool = False) -> Parsed:
    """Read tab-separated cells in which every quotation mark is text.

    Args:
        file: The file.
        no_header: Names of the columns if the first line is no header: if it has so many cells and none of these names.
        pad_short: Whether missing cells at the end of a line are None. If not, they are an error.
    """
    rows = _rows(file, Dialect("\t", quote=None))
    line, header = next(rows, (0, []))
    if len(header) == len(no_header) and not set(header) & set(no_header):
        rows = itertools.chain([(line, header)], rows)
        header = list(no_header)
    return _columns(file, header, rows, pad_short=pad_short)


def _separators_of(file: TextFile, usual: str) -> list[str]:
    """Separators that give the header more than one name, the usual one first; that alone if there are none."""
    order = sorted(_NAMES, key=lambda separator: separator != usual)
    found = []
    for separator in order:
        try:
            _, header = next(_rows(file, Dialect(separator)), (0, []))
        except DataError:
            continue
        if len(header) > 1:
            found.append(separator)
    return found or [usual]


def _read_between(file: TextFile, plain: Dialect) -> tuple[Dialect, Parsed]:
    """Read a file by the quotation marks and spaces that fit it, given its separator."""
    if plain.separator == "\t":
        return _read_between_tabs(file, plain)
    try:
        if _spaces_follow(file, plain):
            plain = replace(plain, skip_spaces=True)
        parsed = _parse(file, plain)
    except DataError as error:
        for other in (
            replace(plain, skip_spaces=not plain.skip_spaces),
            replace(plain, quote="'"),
            replace(plain, quote="'", skip_spaces=not plain.skip_spaces),
        ):
            try:
                parsed = _parse(file, other)
            except DataError:
                continue
            # Between single quotes, double ones at the start of a cell are those that do not fit.
            if other.quote == '"' or not any(cell.startswith('"') for cell in _full_cells(parsed)):
                return other, parsed
        raise error
    if any(_all_quoted(cells, "'") for cells in parsed.columns.values()):
        single = replace(plain, quote="'")
        with contextlib.suppress(DataError):  # 'It's good': these are text.
            return single, _parse(file, single)
    return plain, parsed


def _read_between_tabs(file: TextFile, plain: Dialect) -> tuple[Dialect, Parsed]:
    quoted, bare = plain, replace(plain, quote=None)
    try:
        as_it_stands = _parse(file, bare)
    except DataError:
        return quoted, _parse(file, quoted)
    # A writer puts quotes around cells that hold some, and doubles those; or around all cells.
    quotes = [cell for cell in _full_cells(as_it_stands) if cell.startswith('"')]
    around_some = bool(quotes) and all(_is_written_quoted(cell) for cell in quotes)
    around_all = all(_all_quoted(column, '"') for column in as_it_stands.columns.values())
    if not around_some and not around_all:
        return bare, as_it_stands
    try:
        return quoted, _parse(file, quoted)
    except DataError:
        return bare, as_it_stands


def _spaces_follow(file: TextFile, dialect: Dialect) -> bool:
    """Whether a space follows every separator of the header, or of all rows below it."""
    rows = _rows(file, dialect)
    _, header = next(rows, (0, []))
    if len(header) > 1 and all(name.startswith(" ") for name in header[1:]):
        return True
    later = [all(cell.startswith(" ") for cell in row[1:]) for _, row in itertools.islice(rows, 100)]
    return len(header) > 1 and bool(later) and all(later)


def _all_quoted(cells: Sequence[str | None], quote: str) -> bool:
    """Whether all cells of a column that hold something stand in quotation marks, and at least two are different."""
    # Most columns end at their first cell; only others are gone through a second time.
    quoted = all(len(cell) > 1 and cell[0] == cell[-1] == quote for cell in cells if cell)
    return quoted and len({cell for cell in cells if cell}) > 1


def _is_written_quoted(cell: str) -> bool:
    """Whether a cell reads as a writer puts it that quotes only where it must: "say ""hi"" to them"."""
    inner = cell[1:-1]
    return len(cell) > 1 and cell[-1] == '"' and '""' in inner and '"' not in inner.replace('""', "")


def _full_cells(parsed: Parsed) -> Iterator[str]:
    return (cell for column in parsed.columns.values() for cell in column if cell)


def _parse(file: TextFile, dialect: Dialect) -> Parsed:
    rows = _rows(file, dialect)
    _, header = next(rows, (0, []))
    return _columns(file, header, rows, spreadsheet=True)


def _columns(
    file: TextFile,
    header: Sequence[str],
    rows: Iterator[tuple[int, list[str]]],
    *,
    pad_short: bool = False,
    spreadsheet: bool = False,
) -> Parsed:
    """Columns of rows under their header.

    Args:
        file: Where they are from, for errors.
        header: Names of the columns.
        rows: Number of its last line, and cells, of every row.
        pad_short: Whether missing cells at the end of a row are None.
        spreadsheet: Whether what a spreadsheet leaves around a table is passed over: columns without a name, rows and
            ends of rows without anything.
    """
    path = file.path
    checks.check_has_rows(len(header), where=str(path))
    names = [name.strip().strip("\ufeff") for name in header] if spreadsheet else list(header)
    unnamed = [place for place, name in enumerate(names) if not name.strip()] if spreadsheet else []
    named = [place for place in range(len(names)) if place not in unnamed]
    if len({names[place] for place in named}) != len(named) or not all(names[place].strip() for place in named):
        raise DataError(
            f"{path}: the first line must name every column once, and reads {', '.join(map(repr, header))}. "
            "Add a header line with distinct names."
        )
    checks.check_has_rows(len(named), where=str(path))
    cells: list[list[str | None]] = [[] for _ in names]
    empty = longer = 0
    for line, row in rows:
        if len(row) != len(names):
            if pad_short and len(row) < len(names):
                row = [*row, *[None] * (len(names) - len(row))]  # type: ignore[list-item]
            elif spreadsheet and len(row) > len(names) and not any(cell.strip() for cell in row[len(names) :]):
                row, longer = row[: len(names)], longer + 1
            else:
                raise DataError(
                    f"{path}, line {line:,}: {len(row)} cells, but the header names {len(names)} columns "
                    f"({', '.join(name or 'without a name' for name in names)}). Check the separators and the "
                    "quotation marks of this line."
                )
        if spreadsheet and len(row) > 1 and not any(cell.strip() for cell in row):
            empty += 1
            continue
        for column, cell in zip(cells, row, strict=True):
            column.append(cell)
    notes = [
        f"{path.name}: column {place + 1} has no name{'' if any(cells[place]) else ' and is empty'}: left out"
        for place in unnamed
    ]
    if empty:
        notes.append(f"{path.name}: rows of empty cells left out: {empty:,}")
    if longer:
        notes.append(f"{path.name}: empty cells after the last column left out, in {longer:,} rows")
    return Parsed({names[place]: cells[place] for place in named}, tuple(notes))


def _rows(file: TextFile, dialect: Dialect) -> Iterator[tuple[int, list[str]]]:
    """The number of its last line, and the cells, of every row that is no blank line."""
    # The limit is global to the csv module: it is put back, so that other users of the module see no change.
    usual = csv.field_size_limit(LONGEST_FIELD)
    lines = itertools.islice(file.lines(newline=""), dialect.skip_lines, None)
    reader = csv.reader(
        lines,
        delimiter=dialect.separator,
        quoting=csv.QUOTE_NONE if dialect.quote is None else csv.QUOTE_MINIMAL,
        quotechar=dialect.quote or '"',
        skipinitialspace=dialect.skip_spaces,
        strict=True,
    )
    try:
        for row in reader:
            if row:
                yield reader.line_num + dialect.skip_lines, row
    except csv.Error as error:
        hint = ' A quotation mark within a cell is doubled: "", not \\".' if dialect.quote == '"' else ""
        raise DataError(
            f"{file.path}, line {reader.line_num + dialect.skip_lines:,}: {error}. Check the quotation marks up to "
            f"this line.{hint}"
        ) from error
    finally:
        csv.field_size_limit(usual)
