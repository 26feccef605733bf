"""Files in CoNLL style: a word and its tag a line, sentences apart by empty lines."""

from pathlib import Path

from prunelora.data import checks
from prunelora.errors import DataError

TOKENS_COLUMN, TAGS_COLUMN = "tokens", "tags"

_NEW_DOCUMENT = "-DOCSTART-"


def read_conll(path: Path) -> dict[str, list[list[str]]]:
    """Read a file of tagged words into one row a sentence.

    The first cell of a line is the word and the last its tag; cells between them, such as parts of speech, are passed
    over. Cells are apart by tabs where the file has some, else by spaces. Lines that begin a document (-DOCSTART-), and
    comments ("# ...") before a sentence's first word, are passed over too.

    Returns:
        Columns "tokens" and "tags".

    Raises:
        DataError: If a line has no tag, or another number of cells than the first one.
    """
    tokens: list[list[str]] = []
    tags: list[list[str]] = []
    inside = False
    width = 0
    text = checks.decoded(path)
    separator = "\t" if "\t" in text else None
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip("\r ")
        if not stripped.strip():
            inside = False
            continue
        cells = stripped.split(separator)
        if stripped.startswith(_NEW_DOCUMENT) or (not inside and stripped.startswith("# ") and len(cells) != width):
            continue
        width = width or len(cells)
        if len(cells) < 2 or len(cells) != width:
            raise DataError(
                f"{path}, line {number:,}: {len(cells)} cells, {max(width, 2)} expected: the word first and its tag "
                "last, the same number in every line, and an empty line behind every sentence."
            )
        if not inside:
            tokens.append([])
            tags.append([])
            inside = True
        tokens[-1].append(cells[0].strip())
        tags[-1].append(cells[-1].strip())
    return {TOKENS_COLUMN: tokens, TAGS_COLUMN: tags}
