"""Settings: their base class, how typed values and YAML are read, and how a validation error becomes a message.

PyYAML follows YAML 1.1, in which 0100 is 64, 1:30 is 90, 1_0 is 10, no is False and 1e-3 is a word; and pydantic reads
1_0 as 10 and true as 1 in the place of a number. Here 0100 is 100 and 1e-3 is a number; the others are errors in the
place of a number.
"""

import math
import numbers
import re
import typing
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import InitErrorDetails

from prunelora.errors import did_you_mean, option

_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")

Place = tuple[int | str, ...]


def plain(value: Any) -> Any:
    """A whole number as int, any other number as float, also NumPy's; bool and other values unchanged.

    A float32 becomes the number that was typed, 0.7, and not the nearest float64, 0.699999988.
    """
    if type(value) in (bool, int, float):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        try:
            return float(str(value))
        except ValueError:  # str of a Fraction is 7/10.
            return float(value)
    return value


def number_in(text: str) -> int | float | None:
    """The decimal number in a text, a whole number as int; None if the text is no number."""
    text = text.strip()
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) and math.isfinite(float(text)) else None


class Settings(BaseModel):
    """Frozen settings without unknown names, whose numbers are read as they were typed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # A model validator: pydantic reads the discriminator of a union of models only from fields without validators.
    @model_validator(mode="before")
    @classmethod
    def _numbers_as_typed(cls, content: Any) -> Any:
        if not isinstance(content, Mapping):
            return content
        read = dict(content)
        for name, value in content.items():
            field = cls.model_fields.get(name)
            if field is not None and _is_number(field.annotation):
                try:
                    read[name] = as_number(value)
                except ValueError as error:
                    details = InitErrorDetails(type="value_error", loc=(name,), input=value, ctx={"error": error})
                    raise ValidationError.from_exception_data(cls.__name__, [details]) from error
        return read


def as_number(value: Any) -> Any:
    """A number that was given or typed; values of other types unchanged.

    Raises:
        ValueError: If it is a text without a number, a truth value, or not finite.
    """
    if isinstance(value, str):
        number = number_in(value)
        if number is None:
            raise ValueError("no plain decimal number, such as 12, 0.5 or 1e-3")
        return number
    if isinstance(value, bool) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError("no finite number")
    return plain(value)


def _is_number(annotation: Any) -> bool:
    """Whether a field is int, float, either, or none."""
    kinds = set(typing.get_args(annotation) or (annotation,)) - {type(None)}
    return bool(kinds) and kinds <= {int, float}


# YAML ---------------------------------------------------------------------------------------------------------------

_MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """Reads YAML by the core schema of version 1.2, with decimal numbers only; a repeated key is an error."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 yaml's own name

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != _MERGE]
        twice = next((key for number, key in enumerate(keys) if key in keys[:number]), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"the key {twice!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
    """Quotes words that YAML 1.1 or 1.2 would read as another type."""


_PLAIN = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", _INT.pattern, "-+0123456789"),
    ("float", _FLOAT.pattern, "-+.0123456789"),
)
for _kind, _pattern, _first in _PLAIN:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(rf"(?:{_pattern})$"), list(_first))
# "<<: *name", which recipes with several similar stages use, though YAML 1.2 has dropped it.
_Loader.add_implicit_resolver(_MERGE, re.compile("<<$"), ["<"])
_Loader.add_constructor("tag:yaml.org,2002:int", lambda _, node: int(node.value))
_Loader.add_constructor("tag:yaml.org,2002:float", lambda _, node: float(node.value))


def read_yaml(text: str) -> Any:
    """The content of a YAML or JSON text.

    Raises:
        yaml.YAMLError: If it is neither.
    """
    return yaml.load(text, Loader=_Loader)


def write_yaml(content: Any) -> str:
    """A YAML text that `read_yaml` reads back."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


# Validation messages ------------------------------------------------------------------------------------------------


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
    """The first fault that pydantic found, as a sentence: "keep_macs=2: Input should be less than or equal to 1.".

    Args:
        error: Raised by pydantic.
        name: Returns the name of an option for its place in the validated content.
        spell: Writes an option and its value.
        known: Returns the names that are known at a place with an unknown name; the closest is suggested.
    """
    first: Any = error.errors()[0]
    place, kind, value, context = first["loc"], first["type"], first.get("input"), first.get("ctx", {})
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"unknown key {name(place)!r}.{did_you_mean(str(place[-1]), known(place)) or ' Remove it.'}"
    if kind in ("missing", "missing_argument"):
        return f"{name(place)!r} is missing."
    if kind == "union_tag_not_found":
        return f"{name((*place, str(context['discriminator']).strip(chr(39))))!r} is missing."
    if kind == "value_error" and isinstance(value, Mapping):  # A rule over several options: its message names them.
        return f"{str(context['error']).rstrip('.')}."
    if kind == "union_tag_invalid":
        place, value = (*place, str(context["discriminator"]).strip("'")), context["tag"]
    message = str(context["error"]) if kind == "value_error" else first["msg"]
    choices = re.findall(r"'([^']*)'", context.get("expected", context.get("expected_tags", "")))
    shown = spell(name(place), value) if place else spell("the content", value)
    return f"{shown}: {message.rstrip('.')}.{did_you_mean(str(value), choices)}"
