"""The commands: each reads the typed options, calls the library, and prints the result."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from prunelora.cli import comparing, terminal
from prunelora.cli.options import Json, Quiet, Sets, settings_typed, with_settings_of
from prunelora.cli.typed import Command, works_on
from prunelora.data.settings import DataSettings
from prunelora.errors import PlanError, RecipeError, option
from prunelora.run.folder import RunFolder
from prunelora.run.options import differences, factors_of
from prunelora.run.recipe import Recipe, load_recipe
from prunelora.stages.base import Stage
from prunelora.stages.finetune import FineTuneStage
from prunelora.stages.kinds import KINDS
from prunelora.stages.linear_probe import LinearProbeStage
from prunelora.stages.plan import BUDGETS, PlanStage
from prunelora.stages.prune import PruneStage
from prunelora.stages.score import ScoreStage
from prunelora.version import __version__

EXAMPLE_OUT = Path("runs/example")
DEFAULT_MODEL = Recipe.model_fields["model"].default
# Taken from the folder's recipe where a recipe file does not set them.
_OF_A_RUN = ("model", "task", "seed")

app = typer.Typer(
    help="Fine-tune a pretrained transformer so that the tuned model is also smaller and faster.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

RunArgument = Annotated[
    Path, typer.Argument(metavar="RUN", help="Run folder. Made if --data (or --task) starts a run in it.")
]
RecipeFile = Annotated[
    Path | None,
    typer.Option(
        "--recipe",
        help="Recipe file (YAML) with the stages and their settings, or a packaged one: tune-first, cut-early, "
        "cut-first.",
    ),
]
Baseline = Annotated[
    bool,
    typer.Option("--baseline", help="Also fine-tune the dense model with plain LoRA, to see what pruning cost."),
]
NoExport = Annotated[
    bool,
    typer.Option("--no-export", help="Write no model.onnx; the extra onnx is then not needed."),
]
RecipeOptions = (Recipe, ("model", "seed"))


def _version(shown: bool) -> None:
    if shown:
        terminal.give_lines([f"prunelora {__version__}"])
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    pass


# Settings that have an option of their own.
_OF_RUN: tuple[Any, ...] = (
    RecipeOptions,
    (DataSettings, None),
    (ScoreStage, ("criterion", "rows")),
    (LinearProbeStage, ("steps",)),
    (PlanStage, (*BUDGETS, "count", "normalise", "balance", "rank_high", "rank_low", "targets")),
    (PruneStage, ("repair",)),
    (FineTuneStage, ("epochs", "learning_rate", "batch_size", "patience", "tensorboard")),
)


@app.command(cls=Command)
@with_settings_of(*_OF_RUN)
def run(
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help=f"Run folder. [default: {EXAMPLE_OUT} for the example]", show_default=False),
    ] = None,
    recipe: RecipeFile = None,
    sets: Sets = None,
    baseline: Baseline = False,
    no_export: NoExport = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the stages, and run nothing.")] = False,
    json: Json = False,
    quiet: Quiet = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Model + data -> everything, in one run folder. With no arguments: the embedded example.

    A stopped run is resumed; stages that are finished under the same settings are not repeated.
    """
    example = not settings.keys() & {"model", "data", "task"}
    if out is None and not (example and recipe is None):
        raise RecipeError("No run folder was given. Add --out FOLDER.")
    folder = RunFolder(out or EXAMPLE_OUT)
    # With model and data typed, all other settings have their defaults: the same command is the same run.
    anew = "model" in settings and bool(settings.keys() & {"data", "task"})
    chosen = _starting_recipe(recipe, folder, settings, example=example, anew=anew, tell=terminal.teller(quiet))
    chosen = chosen.with_baseline() if baseline else chosen
    chosen = chosen.without_export() if no_export else chosen
    changed = _changed(chosen, settings, sets)
    if dry_run:
        _show_work(chosen, changed, settings, folder, json)
        return
    from prunelora.run.execute import execute

    outcome = execute(changed, folder.path, tell=terminal.teller(quiet), progress=not quiet)
    if json:
        terminal.give_json(outcome.to_dict())
    else:
        from prunelora.report.summary import files, shown

        terminal.give_lines([*shown(outcome.results), *files(outcome.results)])


def _starting_recipe(
    file: Path | None,
    folder: RunFolder,
    settings: dict[str, Any],
    *,
    example: bool = False,
    anew: bool = False,
    tell: Callable[[str], None],
) -> Recipe:
    """The recipe that the typed settings change: a file's, the folder's, or the default one.

    Args:
        file: A recipe file, or the name of a packaged recipe. If it does not set model, data or seed, those of the
            run in the folder are used.
        folder: The run folder.
        settings: The typed options.
        example: Whether a run without model and data is the embedded example.
        anew: Whether the typed options start a new run in a folder that holds another run.
        tell: Called with a line if the default model is used because none is named.

    Raises:
        RecipeError: If nothing names the data.
    """
    chosen, named = (load_recipe(file), file) if file is not None else (None, None)
    said = set(settings) if chosen is None else set(settings) | chosen.model_fields_set
    if folder.begun and not anew:
        present = folder.recipe()
        if chosen is None:
            return present
        kept = {name: getattr(present, name) for name in _OF_A_RUN if name not in chosen.model_fields_set}
        return chosen.model_copy(update=kept)
    if not said & {"data", "task"} and not (example and "model" not in said):
        other = f", as {named} does not set it" if named is not None else ""
        raise RecipeError(
            f"--data missing: a run needs --data (or --task in its place){other}; --model is {DEFAULT_MODEL} if not "
            "given. `prunelora run` with none of them runs the embedded example."
        )
    if "model" not in said and not example:
        tell(f"model {DEFAULT_MODEL}, the default; --model names another")
    return chosen or Recipe()


def _changed(recipe: Recipe, settings: dict[str, Any], sets: list[str] | None) -> Recipe:
    works_on(recipe)
    changed = recipe.with_options(settings, settings_typed(sets))
    works_on(changed)
    return changed


def _show_work(recipe: Recipe, changed: Recipe, settings: dict[str, Any], folder: RunFolder, json: bool) -> None:
    """Print the stages of a run, and what each typed option changes in the recipe."""
    differ = {key: [present, new] for key, present, new in differences(recipe, changed)}
    by_option: dict[str, dict[str, Any]] = {
        name: {key: differ.pop(key, None) for key in factors_of(recipe, name)} for name in settings
    }
    work: list[dict[str, Any]] = [
        {
            "stage": name,
            "settings": stage.model_dump(mode="json", exclude={"stage"}),
            "has_record": folder.record(name) is not None,
        }
        for name, stage in changed.by_name.items()
    ]
    if json:
        content: dict[str, Any] = changed.model_dump(mode="json", include={"model", "task", "seed"})
        changes: dict[str, Any] = {"options": by_option, "other_changes": differ}
        terminal.give_json({**content, "folder": str(folder.path), "stages": work, **changes})
        return
    data = f"task {changed.task.task}" if changed.task.task is not None else f"data {changed.task.data}"
    lines = [f"model {changed.model}, {data}, seed {changed.seed}, into {folder.path}"]
    of_data = changed.task.model_dump(exclude={"data", "task"}, exclude_none=True)
    lines.append(f"      {', '.join(f'{key}={value}' for key, value in of_data.items())}")
    for number, stage in enumerate(work, start=1):
        shown = ", ".join(f"{key}={value}" for key, value in stage["settings"].items() if value is not None)
        mark = "  (finished before; repeated if something before it changed)" if stage["has_record"] else ""
        lines += [f"{number:>2}. {stage['stage']}{mark}", *([f"      {shown}"] if shown else [])]
    if by_option or differ:
        lines.append("Changes of the recipe:")
    for name, of_option in by_option.items():
        said = (f"{key} {_said(change) if change else 'unchanged'}" for key, change in of_option.items())
        lines.append(f"      {option(name, settings[name])}: {', '.join(said)}")
    lines += [f"      {key} {_said(change)}" for key, change in differ.items()]
    terminal.give_lines(lines)


def _said(change: list[Any]) -> str:
    return f"{change[0]} -> {change[1]}"


def _add_stage_command(model: type[Stage]) -> None:
    """Add the command of a kind of stage: run the recipe of a folder up to that stage, with its settings as options."""
    kind = model.kind()

    @with_settings_of(RecipeOptions, (DataSettings, None), (model, None))
    def command(
        run: RunArgument,
        recipe: RecipeFile = None,
        sets: Sets = None,
        json: Json = False,
        quiet: Quiet = False,
        *,
        settings: dict[str, Any],
    ) -> None:
        folder = RunFolder(run)
        chosen = _starting_recipe(recipe, folder, settings, tell=terminal.teller(quiet))
        if kind not in chosen.names:
            raise RecipeError(f"{run}: the recipe has no stage {kind!r}. It has: {', '.join(chosen.names)}.")
        of_stage = {f"{kind}.{name}": settings.pop(name) for name in list(settings) if name in model.model_fields}
        works_on(chosen)
        chosen = chosen.with_options(settings, settings_typed(sets) | of_stage)
        works_on(chosen)
        from prunelora.run.execute import execute

        outcome = execute(chosen, folder.path, until=kind, tell=terminal.teller(quiet), progress=not quiet)
        results, stage = outcome.results, chosen.by_name[kind]
        facts = stage.facts_shown(results, kind)
        if json:
            done = {"folder": str(run), "stage": kind, "ran": outcome.ran, "facts": facts, "notes": outcome.notes}
            terminal.give_json({**done, **stage.content(results), "paths": outcome.paths})
        else:
            terminal.give_lines(stage.lines(results, facts))

    command.__doc__ = f"{str(model.__doc__).splitlines()[0]} Runs the stages before it that are not done yet."
    app.command(name=kind, cls=Command)(command)


for _stage in KINDS:
    if _stage.has_command:
        _add_stage_command(_stage)


app.command(cls=Command)(comparing.compare)
app.command(cls=Command)(comparing.reproduce)


@app.command(cls=Command)
def show(
    plan: Annotated[Path, typer.Argument(help="A plan.json, or the folder of a run, a model or an adapter.")],
    diff: Annotated[Path | None, typer.Option("--diff", help="Another plan to compare with.")] = None,
    json: Json = False,
) -> None:
    """Draw a plan in the terminal: heads and neurons that stay in every layer, and ranks."""
    from prunelora.cli.drawing import draw_difference, draw_plan
    from prunelora.planning.plan import Plan

    first = Plan.load(_plan_file(plan))
    second = Plan.load(_plan_file(diff)) if diff is not None else None
    if second is not None and second.base != first.base:
        raise RecipeError(f"The plans are for two models: {first.base.describe()}; {second.base.describe()}.")
    if json:
        content: dict[str, Any] = {"plan": first.model_dump(mode="json"), "id": first.id}
        if second is not None:
            content |= {"other": second.model_dump(mode="json"), "other_id": second.id, "same": first.id == second.id}
        terminal.give_json(content)
    else:
        terminal.give_lines(draw_plan(first) if second is None else draw_difference(first, second))


@app.command(cls=Command)
@with_settings_of(
    *_OF_RUN,
    (PlanStage, ("tokens", "round_to", "latency_batch_size", "latency_engine", "latency_threads", "remeasure")),
)
def check(
    recipe: RecipeFile = None,
    sets: Sets = None,
    baseline: Baseline = False,
    no_export: NoExport = False,
    latency: Annotated[
        bool,
        typer.Option(
            "--latency/--no-latency",
            help="Predict latency from measurements on this device, which are kept for the next time. A budget in "
            "milliseconds or as a speedup needs them in any case.",
        ),
    ] = True,
    training: Annotated[
        bool,
        typer.Option(
            "--training/--no-training",
            help="Count the memory of a training step, and time it: by full fine-tuning, by LoRA, and by LoRA after "
            "the cut, or by all weights after it where the recipe trains them; with data, time pieces of every stage "
            "of the run. Takes a dozen steps and a training's own memory.",
        ),
    ] = True,
    json: Json = False,
    quiet: Quiet = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Predict a run before any work: sizes, bounds on speed, latency, and seconds of all stages.

    Takes the options of run and raises its errors. Only the configuration of the model is read.
    """
    chosen = Recipe() if recipe is None else load_recipe(recipe)
    of_data = [name for name in DataSettings.model_fields if name in settings]
    names_data = bool(settings.keys() & {"data", "task"}) or (recipe is not None and "task" in chosen.model_fields_set)
    if of_data and not names_data:
        options = ", ".join(option(name, settings[name]) for name in of_data)
        raise RecipeError(f"{options}: belongs to data, and no data was named. Add --data or --task.")
    chosen = chosen.with_baseline() if baseline else chosen
    chosen = _changed(chosen.without_export() if no_export else chosen, settings, sets)
    from prunelora.progress import bars
    from prunelora.run.check import check_run

    with bars(not quiet):
        feasibility = check_run(
            chosen, data=names_data, latency=latency, training=training, tell=terminal.teller(quiet)
        )
    if json:
        terminal.give_json(feasibility.to_dict())
    else:
        from prunelora.report.check_tables import check_tables

        terminal.give_lines(check_tables(feasibility))


def _plan_file(path: Path) -> Path:
    file = path / "plan.json" if path.is_dir() else path
    if not file.exists():
        raise PlanError(f"{path}: no plan there. Give a plan.json, or a folder that holds one.")
    return file


_TASKS = {
    "sequence_classification": "classes",
    "token_classification": "tags",
    "causal_lm": "text",
    "image_classification": "classes of images",
}


@app.command(cls=Command)
def families(json: Json = False) -> None:
    """List the supported model families and their tasks."""
    from prunelora.models.families import FAMILIES

    if json:
        terminal.give_json([family.facts() for family in FAMILIES.values()])
        return
    shown = [
        (
            family.title,
            ", ".join(family.model_types),
            family.unit_of_attention,
            family.unit_of_feed_forward,
            ", ".join(_TASKS[task] for task in family.tasks),
            "yes" if family.onnx else "no",
            "yes" if family.generates else "",
        )
        for family in FAMILIES.values()
    ]
    terminal.give_table(
        "Supported families, all with scores, cuts, LoRA, saving and loading",
        ("family", "model_type", "is cut by", "and by", "tasks", "ONNX", "generates"),
        shown,
    )
