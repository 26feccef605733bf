"""The written form of a comparison: report.html, report.md, comparison.csv, figures, and tables for the terminal."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from prunelora.comparison.figures import draw_comparison
from prunelora.comparison.results import ComparisonResults
from prunelora.comparison.summary import best, warnings
from prunelora.comparison.table_file import to_csv
from prunelora.comparison.tables import (
    beside_table,
    largest_size,
    latency_table,
    main_table,
    memory_table,
    methods_table,
    pairs_table,
    quality_table,
    training_table,
    trials_table,
)
from prunelora.comparison.tradeoff import curves, holds_table
from prunelora.report.numbers import metric_title
from prunelora.report.page import Page, Section, write_page
from prunelora.report.reading import machine_text
from prunelora.report.run_tables import task_rows
from prunelora.report.table import Table
from prunelora.storage import write_text


def write_comparison(results: ComparisonResults, folder: Path) -> list[str]:
    """Draw the figures and write report.html, report.md and comparison.csv; each replaces an earlier file.

    Returns:
        Names of the written files, relative to `folder`, with forward slashes.
    """
    written = write_page(comparison_page(results), folder, figures=draw_comparison(results))
    write_text(folder / "comparison.csv", to_csv(results))
    return [*written, "comparison.csv"]


def tables(results: ComparisonResults) -> list[Table]:
    """Tables that a terminal of 100 columns has room for; the report has the others too."""
    tests = holds_table(results) if curves(results) else pairs_table(results)
    broken = tuple((row[0].replace(" against ", "\nagainst ").replace(", ", ",\n"), *row[1:]) for row in tests.rows)
    shown = (main_table(results), quality_table(results), replace(tests, rows=broken))
    return [table for table in shown if table.rows]


def comparison_page(results: ComparisonResults) -> Page:
    """The page, before it is Markdown or HTML."""
    at_budgets = bool(curves(results))
    seeds = f"seed{'' if len(results.seeds) == 1 else 's'} {', '.join(map(str, results.seeds))}"
    first, drawn = Section(table=main_table(results, wide=at_budgets)), _figures(results)
    return Page(
        title=f"Methods compared on {Path(results.data).stem}",
        intro=(f"{results.model} on {results.data}, {seeds}",),
        warnings=tuple(warnings(results)),
        sections=(
            Section("Quality", items=tuple(best(results))),
            *((*drawn, first, Section(table=holds_table(results))) if at_budgets else (first, *drawn)),
            Section(table=quality_table(results)),
            Section(table=pairs_table(results), folded=at_budgets),
            Section(table=beside_table(results), folded=at_budgets),
            Section(table=methods_table(results)),
            Section(table=training_table(results)),
            Section(table=memory_table(results)),
            Section(table=latency_table(results)),
            Section(table=trials_table(results), folded=True),
            Section(table=_data_and_machine(results)),
        ),
        numbers="comparison.csv, and with every training comparison.json",
    )


def _figures(results: ComparisonResults) -> tuple[Section, ...]:
    several = f" on the {results.splits[0]} rows" if len(results.splits) > 1 else ""
    budgets = (
        "A line is one method at several budgets; the numbers are the fractions of the dense model's MACs that stay.",
    )
    return (
        Section(
            "Quality against inference time" if largest_size(results) else "Quality against work",
            (
                f"The {metric_title(results.main_metric)}{several}: further up is better, further left is faster. "
                "Bars: standard deviations over the seeds, and quartiles of the times. Dashed: one constant answer.",
                *(budgets if curves(results) else ()),
            ),
            figure="quality",
        ),
        Section("Quality against inference time of a single row", figure="quality-single"),
        Section(
            "Memory and time of training",
            (
                "Further down needs less memory, further left less time. Memory is of the fine-tuning that needs most, "
                "with its own batch; time is of the same rows for all methods.",
            ),
            figure="training",
        ),
    )


def _data_and_machine(results: ComparisonResults) -> Table:
    rows = [("model", results.model), *task_rows(results.data, results.task, results.task["majority_rate"])]
    rows.append(("seeds", ", ".join(map(str, results.seeds))))
    if machine := machine_text(results.machine):
        rows.append(("machine", machine))
    rows += [(f"timing: {key.replace('_', ' ')}", _plain(value)) for key, value in (results.timing or {}).items()]
    rows.append(("prunelora", results.prunelora))
    return Table(("", ""), tuple(rows), "Data and machine", tuple(map(str, results.task.get("notes", ()))))


def _plain(value: object) -> str:
    """Settings as text: [[1, 32], [32, 128]] -> "1, 32; 32, 128"."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        nested = any(isinstance(part, Sequence) and not isinstance(part, str) for part in value)
        return ("; " if nested else ", ").join(map(_plain, value))
    return str(value)
