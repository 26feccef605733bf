"""The paper's numbers beside ours as one table; the tasks and the parameter counts as two more."""

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TypeVar

from prunelora.comparison.results import ComparisonResults, MethodFacts
from prunelora.comparison.tables import constant_value, pair_of, quality_text
from prunelora.report.numbers import NONE, count, decimal, metric_number, milliseconds, optional, percent, scaled
from prunelora.report.table import Table
from prunelora.reproduction import paper
from prunelora.reproduction.counts import bert_base_counts
from prunelora.reproduction.results import Reproduction

NOT_RUN = "not run"
NOT_TIMED = "not timed"

_points = partial(metric_number, "accuracy", signed=True)
# A row of the table: the quantity, its source, and the function that writes it for a method.
_Text = Callable[[str], str]
_Row = tuple[str, str, _Text]
_Value = TypeVar("_Value")


def paper_table(reproduction: Reproduction) -> Table:
    """A row a quantity and source (paper, counted, ours), a column a method."""
    rows = [*_accuracies(reproduction), *_losses(reproduction), *_costs(reproduction)]
    methods = reproduction.methods
    return Table(
        ("quantity", "source", *methods),
        tuple((quantity, source, *map(text, methods)) for quantity, source, text in rows),
        f"The paper's numbers and ours ({reproduction.label})",
        (
            f"Paper and counted: {paper.MODEL}, as printed and from its configuration. Ours: {reproduction.label}; "
            "in parentheses the difference to the paper, and the range over the tasks.",
            "Accuracy: mean and standard deviation over seeds on GLUE's validation rows; means over tasks use MNLI's "
            "matched rows. Memory: weights and the most activations alive at once, for 32 rows of up to 128 tokens. "
            "Significant: the test of each task's own comparison.",
        ),
    )


def tasks_table(reproduction: Reproduction) -> Table:
    """Settings, rows and completeness of every task."""
    settings, comparisons = reproduction.settings, reproduction.comparisons

    def preset(task: str) -> str:
        if task not in comparisons:
            return NOT_RUN
        return (settings[task].preset or "own settings") + (
            "" if settings[task].train_head else ", task head not trained"
        )

    def of_results(show: Callable[[ComparisonResults], str]) -> _Text:
        return lambda task: optional(comparisons.get(task), show)

    columns: dict[str, _Text] = {
        "task": str,
        "preset": preset,
        "seeds": of_results(lambda results: ", ".join(map(str, results.seeds))),
        "training rows": of_results(lambda results: count(results.task["rows"]["train"])),
        "reported rows": of_results(lambda results: count(results.task["rows"][results.splits[0]])),
        "trainings": of_results(lambda results: f"{len(results.missing)} missing" if results.missing else "complete"),
        "note": lambda task: settings[task].note,
    }
    return Table.of(paper.TASKS, columns, "Tasks")


def counts_table(reproduction: Reproduction) -> Table:
    """Parameter counts of the paper's model and of the trained model, to the last digit."""
    own = None if reproduction.is_papers_model else reproduction.own_counts
    rows = tuple(
        (
            f"{counts.model}: {row.method}, {'the paper' if row.way == 'paper' else 'ours'}: {row.how}",
            f"{row.heads} of {counts.architecture.total_heads}",
            *(count(part) if part else NONE for part in (row.lora, row.norms, row.task_head)),
            count(row.trained),
            count(row.total),
        )
        for counts in (bert_base_counts(), own)
        if counts is not None
        for row in counts.rows
    )
    note = (
        "Total: encoder, pooler and LoRA, without the classifier, whose size depends on the task. Task head: pooler "
        "and classifier for two classes. Kept heads are spread evenly over the layers."
    )
    columns = ("method", "heads", "LoRA", "LayerNorms", "task head", "trained", "total")
    return Table(columns, rows, "Parameter counts, from the configurations", (note,))


def accuracy_of(comparison: ComparisonResults, method: str, split: str | None = None) -> float | None:
    """A method's mean accuracy on a split; without one on the first, which stands for the task (MNLI: matched)."""
    facts = comparison.method(method)
    quality = facts.quality.get(split or comparison.splits[0], {}).get("accuracy") if facts is not None else None
    return quality.mean if quality is not None else None


def _accuracies(reproduction: Reproduction) -> Iterator[_Row]:
    accuracy = partial(metric_number, "accuracy")

    def ours(comparison: ComparisonResults, split: str, printed: paper.Row, method: str) -> str:
        facts, mean = comparison.method(method), accuracy_of(comparison, method, split)
        if facts is None:
            return NOT_RUN
        beside = f" ({_points(mean - printed[method].value)})" if method in printed and mean is not None else ""
        return quality_text(facts, "accuracy", split) + beside

    for task, printed in paper.ACCURACY.items():
        title, comparison = f"accuracy, %, {task}", reproduction.comparisons.get(task)
        yield title, "paper", partial(paper.printed, printed)
        if comparison is None:
            yield title, "ours", lambda _: NOT_RUN
            continue
        for split in comparison.splits:
            name = title if len(comparison.splits) == 1 else f"{title}, {split}"
            majority = optional(constant_value(comparison, split, "accuracy"), accuracy)
            yield f"{name} (majority {majority})", "ours", partial(ours, comparison, split, printed)
    done = reproduction.comparisons.values()
    majority = optional(_mean(constant_value(task, task.splits[0], "accuracy") for task in done), accuracy)
    yield (
        f"accuracy, %, mean of {_tasks(len(done))} (majority {majority})",
        "ours",
        lambda method: optional(_mean(accuracy_of(task, method) for task in done), accuracy),
    )


def _losses(reproduction: Reproduction) -> Iterator[_Row]:
    comparisons = reproduction.comparisons
    papers_tasks = [task for task in paper.LOSS_TASKS if task in comparisons]

    def loss(tasks: Iterable[str], method: str) -> str:
        pairs = [(accuracy_of(comparisons[task], method), accuracy_of(comparisons[task], "full")) for task in tasks]
        differences = [accuracy - full for accuracy, full in pairs if accuracy is not None and full is not None]
        return f"{_points(statistics.fmean(differences))} ({_tasks(len(differences))})" if differences else NOT_RUN

    def significant(method: str) -> str:
        differing = [
            f"{task} ({metric_number(pair.metric, pair.difference, signed=True)})"
            for task, comparison in comparisons.items()
            if (pair := pair_of(comparison, "prune-lora", method, comparison.splits[0])) and pair.told_apart
        ]
        return NONE if method == "prune-lora" else ", ".join(differing) or "none"

    title = "accuracy minus full's, points, mean of"
    papers_title = f"{title} {', '.join(paper.LOSS_TASKS)}"
    yield papers_title, "paper", partial(paper.printed, paper.LOSS_TO_FULL)
    yield papers_title, "ours", partial(loss, papers_tasks)
    yield f"{title} all tasks", "ours", partial(loss, comparisons)
    yield "significant differences of prune-lora", "ours", significant


def _costs(reproduction: Reproduction) -> tuple[_Row, ...]:
    counts = bert_base_counts()

    def counted(number: str, way: str, method: str, *, task_head: bool = False) -> str:
        row = counts.of(method if way == "paper" else method.removeprefix("random-"), way, task_head=task_head)
        return optional(row, lambda row: count(getattr(row, number)))

    def measured(take: Callable[[MethodFacts], _Value | None], show: Callable[[list[_Value]], str]) -> _Text:
        """Writes what the tasks have of a method."""

        def text(method: str) -> str:
            facts = [facts for task in reproduction.comparisons.values() if (facts := task.method(method)) is not None]
            values = [value for of_task in facts if (value := take(of_task)) is not None]
            return show(values) if values else NOT_TIMED if facts else NOT_RUN

        return text

    def mean(take: Callable[[MethodFacts], float | None], show: Callable[[float], str]) -> _Text:
        return measured(take, lambda values: show(statistics.fmean(values)))

    def trained(facts: list[MethodFacts]) -> str:
        share = statistics.fmean(method.trained / method.parameters for method in facts)
        return f"{count(statistics.fmean(method.trained for method in facts))} ({percent(share)})"

    def step(method: str) -> str:
        printed = paper.time_to_full(method) if method != "full" else None
        return measured(step_to_full, partial(_share, printed=printed))(method)

    return (
        ("inference memory", "paper", partial(paper.printed, paper.INFERENCE_MEMORY)),
        ("inference memory", "ours", mean(lambda facts: facts.memory.inference, lambda size: scaled(size, "B"))),
        ("parameters", "paper", partial(paper.printed, paper.PARAMETERS)),
        ("parameters", "counted", partial(counted, "total", "paper")),
        ("parameters", "ours", mean(lambda facts: facts.parameters, scaled)),
        ("trained parameters", "paper", partial(paper.printed, paper.TRAINED)),
        ("trained parameters, the paper's way", "counted", partial(counted, "trained", "paper")),
        ("trained parameters, our LoRA", "counted", partial(counted, "trained", "ours")),
        ("trained parameters, our LoRA and task head", "counted", partial(counted, "trained", "ours", task_head=True)),
        ("trained parameters", "ours", measured(lambda facts: facts, trained)),
        ("training time, of full's", "paper", _printed_time),
        ("training step, of full's", "ours", step),
        ("training step", "ours", mean(lambda facts: facts.step_ms, milliseconds)),
        ("forward pass, of the dense model's", "ours", measured(forward_to_dense, _share)),
    )


def step_to_full(facts: MethodFacts) -> float | None:
    """Time of a method's training step relative to full fine-tuning's; None if not timed."""
    return facts.step_to_full.median if facts.step_to_full is not None else None


def forward_to_dense(facts: MethodFacts) -> float | None:
    """Time of a forward pass of the largest batch relative to the dense model's; None if not timed."""
    largest = max(facts.latencies, key=lambda latency: latency.batch_size * latency.tokens, default=None)
    return largest.to_dense.median if largest is not None else None


def _share(shares: Sequence[float], printed: float | None = None) -> str:
    """Mean of ratios of times, with their range, and the difference to the paper's ratio in points."""
    mean, (low, high) = statistics.fmean(shares), (f"{100 * share:.0f}" for share in (min(shares), max(shares)))
    span = "" if low == high else f" ({low}\N{EN DASH}{high})"
    beside = "" if printed is None else f", {decimal(100 * (mean - printed), 0, signed=True)} points"
    return f"{percent(mean)}{span}{beside}"


def _printed_time(method: str) -> str:
    share = paper.time_to_full(method)
    return paper.NOT_IN_PAPER if share is None else f"{percent(share)} ({paper.TRAINING_TIME[method].printed})"


def _mean(values: Iterable[float | None]) -> float | None:
    """Mean; None if a value is missing, since means over different tasks are not comparable."""
    numbers = list(values)
    known = [number for number in numbers if number is not None]
    return statistics.fmean(known) if known and len(known) == len(numbers) else None


def _tasks(number: int) -> str:
    return f"{number} {'task' if number == 1 else 'tasks'}"
