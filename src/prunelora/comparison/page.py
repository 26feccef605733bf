"""What people read of a comparison: report.html, report.md, comparison.csv, figures, and tables for the terminal."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prunelora.comparison.figures import draw_comparison
from prunelora.comparison.results import ComparisonResults
from prunelora.comparison.summary import costs, quality, summarise, warnings
from prunelora.comparison.table_file import to_csv
from prunelora.comparison.tables import (
    cells_table,
    cost_table,
    inference_size,
    largest_size,
    latency_table,
    learning_rates_table,
    macs_length,
    main_table,
    memory_length,
    memory_table,
    methods_table,
    one_seed,
    pairs_table,
    quality_table,
    times_table,
    training_table,
)
from prunelora.comparison.tradeoff import commands_text, curves, has_budgets, points_table
from prunelora.report.figures import save_drawn
from prunelora.report.reading import machine_text, metric_title
from prunelora.report.run_tables import task_rows
from prunelora.report.sections import Section
from prunelora.report.tables import Table
from prunelora.report.writing import Page, page_as_markdown, sentence, write_page
from prunelora.storage import write_text


@dataclass(frozen=True)
class TerminalTable:
    """A table under its title, its headings broken so that they are no wider than what is below them."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


PAIRS = "Which differences are more than noise"
PAIRS_TEXT = (
    "Both methods answer the same rows, and are trained with the same seeds. The interval says between which "
    "differences other seeds and other rows of the same kind would probably come out, for a single pair: a t "
    "interval whose width joins the spread of the differences over seeds (last column) with that over rows.",
    "p: how often a difference as large comes about between methods that are alike, adjusted for the number of "
    "pairs in this table (Holm); below 0.05 counts as more than noise, and a table of methods that are alike has "
    "such a pair in at most one of twenty cases. A pair that is not marked may differ all the same: few seeds show "
    "large differences alone.",
)
# Sections whose tables a terminal shows too, as long as they are not folded; the others are in the report.
_IN_THE_TERMINAL = ("All methods", "Every metric", PAIRS)


def write_comparison(results: ComparisonResults, folder: Path) -> list[str]:
    """Draw the figures and write report.html, report.md and comparison.csv, each in place of an earlier one.

    Returns:
        Names of the written files, relative to `folder`, with forward slashes.
    """
    drawn = save_drawn(draw_comparison(results), folder / "figures")
    names = frozenset(path.stem for path in drawn.values())
    written = write_page(comparison_page(results, names), drawn, folder)
    write_text(folder / "comparison.csv", to_csv(results))
    return [*(f"figures/{name}" for name in drawn), *written, "comparison.csv"]


def to_markdown(results: ComparisonResults) -> str:
    """Summary, warnings and all tables as Markdown, without pictures."""
    return page_as_markdown(comparison_page(results, frozenset()))


def lines(results: ComparisonResults) -> list[str]:
    """What a terminal shows above the tables: what was found, what it takes, what to look at."""
    return summarise(results)


def tables(results: ComparisonResults) -> list[TerminalTable]:
    """Every table that a terminal shows, in order."""
    return [
        TerminalTable(section.title, _narrow(section.table), section.table.rows)
        for section in _sections(results, frozenset())
        if section.table is not None and section.table.rows and section.title in _IN_THE_TERMINAL and not section.folded
    ]


def commands(results: ComparisonResults) -> list[str]:
    """What to type for the model of every method, for a terminal; empty where no budgets were asked for."""
    return (commands_text(results) or "").splitlines()


def comparison_page(results: ComparisonResults, figures: frozenset[str]) -> Page:
    """What the page says.

    Args:
        results: Of the comparison.
        figures: Names of the figures that were drawn.
    """
    seeds = f"seed{'' if len(results.seeds) == 1 else 's'} {', '.join(str(seed) for seed in results.seeds)}"
    return Page(
        title=f"Methods compared on {Path(results.data).stem}",
        subtitle=f"{results.model} on {results.data}, {seeds}",
        summary=(("Quality", tuple(quality(results))), ("Cost", tuple(costs(results)))),
        warnings=tuple(warnings(results)),
        sections=tuple(_sections(results, figures)),
        numbers="comparison.csv, and with every training comparison.json",
    )


def _sections(results: ComparisonResults, figures: frozenset[str]) -> list[Section]:
    first, drawn = Section("All methods", _main_text(results), table=main_table(results)), _drawn(results, figures)
    sections = [
        *([*drawn, *_points(results), first] if curves(results) else [first, *drawn, *_points(results)]),
        Section(
            "Every metric", ("Mean and standard deviation over the seeds, as above.",), table=quality_table(results)
        ),
        Section(PAIRS, _pairs_text(results), table=pairs_table(results), folded=bool(curves(results))),
        Section(
            "Size and work",
            (
                "Of the model that a method gives, its adapter merged. Trained: how many parameters it changes, and "
                "their share of the model. MACs are the multiplications (with their additions) of all blocks.",
            ),
            table=cost_table(results),
        ),
        Section("Time of training", _training_text(results), table=training_table(results)),
        Section("Memory", _memory_text(results), table=memory_table(results)),
        Section(
            "Time of inference",
            (
                "Of one forward pass, over the dense model's on the same batch; quartiles in parentheses. "
                "Below 100 % is faster.",
            ),
            table=latency_table(results),
        ),
        Section("Times in milliseconds", ("Of one forward pass, median.",), table=times_table(results), folded=True),
        Section(
            "Learning rates",
            (
                "Every method has the same number of tries. The learning rate is chosen on validation rows cut from "
                "training, never on the rows that are reported.",
            ),
            table=learning_rates_table(results),
        ),
        Section(
            "The methods",
            (
                *(f"{method.name}: {method.title}" for method in results.methods),
                "Heads and feed-forward neurons that stay, and how many there were:",
            ),
            table=methods_table(results),
        ),
        Section(
            "Every training",
            ("Those of learning rates that were not chosen too.",),
            table=cells_table(results),
            folded=True,
        ),
        Section("Data and machine", _notes(results), table=_facts(results)),
    ]
    return [section for section in sections if section.figure or (section.table and section.table.rows)]


def _drawn(results: ComparisonResults, figures: frozenset[str]) -> list[Section]:
    metric = metric_title(results.main_metric)
    several = f" on the {results.splits[0]} rows" if len(results.splits) > 1 else ""
    upright = "" if one_seed(results) else " Upright bars: standard deviations over the seeds."
    sections = [
        Section(
            "Quality against inference time" if largest_size(results) else "Quality against work",
            (
                f"The {metric}{several}: further up is better, further left is faster.{upright} "
                "Dashed: what always giving the same answer gets.",
                *_budgets_text(results),
            ),
            figure="quality",
        ),
        Section(
            "Quality against inference time of a single row",
            ("The same where rows come one at a time, as in a service that answers as it is asked.",),
            figure="quality-single",
        ),
        Section(
            "What training takes",
            ("Further down needs less memory, further left less time.", *_rows_text(results)),
            figure="training",
        ),
    ]
    return [section for section in sections if section.figure in figures]


def _rows_text(results: ComparisonResults) -> tuple[str, ...]:
    """What the memory of a step is of, where that is not the same for all."""
    rows: dict[int, list[str]] = {}
    for method in results.methods:
        if method.memory.step_rows is not None:
            rows.setdefault(method.memory.step_rows, []).append(method.name)
    if len(rows) < 2:
        return ()
    said = "; ".join(f"{count} rows: {', '.join(names)}" for count, names in sorted(rows.items()))
    return (
        f"Memory is of the step that needs most, of as many rows as the method has in it ({said}); time is of as many "
        "rows for all, of several fine-tunings the mean, each by its epochs.",
    )


def _budgets_text(results: ComparisonResults) -> tuple[str, ...]:
    if not curves(results):
        return ()
    return (
        "A line is one method at several budgets. The numbers beside its points are the budgets: the fraction of the "
        "dense model's MACs that stays; at 1 nothing is cut. Points without a line have no budget.",
    )


def _points(results: ComparisonResults) -> list[Section]:
    """What every point is, and the command that builds it; nothing where no budgets were asked for."""
    if not has_budgets(results):
        return []
    if largest_size(results) is None:
        times = "Nothing was timed."
    else:
        times = "Time: of a forward pass, measured, over the dense model's."
    text = (
        f"{times} Budget: the fraction of the dense model's MACs that the plan may keep; MACs are counted for "
        f"{macs_length(results)}. Training memory: of a step, its rows of {memory_length(results)}, in the fine-tuning "
        "that needs most.",
        "Below, what to type for the model of every row, from the folder in which the comparison was started. It is "
        f"the model of seed {results.seeds[0]}; the quality said is the mean over the seeds.",
    )
    code = commands_text(results)
    return [Section("Pick a point", text, table=points_table(results), code=code, language="sh")]


def _main_text(results: ComparisonResults) -> tuple[str, ...]:
    spread = "of one seed" if one_seed(results) else "mean \N{PLUS-MINUS SIGN} standard deviation over the seeds"
    size = largest_size(results)
    lines = [
        f"{sentence(metric_title(results.main_metric))}: {spread}. The first row is what always answering the most "
        "frequent class of the training rows gets.",
        "Training step: time over that of full fine-tuning; of several fine-tunings the mean, each by its epochs. "
        "Training memory: weights, gradients, optimiser and what is saved for the backward pass of a step, its rows of "
        f"{memory_length(results)}; of several fine-tunings the one that needs most."
        + (f" Inference: time over the dense model's, at batch {size[0]}, {size[1]} tokens." if size else ""),
    ]
    if results.method("full") is None:
        lines.append("Full fine-tuning is not among the methods, so no time stands over its own.")
    return tuple(lines)


def _pairs_text(results: ComparisonResults) -> tuple[str, ...]:
    chosen = (
        "A method at a budget is tested against those without one, against others at the same budget, and against "
        "itself at its largest budget."
    )
    return (
        *((chosen,) if curves(results) else ()),
        *PAIRS_TEXT,
        *(
            (
                "There is one seed: interval and p are of these trainings on other rows. What another seed would give "
                "is not known.",
            )
            if one_seed(results)
            else ()
        ),
    )


def _training_text(results: ComparisonResults) -> tuple[str, ...]:
    rows = (results.timing or {}).get("step_rows")
    apart = (
        f"A step{f' of {rows} rows' if rows else ''} is timed apart from the trainings, all methods in turn on the "
        "same batches, also where a fine-tuning has smaller ones and adds up their gradients; of several fine-tunings "
        "it is the mean, each by its epochs. Quartiles in parentheses."
    )
    timed = any(method.step_ms is not None for method in results.methods)
    stages = "All stages: wall time up to the merged model, mean over the seeds, as it was in training."
    return ((f"{apart} {stages}") if timed else f"Steps were not timed. {stages}",)


def _memory_text(results: ComparisonResults) -> tuple[str, ...]:
    length = memory_length(results)
    return (
        f"A training step, its rows of {length}, in the fine-tuning that needs most: weights, gradients of "
        "what is trained, two numbers of the optimiser for each of them (12 bytes a trained parameter), and "
        "what is saved between the step's two halves. Inference: weights and the most that is alive at once "
        f"in a forward pass of {inference_size(results)}.",
    )


def _notes(results: ComparisonResults) -> tuple[str, ...]:
    return tuple(str(note) for note in results.task.get("notes", ()))


def _facts(results: ComparisonResults) -> Table:
    rows = [("model", results.model), *task_rows(results.data, results.task, results.task["majority_rate"])]
    rows.append(("seeds", ", ".join(str(seed) for seed in results.seeds)))
    if machine := machine_text({"machine": results.machine}):
        rows.append(("machine", machine))
    if results.timing:
        rows += [(f"timing: {key.replace('_', ' ')}", _plain(value)) for key, value in results.timing.items()]
    rows.append(("prunelora", results.prunelora))
    return Table(("", ""), tuple(rows))


def _narrow(table: Table) -> tuple[str, ...]:
    """Headings in as many lines as it takes not to be wider than what is below them."""
    columns = zip(table.columns, *table.rows, strict=True)
    return tuple(
        textwrap.fill(heading, max(len(part) for part in (*heading.split(), *cells, "1")))
        for heading, *cells in columns
    )


def _plain(value: object) -> str:
    """Settings for people: [[1, 32], [32, 128]] -> "1, 32; 32, 128"."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        nested = any(isinstance(one, Sequence) and not isinstance(one, str) for one in value)
        return ("; " if nested else ", ").join(_plain(one) for one in value)
    return str(value)
