"""The errors that prunelora raises on purpose, and how their messages spell options.

Every message says what was asked, what was found and what to do, with the values. Options are spelled as the person
typed them: `keep_heads=73` by default, as in Python. A command line sets its own spelling with `spelled`: the same
option is then `--keep-heads 73`, `--set plan.keep_heads=73`, or `plan.keep_heads=73` of a recipe file.
"""

import difflib
import importlib.util
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from numbers import Integral
from typing import Any, Protocol, TypeVar

_T = TypeVar("_T")

# Spelling of options ------------------------------------------------------------------------------------------------

NO_VALUE: Any = object()


class Spelling(Protocol):
    """A way to write options."""

    def given(self, name: str, value: Any) -> str:
        """An option that a person gave, or that has this value by default; `value` may be NO_VALUE."""

    def advised(self, name: str, value: Any) -> str:
        """An option that a person can give next."""


class InPython:
    """keep_heads=73."""

    def given(self, name: str, value: Any) -> str:
        """`name=value`, the value as Python shows it."""
        return name if value is NO_VALUE else f"{name}={shortened(repr(value))}"

    advised = given


_spelling: ContextVar[Spelling | None] = ContextVar("how messages spell options; Python's way if None", default=None)


@contextmanager
def bound(variable: ContextVar[_T], value: _T) -> Iterator[None]:
    """Give a context variable a value while the block runs."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def spelled(spelling: Spelling) -> AbstractContextManager[None]:
    """Spell options in another way while the block runs."""
    return bound(_spelling, spelling)


_stage: ContextVar[str | None] = ContextVar("name of the running stage of a recipe", default=None)


def at_stage(name: str) -> AbstractContextManager[None]:
    """Relate the messages of the block to the settings of this stage of a recipe, where the stage has them."""
    return bound(_stage, name)


def running_stage() -> str | None:
    """The name of the running stage of a recipe; None if no stage is running."""
    return _stage.get()


def current_spelling() -> Spelling:
    """The current spelling of options."""
    return _spelling.get() or InPython()


def option(name: str, value: Any = NO_VALUE) -> str:
    """An option as it was typed, for a message on what was given: "keep_heads=73", or "--keep-heads 73".

    Args:
        name: Its bare name ("keep_heads"), or with the stage of a recipe ("plan.keep_heads").
        value: Its value; the name alone if left out.
    """
    return current_spelling().given(name, value)


def advice(name: str, value: Any = NO_VALUE) -> str:
    """An option as it can be typed next, for a message on what to do: "count='all'", or "--count all"."""
    return current_spelling().advised(name, value)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence with the known name that a mistyped name resembles, or nothing: " Did you mean 'keep_macs'?"."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return f" Did you mean {by_lower[close[0]]!r}?" if close else ""


def one_of(name: str, known: Iterable[str]) -> str:
    """The known names, for an unknown name: " Did you mean 'mrpc'? Use one of: cola, mrpc.", or without a guess."""
    names = list(known)
    return f"{did_you_mean(name, names)} Use one of: {', '.join(names)}."


def shortened(text: str, most: int = 200) -> str:
    """A text cut to at most so many characters."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def first_line(error: BaseException) -> str:
    """The first line of an error's message; the error's type if it has no message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def check_count(kind: type["PruneLoraError"], name: str, value: object, *, at_least: int = 1) -> None:
    """Check an option that counts something.

    Raises:
        PruneLoraError: Of type `kind`, if the value is not a whole number or is too small.
    """
    whole = isinstance(value, Integral) and not isinstance(value, bool)  # NumPy's integers are Integral too.
    if not whole or int(value) < at_least:  # type: ignore[call-overload]
        raise kind(f"{option(name, value)}: expected a whole number, at least {at_least}.")


# The family of errors -----------------------------------------------------------------------------------------------


class PruneLoraError(Exception):
    """Base of every error that prunelora raises on purpose; its message can be shown as it is."""


class UnsupportedModelError(PruneLoraError):
    """The model's family has no row in the table of families, or its modules do not match the row."""


class DataError(PruneLoraError):
    """The task data cannot be read, or cannot be trained on."""


class ScoreError(PruneLoraError):
    """The importance of heads and neurons cannot be computed from the given input."""


class PlanError(PruneLoraError):
    """A plan cannot be made, read, or applied to this model."""


class AdapterError(PruneLoraError):
    """An adapter cannot be added, audited, loaded or merged."""


class DivergenceError(PruneLoraError):
    """A loss, a gradient or a weight is not finite."""


class CheckpointError(PruneLoraError):
    """A folder cannot be saved or loaded."""


class ExportError(PruneLoraError):
    """A model cannot be exported, or the exported model disagrees with the original."""


class MeasureError(PruneLoraError):
    """A measurement is not possible with the given options."""


class RecipeError(PruneLoraError):
    """A recipe or a run folder cannot be run."""


class MissingExtraError(PruneLoraError):
    """An optional dependency is not installed; the message holds the exact pip line."""

    def __init__(self, what: str, extra: str, way_out: str = "") -> None:
        """Build the message from the feature that needs the packages, their extra, and a way to do without them."""
        self.what, self.extra, self.way_out = what, extra, way_out
        message = f'{what} needs packages that are not installed. Run: pip install "prunelora[{extra}]"'
        super().__init__(f"{message}. {way_out}" if way_out else message)

    def __reduce__(self) -> tuple[type["MissingExtraError"], tuple[str, str, str]]:
        """Pickle the three arguments; by default pickle passes the message alone."""
        return type(self), (self.what, self.extra, self.way_out)


def check_installed(packages: Iterable[str], what: str, extra: str, way_out: str = "") -> None:
    """Check that packages are installed, without importing them.

    Raises:
        MissingExtraError: Built from the other arguments, if a package is missing.
    """
    if any(importlib.util.find_spec(package) is None for package in packages):
        raise MissingExtraError(what, extra, way_out)
