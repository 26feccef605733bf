"""Encodings: UTF-8 is read, every other one is named, and what an error recommends gives the right text."""

import json
import re

import pytest

from prunelora.data import text_files
from prunelora.data.load import load_task
from prunelora.data.settings import DataSettings
from prunelora.data.text_files import check_encoding, text_file
from prunelora.errors import DataError

GERMAN = [f"Für {n} € zu laut, “großartig” \u2013 sagt sie" for n in range(20)]
SAMPLES = {
    "cp1252": GERMAN,
    "mac_roman": ["It\u2019s naïve \u2013 “a café”"],
    "cp1250": ["Zażółć gęślą jaźń"],
    "cp1251": ["Очень хороший фильм"],
    "koi8_r": ["Очень хороший фильм"],
    "cp932": ["この映画は素晴らしい"],
    "gb18030": ["这部电影非常好看"],
    "cp949": ["이 영화는 정말 좋다"],
    "big5": ["這部電影非常好看"],
    "cp1253": ["Πολύ καλή ταινία"],
}
WIDE = ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]


def as_csv(texts) -> str:
    return "text,label\n" + "".join(f'"{text} {n}",{("bad", "good")[n % 2]}\n' for n, text in enumerate(texts * 20))


def as_lines(texts) -> str:
    rows = [{"text": f"{text} {n}", "label": ("bad", "good")[n % 2]} for n, text in enumerate(texts * 20)]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def as_conll(texts) -> str:
    return "".join(f"{word} {'A' if n % 2 else 'B'}\n" for text in texts for n, word in enumerate(text.split())) + "\n"


def load(path, **options):
    return load_task(DataSettings(data=str(path), validation_fraction=0.2, test_fraction=0.2, **options))


def texts_of(task):
    return {text for split in (task.train, task.validation, task.test) for text in split["text"]}


@pytest.mark.parametrize("encoding", [*SAMPLES, *WIDE])
@pytest.mark.parametrize("write", [as_csv, as_lines, as_conll], ids=["a.csv", "a.jsonl", "a.conll"])
def test_no_encoding_but_utf8_is_read_unnamed_and_the_advice_reads_what_was_written(write, encoding, tmp_path):
    text = write(SAMPLES.get(encoding, GERMAN))
    path = tmp_path / "data"
    path.write_bytes(text.encode(encoding))
    with pytest.raises(DataError) as refused:
        text_file(path)
    advised = re.findall(r"encoding='(\S+)'", str(refused.value))
    same_as = re.findall(r"the same with ([^)]*)", str(refused.value))
    assert text in [text_file(path, name).read() for name in advised]
    assert all(text_file(path, name).read() for names in same_as for name in names.split(", "))
    assert text_file(path, encoding).read() == text


@pytest.mark.parametrize(("name", "write"), [("a.csv", as_csv), ("a.jsonl", as_lines)])
def test_a_named_encoding_gives_the_same_task_as_utf8(name, write, tmp_path):
    path = tmp_path / name
    path.write_text(write(GERMAN), encoding="utf-8")
    reference = load(path)
    for encoding in ("cp1252", "utf-16"):
        path.write_text(write(GERMAN), encoding=encoding)
        task = load(path, encoding=encoding)
        assert task.fingerprint == reference.fingerprint
        assert f"{name}: read as {encoding}" in task.notes


def test_latin1_is_refused_where_it_would_leave_control_characters(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(as_csv(GERMAN), encoding="cp1252")
    with pytest.raises(DataError, match=r"line 2, .* U\+0080") as refused:
        load(path, encoding="latin-1")
    assert "encoding='cp1252'" in str(refused.value)


def test_text_that_was_damaged_before_is_read_with_a_warning(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(as_csv(GERMAN).encode("cp1252").decode("latin-1"), encoding="utf-8")
    assert any("warning: a.csv has 1,600 control characters" in note for note in load(path).notes)
    path.write_text(as_csv(GERMAN).replace("ü", "\ufffd"), encoding="utf-8")
    assert any("400 characters U+FFFD" in note for note in load(path).notes)


def test_files_of_a_folder_may_differ_and_one_that_is_utf8_stays_so(tmp_path):
    (tmp_path / "train.csv").write_text(as_csv(GERMAN), encoding="cp1252")
    (tmp_path / "validation.csv").write_text(as_csv(["schön"]), encoding="utf-8-sig")
    (tmp_path / "test.csv").write_text(as_csv(["noch schöner"]), encoding="utf-8")
    task = load(tmp_path, encoding="cp1252")
    assert task.validation[0]["text"] == "schön 0"
    assert task.test[0]["text"] == "noch schöner 0"
    assert "test.csv: UTF-8, not cp1252" in task.notes


def test_a_proven_encoding_is_not_overruled(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(as_csv(GERMAN), encoding="utf-16")
    with pytest.raises(DataError, match=r"encoding='cp1252': .* is UTF-16.* encoding='utf-16'"):
        load(path, encoding="cp1252")


def test_an_encoding_that_writes_all_letters_in_ascii_is_obeyed(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(as_csv(SAMPLES["cp932"]), encoding="iso2022_jp")
    assert "この映画は素晴らしい 0" in texts_of(load(path, encoding="iso2022_jp"))


def test_zero_bytes_in_a_text_are_an_error_with_the_line(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(as_csv(["good"]).encode() + b"a\0b,good\n")
    with pytest.raises(DataError, match=r"line 22: a zero byte"):
        load(path)


@pytest.mark.parametrize("chunk", [1, 2, 7])
def test_where_a_file_is_cut_into_chunks_changes_nothing(chunk, tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "_CHUNK", chunk)
    path = tmp_path / "a.csv"
    path.write_text("text,label\nschön,“gut”\n", encoding="utf-8")
    assert text_file(path).encoding == "utf-8"
    path.write_text("text,label\nsch\x93n\ufffd,\x85\x94gut\n", encoding="utf-8")
    assert [int(word) for note in text_file(path).notes for word in note.split() if word.isdigit()] == [2, 1]
    path.write_bytes(b"text,label\nsch\xc3\xb6n,1\ncaf\xe9,1\n")
    with pytest.raises(DataError, match="byte 0xe9 at byte offset 23"):
        text_file(path)
    path.write_bytes(b"text,label\nsch\xc3\xb6n \xc3")
    with pytest.raises(DataError, match="byte 0xc3 at byte offset 18"):
        text_file(path)


@pytest.mark.parametrize("name", ["windows-1252", "latin-1", "SHIFT_JIS", "1252"])
def test_encodings_have_the_names_that_python_knows(name):
    assert check_encoding(name) == name


@pytest.mark.parametrize("name", ["cp125", "rot13", "hex", ""])
def test_what_is_no_text_encoding_is_an_error(name):
    with pytest.raises(ValueError, match="no text encoding"):
        DataSettings(data="a.csv", encoding=name)


def test_an_encoding_of_what_is_no_text_file_is_an_error(tmp_path, minilm_path):
    with pytest.raises(DataError, match=r"encoding='cp1252': .* rotten-tomatoes"):
        load("rotten-tomatoes", encoding="cp1252")


def test_files_of_a_named_task_have_an_encoding_too(tmp_path):
    rows = "".join(f"{text}\t{n % 2}\n" for n, text in enumerate(GERMAN))
    (tmp_path / "train.tsv").write_text("sentence\tlabel\n" + rows, encoding="cp1252")
    (tmp_path / "dev.tsv").write_text("sentence\tlabel\n" + rows, encoding="cp1252")
    with pytest.raises(DataError, match="encoding='cp1252'"):
        load_task(DataSettings(task="sst2", data_dir=str(tmp_path)))
    task = load_task(DataSettings(task="sst2", data_dir=str(tmp_path), encoding="cp1252"))
    assert list(task.test["text"]) == GERMAN


@pytest.mark.parametrize("options", [{}, {"encoding": "cp1252"}, {"encoding": "gb18030"}])
def test_a_file_that_is_utf8_but_for_some_lines_is_refused_by_the_first_of_them(options, tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(as_csv(GERMAN).encode() + "kälter,bad\n".encode("cp1252"))
    with pytest.raises(DataError, match=r"UTF-8 except 1 of its 401 lines .* first line 402 "):
        load(path, **options)
    path.write_bytes(as_csv(GERMAN).encode()[:-1] + b"\xc3")
    with pytest.raises(DataError, match="UTF-8 except 1 of its 400 lines"):
        load(path, **options)


def test_a_file_with_few_lines_that_happen_to_be_utf8_is_read_as_it_is_named(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(as_csv(["für", "fÃ¼r", "Übel"]).encode("cp1252"))
    assert "fÃ¼r 1" in texts_of(load(path, encoding="cp1252"))
