"""What scores are measured in, and how a plan may therefore compare them; light, since recipes are checked by it."""

from collections.abc import Mapping
from typing import Final

from prunelora.errors import PlanError, advice, option

# Criteria whose scores say what leaving a unit out adds to the loss, of a head as of a neuron, in every layer.
IN_UNITS_OF_LOSS: Final = frozenset({"obs"})


def compared_as(criterion: str) -> Mapping[str, str]:
    """Options of a plan that the scores of a criterion want, where they are not those of its own recipe.

    Scores in units of the loss are taken as they are. Of others neither says what a head is worth beside a neuron, so
    both are made worth the same for a unit of cost; whether layers are normalised is left open.
    """
    return {"normalise": "none", "balance": "none"} if criterion in IN_UNITS_OF_LOSS else {"balance": "cost"}


def check_normalise(criterion: str | None, normalise: str) -> None:
    """See that scores in units of the loss are not made worth the same in every layer.

    Raises:
        PlanError: If they would be.
    """
    if criterion in IN_UNITS_OF_LOSS and normalise != "none":
        raise PlanError(
            f"{option('normalise', normalise)} makes layers worth the same, but scores of {criterion!r} are in units "
            "of the loss and are compared as they are. Use "
            f"{advice('normalise', 'none')} and {advice('balance', 'none')}, or score by another criterion."
        )
