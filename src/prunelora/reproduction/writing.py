"""Writing a reproduction: a page as HTML and Markdown, its figure, all numbers as JSON; and lines for a terminal."""

import dataclasses
from pathlib import Path
from typing import Any

from prunelora.comparison.summary import not_done
from prunelora.report.figures import save_drawn
from prunelora.report.sections import Section
from prunelora.report.tables import Table
from prunelora.report.writing import Page, write_page
from prunelora.reproduction import paper
from prunelora.reproduction.counts import Counts
from prunelora.reproduction.figure import importance_maps
from prunelora.reproduction.findings import findings, summary
from prunelora.reproduction.presets import PRESETS
from prunelora.reproduction.results import Reproduction, TaskOutcome
from prunelora.reproduction.tables import all_tables, notes_text
from prunelora.storage import write_json
from prunelora.version import __version__

PAGE, NUMBERS, FIGURE = "reproduction", "reproduction.json", "figure-1"

Lines = list[tuple[str, tuple[str, ...], tuple[tuple[str, ...], ...]]]


def write_reproduction(reproduction: Reproduction, folder: Path | str) -> list[str]:
    """Write reproduction.md, reproduction.html, reproduction.json and figures/ into a folder.

    Returns:
        Names of the written files, relative to `folder`, with forward slashes.
    """
    folder = Path(folder)
    drawn = save_drawn({FIGURE: importance_maps(reproduction)}, folder / "figures")
    written = write_page(page(reproduction), drawn, folder, name=PAGE)
    write_json(folder / NUMBERS, numbers(reproduction))
    return [*(f"figures/{name}" for name in drawn), *written, NUMBERS]


def lines(reproduction: Reproduction) -> Lines:
    """Every table for a terminal, then what does not reproduce, and the notes: title, columns, rows."""
    shown: Lines = [(one.title, one.table.columns, one.table.rows) for one in all_tables(reproduction)]
    shown.append(
        (
            "What does not reproduce, and why",
            ("what", "why"),
            tuple((found.title, found.text) for found in findings(reproduction)),
        )
    )
    notes = tuple((one.task, one.note) for one in reproduction.tasks if one.note)
    return [*shown, ("Notes", ("task", "note"), notes)] if notes else shown


def page(reproduction: Reproduction) -> Page:
    """What the page says."""
    label = reproduction.label
    tables = [Section(one.title, one.text, table=one.table, folded=one.folded) for one in all_tables(reproduction)]
    reasons = tuple((found.title, found.text) for found in findings(reproduction))
    first = [one for one in reproduction.tasks if one.importance is not None]
    seeds = ", ".join(map(str, reproduction.seeds))
    return Page(
        title=f"The paper's tables beside ours, on {label}",
        subtitle=f"{paper.TITLE}, {paper.AUTHORS}; ours: {label}, {_settings_text(reproduction)}, seeds {seeds}",
        summary=(("Prune-LoRA on mean", tuple(summary(reproduction))),),
        warnings=_warnings(reproduction),
        sections=(
            *tables,
            Section(
                f"Figure 1: importance of every head, six tasks ({label})",
                (
                    "Every cell is one attention head. Its colour is the paper's eq. 2: how much the loss on training "
                    "rows would change if the head were turned down a little, divided by its layer's norm, "
                    "stretched to "
                    "0..1. A cross marks a head that was cut; the numbers say how many, of all.",
                    f"Scores of the first seed. Panels with scores: {', '.join(one.task for one in first) or 'none'}.",
                    *notes_text(reproduction),
                ),
                figure=FIGURE,
            ),
            Section("What does not reproduce, and why", table=Table(("", ""), reasons)),
            Section(
                "How to make this page",
                (*_preset_titles(reproduction), "Finished trainings are not repeated."),
                code=reproduction.command,
                language="console",
            ),
        ),
        numbers=NUMBERS,
    )


def numbers(reproduction: Reproduction) -> dict[str, Any]:
    """Everything for machines; preset and train_head are null where they are not the same for all tasks."""
    return {
        "format": "prunelora-reproduction-1",
        "prunelora": __version__,
        "model": reproduction.model,
        "label": reproduction.label,
        "preset": _only([one.settings.preset for one in reproduction.done]),
        "train_head": _only([one.settings.train_head for one in reproduction.done]),
        "seeds": list(reproduction.seeds),
        "missing": list(reproduction.missing),
        "command": reproduction.command,
        "paper": {
            "model": paper.MODEL,
            "accuracy": {
                method: {task: cell.value for task, cell in cells.items()} for method, cells in paper.ACCURACY.items()
            },
            "loss_to_full_points": paper.LOSS_TO_FULL.value,
            "inference_memory": {method: cell.value for method, cell in paper.INFERENCE_MEMORY.items()},
            "parameters": {method: cell.value for method, cell in paper.PARAMETERS.items()},
            "trained": {method: cell.value for method, cell in paper.TRAINED.items()},
            "training_time": {method: cell.value for method, cell in paper.TRAINING_TIME.items()},
        },
        "counts": _counts(reproduction.papers_counts),
        "own_counts": _counts(reproduction.own_counts) if reproduction.own_counts is not None else None,
        "tasks": {one.task: _task(one) for one in reproduction.tasks},
        "does_not_reproduce": [dataclasses.asdict(found) for found in findings(reproduction)],
    }


def _task(one: TaskOutcome) -> dict[str, Any]:
    content: dict[str, Any] = {"note": one.note, "run": one.comparison is not None}
    if one.comparison is not None:
        content |= {
            "preset": one.settings.preset,
            "train_head": one.settings.train_head,
            "missing": list(one.comparison.missing),
            "rows": one.comparison.task["rows"],
            "majority_rate": one.comparison.task["majority_rate"],
            "methods": {method.name: method.model_dump(mode="json") for method in one.comparison.methods},
            "machine": one.comparison.machine,
            "prunelora": one.comparison.prunelora,
        }
    return content


def _counts(counts: Counts) -> dict[str, Any]:
    rows = [{**dataclasses.asdict(row), "trained": row.trained} for row in counts.rows]
    return {"model": counts.model, "rows": rows}


def _warnings(reproduction: Reproduction) -> tuple[str, ...]:
    found = []
    if not reproduction.is_papers_model:
        found.append(
            f"everything trained here is {reproduction.label}, not the paper's {paper.MODEL}; only the "
            "parameter counts "
            f"of {paper.MODEL} are of the paper's model, from its configuration"
        )
    if reproduction.missing:
        found.append(f"not run: {', '.join(reproduction.missing)}")
    found += [
        f"{one.task} is not complete: {text}"
        for one in reproduction.done
        if one.comparison is not None and (text := not_done(one.comparison)) is not None
    ]
    if len(reproduction.presets) > 1:
        groups = [
            f"{_preset_text(*settings)} for {', '.join(tasks)}" for settings, tasks in reproduction.presets.items()
        ]
        found.append(f"not all tasks were run under the same settings: {'; '.join(groups)}; means over tasks mix them")
    found += [f"rows of {one.task}: {one.note}" for one in reproduction.tasks if one.note]
    return tuple(found)


def _settings_text(reproduction: Reproduction) -> str:
    """The preset of all tasks, or that there are several; the warnings say of which tasks each is."""
    settings = list(reproduction.presets)
    return _preset_text(*settings[0]) if len(settings) == 1 else "settings that differ between tasks"


def _preset_text(preset: str, train_head: bool) -> str:
    head = "" if train_head else ", task head not trained"
    return f"preset {preset}{head}" if preset else f"own settings{head}"


def _preset_titles(reproduction: Reproduction) -> tuple[str, ...]:
    """What the settings are, a paragraph each, with their tasks where there are several."""
    several = len(reproduction.presets) > 1
    return tuple(
        (f"{', '.join(tasks)} ({_preset_text(preset, head)}): " if several else "") + _preset_title(preset)
        for (preset, head), tasks in reproduction.presets.items()
    )


def _preset_title(name: str) -> str:
    preset = PRESETS.get(name)
    return preset.title if preset is not None else "The comparisons were run one by one, with settings of their own."


def _only(values: list[Any]) -> Any:
    """What all of them are; None where they differ."""
    return values[0] if len(set(values)) == 1 else None
