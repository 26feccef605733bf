"""Tables as spreadsheets and other programs write them: read as they are meant, or refused."""

import csv
import io

import pandas
import pytest

from prunelora.data.load import load_task
from prunelora.data.settings import DataSettings
from prunelora.data.tables import read_table
from prunelora.errors import DataError

TEXTS = [
    'She said "yes", twice',
    "It\u2019s fine; really",
    "tabs\tand | bars",
    "two\nlines",
    "'Tis it",
    'all "quoted"',
] * 4
ROWS = [(f"{text} {n}", ("bad", "good")[n % 2]) for n, text in enumerate(TEXTS)]


@pytest.fixture
def table(tmp_path):
    def read(text, name="a.csv"):
        path = tmp_path / name
        path.write_bytes(text.encode())
        return read_table(path)

    return read


def written(rows, header=("text", "label"), **how) -> str:
    file = io.StringIO()
    csv.writer(file, **how).writerows([header, *rows])
    return file.getvalue()


def rows_of(table):
    return list(zip(table.columns["text"], table.columns["label"], strict=True))


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
@pytest.mark.parametrize("end", ["\r\n", "\n"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_what_the_csv_module_writes_is_read_back_with_any_separator(separator, quoting, end, name, table):
    read = table(written(ROWS, delimiter=separator, quoting=quoting, lineterminator=end), name)
    assert rows_of(read) == ROWS
    usual = {"a.csv": ",", "a.tsv": "\t"}[name]
    assert any("separated by" in note for note in read.notes) == (separator != usual)


@pytest.mark.parametrize("separator", [",", ";", "|"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_single_quotes_are_read_where_they_are_meant(separator, quoting, table):
    rows = [(f"It's {n}{separator} late", ("bad", "good")[n % 2]) for n in range(8)]
    read = table(written(rows, delimiter=separator, quoting=quoting, quotechar="'"))
    assert rows_of(read) == rows
    assert any("single quotes" in note for note in read.notes)


def test_apostrophes_are_text_where_some_texts_begin_with_them(table):
    rows = [("'quoted'", "bad"), ("'Tis late", "good"), ("plain", "bad")]
    assert rows_of(table("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))) == rows


@pytest.mark.parametrize("text", ["'it's late'", "'yes' and 'no'"])
def test_single_quotes_around_all_texts_are_text_where_they_cannot_be_those_of_cells(text, table):
    rows = [(f"'{n}: {text[1:]}", ("bad", "good")[n % 2]) for n in range(4)]
    read = table("text,label\n" + "".join(f"{row},{label}\n" for row, label in rows))
    assert rows_of(read) == rows
    assert read.notes == ()


def test_spaces_after_separators_are_text_where_quotation_marks_after_them_are_too(table):
    read = table('label, text\nbad, "So late" he said\ngood, fine\n')
    assert rows_of(read) == [(' "So late" he said', "bad"), (" fine", "good")]
    assert read.notes == ()


@pytest.mark.parametrize("header", ["text, label", "text,label"])
def test_spaces_behind_separators_belong_to_them(header, table):
    read = table(header + '\n"cold, late", "bad"\n"warm", "good"\n')
    assert rows_of(read) == [("cold, late", "bad"), ("warm", "good")]
    assert any("spaces after separators" in note for note in read.notes)


def test_quotation_marks_are_text_between_tabs_unless_a_writer_had_to_put_them(table):
    lines = 'text\tlabel\n"Hello," he said\tbad\n"All of it."\tgood\n'
    assert rows_of(table(lines, "a.tsv")) == [('"Hello," he said', "bad"), ('"All of it."', "good")]
    assert rows_of(table('text\tlabel\n"say ""hi"""\tbad\nplain\tgood\n', "a.tsv"))[0] == ('say "hi"', "bad")
    assert rows_of(table('text\tlabel\n"say ""hi"""\tbad\n"Mixed" in\tgood\n', "a.tsv"))[0][0] == '"say ""hi"""'


def test_a_text_full_of_commas_between_tabs_is_one_cell(table):
    rows = [(", ".join(["word"] * n), ("bad", "good")[n % 2]) for n in range(1, 9)]
    assert rows_of(table(written(rows, delimiter="\t"), "a.csv")) == rows


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_columns_without_a_name_are_left_out_with_a_note(separator, tmp_path):
    path = tmp_path / "a.csv"
    rows = [(f"text {n}", ("bad", "good")[n % 2]) for n in range(20)]
    pandas.DataFrame(rows, columns=["text", "label"]).to_csv(path, sep=separator)
    task = load_task(DataSettings(data=str(path)))
    assert "a.csv: column 1 has no name: left out" in task.notes
    assert task.columns == {"text": "text", "label": "label"}


def test_what_a_spreadsheet_leaves_around_a_table_is_left_out(table):
    read = table("text;label;;\nfine;good;;\nfoul;bad\n\n;;;\n".replace("foul;bad\n", "foul;bad;;\n"))
    assert rows_of(read) == [("fine", "good"), ("foul", "bad")]
    assert {note.partition(": ")[2] for note in read.notes} >= {
        "column 3 has no name and is empty: left out",
        "rows of empty cells left out: 1",
    }
    read = table("text,label\nfine,good,\nfoul,bad,,\n")
    assert rows_of(read) == [("fine", "good"), ("foul", "bad")]
    assert read.notes == ("a.csv: empty cells after the last column left out, in 2 rows",)
    assert rows_of(table("sep=;\ntext;label\nfine;good\n")) == [("fine", "good")]


def test_a_cell_too_many_that_holds_something_is_an_error(table):
    with pytest.raises(DataError, match=r"line 3: 3 cells, .* 2 columns"):
        table("text;label\nfine;good\nso;so;bad\n")


def test_two_separators_that_both_fit_are_an_error(table):
    with pytest.raises(DataError, match="commas and semicolons"):
        table("a,b;c\n1,2;3\n4,5;6\n")


def test_splits_of_a_folder_may_have_different_separators(tmp_path):
    for name, separator in (("train", ";"), ("validation", ","), ("test", "\t")):
        (tmp_path / f"{name}.csv").write_text(written(ROWS, delimiter=separator), encoding="utf-8-sig", newline="")
    task = load_task(DataSettings(data=str(tmp_path)))
    assert list(task.train["text"]) == list(task.validation["text"]) == list(task.test["text"]) == [t for t, _ in ROWS]
    assert "train.csv: columns are separated by semicolons" in task.notes


def test_a_byte_order_mark_that_stands_twice_is_not_part_of_a_name(table):
    assert list(table("\ufeff\ufefftext,label\na,b\n").columns) == ["text", "label"]


def test_a_file_of_one_column_is_a_table(table):
    assert table('text\n"a, b"\nc\n').columns == {"text": ["a, b", "c"]}


def test_the_limit_of_the_csv_module_is_as_before(table):
    limit = csv.field_size_limit()
    table(written(ROWS))
    with pytest.raises(DataError):
        table('text,label\n"a,b\n')
    assert csv.field_size_limit() == limit
