"""Reading of CoNLL files: a word and its tag a line, sentences separated by empty lines."""

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

    The first cell of a line is the word and the last is its tag; cells between them, such as parts of speech, are
    ignored. Cells are separated by tabs if any line of words has a tab, and by spaces otherwise. Lines that begin a
    document (-DOCSTART-), and comments before a sentence's first word, are ignored too:

        # key = value, # id ..., # newdoc, # newpar  -> comments
        # ... with another number of cells than words have  -> a comment
        # ... with that number, or within a sentence  -> the word "#"

    Returns:
        Columns "tokens" and "tags".

    Raises:
        DataError: If a line has no tag, or another number of cells than the first line.
    """
    tokens: list[list[str]] = []
    tags: list[list[str]] = []
    in_sentence = False
    lines = [line.strip("\n ") for line in file.lines()]
    separator, width = _layout(lines)
    for number, line in enumerate(lines, 1):
        if not line.strip():
            in_sentence = False
            continue
        cells = line.split(separator)
        is_comment = line.startswith("# ") and (len(cells) != width or _COMMENT.fullmatch(line) is not None)
        if line.startswith(_NEW_DOCUMENT) or (is_comment and not in_sentence):
            continue
        width = width or len(cells)
        if len(cells) < 2 or len(cells) != width:
            raise DataError(
                f"{file.path}, line {number:,}: {len(cells)} cells, {max(width, 2)} expected. Write the word first and "
                "its tag last, the same number of cells in every line, and an empty line after every sentence."
            )
        if not in_sentence:
            tokens.append([])
            tags.append([])
            in_sentence = True
        tokens[-1].append(cells[0].strip())
        tags[-1].append(cells[-1].strip())
    return {TOKENS_COLUMN: tokens, TAGS_COLUMN: tags}


def _layout(lines: Sequence[str]) -> tuple[str | None, int]:
    """Separator and number of cells of a line, from the lines that cannot be comments (comments may hold tabs too)."""
    words = [line for line in lines if line.strip() and not line.startswith(("#", _NEW_DOCUMENT))]
    separator = "\t" if any("\t" in line for line in words) else None
    return separator, len(words[0].split(separator)) if words else 0
