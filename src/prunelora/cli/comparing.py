"""The commands that train several methods: `compare` and `reproduce`."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from prunelora.cli import terminal
from prunelora.cli.options import Json, Sets, settings_typed, with_settings_of
from prunelora.data.settings import DataSettings
from prunelora.errors import RecipeError
from prunelora.recipe import FineTuneStage, PlanStage, Recipe, ScoreStage

COMPARE_OUT = Path("runs/compare")
REPRODUCE_OUT = Path("runs/reproduce")

Number = TypeVar("Number", int, float)

Seeds = Annotated[str, typer.Option(help="Seeds, joined by commas; learning rates are tried on the first.")]
NoTiming = Annotated[
    bool, typer.Option("--no-timing", help="Leave out the timing of training steps and forward passes at the end.")
]


@with_settings_of(
    (Recipe, ("model", "trust_remote_code")),
    (DataSettings, None),
    (ScoreStage, ("rows",)),
    (PlanStage, ("keep_heads", "keep_ffn")),
    (FineTuneStage, ("epochs", "batch_size", "patience")),
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
            help="Methods, joined by commas: full, lora, prune-lora, random-prune-lora, magnitude-prune-lora, or paths "
            "of recipe files."
        ),
    ] = "full,lora,prune-lora,random-prune-lora,magnitude-prune-lora",
    seeds: Seeds = "0,1,2",
    factors: Annotated[
        str,
        typer.Option(
            help="Learning rates to try for every method, as multiples of its recipe's own, joined by commas. The best "
            "on the validation rows is used."
        ),
    ] = "1,3",
    jobs: Annotated[int, typer.Option(help="Trainings at the same time, each with its share of the cores.")] = 1,
    no_timing: NoTiming = False,
    sets: Sets = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the trainings, and do nothing.")] = False,
    json: Json = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Full fine-tuning, LoRA, Prune-LoRA and its controls on the same data, splits and seeds -> one table.

    With no arguments: the embedded example. A comparison that was stopped goes on; what is done is not repeated.
    """
    example = not settings.keys() & {"model", "data", "task"}
    if not example and out is None:
        raise RecipeError("No folder was given. Add --out FOLDER.")
    if not example and ("model" not in settings or not settings.keys() & {"data", "task"}):
        raise RecipeError("A comparison needs --model and --data (or --task); with none of them it is the example.")
    own = {"model", "trust_remote_code", *DataSettings.model_fields}
    base = Recipe().with_settings(
        {Recipe().key_of(name): value for name, value in settings.items() if name in own}
    )
    changes = {name: value for name, value in settings.items() if name not in own} | settings_typed(sets)
    from prunelora.comparison.compare import compare as run_comparison
    from prunelora.comparison.compare import planned_cells
    from prunelora.comparison.page import lines, tables

    chosen: dict[str, Any] = {
        "base": base,
        "out": out or COMPARE_OUT,
        "methods": [name.strip() for name in methods.split(",") if name.strip()],
        "seeds": numbers(seeds, int, "--seeds"),
        "factors": numbers(factors, float, "--factors"),
        "changes": changes,
    }
    if dry_run:
        cells = planned_cells(**chosen)
        if json:
            terminal.give_json(cells)
        else:
            terminal.give_lines(cells)
        return
    results = run_comparison(
        **chosen, timing=not no_timing, jobs=jobs, tell=terminal.tell, progress=not json
    )
    if json:
        terminal.give_json(results.model_dump(mode="json"))
        return
    for table in tables(results):
        terminal.give_table(table.title, table.columns, table.rows)
    terminal.give_lines(lines(results))
    terminal.give_lines([f"Report: {chosen['out'] / 'report.html'}"])


def numbers(text: str, kind: Callable[[str], Number], option: str) -> tuple[Number, ...]:
    """Numbers joined by commas: "0,1,2" -> (0, 1, 2)."""
    try:
        return tuple(kind(one) for one in text.split(",") if one.strip())
    except ValueError as error:
        raise RecipeError(f"{option} {text}: expected numbers joined by commas.") from error
