"""Units of the scores of each criterion, and the plan options that fit them; imports no numpy, for recipe checks."""

from collections.abc import Mapping
from typing import Final

from prunelora.errors import PlanError, advice, option

# Criteria with one unit for all scores (loss, squared distance of features): heads, neurons and layers are comparable.
IN_ONE_UNIT: Final = frozenset({"obs", "features"})


def compared_as(criterion: str) -> Mapping[str, str]:
    """Options of `make_plan` for the scores of a criterion.

    Scores in one unit are compared unchanged. The scales of other scores differ between heads and neurons, so
    they are balanced by cost; normalisation across layers remains the recipe's choice.
    """
    return {"normalise": "none", "balance": "none"} if criterion in IN_ONE_UNIT else {"balance": "cost"}


def check_normalise(criterion: str | None, normalise: str) -> None:
    """Check that scores in one unit are not normalised across layers.

    Raises:
        PlanError: If they are.
    """
    if criterion in IN_ONE_UNIT and normalise != "none":
        raise PlanError(
            f"{option('normalise', normalise)} gives all layers the same scale, but scores of {criterion!r} are in "
            f"one unit and need no normalisation. Use {advice('normalise', 'none')} and "
            f"{advice('balance', 'none')}, or score by another criterion."
        )
