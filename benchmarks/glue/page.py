"""The tables of glue/RESULTS.md, made from the comparisons of the tasks; the paper's tables are written beside it."""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from benchmarks.harness import markdown, write_page
from benchmarks.tasks import TASKS
from prunelora.comparison.results import ComparisonResults, MethodFacts
from prunelora.comparison.tables import pair_of, pairs_table
from prunelora.evaluation.significance import Difference
from prunelora.report.numbers import decimal, learning_rate, metric_interval, metric_number, optional
from prunelora.reproduction.page import write_reproduction
from prunelora.reproduction.results import Reproduction, read
from prunelora.reproduction.tables import forward_to_dense, paper_table, step_to_full

RESULTS = Path(__file__).resolve().parent / "results"
OURS = "prune-lora"
NOTES = {name: task.note for name, task in TASKS.items() if task.note}
Done = Mapping[str, ComparisonResults]  # By task.


def write_glue() -> list[Path]:
    """Write RESULTS.md, and reproduction.md, .html and the figure beside the results."""
    reproduction = read(RESULTS, notes=NOTES)
    written = write_reproduction(reproduction, RESULTS)
    filled = texts(reproduction.comparisons) | {"measured": measured(reproduction)}
    return [write_page("glue", filled), *(RESULTS / name for name in written)]


def measured(reproduction: Reproduction) -> str:
    """Our rows of the table that compares with the paper."""
    table = paper_table(reproduction)
    rows = [(quantity, *numbers) for quantity, source, *numbers in table.rows if source == "ours"]
    return markdown(("quantity", *table.columns[2:]), rows)


def texts(done: Done) -> dict[str, str]:
    """The placeholders of page.md."""
    trials = [trial for comparison in done.values() for trial in comparison.trials]
    missing = [f"{task} was not run" for task in TASKS if task not in done]
    missing += [f"{task} has {len(results.seeds)} seed" for task, results in done.items() if len(results.seeds) < 3]
    return {
        "trainings": str(len(trials)),
        "machines": ", ".join(sorted({trial.machine["cpu"] for trial in trials})),
        "missing": "; ".join(missing) or "nothing is missing",
        "aims": markdown(("prune-lora", "aim", "found", "met"), aims(done)),
        "pairs": pairs(done),
        "rates": rates(done),
    }


def methods_of(done: Done) -> dict[str, list[MethodFacts]]:
    """The facts of every method on the tasks."""
    methods: dict[str, list[MethodFacts]] = {}
    for comparison in done.values():
        for method in comparison.methods:
            methods.setdefault(method.name, []).append(method)
    return methods


def pairs(done: Done) -> str:
    """A heading, the settings and the differences between methods for every task."""
    sections = []
    for task, comparison in done.items():
        rows, table = comparison.task["rows"], pairs_table(comparison)
        reported = sum(rows[split] for split in comparison.splits)
        stages = comparison.trials[0].recipe["stages"]
        epochs = next(stage["epochs"] for stage in stages if stage["stage"] == "finetune")
        sections.append(
            f"### {task}\n\n"
            f"{rows['train']:,} training rows, {rows['validation']:,} validation rows, {reported:,} reported rows; "
            f"{epochs:g} epochs; seeds {', '.join(map(str, comparison.seeds))}.\n\n"
            f"{markdown(table.columns, table.rows)}"
        )
    return "\n\n".join(sections)


def rates(done: Done) -> str:
    """Accuracy of every learning rate, and how often it was chosen; beyond the ends of the range none was tried."""
    rows = []
    for name, methods in methods_of(done).items():
        for rate in methods[0].tried:
            values = [method.tried[rate] for method in methods]
            by_task = [optional(value, partial(metric_number, "accuracy")) for value in values]
            mean = "diverged" if None in values else metric_number("accuracy", statistics.fmean(values))
            chosen = [float(rate) == method.learning_rate for method in methods]
            marked = [f"{text}{' *' if is_best else ''}" for text, is_best in zip(by_task, chosen, strict=True)]
            end = "the end of the range" if all(chosen) else ""
            rows.append(
                (name, learning_rate(float(rate)), *marked, mean, f"{sum(chosen)} of {len(methods)} tasks", end)
            )
    return markdown(("method", "learning rate", *done, "mean", "chosen by", "chosen by all"), rows)


# Aims -----------------------------------------------------------------------------------------------------------------


def aims(done: Done) -> list[tuple[str, str, str, str]]:
    """The aims of the benchmark, what was found, and whether they are met."""

    def over(other: str, value: Callable[[MethodFacts], float | None]) -> list[float]:
        """Values of prune-lora over those of another method, on the tasks that have both."""
        pairs = [tuple(map(value, map(comparison.method, (OURS, other)))) for comparison in done.values()]
        return [first / second for first, second in pairs if first and second]

    ours = methods_of(done)[OURS]
    macs = statistics.median(over("full", lambda method: method.macs))
    forwards = [ratio for method in ours if (ratio := forward_to_dense(method)) is not None]
    forward = "time of a forward pass, 32 rows of 128 tokens, of the dense model's"
    return [
        difference_to(done, "lora", at_least=-0.5),
        difference_to(done, "full", at_least=-1.0),
        difference_to(done, "random-prune-lora", at_least=None),
        at_most("time of a training step, of LoRA's", over("lora", step_to_full), 0.89),
        at_most("time of a training step, of full fine-tuning's", over("full", step_to_full), 0.65),
        at_most("trained parameters, of the model's", [method.trained / method.parameters for method in ours], 0.012),
        at_most("peak training memory, of LoRA's", over("lora", lambda method: method.memory.training), 1.0),
        at_most(forward, forwards, macs, f"at most the fraction of MACs that is left, {macs:.3f}"),
    ]


def difference_to(done: Done, other: str, *, at_least: float | None) -> tuple[str, str, str, str]:
    """Mean difference in accuracy over tasks; without a bound, its interval over seeds and rows has to be above 0.

    The interval uses the tasks with the most seeds. Tasks share no rows, so the squares of their row errors add up; the
    trainings of one seed on all tasks are one draw.
    """
    tests = [pair_of(comparison, OURS, other, comparison.splits[0]) for comparison in done.values()]
    pairs = [pair for pair in tests if pair is not None]
    mean = 100 * statistics.fmean(pair.difference for pair in pairs)
    seeds = max(len(pair.by_seed) for pair in pairs)
    several = [pair for pair in pairs if len(pair.by_seed) == seeds]
    text, above = f"{decimal(mean, 1, signed=True)} points", False
    if seeds > 1:
        difference = Difference(
            tuple(map(statistics.fmean, zip(*(pair.by_seed for pair in several), strict=True))),
            math.hypot(*(pair.row_error for pair in several)) / len(several),
            sum(pair.rows for pair in several),
        )
        above = difference.interval()[0] > 0
        by_seed = ", ".join(metric_number("accuracy", value, signed=True) for value in difference.by_seed)
        interval = metric_interval("accuracy", *difference.interval(), signed=True)
        text += f"; by seed, over the {len(several)} tasks with {seeds} seeds: {by_seed}"
        text += f" (95 % interval over seeds and rows {interval})"
    aim = "above it by more than noise" if at_least is None else f"at least {decimal(at_least, 1, signed=True)} points"
    met = above if at_least is None else mean >= at_least
    return f"accuracy, mean over {len(pairs)} tasks, against {other}", aim, text, "yes" if met else "no"


def at_most(quantity: str, values: Iterable[float], bound: float, aim: str = "") -> tuple[str, str, str, str]:
    values, aim = list(values), aim or f"at most {bound:g}"
    if not values:
        return quantity, aim, "not measured", "not measured"
    median = statistics.median(values)
    text = f"{median:.3f} (median of {len(values)} tasks, {min(values):.3f} to {max(values):.3f})"
    return quantity, aim, text, "yes" if median <= bound else "no"
