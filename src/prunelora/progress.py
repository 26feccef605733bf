"""Progress with the time left, on stderr, for whatever takes long; only where a run asks for it.

On a terminal it is a bar, in a log file a plain line every half a minute.
"""

import sys
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TextIO, TypeVar

from tqdm import tqdm

_Item = TypeVar("_Item")

# What is done sooner shows none.
DELAY_SECONDS = 2.0
# Between two lines in a log file.
LOG_SECONDS = 30.0

_shown: ContextVar[bool] = ContextVar("progress is shown", default=False)


@contextmanager
def bars(shown: bool) -> Iterator[None]:
    """Show progress, or none, while the block runs."""
    token = _shown.set(shown)
    try:
        yield
    finally:
        _shown.reset(token)


def over(items: Iterable[_Item], what: str) -> Iterable[_Item]:
    """The items one after the other, with progress while they are gone through: how many are done, and the time left.

    Args:
        items: Where their number is known, the time left is.
        what: What is done with them.
    """
    if not _shown.get():
        return items
    counted: Iterable[_Item] = bar(what, len(items) if isinstance(items, Sized) else None, iterable=items)
    return counted


def bar(what: str, total: int | None, **options: Any) -> Any:
    """A tqdm that is advanced by its `update`, whoever asks for progress.

    Args:
        what: What is done.
        total: How many times; None where nobody knows.
        **options: More of tqdm's, such as `initial`.
    """
    if sys.stderr.isatty():
        form: dict[str, Any] = {"dynamic_ncols": True}
    else:
        count = "{n_fmt}" if total is None else "{n_fmt} of {total_fmt}"
        left = "" if total is None else ", {remaining} left"
        # A position of its own for every bar would write control characters.
        form = {"file": _LogLines(sys.stderr), "mininterval": LOG_SECONDS, "miniters": 1, "position": 0}
        form["bar_format"] = f"{{desc}}: {count}, {{elapsed}} so far{left}{{postfix}}"
    return tqdm(desc=what, total=total, delay=DELAY_SECONDS, leave=False, **form, **options)


class _LogLines:
    """A stream in which what tqdm writes over one line, by carriage returns, becomes a line each."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> None:
        """Write a line, if there is something to say."""
        if line := text.strip():
            self.stream.write(f"{line}\n")

    def flush(self) -> None:
        """Write at once."""
        self.stream.flush()
