"""What the report says, section by section, before it is HTML or Markdown."""

from dataclasses import dataclass

from prunelora.errors import advice
from prunelora.models.problem_types import CAUSAL_LM, OF_CONFIG, TOKENS
from prunelora.report.judged import TUNED, judged
from prunelora.report.reading import cut_off, kind_of, machine_text, main_metric, metric_title
from prunelora.report.results import RunResults
from prunelora.report.summary import saved_model
from prunelora.report.tables import Table, comparison_table, data_table, journey, stage_times

# What transformers calls the pipeline of a model of texts, by the kind of task.
_PIPELINES = {
    **dict.fromkeys(OF_CONFIG, "text-classification"),
    TOKENS: "token-classification",
    CAUSAL_LM: "text-generation",
}


@dataclass(frozen=True)
class Section:
    """One section; what it has of text, figure, table and code is shown in this order.

    Attributes:
        title: Its heading.
        text: Paragraphs for someone who has not read the paper.
        figure: Name of a figure, without ending.
        table: A table.
        code: Text to be shown as it stands.
        language: Of the code.
        folded: Whether table and code are shown closed where a page can do that.
    """

    title: str
    text: tuple[str, ...] = ()
    figure: str | None = None
    table: Table | None = None
    code: str | None = None
    language: str = ""
    folded: bool = False


def sections(results: RunResults, figures: frozenset[str]) -> list[Section]:
    """All sections that there is something to say in, after the summary.

    Args:
        results: Of the run.
        figures: Names of the figures that were drawn.
    """
    metric = metric_title(main_metric(results))
    return [
        section
        for section in (
            Section("Dense against pruned", _comparison_text(results), table=comparison_table(results)),
            *(section for section in _figures(results, metric) if section.figure in figures),
            Section(
                "Quality along the way",
                (
                    f"The {metric} on the validation rows, which choose the best checkpoint. It is measured after each "
                    "stage that changes the model, so it shows what the cut took and what training brought back.",
                ),
                table=journey(results),
            ),
            Section("Time of every stage", ("Wall time on the machine of this run.",), table=stage_times(results)),
            Section("Data", (*map(str, results.task.get("notes", ())), *cut_off(results)), table=data_table(results)),
            _loading(results),
            Section(
                "Recipe",
                ("Everything that determines this run, defaults included: the file recipe.yaml of the run folder.",),
                code=results.recipe_yaml.rstrip(),
                language="yaml",
                folded=True,
            ),
        )
        if section is not None and (section.figure or section.code or (section.table and section.table.rows))
    ]


def _figures(results: RunResults, metric: str) -> list[Section]:
    criterion = results.importance.provenance.get("criterion", "gradient") if results.importance else "gradient"
    meaning = {
        "gradient": "how much the loss on training rows would change if the head were turned down a little",
        "fisher": "the square of how much the loss on training rows would change if the head were turned down a little",
        "obs": "what going without the head adds to the loss on training rows, when less important ones are gone "
        "and the others stand in for it",
        "magnitude": "how large the head's weights are; the task was not looked at",
        "random": "a random number, as a yardstick for the other ways to score",
    }.get(str(criterion), f"what the criterion {criterion!r} gives")
    grouped = results.importance is not None and results.importance.lineage.base.queries_per_head > 1
    unit = "group of attention heads with keys and values in common" if grouped else "attention head"
    options = results.plan.provenance.get("options", {}) if results.plan else {}
    alike = "compared as it is" if options.get("normalise") == "none" else "made comparable between layers"
    machine = machine_text(results.facts("measure").get("measurement", {}))
    training = [
        "The loss should fall, on training and validation rows alike; where only the first falls, the model learns the "
        f"rows by heart. Below, the {metric} on the validation rows, by which the best checkpoint is chosen."
    ]
    if results.facts("baseline"):
        training.append("Dashed: the dense model with plain LoRA, trained the same way.")
    if sum(kind_of(stage) == "finetune" for stage in results.stages) > 1:
        training.append("A dotted line marks where the next training began.")
    return [
        Section(
            "Which heads matter, and which were cut",
            (
                f"Every cell is one {unit}: a part of a layer that looks at other words in its own way. Its "
                f"importance is {meaning}, {alike}. A cross marks a {unit.split()[-1]} that was removed.",
            ),
            figure="importance",
        ),
        Section(
            "What stays in every layer",
            (
                "Heads and feed-forward neurons (the units that work on each word by itself) that stay, and how many "
                "there were. Where a layer loses all of one kind, that part of it adds no more than a constant.",
            ),
            figure="kept",
        ),
        Section(
            "LoRA ranks",
            (
                "LoRA trains a small correction of each weight matrix; its rank says how rich that correction can be. "
                "More important layers get a higher rank; 0 means that the matrix is not trained.",
            ),
            figure="ranks",
        ),
        Section("Training", (" ".join(training),), figure="training"),
        Section(
            "Time of a forward pass",
            (
                "Shorter is faster. Each pair of bars is on the scale of its own dense model, and the times stand "
                "beside the bars; the black lines span the middle half of the rounds that were timed.",
                *([f"Measured on: {machine}."] if machine else ()),
            ),
            figure="latency",
        ),
    ]


def _comparison_text(results: RunResults) -> tuple[str, ...]:
    lines = [
        "Dense is the model that the run started from, pruned the one that it ended with. In parentheses after a "
        "metric stands the 95 % interval over rows: of an accuracy Wilson's, of other metrics the bootstrap's. Other "
        "test rows of the same kind would probably give a number within it; other seeds are not in it. That of a "
        "difference is from the rows that both models answered.",
        "MACs are the multiplications (with their additions) that one row costs. Saved for backward is the memory that "
        "a training step of all weights keeps between its two halves. Times are medians; quartiles in parentheses.",
    ]
    if judged(results, TUNED) is not None:
        lines.append(
            "The dense model's quality is that of the same training up to the cut, with nothing cut: the model that "
            "was tuned, and then scored and cut. It had the epochs before the cut alone."
        )
    if not results.facts("baseline"):
        trains = f"{advice('baseline', True)} trains"
        lines.append(
            f"No dense model was trained for all of the epochs. {trains} one with plain LoRA, the same way."
            if judged(results, TUNED) is not None
            else f"No dense model was trained on this task. {trains} one with plain LoRA, the same way."
        )
    return tuple(lines)


def _loading(results: RunResults) -> Section | None:
    folder = saved_model(results)
    if folder is None:
        return None
    pipeline = _pipeline(results)
    code = (
        f"import prunelora{', transformers' if pipeline else ''}\n"
        f"folder = {str(folder)!r}\n"
        f"{pipeline or 'model = prunelora.load(folder)'}"
    )
    text = "In Python, from the folder in which the run was started:"
    return Section("Load the model", (text,), code=code, language="python")


def _pipeline(results: RunResults) -> str | None:
    """A line that asks the model what it was trained for; None where transformers has no pipeline of that kind."""
    if "image" in results.task["columns"]:
        kind, processor, asked = "image-classification", "image_processor", '"picture.png"'
    else:
        # Pairs have a form of their own in that pipeline.
        pairs = "text_pair" in results.task["columns"]
        processor, asked = "tokenizer", '{"text": "A text.", "text_pair": "Another."}' if pairs else '"Some text."'
        kind = _PIPELINES.get(results.task["problem_type"], "")
    if not kind:
        return None
    return f'transformers.pipeline("{kind}", prunelora.load(folder), {processor}=folder)({asked})'
