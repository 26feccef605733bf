"""Text files: their encoding and their lines.

Only UTF-8 is read without being named. UTF-16 and UTF-32 are recognised with certainty, and the error names them. Other
encodings cannot be distinguished with certainty: on 34 pairs of language and encoding, 300 rows each,
charset-normalizer 3.5 reads 31 % wrong and chardet 7.7 21 %, mostly among cp1250, cp1252, cp1254 and cp1257, and a
wrong encoding changes letters silently. The error about such a file shows its text in the frequent encodings.
"""

import codecs
import itertools
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prunelora.errors import DataError, advice, option

# UTF-32 first: its little-endian mark begins with the mark of UTF-16.
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

# Encodings that the error offers, the most frequent first.
_CANDIDATES = (
    "cp1252", "cp1250", "cp1251", "cp1254", "cp1257", "cp1253", "cp1255", "cp1256", "cp1258", "cp932", "gb18030",
    "big5", "cp949", "euc_jp", "koi8_r", "mac_roman", "cp850",
)  # fmt: skip
_MOST_READINGS = 4
_SHOWN_CHARACTERS = 60

# U+0080 to U+009F in a text are misread letters or quotation marks of another encoding. In UTF-8, U+0085 is a line
# separator.
_CONTROLS = re.compile("[\x80-\x9f]")
_CONTROLS_OF_UTF8 = re.compile(b"\xc2[\x80-\x84\x86-\x9f]")
_LOST = "\ufffd"


@dataclass(frozen=True)
class TextFile:
    """A file, and an encoding that decodes all of it.

    Attributes:
        path: The file.
        encoding: Python's name of the encoding.
        notes: Unusual properties of the file.
    """

    path: Path
    encoding: str
    notes: tuple[str, ...] = ()

    def lines(self, newline: str | None = None) -> Iterator[str]:
        """Lines with their line ends; `newline` as in `open`."""
        with self.path.open(encoding=self.encoding, newline=newline) as file:
            yield from file

    def read(self) -> str:
        """The whole text, line ends unchanged."""
        with self.path.open(encoding=self.encoding, newline="") as file:
            return file.read()


def text_file(path: Path, encoding: str | None = None) -> TextFile:
    """Identify the encoding of a text file: UTF-8, or the named encoding.

    Args:
        path: The file.
        encoding: Encoding of a file that is not UTF-8. A UTF-8 file is still read as UTF-8, so that the files of a
            folder may differ.

    Raises:
        DataError: If the file is not UTF-8 and no encoding, or a wrong encoding, was named; or if only most of it is
            UTF-8.
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
    # ASCII files too: some encodings write all letters in ASCII.
    _decode_all(path, encoding, option("encoding", encoding))
    return TextFile(path, encoding, () if scan.is_ascii else (f"{path.name}: read as {encoding}",))


def _wide_file(path: Path, encoding: str | None, actual: str, evidence: str) -> TextFile:
    if encoding is None or _family(encoding) != _family(actual):
        asked = "" if encoding is None else f"{option('encoding', encoding)}: "
        raise DataError(
            f"{asked}{path} is {actual.upper()}, {evidence}. Give {advice('encoding', actual)}, or write the file "
            "again as UTF-8."
        )
    _decode_all(path, actual, option("encoding", encoding))
    return TextFile(path, actual, (f"{path.name}: read as {actual}",))


def _notes_on_utf8(path: Path, scan: "_Scan", encoding: str | None) -> Iterator[str]:
    if encoding is not None and not scan.is_ascii and _family(encoding) != "utf-8":
        yield f"{path.name}: UTF-8, not {encoding}"
    if scan.controls:
        yield (
            f"warning: {path.name} has {scan.controls:,} control characters (U+0080 to U+009F): it was probably "
            f"written as cp1252 and converted as Latin-1. Give the original with {advice('encoding', 'cp1252')}"
        )
    if scan.lost:
        yield f"warning: {path.name} has {scan.lost:,} characters U+FFFD, which replace lost characters"


def _family(encoding: str) -> str:
    """Name of an encoding without its byte order or mark: utf-16 for UTF-16LE."""
    name = codecs.lookup(encoding).name
    return next((unicode for unicode in _UNICODE if name.startswith(unicode)), name)


def check_encoding(name: str) -> str:
    """Return the name of a text encoding.

    Raises:
        ValueError: If Python has no text encoding of this name.
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
    """Findings of reading a whole file as UTF-8.

    Attributes:
        has_nul: Whether there is a zero byte; the scan ends at the first.
        bad_byte: Offset of the first byte that is not UTF-8.
        is_ascii: Whether all bytes are ASCII.
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
    """Raises DataError if most lines with non-ASCII bytes are UTF-8: another encoding would change these."""
    non_ascii, broken = 0, []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.isascii():
                non_ascii += 1
                try:
                    line.decode("utf-8")
                except UnicodeDecodeError:
                    broken.append(number)
    if 2 * len(broken) < non_ascii:
        raise DataError(
            f"{path} is UTF-8 except {len(broken):,} of its {non_ascii:,} lines beyond ASCII, first line "
            f"{broken[0]:,} (at byte offset {offset:,}). It was joined from files of several encodings, or is damaged. "
            "Correct or remove these lines."
        )


def _wide_encoding(path: Path) -> str:
    """The UTF-16 or UTF-32 encoding, without a mark, in which the file has lines and no zero characters."""
    raw = path.read_bytes()
    fitting = []
    for name in _WIDE:
        try:
            text = raw.decode(name)
        except UnicodeDecodeError:
            continue
        # In the wrong byte order a line end is U+0A00.
        if "\0" not in text and ("\n" in text or "\r" in text):
            fitting.append(name)
    if len(fitting) != 1:
        line = raw[: raw.index(b"\0")].count(b"\n") + 1
        raise DataError(
            f"{path}, line {line:,}: a zero byte (at byte offset {raw.index(0):,}), and the file is neither UTF-16 nor "
            "UTF-32: it is damaged, or no text. Write it again as UTF-8."
        )
    return fitting[0]


def _decode_all(path: Path, encoding: str, asked: str) -> None:
    """Raises DataError if an encoding cannot decode a file, or decodes it into control characters."""
    decoder = codecs.getincrementaldecoder(encoding)()
    offset, line = 0, 1
    for chunk in _chunks(path):
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            raise DataError(
                f"{asked}: {path} has byte 0x{error.object[error.start]:02x} near byte offset {offset + error.start:,},"
                f" which it cannot decode ({error.reason}). Give its real encoding, or write the file again as UTF-8."
            ) from error
        control = _CONTROLS.search(text)
        if control:
            raise DataError(
                f"{asked}: {path}, line {line + text[: control.start()].count(chr(10)):,}, has the control character "
                f"U+{ord(control[0]):04X} then, so this is not its encoding. {_readings(path)}"
            )
        offset += len(chunk)
        line += text.count("\n")


# Errors about a file whose encoding must be named ---------------------------------------------------------------------


def _not_utf8(path: Path, offset: int) -> DataError:
    with path.open("rb") as file:
        file.seek(offset)
        byte = file.read(1)[0]
    return DataError(
        f"{path} is not UTF-8: byte 0x{byte:02x} at byte offset {offset:,}. Its encoding cannot be detected with "
        f"certainty. {_readings(path)}"
    )


def _readings(path: Path) -> str:
    """One line of a file in each encoding that can decode all of it, the most plausible first."""
    raw = path.read_bytes()
    readings: dict[str, list[str]] = {}  # Names of encodings by the text that they give.
    for name in _CANDIDATES:
        try:
            text = raw.decode(name)
        except UnicodeDecodeError:
            continue
        if not _CONTROLS.search(text):
            readings.setdefault(text, []).append(name)
    best = sorted(readings, key=_oddness)[:_MOST_READINGS]
    if not best:
        return f"Write the file again as UTF-8, or name its encoding with {advice('encoding')}."
    texts = [text.splitlines() for text in best]
    # The line in which most readings differ.
    numbers = range(min(map(len, texts)))
    line = max(numbers, key=lambda n: len({lines[n] for lines in texts}) - all(lines[n].isascii() for lines in texts))
    shown = "\n".join(
        f"  {advice('encoding', readings[text][0])}{_also(readings[text][1:])}: {_excerpt(lines[line])}"
        for text, lines in zip(best, texts, strict=True)
    )
    return (
        f"Line {line + 1:,} reads\n{shown}\nGive the encoding with the right text, or another encoding of Python, or "
        "write the file again as UTF-8."
    )


def _also(names: list[str]) -> str:
    return f" (the same with {', '.join(names)})" if names else ""


def _excerpt(line: str) -> str:
    first = next((place for place, letter in enumerate(line) if not letter.isascii()), 0)
    start = max(0, first - _SHOWN_CHARACTERS // 3)
    return line[start : start + _SHOWN_CHARACTERS]


def _oddness(text: str) -> float:
    """Share of the non-ASCII words that no language has: with two scripts, symbols, or capitals after small letters.

    It only orders readings.
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
    # "LATIN SMALL LETTER A" -> LATIN; the scripts that Japanese mixes count as one.
    script = unicodedata.name(letter, "UNKNOWN").split()[0]
    return "CJK" if script in ("HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "HALFWIDTH", "FULLWIDTH") else script
