"""The command that builds a model of a comparison again, as a person types it."""

import shlex
from pathlib import Path
from typing import Any

from prunelora.comparison.methods import LEFT_OUT
from prunelora.comparison.trials import Trial
from prunelora.data.settings import DataSettings
from prunelora.errors import RecipeError
from prunelora.run.folder import RECIPE
from prunelora.run.recipe import Recipe, load_recipe

# Options of `prunelora run` that are always written out, where the method has them; a reader wants to see and change
# them.
_ALWAYS = ("keep_macs", "epochs", "learning_rate")
# Those that are written where they are not what the recipe says; every other setting goes through --set.
_WHERE_OTHER = ("keep_heads", "keep_ffn", "rows", "batch_size", "patience")

# Most characters of a line of a command, but for one option that is longer.
_LINE = 72


def command_of(trial: Trial) -> str:
    """What to type for the model of a trial, from the folder in which the comparison was started.

    It names the method's recipe and all that the comparison changed in it. Where a recipe file says something of the
    data that no option takes back, it names the trial's own recipe, which has everything.
    """
    out = f"runs/{Path(trial.recipe.task.described).stem}-{trial.method.name}"
    try:
        words = _words(trial.recipe, load_recipe(trial.method.source), trial.method.source)
    except RecipeError:
        words = None
    words = words or ["--recipe", (trial.folder / RECIPE).as_posix()]
    return shlex.join(["prunelora", "run", *words, "--out", out])


def in_lines(command: str) -> str:
    """The same command on lines that fit a page; a shell reads it alike."""
    pieces: list[str] = []  # An option and what it is given stay together.
    for word in shlex.split(command):
        if not pieces or word.startswith("--"):
            pieces.append(shlex.quote(word))
        else:
            pieces[-1] += f" {shlex.quote(word)}"
    lines = pieces[:1]
    for piece in pieces[1:]:
        if len(lines[-1]) + len(piece) >= _LINE:
            lines.append(piece)
        else:
            lines[-1] += f" {piece}"
    return " \\\n    ".join(lines)


def _words(wanted: Recipe, start: Recipe, source: str) -> list[str] | None:
    """Options that make the recipe read from `source` the wanted one; None if there are none that do."""
    options = {"model": wanted.model, **_source_of(wanted.task), "seed": str(wanted.seed)}
    options |= {name: _option(wanted, name) for name in _ALWAYS if _option(wanted, name) != "null"}
    found = start.with_options(options)
    options |= {
        name: _text(getattr(wanted.task, name))
        for name in DataSettings.model_fields
        if getattr(wanted.task, name) not in (None, getattr(found.task, name))
    }
    options |= {name: _option(wanted, name) for name in _WHERE_OTHER if _option(wanted, name) != _option(found, name)}
    options = {name: text for name, text in options.items() if text != "null"}
    found = start.with_options(options)
    there = _stages(found)
    settings = {
        f"{stage}.{name}": _text(value)
        for stage, content in _stages(wanted).items()
        for name, value in content.items()
        if repr(value) != repr(there.get(stage, {}).get(name))  # One head is 1, all of them are 1.0.
    }
    found = found.with_settings(settings)
    if (repr(_stages(found)), found.task, found.model) != (repr(_stages(wanted)), wanted.task, wanted.model):
        return None
    typed = ["--recipe", source]
    for name, text in options.items():
        typed += [f"--{name.replace('_', '-')}", text]
    for key, text in settings.items():
        typed += ["--set", f"{key}={text}"]
    return typed


def _source_of(task: DataSettings) -> dict[str, str]:
    return {"task": task.task} if task.task is not None else {"data": str(task.data)}


def _stages(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Settings of the stages that make the model, by the stages' names."""
    return {
        name: stage.model_dump(mode="json") for name, stage in recipe.by_name.items() if stage.stage not in LEFT_OUT
    }


def _option(recipe: Recipe, name: str) -> str:
    """What an option is in a recipe, as it is typed: "null" where there is none, or no such option."""
    if not recipe.has_option(name):
        return "null"
    if name == "epochs":  # Of all fine-tunings together.
        epochs = sum(stage.epochs for stage in recipe.tunings.values())
        return _text(float(f"{epochs:.6g}"))
    owner, _, field = recipe.key_of(name).rpartition(".")
    value = getattr(recipe.by_name[owner], field)
    return repr(value) if name in ("keep_heads", "keep_ffn") and value is not None else _text(value)


def _text(value: Any) -> str:
    """A setting as it is typed: 3.0 -> "3", (a, b) -> "a,b", None -> "null"."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, list | tuple):
        return ",".join(_text(one) for one in value)
    return str(value)
