"""Progress bars with the time left, on stderr, for whatever takes long; only where a run asks for them."""

from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from tqdm import tqdm

_Item = TypeVar("_Item")

# What is done sooner shows none.
DELAY_SECONDS = 2.0

_shown: ContextVar[bool] = ContextVar("progress bars are shown", default=False)


@contextmanager
def bars(shown: bool) -> Iterator[None]:
    """Show bars, or none, while the block runs."""
    token = _shown.set(shown)
    try:
        yield
    finally:
        _shown.reset(token)


def over(items: Iterable[_Item], what: str) -> Iterable[_Item]:
    """The items one after the other, with a bar while they are gone through: how many are done, and the time left.

    Args:
        items: Where their number is known, the time left is.
        what: What is done with them.
    """
    if not _shown.get():
        return items
    total = len(items) if isinstance(items, Sized) else None
    bar: Iterable[_Item] = tqdm(items, desc=what, total=total, delay=DELAY_SECONDS, leave=False)
    return bar
