"""The tables of glue/RESULTS.md, made from the comparisons of the tasks; the paper's tables are written beside it."""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness import estimate_text, markdown, write_page
from benchmarks.tasks import TASKS
from prunelora.comparison.results import ComparisonResults, load_comparison
from prunelora.comparison.tables import learning_rates_table, pairs_table
from prunelora.evaluation.significance import Difference
from prunelora.report.numbers import decimal, learning_rate, metric_interval, milliseconds, percent
from prunelora.reproduction.page import write_reproduction
from prunelora.reproduction.results import read

RESULTS = Path(__file__).resolve().parent / "results"
OURS = "prune-lora"
NOTES = {task: one.note for task, one in TASKS.items() if one.note}
Done = Mapping[str, ComparisonResults]


def write_glue() -> list[Path]:
    """Write RESULTS.md, and reproduction.md, .html and the figure beside the results."""
    done = {path.parent.name: load_comparison(path) for path in sorted(RESULTS.glob("*/comparison.json"))}
    written = write_reproduction(read(RESULTS, notes=NOTES), RESULTS)
    return [write_page("glue", texts(done)), *(RESULTS / name for name in written)]


def texts(done: Done) -> dict[str, str]:
    """The placeholders of page.md."""
    trials = [trial for one in done.values() for trial in one.trials]
    missing = [f"{task} was not run" for task in TASKS if task not in done]
    missing += [f"{task} has {len(one.seeds)} seed" for task, one in done.items() if len(one.seeds) < 3]
    return {
        "trainings": str(len(trials)),
        "machines": ", ".join(sorted({trial.machine["cpu"] for trial in trials})),
        "missing": "; ".join(missing) or "nothing is missing",
        "aims": markdown(("prune-lora", "aim", "found", "met"), aims(done)),
        "accuracy": accuracy(done),
        "steps": steps(done),
        "pairs": sections(done, pairs_table, setting),
        "rates": rates_on_mean(done),
        "rates_by_task": sections(done, learning_rates_table, lambda _: ""),
    }


def methods_of(done: Done) -> dict[str, list[Any]]:
    """The facts of every method on the tasks."""
    names = dict.fromkeys(method.name for one in done.values() for method in one.methods)
    return {name: [method for one in done.values() if (method := one.method(name)) is not None] for name in names}


def sections(done: Done, table_of: Callable[[ComparisonResults], Any], text: Callable[[ComparisonResults], str]) -> str:
    """A heading, a text and a table for every task."""
    tables = ((task, one, table_of(one)) for task, one in done.items())
    return "\n\n".join(f"### {task}\n\n{text(one)}{markdown(table.columns, table.rows)}" for task, one, table in tables)


def setting(one: ComparisonResults) -> str:
    rows = one.task["rows"]
    reported = sum(count for split, count in rows.items() if split not in ("train", "validation"))
    epochs = next(stage["epochs"] for stage in one.trials[0].recipe["stages"] if stage["stage"] == "finetune")
    return (
        f"{rows['train']:,} training rows, {rows['validation']:,} validation rows, {reported:,} reported rows; "
        f"{epochs:g} epochs; seeds {', '.join(map(str, one.seeds))}.\n\n"
    )


def accuracy(done: Done) -> str:
    rows, means = [], []
    for task, one in done.items():
        split = one.splits[0]
        values = [method.quality[split]["accuracy"].values for method in one.methods]
        rate = one.task["majority_rate"][split]
        means.append([*map(statistics.fmean, values), rate])
        name = f"{task} (note)" if task in NOTES else task
        rows.append((name, *map(estimate_text, values), f"{100 * rate:.1f}"))
    mean = (f"{100 * statistics.fmean(column):.1f}" for column in zip(*means, strict=True))
    rows.append((f"mean of {len(done)} tasks", *mean))
    return markdown(("task", *methods_of(done), "most frequent class"), rows)


def steps(done: Done) -> str:
    rows = []
    for name, methods in methods_of(done).items():
        timed = [method for method in methods if method.step_ms and method.step_to_full]
        ratios = [method.step_to_full.median for method in timed]
        if ratios:
            text = f"{percent(statistics.fmean(ratios))} ({percent(min(ratios))} to {percent(max(ratios))})"
            rows.append((name, text, milliseconds(statistics.fmean(method.step_ms for method in timed))))
    return markdown(("method", "time of a step, of full's", "time of a step"), rows)


def rates_on_mean(done: Done) -> str:
    """Every learning rate: its mean over the tasks, and how often it was chosen. Beyond an end nothing was tried."""
    rows = []
    for name, methods in methods_of(done).items():
        for rate in methods[0].tried:
            values = [method.tried[rate] for method in methods]
            mean = "diverged" if None in values else f"{100 * statistics.fmean(values):.1f}"
            chosen = sum(float(rate) == method.learning_rate for method in methods)
            end = "the end of the range" if chosen == len(methods) else ""
            rows.append((name, learning_rate(float(rate)), mean, f"{chosen} of {len(methods)} tasks", end))
    return markdown(("method", "learning rate", "accuracy, %", "chosen by", "chosen by all"), rows)


# Aims -----------------------------------------------------------------------------------------------------------------


def aims(done: Done) -> list[tuple[str, str, str, str]]:
    """The aims of the benchmark, what was found, and whether they are met."""

    def over(other: str, value: Callable[[Any], float | None]) -> list[float]:
        """Values of prune-lora over those of another method, on the tasks that have both."""
        pairs = [(value(one.method(OURS)), value(one.method(other))) for one in done.values() if one.method(other)]
        return [first / second for first, second in pairs if first and second]

    def step(method: Any) -> float | None:
        return method.step_to_full and method.step_to_full.median

    def forward(method: Any) -> float:
        return max(method.latencies, key=lambda one: one.batch_size * one.tokens).to_dense.median

    ours = methods_of(done)[OURS]
    macs = statistics.median(over("full", lambda method: method.macs))
    timed = [forward(method) for method in ours if method.latencies]
    what = "time of a forward pass, 32 rows of 128 tokens, of the dense model's"
    return [
        difference_to(done, "lora", at_least=-0.5),
        difference_to(done, "full", at_least=-1.0),
        difference_to(done, "random-prune-lora", at_least=None),
        at_most("time of a training step, of LoRA's", over("lora", step), 0.89),
        at_most("time of a training step, of full fine-tuning's", over("full", step), 0.65),
        at_most("trained parameters, of the model's", [one.trained / one.parameters for one in ours], 0.012),
        at_most("peak training memory, of LoRA's", over("lora", lambda method: method.memory.training), 1.0),
        at_most(what, timed, macs, f"at most the fraction of MACs that is left, {macs:.3f}"),
    ]


def difference_to(done: Done, other: str, *, at_least: float | None) -> tuple[str, str, str, str]:
    """Mean difference in accuracy over tasks; without a bound, its interval over seeds and rows has to be above 0.

    The interval uses the tasks with the most seeds. Tasks share no rows, so the squares of their row errors add up; the
    trainings of one seed on all tasks are one draw.
    """
    pairs = [
        (pair, 1.0 if pair.first == OURS else -1.0)
        for one in done.values()
        for pair in one.pairs
        if {pair.first, pair.second} == {OURS, other} and pair.split == one.splits[0]
    ]
    mean = 100 * statistics.fmean(sign * pair.difference for pair, sign in pairs) if pairs else math.nan
    seeds = max((len(pair.by_seed) for pair, _ in pairs), default=0)
    several = [(pair, sign) for pair, sign in pairs if len(pair.by_seed) == seeds]
    found, above = f"{decimal(mean, 1, signed=True)} points", False
    if seeds > 1:
        difference = Difference(
            tuple(statistics.fmean(sign * pair.by_seed[seed] for pair, sign in several) for seed in range(seeds)),
            math.hypot(*(pair.row_error for pair, _ in several)) / len(several),
            sum(pair.rows for pair, _ in several),
        )
        above = difference.interval()[0] > 0
        by_seed = ", ".join(decimal(100 * value, 1, signed=True) for value in difference.by_seed)
        interval = metric_interval("accuracy", *difference.interval(), signed=True)
        found += f"; by seed, over the {len(several)} tasks with {seeds} seeds: {by_seed}"
        found += f" (95 % interval over seeds and rows {interval})"
    aim = "above it by more than noise" if at_least is None else f"at least {decimal(at_least, 1, signed=True)} points"
    met = above if at_least is None else mean >= at_least
    return f"accuracy, mean over {len(pairs)} tasks, against {other}", aim, found, "yes" if met else "no"


def at_most(what: str, values: Iterable[float], bound: float, aim: str = "") -> tuple[str, str, str, str]:
    values, aim = list(values), aim or f"at most {bound:g}"
    if not values:
        return what, aim, "not measured", "not measured"
    median = statistics.median(values)
    found = f"{median:.3f} (median of {len(values)} tasks, {min(values):.3f} to {max(values):.3f})"
    return what, aim, found, "yes" if median <= bound else "no"
