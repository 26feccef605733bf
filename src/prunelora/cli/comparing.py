"""The commands that train several methods: `compare` and `reproduce`."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from prunelora.cli import terminal
from prunelora.cli.options import Json, Quiet, Sets, settings_typed, with_settings_of
from prunelora.comparison.methods import METHODS, load_methods
from prunelora.data.checks import check_exists
from prunelora.data.embedded import model_source
from prunelora.data.settings import DataSettings
from prunelora.errors import RecipeError
from prunelora.models.source import check_source
from prunelora.run.check import check_inputs
from prunelora.run.recipe import Recipe
from prunelora.settings import number_in
from prunelora.stages.finetune import FineTuneStage
from prunelora.stages.plan import PlanStage
from prunelora.stages.score import ScoreStage

COMPARE_OUT = Path("runs/compare")
REPRODUCE_OUT = Path("runs/reproduce")

Number = TypeVar("Number", int, float)

Seeds = Annotated[str, typer.Option(help="Seeds, joined by commas; learning rates are tried on the first seed.")]
NoTiming = Annotated[
    bool, typer.Option("--no-timing", help="Leave out the timing of training steps and forward passes at the end.")
]


@with_settings_of(
    (Recipe, ("model",)),
    (DataSettings, None),
    (ScoreStage, ("rows",)),
    (PlanStage, ("keep_heads", "keep_ffn")),
    (FineTuneStage, ("epochs", "batch_size", "patience")),
    not_of_recipe=(Recipe, DataSettings),
)
def compare(
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help=f"Folder for everything. [default: {COMPARE_OUT} for the example]", show_default=False
        ),
    ] = None,
    methods: Annotated[
        str,
        typer.Option(
            help=f"Methods, joined by commas: {', '.join(METHODS)}, cut-early, cut-first, or paths of recipe files. "
            "tune-first is what run does, prune-lora the paper's recipe, and those named after it are its controls."
        ),
    ] = ",".join(METHODS),
    seeds: Seeds = "0,1,2",
    factors: Annotated[
        str,
        typer.Option(
            help="Learning rates to try for every method, as multiples of its recipe's own, joined by commas. The best "
            "on the validation rows is used."
        ),
    ] = "1,3",
    keep_macs: Annotated[
        str,
        typer.Option(
            metavar="FRACTIONS",
            help="Budgets for every method that has a plan, as fractions of the dense model's MACs joined by commas, "
            "such as 1,0.75,0.5,0.35,0.25,0.15: each method is trained at each, and quality is drawn against measured "
            "latency. Of a single one: the budget of all. Their recipes' own if not given.",
            show_default=False,
        ),
    ] = "",
    jobs: Annotated[int, typer.Option(help="Trainings at the same time, each with its share of the cores.")] = 1,
    no_timing: NoTiming = False,
    sets: Sets = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the trainings, and do nothing.")] = False,
    json: Json = False,
    quiet: Quiet = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Full fine-tuning, LoRA, run's recipe, the paper's and its controls on the same data and seeds -> one table.

    With no arguments: the embedded example. With several budgets (--keep-macs) also the trade-off of quality and speed,
    and the recipe file of each point of it. A stopped comparison is resumed; finished trials are not repeated.
    """
    example = not settings.keys() & {"model", "data", "task"}
    if not example and out is None:
        raise RecipeError("No folder was given. Add --out FOLDER.")
    if not example and not settings.keys() & {"data", "task"}:
        raise RecipeError(
            "A comparison needs --data (or --task in its place); with no --model either it is the example."
        )
    tell = terminal.teller(quiet)
    if not example and "model" not in settings:
        tell(f"model {Recipe.model_fields['model'].default}, the default; --model names another")
    of_all_methods = {"model", *DataSettings.model_fields}
    base = Recipe().with_options({name: value for name, value in settings.items() if name in of_all_methods})
    changes = {name: value for name, value in settings.items() if name not in of_all_methods} | settings_typed(sets)
    check_inputs(base)
    out = out or COMPARE_OUT
    budgets = numbers_in(keep_macs, float, "--keep-macs")
    # Before torch is imported, for its errors.
    loaded = load_methods(words(methods), base=base, changes=changes, keep_macs=budgets)
    tries: dict[str, Any] = {
        "seeds": numbers_in(seeds, int, "--seeds"),
        "factors": numbers_in(factors, float, "--factors"),
    }

    from prunelora.comparison.compare import compare as run_comparison
    from prunelora.comparison.compare import planned_trials
    from prunelora.comparison.page import tables
    from prunelora.comparison.summary import summarise

    if dry_run:
        trials = planned_trials(loaded, out=out, **tries)
        if json:
            terminal.give_json(trials)
        else:
            terminal.give_lines(trials)
        return
    results = run_comparison(
        base=base,
        out=out,
        methods=words(methods),
        changes=changes,
        keep_macs=budgets,
        **tries,
        timing=not no_timing,
        jobs=jobs,
        tell=tell,
        progress=not quiet,
    )
    if json:
        terminal.give_json(
            {
                **results.model_dump(mode="json"),
                "tables": [vars(table) for table in tables(results)],
                "summary": summarise(results),
                "paths": {"folder": out, "report": out / "report.html"},
            }
        )
        return
    terminal.give_lines([*tables(results), *summarise(results), f"Report: {out / 'report.html'}"])


def reproduce(
    model: Annotated[
        str, typer.Option(help="Pretrained model: a folder, a hub name (bert-base-uncased is the paper's), or minilm.")
    ] = "minilm",
    data_dir: Annotated[
        str | None,
        typer.Option(
            help="Folder with a folder of files for each task. From the hub if not given.", show_default=False
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for everything.")] = REPRODUCE_OUT,
    preset: Annotated[
        str, typer.Option(help="paper: its learning rate, epochs and batch. best: ours, learning rate chosen.")
    ] = "best",
    tasks: Annotated[str, typer.Option(help="Tasks, joined by commas.")] = "mnli,mrpc,qnli,rte,sst2,wnli",
    seeds: Seeds = "0,1,2",
    epochs: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER|TASK=NUMBER",
            help="Epochs in place of the preset's: for all tasks, or for each, joined by commas.",
            show_default=False,
        ),
    ] = None,
    max_train_rows: Annotated[
        str | None,
        typer.Option(
            metavar="TASK=NUMBER",
            help="Most training rows of tasks, joined by commas. All if not given.",
            show_default=False,
        ),
    ] = None,
    note: Annotated[
        list[str] | None,
        typer.Option(metavar="TASK=TEXT", help="A note on a task's files, shown beside its numbers; may be repeated."),
    ] = None,
    no_train_head: Annotated[
        bool, typer.Option("--no-train-head", help="Leave the task head as initialised, as the paper's list has it.")
    ] = False,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Train nothing: show the results of an earlier call.")
    ] = False,
    no_timing: NoTiming = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """The paper's tables 1 to 4 and figure 1 beside ours, and the results that do not reproduce.

    Counts of parameters are bert-base's, from its configuration alone. Everything else is of --model, and says so. A
    stopped reproduction is resumed; finished trials are not repeated.
    """
    if not read_only:
        check_source(model_source(model))
        if data_dir is not None:
            check_exists(Path(data_dir).expanduser())

    from prunelora.reproduction.page import numbers, tables, write_reproduction
    from prunelora.reproduction.reproduce import reproduce as run_reproduction
    from prunelora.reproduction.results import read

    notes = dict(assigned(text, "--note") for text in note or [])
    if read_only:
        reproduction = read(out, notes=notes)
    else:
        reproduction = run_reproduction(
            out=out,
            model=model,
            data_dir=data_dir,
            preset=preset,
            train_head=not no_train_head,
            tasks=words(tasks),
            seeds=numbers_in(seeds, int, "--seeds"),
            epochs=by_task(epochs, float, "--epochs"),
            max_train_rows=by_task(max_train_rows, int, "--max-train-rows", every=False),
            notes=notes,
            timing=not no_timing,
            tell=terminal.teller(quiet),
            progress=not quiet,
        )
    written = write_reproduction(reproduction, out)
    paths = {name.rpartition(".")[2]: out / name for name in written if "/" not in name}
    if json:
        terminal.give_json({**numbers(reproduction), "paths": {"folder": out, **paths}})
    else:
        terminal.give_lines([*tables(reproduction), *(f"{kind}: {path}" for kind, path in paths.items())])


def words(text: str) -> list[str]:
    """Words joined by commas: "rte, sst2" -> ["rte", "sst2"]."""
    return [word.strip() for word in text.split(",") if word.strip()]


def assigned(text: str, option: str) -> tuple[str, str]:
    """A task and its value: "qnli=a part" -> ("qnli", "a part")."""
    task, sign, value = text.partition("=")
    if not sign:
        raise RecipeError(f"{option} {text}: expected TASK=VALUE.")
    return task.strip(), value.strip()


def by_task(text: str | None, kind: Callable[[str], Number], option: str, *, every: bool = True) -> Any:
    """A number for all tasks, or for each: "3" -> 3; "rte=3,sst2=1" -> {"rte": 3, "sst2": 1}; None -> None."""
    if text is None:
        return None
    try:
        if "=" not in text and every:
            return kind(text)
        return {task: kind(value) for task, value in (assigned(word, option) for word in words(text))}
    except ValueError as error:
        raise RecipeError(f"{option} {text}: expected {'a number, or ' if every else ''}TASK=NUMBER.") from error


def numbers_in(text: str, kind: Callable[[Any], Number], option: str) -> tuple[Number, ...]:
    """Numbers joined by commas: "0,1,2" -> (0, 1, 2)."""
    numbers = [number_in(word) for word in text.split(",") if word.strip()]
    if None in numbers or (kind is int and any(isinstance(number, float) for number in numbers)):
        raise RecipeError(f"{option} {text}: expected numbers joined by commas.")
    return tuple(kind(number) for number in numbers)
