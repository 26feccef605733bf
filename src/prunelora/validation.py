"""The first complaint of pydantic as one sentence of this library's errors."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from prunelora.spelling import did_you_mean, option

Place = tuple[int | str, ...]


def dotted(place: Place) -> str:
    """("layers", 3, "heads") -> "layers.3.heads"."""
    return ".".join(map(str, place))


def complaint(
    error: ValidationError,
    *,
    name: Callable[[Place], str] = dotted,
    spell: Callable[[str, Any], str] = option,
    known: Callable[[Place], Iterable[str]] = lambda _: (),
) -> str:
    """What is wrong, with the option and its value, as a sentence.

    "keep_macs=2: Input should be less than or equal to 1.", for one.

    Args:
        error: What pydantic raised.
        name: The name of an option, by its place in the validated content.
        spell: How an option and its value are written.
        known: Names that a place, which pydantic does not know, could have been; the closest one is suggested.
    """
    first: Any = error.errors()[0]
    place, kind, found, context = first["loc"], first["type"], first.get("input"), first.get("ctx", {})
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"unknown key {name(place)!r}.{did_you_mean(str(place[-1]), known(place)) or ' Remove it.'}"
    if kind in ("missing", "missing_argument"):
        return f"{name(place)!r} is missing."
    if kind == "union_tag_not_found":
        return f"{name((*place, str(context['discriminator']).strip(chr(39))))!r} is missing."
    if kind == "value_error" and isinstance(found, Mapping):  # A rule over several options: its message has them.
        return f"{str(context['error']).rstrip('.')}."
    if kind == "union_tag_invalid":
        place, found = (*place, str(context["discriminator"]).strip("'")), context["tag"]
    message = str(context["error"]) if kind == "value_error" else first["msg"]
    choices = re.findall(r"'([^']*)'", context.get("expected", context.get("expected_tags", "")))
    shown = spell(name(place), found) if place else spell("the content", found)
    return f"{shown}: {message.rstrip('.')}.{did_you_mean(str(found), choices)}"
