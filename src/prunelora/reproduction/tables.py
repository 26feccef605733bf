"""The paper's numbers beside ours as one table; the tasks and the parameter counts as two more."""

import statistics
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from prunelora.comparison.results import MethodFacts
from prunelora.comparison.tables import largest_size, latency_at, pair_of, quality_text
from prunelora.report.numbers import NONE, count, decimal, metric_number, milliseconds, optional, percent, scaled
from prunelora.report.table import Table
from prunelora.reproduction import paper
from prunelora.reproduction.results import Reproduction, TaskOutcome

NOT_RUN = "not run"
NOT_TIMED = "not timed"

# Adds a row: the quantity, its source, and the text of a method.
_Add = Callable[[str, str, Callable[[str], str]], None]


def paper_table(reproduction: Reproduction) -> Table:
    """A row a quantity and source (paper, counted, ours), a column a method."""
    methods, rows = reproduction.methods, []

    def add(quantity: str, source: str, text: Callable[[str], str]) -> None:
        rows.append((quantity, source, *map(text, methods)))

    _add_accuracies(reproduction, add)
    _add_losses(reproduction, add)
    _add_costs(reproduction, add)
    return Table(
        ("quantity", "source", *methods),
        tuple(rows),
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
    return Table(
        ("task", "preset", "seeds", "training rows", "reported rows", "trainings", "note"),
        tuple((task.task, *_settings(task), task.note) for task in reproduction.tasks),
        "Tasks",
    )


def _settings(task: TaskOutcome) -> tuple[str, ...]:
    if task.comparison is None:
        return (NOT_RUN, *[NONE] * 4)
    rows, missing = task.comparison.task["rows"], len(task.comparison.missing)
    return (
        (task.settings.preset or "own settings") + ("" if task.settings.train_head else ", task head not trained"),
        ", ".join(map(str, task.comparison.seeds)),
        count(rows["train"]),
        count(rows[task.split]),
        f"{missing} missing" if missing else "complete",
    )


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
        for counts in (reproduction.papers_counts, own)
        if counts is not None
        for row in counts.rows
    )
    note = (
        "Total: encoder, pooler and LoRA, without the classifier, whose size depends on the task. Task head: pooler "
        "and classifier for two classes. Kept heads are spread evenly over the layers."
    )
    columns = ("method", "heads", "LoRA", "LayerNorms", "task head", "trained", "total")
    return Table(columns, rows, "Parameter counts, from the configurations", (note,))


def _add_accuracies(reproduction: Reproduction, add: _Add) -> None:
    for task in reproduction.tasks:
        printed = {method: paper.ACCURACY[method][task.task] for method in paper.METHODS}
        add(f"accuracy, %, {task.task}", "paper", _printed(printed))
        if task.comparison is None:
            add(f"accuracy, %, {task.task}", "ours", lambda _: NOT_RUN)
            continue
        for split in task.comparison.splits:
            name = task.task if len(task.comparison.splits) == 1 else f"{task.task}, {split}"
            add(
                f"accuracy, %, {name} ({_majority(task.majority_rate(split))})", "ours", _accuracy(task, split, printed)
            )
    tasks = reproduction.done
    add(
        f"accuracy, %, mean of {_tasks(len(tasks))} ({_majority(_mean(task.majority_rate() for task in tasks))})",
        "ours",
        lambda method: optional(_mean(task.accuracy(method) for task in tasks), partial(metric_number, "accuracy")),
    )


def _accuracy(task: TaskOutcome, split: str, printed: Mapping[str, paper.PaperValue]) -> Callable[[str], str]:
    def text(method: str) -> str:
        facts, mean = task.method(method), task.accuracy(method)
        value = printed[method].value if method in printed else None
        if facts is None:
            return NOT_RUN
        beside = f" ({metric_number('accuracy', mean - value, signed=True)})" if value and mean is not None else ""
        return quality_text(facts, "accuracy", split) + beside

    return text


def _add_losses(reproduction: Reproduction, add: _Add) -> None:
    def loss(method: str, tasks: Iterable[str]) -> str:
        pairs = [(task.accuracy(method), task.accuracy("full")) for task in reproduction.done if task.task in tasks]
        differences = [own - full for own, full in pairs if own is not None and full is not None]
        if not differences:
            return NOT_RUN
        mean = metric_number("accuracy", statistics.fmean(differences), signed=True)
        return f"{mean} ({_tasks(len(differences))})"

    def significant(method: str) -> str:
        pairs = {
            task.task: pair_of(task.comparison, "prune-lora", method, task.split)
            for task in reproduction.tasks
            if task.comparison is not None
        }
        differing = [
            f"{name} ({metric_number(pair.metric, pair.difference, signed=True)})"
            for name, pair in pairs.items()
            if pair is not None and pair.told_apart
        ]
        return NONE if method == "prune-lora" else ", ".join(differing) or "none"

    five, title = paper.LOSS_TASKS, "accuracy minus full's, points, mean of"
    add(f"{title} {', '.join(five)}", "paper", _printed({"prune-lora": paper.LOSS_TO_FULL}))
    add(f"{title} these", "ours", lambda method: loss(method, five))
    add(f"{title} all tasks", "ours", lambda method: loss(method, paper.TASKS))
    add("significant differences of prune-lora", "ours", significant)


def _add_costs(reproduction: Reproduction, add: _Add) -> None:
    def mean_of(take: Callable[[MethodFacts], float | None], show: Callable[[float], str]) -> Callable[[str], str]:
        def text(method: str) -> str:
            values = [take(facts) for task in reproduction.done if (facts := task.method(method)) is not None]
            mean = _mean(value for value in values if value is not None)
            return (NOT_TIMED if values else NOT_RUN) if mean is None else show(mean)

        return text

    def counted(task_head: bool | None = None) -> Callable[[str], str]:
        """By the paper's way of counting, or for our LoRA with or without the task head."""

        def text(method: str) -> str:
            ours = "prune-lora" if method == "random-prune-lora" else method
            if task_head is None:
                return count(counts.of(method).trained) if method in paper.METHODS else NONE
            return count(counts.of(ours, "ours", task_head=task_head).trained) if ours != "full" else NONE

        return text

    def trained(method: str) -> str:
        share = mean_of(lambda facts: facts.trained / facts.parameters, percent)(method)
        number = mean_of(lambda facts: facts.trained, count)(method)
        return number if number == NOT_RUN else f"{number} ({share})"

    counts = reproduction.papers_counts
    add("inference memory", "paper", _printed(paper.INFERENCE_MEMORY))
    add("inference memory", "ours", mean_of(lambda facts: facts.memory.inference, lambda value: scaled(value, "B")))
    add("parameters", "paper", _printed(paper.PARAMETERS))
    add("parameters", "counted", lambda method: count(counts.of(method).total) if method in paper.METHODS else NONE)
    add("parameters", "ours", mean_of(lambda facts: facts.parameters, scaled))
    add("trained parameters", "paper", _printed(paper.TRAINED))
    add("trained parameters, the paper's way", "counted", counted())
    add("trained parameters, our LoRA", "counted", counted(task_head=False))
    add("trained parameters, our LoRA and task head", "counted", counted(task_head=True))
    add("trained parameters", "ours", trained)
    add("training time, of full's", "paper", _printed_time)
    add("training step, of full's", "ours", _shares(reproduction, _step_to_full, paper.time_to_full))
    add("training step", "ours", mean_of(lambda facts: facts.step_ms, milliseconds))
    add("forward pass, of the dense model's", "ours", _shares(reproduction, _forward_to_dense))


def _step_to_full(task: TaskOutcome, facts: MethodFacts) -> float | None:
    return facts.step_to_full.median if facts.step_to_full is not None else None


def _forward_to_dense(task: TaskOutcome, facts: MethodFacts) -> float | None:
    latency = latency_at(facts, largest_size(task.comparison)) if task.comparison is not None else None
    return latency.to_dense.median if latency is not None else None


def _shares(
    reproduction: Reproduction,
    take: Callable[[TaskOutcome, MethodFacts], float | None],
    printed: Callable[[str], float | None] = lambda _: None,
) -> Callable[[str], str]:
    """Mean over the tasks of a ratio of times, with the range, and the difference to the paper in points."""

    def text(method: str) -> str:
        values = [take(task, facts) for task in reproduction.done if (facts := task.method(method)) is not None]
        shares = [value for value in values if value is not None]
        if not shares:
            return NOT_TIMED
        mean, low, high = statistics.fmean(shares), min(shares), max(shares)
        span = "" if f"{low:.2f}" == f"{high:.2f}" else f" ({100 * low:.0f}\N{EN DASH}{100 * high:.0f})"
        share = printed(method) if method in paper.METHODS and method != "full" else None
        beside = "" if share is None else f", {decimal(100 * (mean - share), 0, signed=True)} points"
        return f"{percent(mean)}{span}{beside}"

    return text


def _printed(values: Mapping[str, paper.PaperValue]) -> Callable[[str], str]:
    def text(method: str) -> str:
        if method not in paper.METHODS:
            return paper.NOT_IN_PAPER
        return values[method].text if method in values else paper.NOT_AT_HAND

    return text


def _printed_time(method: str) -> str:
    share = paper.time_to_full(method) if method in paper.METHODS else None
    return paper.NOT_IN_PAPER if share is None else f"{percent(share)} ({paper.TRAINING_TIME[method].printed})"


def _majority(rate: float | None) -> str:
    return f"majority {optional(rate, partial(metric_number, 'accuracy'))}"


def _mean(values: Iterable[float | None]) -> float | None:
    """Mean; None if a value is missing, since means over different tasks are not comparable."""
    numbers = list(values)
    known = [number for number in numbers if number is not None]
    return statistics.fmean(known) if known and len(known) == len(numbers) else None


def _tasks(number: int) -> str:
    return f"{number} {'task' if number == 1 else 'tasks'}"
