"""The setting of the projections that get LoRA."""

from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator

Projection = Literal["query", "key", "value", "output", "up", "down"]


def _split(value: Any) -> Any:
    """Accept a list that was typed as one word: "query,value"."""
    return [piece.strip() for piece in value.split(",")] if isinstance(value, str) else value


Targets = Annotated[tuple[Projection, ...], BeforeValidator(_split)]
ATTENTION: Final = ("query", "key", "value", "output")
