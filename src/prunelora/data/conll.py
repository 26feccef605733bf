"""Files in CoNLL style: a word and its tag a line, sentences apart by empty lines."""

import re
from collections.abc import Sequence

from prunelora.data.text_files import TextFile
from prunelora.errors import DataError

TOKENS_COLUMN, TAGS_COLUMN = "tokens", "tags"

_NEW_DOCUMENT = "-DOCSTART-"

# "# sent_id = 3" and "# newpar" of CoNLL-U, "# id 5239d808 domain=en" of MultiCoNER: comments, however many cells.
_COMMENT = re.compile(r"# +(\S.* =( .*)?|id\s.+|new(doc|par)\b.*)")


def read_conll(file: TextFile) -> dict[str, list[list[str]]]:
    """Read a file of tagged words into one row a sentence.

    The first cell of a line is the word and the last its tag; cells between them, such as parts of speech, are passed
    over. Cells are apart by tabs where lines of words have some, else by spaces. Lines that begin a document
    (-DOCSTART-), and comments before a sentence's first word, are passed over too:

        # key = value, # id ..., # newdoc, # newpar  -> comments
        # ... with another number of cells than words have  -> a comment
        # ... with that number, or within a sentence  -> the word "#"

    Returns:
        Columns "tokens" and "tags".

    Raises:
        DataError: If a line has no tag, or another number of cells than the first one.
    """
    tokens: list[list[str]] = []
    tags: list[list[str]] = []
    inside = False
    lines = [line.strip("\n ") for line in file.lines()]
    separator, width = _layout(lines)
    for number, line in enumerate(lines, 1):
        if not line.strip():
            inside = False
            continue
        cells = line.split(separator)
        comment = line.startswith("# ") and (len(cells) != width or _COMMENT.fullmatch(line) is not None)
        if line.startswith(_NEW_DOCUMENT) or (comment and not inside):
            continue
        width = width or len(cells)
        if len(cells) < 2 or len(cells) != width:
            raise DataError(
                f"{file.path}, line {number:,}: {len(cells)} cells, {max(width, 2)} expected: the word first and its "
                "tag last, the same number in every line, and an empty line behind every sentence."
            )
        if not inside:
            tokens.append([])
            tags.append([])
            inside = True
        tokens[-1].append(cells[0].strip())
        tags[-1].append(cells[-1].strip())
    return {TOKENS_COLUMN: tokens, TAGS_COLUMN: tags}


def _layout(lines: Sequence[str]) -> tuple[str | None, int]:
    """What cells are apart by, and how many a line has; of lines that cannot be comments, which may have tabs too."""
    words = [line for line in lines if line.strip() and not line.startswith(("#", _NEW_DOCUMENT))]
    separator = "\t" if any("\t" in line for line in words) else None
    return separator, len(words[0].split(separator)) if words else 0
