"""The one family of errors that prunelora raises on purpose.

Every message says what was asked, what was found and what to do, with the values.
"""

from numbers import Integral

from prunelora.spelling import option


def first_line(error: BaseException) -> str:
    """What an error says first; its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def check_count(kind: type["PruneLoraError"], name: str, value: object, *, at_least: int = 1) -> None:
    """Hold an option that counts something to whole numbers, large enough.

    Raises:
        PruneLoraError: Of that kind, if it is another.
    """
    whole = isinstance(value, Integral) and not isinstance(value, bool)  # Those of NumPy too.
    if not whole or int(value) < at_least:  # type: ignore[call-overload]
        raise kind(f"{option(name, value)}: expected a whole number, at least {at_least}.")


class PruneLoraError(Exception):
    """Base of every error that prunelora raises on purpose; its message is fit to be shown as it stands."""


class UnsupportedModelError(PruneLoraError):
    """The model's family has no row in the table of families, or its modules do not match the row."""


class DataError(PruneLoraError):
    """The task data cannot be read, or cannot be trained on."""


class ScoreError(PruneLoraError):
    """The importance of heads and neurons cannot be computed from what was given."""


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
    """Something that cannot be measured as it was asked for."""


class RecipeError(PruneLoraError):
    """A recipe or a run folder is not one that can be run."""


class MissingExtraError(PruneLoraError):
    """An optional dependency is not installed; the message holds the exact pip line."""

    def __init__(self, what: str, extra: str, way_out: str = "") -> None:
        """Say what was needed, which extra of the distribution brings it, and how to do without it."""
        self.what, self.extra, self.way_out = what, extra, way_out
        message = f'{what} needs packages that are not installed. Run: pip install "prunelora[{extra}]"'
        super().__init__(f"{message}. {way_out}" if way_out else message)

    def __reduce__(self) -> tuple[type["MissingExtraError"], tuple[str, str, str]]:
        """What pickle makes it again from; by itself it would take the message alone, for three arguments."""
        return type(self), (self.what, self.extra, self.way_out)
