"""What people type, read as it stands there: numbers of settings, and YAML without the surprises of its version 1.1.

By YAML 1.1, PyYAML's, 0100 is 64, 1:30 is 90, 1_0 is 10, no is False and 1e-3 is a word; and where a field is a number,
pydantic reads 1_0 as 10 and true as 1. Here 0100 is 100, 1e-3 is a number, and the others are errors in a number's
place.
"""

import math
import re
import typing
from collections.abc import Hashable, Mapping
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import InitErrorDetails

from prunelora.scalars import plain

_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


def number_in(text: str) -> int | float | None:
    """The decimal number that a text shows, a whole one as int; None if it shows none."""
    text = text.strip()
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) and math.isfinite(float(text)) else None


class Settings(BaseModel):
    """Settings that cannot be changed, have no unknown names, and whose numbers are what was typed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Not a validator of fields: a union of models must be able to read its discriminator without any.
    @model_validator(mode="before")
    @classmethod
    def _numbers_as_they_stand(cls, content: Any) -> Any:
        if not isinstance(content, Mapping):
            return content
        found = dict(content)
        for name, value in content.items():
            field = cls.model_fields.get(name)
            if field is not None and _is_number(field.annotation):
                try:
                    found[name] = _as_number(value)
                except ValueError as error:
                    details = InitErrorDetails(type="value_error", loc=(name,), input=value, ctx={"error": error})
                    raise ValidationError.from_exception_data(cls.__name__, [details]) from error
        return found


def _as_number(value: Any) -> Any:
    if isinstance(value, str):
        found = number_in(value)
        if found is None:
            raise ValueError("no plain decimal number, such as 12, 0.5 or 1e-3")
        return found
    if isinstance(value, bool) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError("no finite number")
    return plain(value)


def _is_number(annotation: Any) -> bool:
    """Whether a field is int, float, either, or none."""
    kinds = set(typing.get_args(annotation) or (annotation,)) - {type(None)}
    return bool(kinds) and kinds <= {int, float}


_MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """YAML by the core schema of version 1.2, numbers decimal alone; a key that stands twice is an error."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 yaml's own name

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != _MERGE]
        twice = next((key for number, key in enumerate(keys) if key in keys[:number]), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"the key {twice!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
    """Quotes words that either version of YAML would take for something else."""


_PLAIN = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", _INT.pattern, "-+0123456789"),
    ("float", _FLOAT.pattern, "-+.0123456789"),
)
for _kind, _pattern, _first in _PLAIN:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(rf"(?:{_pattern})$"), list(_first))
# "<<: *name", which recipes with several alike stages use, though YAML 1.2 has dropped it.
_Loader.add_implicit_resolver(_MERGE, re.compile("<<$"), ["<"])
_Loader.add_constructor("tag:yaml.org,2002:int", lambda _, node: int(node.value))
_Loader.add_constructor("tag:yaml.org,2002:float", lambda _, node: float(node.value))


def read_yaml(text: str) -> Any:
    """Content of a YAML or JSON text.

    Raises:
        yaml.YAMLError: If it is neither.
    """
    return yaml.load(text, Loader=_Loader)


def write_yaml(content: Any) -> str:
    """A YAML text that `read_yaml` reads back."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
