"""Tables of separated cells: detection of the separator and the quotation marks of a file, and its columns.

A dialect fits a file only if every row of the whole file has as many cells as the header. The csv module's strict mode
raises an error for a quote that never closes, or that closes within a cell.
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

# A longer field is an unbalanced quote that swallowed the rest of the file, and no text.
LONGEST_FIELD = 10_000_000

_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
# A first line in which spreadsheets state the separator.
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\s*')

Columns = dict[str, list[str | None]]


@dataclass(frozen=True)
class Dialect:
    """Notation of the cells of a row.

    Attributes:
        separator: Character between cells.
        quote: Quotation mark around cells; None if quotation marks are text.
        skip_spaces: Whether spaces after a separator belong to it.
        skip_lines: Lines before the header.
    """

    separator: str
    quote: str | None = '"'
    skip_spaces: bool = False
    skip_lines: int = 0


@dataclass(frozen=True)
class Parsed:
    """Columns by name as a dialect reads them, and notes for the user."""

    columns: Columns
    notes: tuple[str, ...] = ()


def read_delimited(file: TextFile, usual: str) -> Parsed:
    """Read a file of separated cells in the only dialect that fits it.

    The separator is a comma, semicolon, tab or vertical bar that the header has. Cells may be in double quotes, or in
    single quotes if double quotes do not fit or a column has all its cells in single quotes. Spaces belong to the
    separator before them if a space follows every separator of the header, or of the rows. Between tabs, quotation
    marks are text unless all of them are where a writer must put them.

    Args:
        file: The file.
        usual: The separator of its extension; other separators give a note.

    Raises:
        DataError: If no dialect fits, or several separators do.
    """
    start = next(file.lines(newline=""), "")
    stated = _SEPARATOR_LINE.fullmatch(start)
    skipped = 1 if stated else 0
    separators = [stated[1]] if stated else _separators_of(file, usual)
    readings: list[tuple[Dialect, Parsed]] = []
    failures: list[DataError] = []
    for separator in separators:
        try:
            readings.append(_read_between(file, Dialect(separator, skip_lines=skipped)))
        except DataError as error:
            failures.append(error)
    if not readings:
        raise failures[0]
    if len(readings) > 1:
        names = " and ".join(_NAMES[dialect.separator] for dialect, _ in readings)
        raise DataError(
            f"{file.path}: with {names} as separators every row has as many cells as the header, so the separator of "
            "columns is ambiguous. Rename the columns so that the header holds only one of them."
        )
    dialect, parsed = readings[0]
    notes = []
    if dialect.separator != usual:
        notes.append(f"columns are separated by {_NAMES.get(dialect.separator, repr(dialect.separator))}")
    if dialect.quote == "'":
        notes.append("cells are in single quotes")
    if dialect.separator == "\t" and dialect.quote:
        notes.append("cells are in double quotes")
    if dialect.skip_spaces:
        notes.append("spaces after separators are left out")
    dialect_note = (f"{file.path.name}: {', '.join(notes)}",) if notes else ()
    return Parsed(parsed.columns, (*dialect_note, *parsed.notes))


def read_as_it_stands(file: TextFile, *, no_header: Sequence[str] = (), pad_short: bool = False) -> Parsed:
    """Read tab-separated cells in which every quotation mark is text.

    Args:
        file: The file.
        no_header: Names of the columns for a first line that is no header: one with as many cells and none of them.
        pad_short: Whether missing cells at the end of a line are None; otherwise they are an error.
    """
    rows = _rows(file, Dialect("\t", quote=None))
    line, header = next(rows, (0, []))
    if len(header) == len(no_header) and not set(header) & set(no_header):
        rows = itertools.chain([(line, header)], rows)
        header = list(no_header)
    return _columns(file, header, rows, pad_short=pad_short)


def _separators_of(file: TextFile, usual: str) -> list[str]:
    """Separators that give the header more than one name, the usual one first; [usual] if there are none."""
    separators = []
    for separator in sorted(_NAMES, key=lambda separator: separator != usual):
        with contextlib.suppress(DataError):
            _, header = next(_rows(file, Dialect(separator)), (0, []))
            if len(header) > 1:
                separators.append(separator)
    return separators or [usual]


def _read_between(file: TextFile, plain: Dialect) -> tuple[Dialect, Parsed]:
    """Read a file with a given separator, in the quotation marks and spaces that fit it."""
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
            # With single quotes, a cell that begins with a double quote does not fit.
            if other.quote == '"' or not any(cell.startswith('"') for cell in _full_cells(parsed)):
                return other, parsed
        raise error
    if any(_all_quoted(cells, "'") for cells in parsed.columns.values()):
        single = replace(plain, quote="'")
        with contextlib.suppress(DataError):  # 'It's good': the quotes are text.
            return single, _parse(file, single)
    return plain, parsed


def _read_between_tabs(file: TextFile, plain: Dialect) -> tuple[Dialect, Parsed]:
    quoted, bare = plain, replace(plain, quote=None)
    try:
        as_it_stands = _parse(file, bare)
    except DataError:
        return quoted, _parse(file, quoted)
    # A writer puts quotes around cells that hold quotes, which it doubles; or around all cells.
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
    """Whether all non-empty cells of a column are in quotation marks, and at least two are different."""
    # `all` stops at the first cell of most columns; the set is built only for the others.
    quoted = all(len(cell) > 1 and cell[0] == cell[-1] == quote for cell in cells if cell)
    return quoted and len({cell for cell in cells if cell}) > 1


def _is_written_quoted(cell: str) -> bool:
    """Whether a cell has the form of a writer that quotes only where it must: "say ""hi"" to them"."""
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
        file: The file, for errors.
        header: Names of the columns.
        rows: Number of its last line, and cells, of every row.
        pad_short: Whether missing cells at the end of a row are None.
        spreadsheet: Whether leftovers of a spreadsheet are ignored: unnamed columns, empty rows and empty ends of rows.
    """
    path = file.path
    checks.check_has_rows(len(header), where=str(path))
    names = [name.strip().strip("\ufeff") for name in header] if spreadsheet else list(header)
    unnamed = [place for place, name in enumerate(names) if not name.strip()] if spreadsheet else []
    named = [place for place in range(len(names)) if place not in unnamed]
    if len({names[place] for place in named}) != len(named) or not all(names[place].strip() for place in named):
        raise DataError(
            f"{path}: the first line must name every column once, but is {', '.join(map(repr, header))}. "
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
    """The number of its last line, and the cells, of every row that is not blank."""
    # The limit is global to the csv module, and is restored for its other users.
    previous_limit = csv.field_size_limit(LONGEST_FIELD)
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
        csv.field_size_limit(previous_limit)
