"""Typed options, and how messages spell them: `--keep-heads 73`, `--set plan.keep_heads=73`, or a recipe's own key."""

import shlex
from typing import Any

import typer
from typer.core import TyperCommand

from prunelora.cli.terminal import no_bars_of_libraries
from prunelora.errors import NO_VALUE, PruneLoraError, current_spelling, running_stage, spelled
from prunelora.run.recipe import Recipe


class TypedOptions:
    """Spells options as flags of the running command.

    Attributes:
        recipe: The command's recipe, whose keys name the options that were not typed: "repeats" -> "measure.repeats".
            None until it is known.
    """

    def __init__(self, context: typer.Context) -> None:
        """Read the options of a command, and which of them were typed."""
        options = [param for param in context.command.params if param.param_type_name == "option"]
        self.flags = {str(param.name): _longest(param.opts) for param in options}
        self.negations = {str(param.name): _longest(param.secondary_opts) for param in options if param.secondary_opts}
        self.switches = {str(param.name) for param in options if getattr(param, "is_flag", False)}
        self.typed = {name for name in self.flags if _was_typed(context, name)}
        self.set = [str(item).partition("=")[0].strip() for item in context.params.get("sets") or ()]
        self.recipe: Recipe | None = None

    def given(self, name: str, value: Any) -> str:
        """As it was typed; otherwise by its key in the recipe."""
        bare, key = name.rpartition(".")[2], self._key(name)
        if key in self.set:
            return "--set " + _assigned(key, value)
        if bare in self.typed:
            return self._flag(bare, value)
        if value is NO_VALUE and name == bare and name in self.flags:
            return self.flags[name]
        return _assigned(key, value)

    def advised(self, name: str, value: Any) -> str:
        """As the command takes it, or as `run` takes it: its switches are no settings of a recipe."""
        bare, key = name.rpartition(".")[2], self._key(name)
        if bare in self.flags:
            return self._flag(bare, value)
        if value is True and "." not in key:
            return f"--{key.replace('_', '-')}"
        return _set(key, value, "sets" in self.flags)

    def _key(self, name: str) -> str:
        if "." in name or self.recipe is None:
            return name
        # The error for an unknown name spells it too: without a recipe it ends here.
        recipe, self.recipe = self.recipe, None
        try:
            return recipe.key_of(name, first=running_stage())
        except PruneLoraError:  # No setting of the recipe.
            return name
        finally:
            self.recipe = recipe

    def _flag(self, name: str, value: Any) -> str:
        if value is True and name in self.switches:
            return self.flags[name]
        if value is False and name in self.negations:
            return self.negations[name]
        return self.flags[name] if value is NO_VALUE else f"{self.flags[name]} {_word(value)}"


class Command(TyperCommand):
    """A command whose messages spell options as they were typed."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        if ctx.params.get("quiet"):
            no_bars_of_libraries()
        with spelled(TypedOptions(ctx)):
            return super().invoke(ctx)


def works_on(recipe: Recipe) -> None:
    """Set the recipe of the running command, whose keys name the options that were not typed."""
    typed = current_spelling()
    if isinstance(typed, TypedOptions):
        typed.recipe = recipe


def _was_typed(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _longest(flags: list[str]) -> str:
    return max(flags, key=len)


def _assigned(key: str, value: Any) -> str:
    return key if value is NO_VALUE else f"{key}={_word(value)}"


def _set(key: str, value: Any, has_set: bool) -> str:
    return (
        f"--set {_assigned(key, value)}" if has_set and "." in key and value is not NO_VALUE else _assigned(key, value)
    )


def _word(value: Any) -> str:
    """A value as one word of a shell: lists are joined by commas."""
    return shlex.quote(",".join(map(str, value)) if isinstance(value, list | tuple) else str(value))
