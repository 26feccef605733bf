"""Sphinx directives for tables of settings and options, generated from their declarations.

`{settings} prunelora.stages.plan.PlanStage` lists the fields of settings, by the names that recipes and Python use.
`{options} score` lists the options of a command as they are typed; with the line `:beyond: prune`, only those that the
command `prune` lacks.
"""

import importlib
import inspect
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from typer.models import ArgumentInfo

from prunelora.cli.app import app
from prunelora.cli.options import with_settings_of

_TAKEN = {str: "TEXT", int: "INT", float: "NUMBER", Path: "PATH"}


@dataclass(frozen=True)
class Option:
    """One option of a command, from the command's signature.

    Attributes:
        name: The parameter's name.
        typed: Its spellings on a command line.
        takes: Kind of its value, or the choices; empty for a flag.
        default: Empty if there is none.
        text: Its description.
    """

    name: str
    typed: tuple[str, ...]
    takes: tuple[str, ...]
    default: str
    text: str


class Settings(SphinxDirective):
    """Table of a pydantic model's fields."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Convert the fields to options of a command, so that this table equals the help text."""
        module, _, name = self.arguments[0].rpartition(".")
        model = getattr(importlib.import_module(module), name)

        def command(*, settings: dict[str, Any]) -> None:
            """Stand in for a command that takes these settings."""

        options = _options_of(with_settings_of((model, None), not_of_recipe=(model,))(command))
        fields = [((option.name,), option) for option in options if option.name in model.model_fields]
        return _table(self, "setting", fields)


class Options(SphinxDirective):
    """Table of a command's options."""

    required_arguments = 1
    option_spec: ClassVar[Any] = {"beyond": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        """List the options in the order of --help."""
        commands = {
            info.name or info.callback.__name__: info.callback for info in app.registered_commands if info.callback
        }
        other = self.options.get("beyond")
        known = {option.name for option in _options_of(commands[other])} if other else set()
        options = [option for option in _options_of(commands[self.arguments[0]]) if option.name not in known]
        return _table(self, "option", [(option.typed, option) for option in options])


def _options_of(command: Callable[..., Any]) -> Iterator[Option]:
    for name, parameter in inspect.signature(command).parameters.items():
        if typing.get_origin(parameter.annotation) is not typing.Annotated:
            continue
        hint, info = typing.get_args(parameter.annotation)
        kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)] or [hint]
        text, _, default = str(info.help).partition(" [default: ")
        given = parameter.default
        if not default and info.show_default and given not in (None, False, inspect.Parameter.empty):
            default = str(given)
        yield Option(
            name=name,
            typed=_typed(name, info),
            takes=() if kinds == [bool] else _takes(info.metavar or _TAKEN[kinds[0]]),
            default=default.removesuffix("]"),
            text=text,
        )


def _takes(metavar: str) -> tuple[str, ...]:
    return tuple(metavar[1:-1].split("|")) if metavar.startswith("[") else (metavar,)


def _typed(name: str, info: Any) -> tuple[str, ...]:
    if isinstance(info, ArgumentInfo):
        return (info.metavar or name.upper(),)
    # In Annotated, typer stores the first given name in place of the default.
    spellings = [
        text for text in (info.default, *(info.param_decls or ())) if isinstance(text, str) and text.startswith("-")
    ]
    return tuple(flag for spelling in spellings for flag in spelling.split("/")) or (f"--{name.replace('_', '-')}",)


def _table(directive: SphinxDirective, first: str, rows: list[tuple[tuple[str, ...], Option]]) -> list[nodes.Node]:
    if not rows:
        raise directive.error(f"{directive.arguments[0]} has no settings or options to list.")
    lines = [f"| {first} | value | default | description |", "|---|---|---|---|"]
    for shown, option in rows:
        default = (option.default,) if option.default else ()
        cells = (_code(shown), _code(option.takes), _code(default), option.text)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    table = nodes.Element()
    directive.state.nested_parse(StringList(lines, directive.arguments[0]), directive.content_offset, table)
    return table.children


def _code(texts: tuple[str, ...]) -> str:
    return ", ".join(f"`{text}`" for text in texts)


def setup(sphinx: Sphinx) -> dict[str, Any]:
    """Register the directives."""
    sphinx.add_directive("settings", Settings)
    sphinx.add_directive("options", Options)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
