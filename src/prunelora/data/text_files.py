"""Text files: which encoding they have, and their lines.

Only UTF-8 is read without being named. UTF-16 and UTF-32 prove what they are, and the error says their name. All other
encodings cannot be told apart for certain: on 34 pairs of language and encoding, 300 rows each, charset-normalizer 3.5
reads 31 % wrong and chardet 7.7 21 %, above all among cp1250, cp1252, cp1254 and cp1257, and a wrong one changes
letters without a word. The error about such a file shows what the frequent ones give.
"""

import codecs
import itertools
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prunelora.errors import DataError, advice, option

# UTF-32 first: its little-endian mark begins with that of UTF-16.
_MARKED_UTF8 = "utf-8-sig"
_MARKS = (
    (codecs.BOM_UTF8, _MARKED_UTF8),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_UNICODE = ("utf-8", "utf-16", "utf-32")
_WIDE = ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be")
_CHUNK = 1 << 20

# What a person is asked to choose from, the most frequent first.
_CANDIDATES = (
    "cp1252", "cp1250", "cp1251", "cp1254", "cp1257", "cp1253", "cp1255", "cp1256", "cp1258", "cp932", "gb18030",
    "big5", "cp949", "euc_jp", "koi8_r", "mac_roman", "cp850",
)  # fmt: skip
_MOST_READINGS = 4
_SHOWN_CHARACTERS = 60

# U+0080 to U+009F stand for nothing in a text: they are letters or quotation marks of another encoding, misread. In
# UTF-8, U+0085 is a line separator.
_CONTROLS = re.compile("[\x80-\x9f]")
_CONTROLS_OF_UTF8 = re.compile(b"\xc2[\x80-\x84\x86-\x9f]")
_LOST = "\ufffd"


@dataclass(frozen=True)
class TextFile:
    """A file and the encoding that all of it was decoded with once.

    Attributes:
        path: The file.
        encoding: Python's name of the encoding.
        notes: What is unusual about it.
    """

    path: Path
    encoding: str
    notes: tuple[str, ...] = ()

    def lines(self, newline: str | None = None) -> Iterator[str]:
        """Lines with their ends; `newline` as `open` takes it."""
        with self.path.open(encoding=self.encoding, newline=newline) as file:
            yield from file

    def read(self) -> str:
        """The whole text, line ends as they are."""
        with self.path.open(encoding=self.encoding, newline="") as file:
            return file.read()


def text_file(path: Path, encoding: str | None = None) -> TextFile:
    """Identify the encoding of a text file: UTF-8, or the one that is named.

    Args:
        path: The file.
        encoding: What it is if it is not UTF-8. A file that proves to be UTF-8 is read as such all the same, so that
            the files of a folder may differ.

    Raises:
        DataError: If the file is not UTF-8 and its encoding was not named, or another one was; or if most of it is
            UTF-8 and the rest is not.
    """
    with path.open("rb") as file:
        start = file.read(4)
    marked = next((name for mark, name in _MARKS if start.startswith(mark)), None)
    if marked is not None and marked != _MARKED_UTF8:
        return _wide_file(path, encoding, marked, "by its byte order mark")
    scan = _scan_utf8(path)
    if scan.has_nul:
        return _wide_file(path, encoding, _wide_encoding(path), "by its zero bytes")
    if scan.bad_byte is None and (marked or not scan.is_ascii or encoding is None or _family(encoding) in _UNICODE):
        return TextFile(path, marked or "utf-8", tuple(_notes_on_utf8(path, scan, encoding)))
    if scan.bad_byte is not None:
        _check_not_mixed(path, scan.bad_byte)
    if encoding is None or _family(encoding) in _UNICODE:
        raise _not_utf8(path, scan.bad_byte or 0)
    # ASCII too: some encodings write all letters in it.
    _decode_all(path, encoding, option("encoding", encoding))
    return TextFile(path, encoding, () if scan.is_ascii else (f"{path.name}: read as {encoding}",))


def _wide_file(path: Path, encoding: str | None, found: str, why: str) -> TextFile:
    if encoding is None or _family(encoding) != _family(found):
        asked = "" if encoding is None else f"{option('encoding', encoding)}: "
        raise DataError(
            f"{asked}{path} is {found.upper()}, {why}. Say {advice('encoding', found)}, or write the file again as "
            "UTF-8."
        )
    _decode_all(path, found, option("encoding", encoding))
    return TextFile(path, found, (f"{path.name}: read as {found}",))


def _notes_on_utf8(path: Path, scan: "_Scan", encoding: str | None) -> Iterator[str]:
    if encoding is not None and not scan.is_ascii and _family(encoding) != "utf-8":
        yield f"{path.name}: UTF-8, not {encoding}"
    if scan.controls:
        yield (
            f"warning: {path.name} has {scan.controls:,} control characters (U+0080 to U+009F): it was probably "
            f"written as cp1252 and converted as Latin-1. Give the original with {advice('encoding', 'cp1252')}"
        )
    if scan.lost:
        yield f"warning: {path.name} has {scan.lost:,} characters U+FFFD, which stand for characters lost before"


def _family(encoding: str) -> str:
    """Name of an encoding without the order of its bytes or its mark: utf-16 for UTF-16LE."""
    name = codecs.lookup(encoding).name
    return next((unicode for unicode in _UNICODE if name.startswith(unicode)), name)


def check_encoding(name: str) -> str:
    """Refuse a name that Python has no text encoding of.

    Raises:
        ValueError: If there is none.
    """
    try:
        "".encode(name)
    except (LookupError, ValueError) as error:
        raise ValueError(
            "Python has no text encoding of this name. Give one such as cp1252, cp1251, gb18030 or shift_jis"
        ) from error
    return name


@dataclass(frozen=True)
class _Scan:
    """What reading a whole file as UTF-8 finds.

    Attributes:
        has_nul: Whether there is a zero byte; nothing after it was looked at.
        bad_byte: Offset of the first byte that is not UTF-8.
        is_ascii: Whether all bytes are.
        controls: Number of control characters.
        lost: Number of replacement characters.
    """

    has_nul: bool = False
    bad_byte: int | None = None
    is_ascii: bool = True
    controls: int = 0
    lost: int = 0


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk
    yield b""  # The end, for decoders.


def _scan_utf8(path: Path) -> _Scan:
    decoder = codecs.getincrementaldecoder("utf-8")()
    is_ascii, controls, lost, offset, last = True, 0, 0, 0, b""
    for chunk in _chunks(path):
        if b"\0" in chunk:
            return _Scan(has_nul=True)
        kept = len(decoder.getstate()[0])
        is_ascii = is_ascii and chunk.isascii()
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            if b"\0" in path.read_bytes():
                return _Scan(has_nul=True)
            return _Scan(bad_byte=offset - kept + error.start, is_ascii=False)
        if not chunk.isascii():
            controls += len(_CONTROLS_OF_UTF8.findall(last + chunk))
            lost += text.count(_LOST)
        offset += len(chunk)
        last = chunk[-1:]
    return _Scan(is_ascii=is_ascii, controls=controls, lost=lost)


def _check_not_mixed(path: Path, offset: int) -> None:
    """Refuse a file of which most lines beyond ASCII are UTF-8: in any other encoding these would change."""
    beyond, broken = 0, []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.isascii():
                beyond += 1
                try:
                    line.decode("utf-8")
                except UnicodeDecodeError:
                    broken.append(number)
    if 2 * len(broken) < beyond:
        raise DataError(
            f"{path} is UTF-8 but for {len(broken):,} of its {beyond:,} lines beyond ASCII, first line {broken[0]:,} "
            f"(at byte offset {offset:,}): it was put together from files of several encodings, or is damaged. Correct "
            "or remove these lines."
        )


def _wide_encoding(path: Path) -> str:
    """UTF-16 or UTF-32 without a byte order mark: the one in which the file has lines and no zero characters."""
    raw = path.read_bytes()
    found = []
    for name in _WIDE:
        try:
            text = raw.decode(name)
        except UnicodeDecodeError:
            continue
        # Read with the bytes of each character exchanged, a line end is U+0A00.
        if "\0" not in text and ("\n" in text or "\r" in text):
            found.append(name)
    if len(found) != 1:
        line = raw[: raw.index(b"\0")].count(b"\n") + 1
        raise DataError(
            f"{path}, line {line:,}: a zero byte (at byte offset {raw.index(0):,}), and the file is neither UTF-16 nor "
            "UTF-32: it is damaged, or no text. Write it again as UTF-8."
        )
    return found[0]


def _decode_all(path: Path, encoding: str, asked: str) -> None:
    """Refuse a file that has bytes which an encoding does not have, or that has control characters in it."""
    decoder = codecs.getincrementaldecoder(encoding)()
    offset, line = 0, 1
    for chunk in _chunks(path):
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            raise DataError(
                f"{asked}: {path} has byte 0x{error.object[error.start]:02x} near byte offset {offset + error.start:,}"
                f", which cannot be read so ({error.reason}). Give its real encoding, or write the file again as UTF-8."
            ) from error
        strange = _CONTROLS.search(text)
        if strange:
            raise DataError(
                f"{asked}: {path}, line {line + text[: strange.start()].count(chr(10)):,}, has the control character "
                f"U+{ord(strange[0]):04X} then, so that is not its encoding. {_readings(path)}"
            )
        offset += len(chunk)
        line += text.count("\n")


# What a person is told of a file whose encoding must be named ---------------------------------------------------------


def _not_utf8(path: Path, offset: int) -> DataError:
    with path.open("rb") as file:
        file.seek(offset)
        byte = file.read(1)[0]
    return DataError(
        f"{path} is not UTF-8: byte 0x{byte:02x} at byte offset {offset:,}. Which encoding it has cannot be told for "
        f"certain. {_readings(path)}"
    )


def _readings(path: Path) -> str:
    """How the encodings that can read a whole file read one line of it, the most plausible first."""
    raw = path.read_bytes()
    found: dict[str, list[str]] = {}
    for name in _CANDIDATES:
        try:
            text = raw.decode(name)
        except UnicodeDecodeError:
            continue
        if not _CONTROLS.search(text):
            found.setdefault(text, []).append(name)
    best = sorted(found, key=_oddness)[:_MOST_READINGS]
    if not best:
        return f"Write the file again as UTF-8, or name its encoding with {advice('encoding')}."
    lines = [text.splitlines() for text in best]
    # The line in which most of the readings differ.
    rows = range(min(map(len, lines)))
    chosen = max(rows, key=lambda row: len({each[row] for each in lines}) - all(each[row].isascii() for each in lines))
    shown = "\n".join(
        f"  {advice('encoding', found[text][0])}{_also(found[text][1:])}: {_excerpt(each[chosen])}"
        for text, each in zip(best, lines, strict=True)
    )
    return (
        f"Line {chosen + 1:,} reads\n{shown}\nGive the one that reads right, or another that Python knows, or write "
        "the file again as UTF-8."
    )


def _also(names: list[str]) -> str:
    return f" (the same with {', '.join(names)})" if names else ""


def _excerpt(line: str) -> str:
    first = next((place for place, letter in enumerate(line) if not letter.isascii()), 0)
    start = max(0, first - _SHOWN_CHARACTERS // 3)
    return line[start : start + _SHOWN_CHARACTERS]


def _oddness(text: str) -> float:
    """Share of the words beyond ASCII that no language writes so: two scripts, symbols, capitals after small letters.

    It orders readings and decides nothing.
    """
    words = [word for word in re.findall(r"\S+", text[:200_000]) if not word.isascii()]
    return sum(map(_is_odd, words)) / max(1, len(words))


def _is_odd(word: str) -> bool:
    scripts = {_script(letter) for letter in word if letter.isalpha()}
    symbols = any(unicodedata.category(letter) in ("Sm", "Sk", "So", "Cn", "Co", "Lm", "No") for letter in word)
    return symbols or len(scripts) > 1 or re.search(r"[^\W\d_]", word) is None or _has_inner_capital(word)


def _has_inner_capital(word: str) -> bool:
    return any(first.islower() and second.isupper() for first, second in itertools.pairwise(word))


def _script(letter: str) -> str:
    # "LATIN SMALL LETTER A" -> LATIN; the scripts that Japanese mixes are one.
    script = unicodedata.name(letter, "UNKNOWN").split()[0]
    return "CJK" if script in ("HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "HALFWIDTH", "FULLWIDTH") else script
