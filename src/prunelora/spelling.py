"""How messages spell options: as the person typed them, and with the known name that a mistyped one resembles.

Python's spelling, `keep_heads=73`, is the default. A command line sets its own with `spelled`, in which the same option
is `--keep-heads 73`, `--set plan.keep_heads=73`, or `plan.keep_heads=73` of a recipe file.
"""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

NO_VALUE: Any = object()


class Spelling(Protocol):
    """A way of writing options."""

    def given(self, name: str, value: Any) -> str:
        """An option that a person gave, or that has this value by default; `value` may be NO_VALUE."""

    def advised(self, name: str, value: Any) -> str:
        """An option that a person is to give."""


class InPython:
    """keep_heads=73."""

    def given(self, name: str, value: Any) -> str:
        """`name=value`, the value as Python shows it."""
        return name if value is NO_VALUE else f"{name}={shortened(repr(value))}"

    advised = given


_spelling: ContextVar[Spelling | None] = ContextVar("how messages spell options; Python's way if None", default=None)


@contextmanager
def spelled(spelling: Spelling) -> Iterator[None]:
    """Spell options in another way while the block runs."""
    token = _spelling.set(spelling)
    try:
        yield
    finally:
        _spelling.reset(token)


_stage: ContextVar[str | None] = ContextVar("name of the stage of a recipe that is at work", default=None)


@contextmanager
def at_stage(name: str) -> Iterator[None]:
    """Messages of the block are about the settings of this stage of a recipe, where it has them."""
    token = _stage.set(name)
    try:
        yield
    finally:
        _stage.reset(token)


def stage_at_work() -> str | None:
    """The stage of a recipe that is at work now, if there is one."""
    return _stage.get()


def current() -> Spelling:
    """The way in which options are spelled now."""
    return _spelling.get() or InPython()


def option(name: str, value: Any = NO_VALUE) -> str:
    """An option as it was typed, for a message on what was given: "keep_heads=73", or "--keep-heads 73".

    Args:
        name: Its bare name ("keep_heads"), or with the stage of a recipe ("plan.keep_heads").
        value: What it was given; its name alone if left out.
    """
    return current().given(name, value)


def advice(name: str, value: Any = NO_VALUE) -> str:
    """An option as it can be typed next, for a message on what to do: "count='all'", or "--count all"."""
    return current().advised(name, value)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence with the known name that a mistyped one resembles, or nothing: " Did you mean 'keep_macs'?"."""
    by_lower = {one.lower(): one for one in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return f" Did you mean {by_lower[close[0]]!r}?" if close else ""


def one_of(name: str, known: Iterable[str]) -> str:
    """What to give in place of an unknown name: " Did you mean 'mrpc'? Use one of: cola, mrpc.", or without a guess."""
    names = list(known)
    return f"{did_you_mean(name, names)} Use one of: {', '.join(names)}."


def shortened(text: str, most: int = 200) -> str:
    """A text of at most so many characters."""
    return text if len(text) <= most else f"{text[: most - 3]}..."
