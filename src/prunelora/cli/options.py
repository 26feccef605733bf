"""Options of commands, generated from the descriptions of the settings."""

import inspect
import types
import typing
from collections.abc import Callable, Collection, Iterable
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from prunelora.errors import RecipeError

Command = Callable[..., None]

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout, and nothing else there.")]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Print the result alone: no progress and no notes. Errors are printed."),
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="STAGE.SETTING=VALUE", help="Any other setting of the recipe; may be repeated."),
]


def settings_typed(sets: list[str] | None) -> dict[str, str]:
    """The values of `--set`: ["finetune.epochs=2"] -> {"finetune.epochs": "2"}."""
    changes = {}
    for item in sets or []:
        key, sign, value = item.partition("=")
        if not sign:
            raise RecipeError(f"--set {item}: expected STAGE.SETTING=VALUE, such as finetune.weight_decay=0.")
        changes[key.strip()] = value.strip()
    return changes


def with_settings_of(
    *sources: tuple[type[BaseModel], Iterable[str] | None], not_of_recipe: Collection[type[BaseModel]] = ()
) -> Callable[[Command], Command]:
    """Give a command an option for every field of some settings (or for the named ones).

    The recipe of a run folder or a file overrides the defaults, and the help of these options says so. Settings that
    the command takes from no recipe (`not_of_recipe`) have the default alone.

    The command receives the typed options as the keyword argument `settings`, a dict of field name to text or bool. The
    settings themselves check the values.
    """

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command)
        of_command = [parameter for name, parameter in signature.parameters.items() if name != "settings"]
        fields = {
            name: (field, model not in not_of_recipe)
            for model, names in sources
            for name, field in model.model_fields.items()
            if name != "stage" and (names is None or name in names)
        }

        def wrapper(**given: Any) -> None:
            settings = {name: given.pop(name) for name in fields}
            command(**given, settings={name: value for name, value in settings.items() if value is not None})

        options = [_option(name, *field) for name, field in fields.items() if name not in signature.parameters]
        wrapper.__name__, wrapper.__doc__ = command.__name__, command.__doc__
        wrapper.__signature__ = signature.replace(parameters=[*of_command, *options])  # type: ignore[attr-defined]
        wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in [*of_command, *options]}
        return wrapper

    return decorate


def _option(name: str, field: FieldInfo, recipe_first: bool) -> inspect.Parameter:
    default = field.get_default(call_default_factory=False)
    text = str(field.description)
    if isinstance(default, tuple):
        default = ",".join(default)
    if isinstance(default, bool | int | float | str):
        first = "the recipe's, else " if recipe_first else ""
        text += f" [default: {first}{default}]"
    flag = f"--{name.replace('_', '-')}"
    if field.annotation is bool:
        kind: Any = bool | None
        option = typer.Option(f"{flag}/--no-{name.replace('_', '-')}", help=text, show_default=False)
    else:
        kind = str | None
        option = typer.Option(flag, help=text, metavar=_metavar(field.annotation), show_default=False)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, option])


def _metavar(annotation: Any) -> str:
    """The kind of value: INT, NUMBER, TEXT, or the choices."""
    if typing.get_origin(annotation) is typing.Literal:
        return "[" + "|".join(map(str, typing.get_args(annotation))) + "]"
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        kinds = [_metavar(kind) for kind in typing.get_args(annotation) if kind is not type(None)]
        return "COUNT|FRACTION" if kinds == ["INT", "NUMBER"] else "|".join(dict.fromkeys(kinds))
    return {int: "INT", float: "NUMBER"}.get(annotation, "TEXT")
