"""The report of a run: report.html, report.md, figures and metrics.json."""

import json
from pathlib import Path
from typing import Any

from prunelora.models.problem_types import CAUSAL_LM, OF_CONFIG, TOKENS
from prunelora.report.figures import draw
from prunelora.report.numbers import metric_title
from prunelora.report.page import Page, Section, write_page
from prunelora.report.reading import cut_off, kind_of, machine_text, measured
from prunelora.report.results import RunResults
from prunelora.report.run_tables import comparison_table, journey, stage_times, task_rows
from prunelora.report.summary import files, saved_model, summarise, warnings
from prunelora.report.table import Table
from prunelora.storage import write_json

# Pipelines of transformers for models of texts, by kind of task.
_PIPELINES = {
    **dict.fromkeys(OF_CONFIG, "text-classification"),
    TOKENS: "token-classification",
    CAUSAL_LM: "text-generation",
}
# Meaning of an importance, by criterion.
_MEANINGS = {
    "gradient": "how much the loss on training rows changes if the head is turned down a little",
    "fisher": "the square of how much the loss on training rows changes if the head is turned down a little",
    "obs": "the increase of the loss on training rows without the head, when less important heads are gone and the "
    "remaining ones are re-solved",
    "features": "how far the vectors that the task head reads move without the head, when less important heads are "
    "gone and the remaining ones are re-solved",
    "magnitude": "the size of the head's weights; the task is not used",
    "random": "a random number, as a reference for the other criteria",
}


def write_report(results: RunResults, folder: Path) -> list[str]:
    """Draw the figures and write the report; files of an earlier one are replaced.

    Returns:
        Names of the written files, relative to `folder`, with forward slashes.
    """
    page = Page(
        title=f"{Path(results.model).name} pruned for {Path(results.data).stem}",
        intro=(f"{results.model} on {results.data}, seed {results.seed}",),
        sections=tuple(sections(results)),
        warnings=tuple(warnings(results)),
        numbers="metrics.json",
    )
    written = write_page(page, folder, figures=draw(results))
    write_json(folder / "metrics.json", _numbers(results))
    return [*written, "metrics.json"]


def sections(results: RunResults) -> list[Section]:
    """All sections of the report; those without content are not shown."""
    data = Table(("", ""), task_rows(results.data, results.task, results.task["majority_rates"]))
    return [
        Section(
            "Dense against pruned",
            (
                "Dense is the model that the run started from, pruned the model that it ended with. In parentheses "
                "after a metric: the 95 % interval over rows (Wilson's for an accuracy, the bootstrap's for other "
                "metrics); that of a difference is over the rows that both models answered. Other seeds are not in it.",
                "MACs are the multiply-accumulates of one row. Saved for backward is the memory that a training step "
                "of all weights keeps between its forward and backward pass. Times are medians with quartiles.",
            ),
            table=comparison_table(results),
        ),
        Section("Files", items=tuple(files(results))),
        *_figures(results),
        Section(table=journey(results)),
        Section(table=stage_times(results)),
        Section("Data", (*map(str, results.task["notes"]), *cut_off(results)), table=data),
        _loading(results),
        Section(
            "Recipe",
            ("All settings of this run, defaults included: the file recipe.yaml of the run folder.",),
            code=results.recipe_yaml.rstrip(),
            language="yaml",
            folded=True,
        ),
    ]


def _figures(results: RunResults) -> list[Section]:
    importance, plan = results.importance, results.plan
    criterion = str(importance.provenance.get("criterion", "gradient")) if importance else "gradient"
    meaning = _MEANINGS.get(criterion, f"the score of the criterion {criterion!r}")
    grouped = importance is not None and importance.lineage.base.queries_per_head > 1
    unit = "group of attention heads that share keys and values" if grouped else "attention head"
    raw = plan is not None and plan.provenance.get("options", {}).get("normalise") == "none"
    machine = machine_text(measured(results).get("machine", {}))
    training = (
        "Above, the loss on training and validation rows: if only the first falls, the model overfits. Below, the "
        f"{metric_title(results.main_metric)} on the validation rows, which chooses the best checkpoint."
        + (" Dashed: the dense model with plain LoRA." if results.facts("baseline") else "")
    )
    if sum(kind_of(stage) == "finetune" for stage in results.stages) > 1:
        training += " A dotted line marks the start of the next fine-tuning."
    return [
        Section(
            "Which heads matter, and which were cut",
            (
                f"A cell is one {unit}. Its importance is {meaning}, {'as scored' if raw else 'normalised by layer'}. "
                f"A cross marks a {unit.split()[0] if grouped else 'head'} that was removed.",
            ),
            figure="importance",
        ),
        Section(
            "What stays in every layer",
            ("Heads and feed-forward neurons that stay, of all. A layer without any of a kind adds only a constant.",),
            figure="kept",
        ),
        Section(
            "LoRA ranks",
            ("Rank of the trained low-rank correction of each weight matrix; 0 means that it is not trained.",),
            figure="ranks",
        ),
        Section("Training", (training,), figure="training"),
        Section(
            "Time of a forward pass",
            (
                "Each pair of bars is on the scale of its dense model; beside the bars stand the times. Black lines "
                f"span the quartiles of the rounds.{f' Measured on: {machine}.' if machine else ''}",
            ),
            figure="latency",
        ),
    ]


def _loading(results: RunResults) -> Section:
    folder = saved_model(results)
    if folder is None:
        return Section("Load the model")
    pipeline = _pipeline(results)
    code = (
        f"import prunelora{', transformers' if pipeline else ''}\n"
        f"folder = {str(folder)!r}\n"
        f"{pipeline or 'model = prunelora.load(folder)'}"
    )
    text = "In Python, from the folder in which the run was started:"
    return Section("Load the model", (text,), code=code, language="python")


def _pipeline(results: RunResults) -> str | None:
    """A line that runs the model in a pipeline of transformers; None if there is none for the kind of task."""
    if "image" in results.task["columns"]:
        kind, processor, asked = "image-classification", "image_processor", '"picture.png"'
    else:
        # That pipeline takes pairs as dicts.
        pairs = "text_pair" in results.task["columns"]
        processor, asked = "tokenizer", '{"text": "A text.", "text_pair": "Another."}' if pairs else '"Some text."'
        kind = _PIPELINES.get(results.task["problem_type"], "")
    if not kind:
        return None
    return f'transformers.pipeline("{kind}", prunelora.load(folder), {processor}=folder)({asked})'


def _numbers(results: RunResults) -> Any:
    """All facts of the run, for machines; None for a number that is not finite, which JSON does not have."""
    content = {
        "format": "prunelora-metrics-1",
        "model": results.model,
        "data": results.data,
        "seed": results.seed,
        "task": results.task,
        "plan_id": results.plan.id if results.plan is not None else None,
        "summary": summarise(results),
        "stages": results.stages,
    }
    return json.loads(json.dumps(content), parse_constant=lambda _: None)
