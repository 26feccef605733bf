"""The written form of a reproduction: reproduction.html, reproduction.md, reproduction.json and figure 1."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from prunelora.report.page import Page, Section, write_page
from prunelora.report.table import Table
from prunelora.reproduction import paper
from prunelora.reproduction.counts import Counts, bert_base_counts
from prunelora.reproduction.figure import importance_maps
from prunelora.reproduction.results import Reproduction
from prunelora.reproduction.tables import counts_table, paper_table, tasks_table
from prunelora.storage import write_json
from prunelora.version import __version__

PAGE, NUMBERS, FIGURE = "reproduction", "reproduction.json", "figure-1"


def write_reproduction(reproduction: Reproduction, folder: Path | str) -> list[str]:
    """Write reproduction.md, reproduction.html, reproduction.json and figures/ into a folder.

    Returns:
        Names of the written files, relative to `folder`, with forward slashes.
    """
    folder = Path(folder)
    written = write_page(page(reproduction), folder, figures={FIGURE: importance_maps(reproduction)}, name=PAGE)
    write_json(folder / NUMBERS, numbers(reproduction))
    return [*written, NUMBERS]


def tables(reproduction: Reproduction) -> list[Table]:
    """Every table, for a terminal."""
    return [paper_table(reproduction), tasks_table(reproduction), counts_table(reproduction)]


def page(reproduction: Reproduction) -> Page:
    """The page, before it is Markdown or HTML."""
    label = reproduction.label
    first, *rest = (Section(table=table) for table in tables(reproduction))
    return Page(
        title=f"The paper beside ours, on {label}",
        intro=(
            f"{paper.TITLE}, {paper.AUTHORS}; ours: {label}, seeds {', '.join(map(str, reproduction.seeds))}. The page "
            "on reproduction in the documentation lists what does not reproduce, and why.",
        ),
        warnings=_warnings(reproduction),
        sections=(
            first,
            Section(
                f"Figure 1: importance of every head ({label})",
                (
                    "A cell is a head; its colour is the paper's eq. 2 of the first seed's scores: how much the loss "
                    "on training rows changes if the head is turned down, divided by the norm of its layer, scaled to "
                    "0..1. A cross marks a head that was cut.",
                ),
                figure=FIGURE,
            ),
            *rest,
        ),
        numbers=NUMBERS,
    )


def numbers(reproduction: Reproduction) -> dict[str, Any]:
    """All numbers for scripts."""
    own = reproduction.own_counts
    return {
        "format": "prunelora-reproduction-2",
        "prunelora": __version__,
        "model": reproduction.model,
        "label": reproduction.label,
        "seeds": list(reproduction.seeds),
        "missing": list(reproduction.missing),
        "paper": {
            "model": paper.MODEL,
            "accuracy": {
                method: {task: _value(printed, method) for task, printed in paper.ACCURACY.items()}
                for method in paper.METHODS
            },
            "loss_to_full_points": paper.LOSS_TO_FULL["prune-lora"].value,
            "inference_memory": _values(paper.INFERENCE_MEMORY),
            "parameters": _values(paper.PARAMETERS),
            "trained": _values(paper.TRAINED),
            "training_time": _values(paper.TRAINING_TIME),
        },
        "counts": _counts(bert_base_counts()),
        "own_counts": _counts(own) if own is not None else None,
        "tasks": {task: _task(reproduction, task) for task in paper.TASKS},
    }


def _value(row: paper.Row, method: str) -> float | None:
    return row[method].value if method in row else None


def _values(row: paper.Row) -> dict[str, float | None]:
    return {method: _value(row, method) for method in paper.METHODS}


def _task(reproduction: Reproduction, task: str) -> dict[str, Any]:
    """Settings of a task and its comparison without single trainings and pairs, with the methods by name."""
    comparison = reproduction.comparisons.get(task)
    content = asdict(reproduction.settings[task]) | {"run": comparison is not None}
    if comparison is not None:
        content |= comparison.model_dump(mode="json", exclude={"format", "pairs", "trials"})
        content["methods"] = {method["name"]: method for method in content["methods"]}
    return content


def _counts(counts: Counts) -> dict[str, Any]:
    return {"model": counts.model, "rows": list(map(asdict, counts.rows))}


def _warnings(reproduction: Reproduction) -> tuple[str, ...]:
    settings = reproduction.settings
    lines = [f"rows of {task}: {of_task.note}" for task, of_task in settings.items() if of_task.note]
    if not reproduction.is_papers_model:
        lines.insert(0, f"the trained model is {reproduction.label}, not the paper's {paper.MODEL}")
    if reproduction.missing:
        lines.append(f"not run: {', '.join(reproduction.missing)}")
    lines += [
        f"{task} is not complete: {'; '.join(comparison.missing)}"
        for task, comparison in reproduction.comparisons.items()
        if comparison.missing
    ]
    if len({(settings[task].preset, settings[task].train_head) for task in reproduction.comparisons}) > 1:
        lines.append("tasks were run with different presets, which the means over tasks mix")
    return tuple(lines)
