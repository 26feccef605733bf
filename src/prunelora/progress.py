"""Progress with the time left, on stderr, only where a run asks for it.

A terminal shows a bar, a log file gets a plain line every half a minute.
"""

import sys
from collections.abc import Iterable, Sized
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any, TextIO, TypeVar

from tqdm import tqdm

from prunelora.errors import bound

_Item = TypeVar("_Item")

# Shorter work shows no progress.
DELAY_SECONDS = 2.0
# Between two lines in a log file.
LOG_SECONDS = 30.0

_shown: ContextVar[bool] = ContextVar("progress is shown", default=False)


def bars(shown: bool) -> AbstractContextManager[None]:
    """Show progress, or none, while the block runs."""
    return bound(_shown, shown)


def over(items: Iterable[_Item], what: str) -> Iterable[_Item]:
    """Iterate over the items with progress: the number of finished items, and the time left.

    Args:
        items: If their number is known, the time left is shown.
        what: Description of the work.
    """
    if not _shown.get():
        return items
    counted: Iterable[_Item] = bar(what, len(items) if isinstance(items, Sized) else None, iterable=items)
    return counted


def bar(what: str, total: int | None, **options: Any) -> Any:
    """A tqdm bar to be advanced by its `update`; shown whether or not a run asks for progress.

    Args:
        what: Description of the work.
        total: Number of steps; None if unknown.
        **options: Further options of tqdm, such as `initial`.
    """
    if sys.stderr.isatty():
        form: dict[str, Any] = {"dynamic_ncols": True}
    else:
        count = "{n_fmt}" if total is None else "{n_fmt} of {total_fmt}"
        time_left = "" if total is None else ", {remaining} left"
        # Different positions of bars would write control characters.
        form = {"file": _LogLines(sys.stderr), "mininterval": LOG_SECONDS, "miniters": 1, "position": 0}
        form["bar_format"] = f"{{desc}}: {count}, {{elapsed}} so far{time_left}{{postfix}}"
    return tqdm(desc=what, total=total, delay=DELAY_SECONDS, leave=False, **form, **options)


class _LogLines:
    """A stream that turns tqdm's carriage returns into separate lines."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> None:
        """Write the text as a line, unless it is empty."""
        if line := text.strip():
            self.stream.write(f"{line}\n")

    def flush(self) -> None:
        """Write at once."""
        self.stream.flush()
