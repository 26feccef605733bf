"""Units of the scores of each criterion, and the plan options that fit them; imports no numpy, for recipe checks."""

from collections.abc import Mapping
from typing import Final

from prunelora.errors import PlanError, advice, option

# Criteria whose scores are loss increases, comparable between heads and neurons and across layers.
IN_UNITS_OF_LOSS: Final = frozenset({"obs"})


def compared_as(criterion: str) -> Mapping[str, str]:
    """Options of `make_plan` for the scores of a criterion.

    Scores in units of the loss are compared unchanged. The scales of other scores differ between heads and neurons, so
    they are balanced by cost; normalisation across layers remains the recipe's choice.
    """
    return {"normalise": "none", "balance": "none"} if criterion in IN_UNITS_OF_LOSS else {"balance": "cost"}


def check_normalise(criterion: str | None, normalise: str) -> None:
    """Check that scores in units of the loss are not normalised across layers.

    Raises:
        PlanError: If they are.
    """
    if criterion in IN_UNITS_OF_LOSS and normalise != "none":
        raise PlanError(
            f"{option('normalise', normalise)} gives all layers the same scale, but scores of {criterion!r} are in "
            f"units of the loss and need no normalisation. Use {advice('normalise', 'none')} and "
            f"{advice('balance', 'none')}, or score by another criterion."
        )
