"""The tables of glue/RESULTS.md, made from the comparisons of the tasks; the paper's tables are written beside it."""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import estimate_text, markdown, write_page
from benchmarks.tasks import TASKS
from prunelora.comparison.results import ComparisonResults, PairFacts, load_comparison
from prunelora.comparison.tables import learning_rates_table, pairs_table
from prunelora.evaluation.significance import Difference
from prunelora.report.numbers import decimal, learning_rate, metric_interval, milliseconds, percent
from prunelora.reproduction.results import read
from prunelora.reproduction.writing import write_reproduction

RESULTS = Path(__file__).resolve().parent / "results"
OURS = "prune-lora"
Done = Mapping[str, ComparisonResults]


@dataclass(frozen=True)
class Aim:
    """An aim of the benchmark; `met` is None if it was not measured."""

    what: str
    aim: str
    found: str
    met: bool | None


def write_glue() -> list[Path]:
    """Write RESULTS.md, and reproduction.md, .html and the figure beside the results."""
    done = {path.parent.name: load_comparison(path) for path in sorted(RESULTS.glob("*/comparison.json"))}
    written = write_reproduction(
        read(RESULTS, notes={name: one.note for name, one in TASKS.items() if one.note}), RESULTS
    )
    return [write_page("glue", texts(done)), *(RESULTS / name for name in written)]


def texts(done: Done) -> dict[str, str]:
    """The placeholders of page.md."""
    trials = [trial for one in done.values() for trial in one.trials]
    missing = [f"{task} was not run" for task in TASKS if task not in done]
    missing += [
        f"{task} has the seeds {', '.join(map(str, one.seeds))} alone"
        for task, one in done.items()
        if len(one.seeds) < 3
    ]
    verdicts = {True: "yes", False: "no", None: "not measured"}
    aims = [(one.what, one.aim, one.found, verdicts[one.met]) for one in aims_of(done)]
    return {
        "trainings": str(len(trials)),
        "machines": ", ".join(sorted({trial.machine["cpu"] for trial in trials})),
        "missing": "; ".join(missing) or "nothing is missing",
        "aims": markdown(("prune-lora", "aim", "found", "met"), aims),
        "accuracy": accuracy(done),
        "steps": steps(done),
        "pairs": sections(done, pairs_table, setting),
        "rates": rates_on_mean(done),
        "rates_by_task": sections(done, learning_rates_table, lambda _: ""),
    }


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
    names = methods_of(done)
    rows, means = [], []
    for task, one in done.items():
        split = one.splits[0]
        values = [
            method.quality[split]["accuracy"].values for name in names if (method := one.method(name)) is not None
        ]
        rate = one.task["majority_rate"][split]
        means.append([*map(statistics.fmean, values), rate])
        note = " (note)" if TASKS[task].note else ""
        rows.append((f"{task}{note}", *map(estimate_text, values), f"{100 * rate:.1f}"))
    mean = (f"{100 * statistics.fmean(column):.1f}" for column in zip(*means, strict=True))
    return markdown(("task", *names, "most frequent class"), [*rows, (f"mean of {len(done)} tasks", *mean)])


def steps(done: Done) -> str:
    rows = []
    for name in methods_of(done):
        timed = [method for one in done.values() if (method := one.method(name)) is not None and method.step_ms]
        ratios = [method.step_to_full.median for method in timed if method.step_to_full]
        if ratios:
            text = f"{percent(statistics.fmean(ratios))} ({percent(min(ratios))} to {percent(max(ratios))})"
            rows.append((name, text, milliseconds(statistics.fmean(method.step_ms for method in timed))))
    return markdown(("method", "time of a step, of full's", "time of a step"), rows)


# Aims -----------------------------------------------------------------------------------------------------------------


def aims_of(done: Done) -> list[Aim]:
    """The aims of the benchmark, judged by the results."""
    ours = {task: method for task, one in done.items() if (method := one.method(OURS)) is not None}
    lora = {task: method for task in ours if (method := done[task].method("lora")) is not None}
    full = {task: method for task in ours if (method := done[task].method("full")) is not None}

    def step_over(others: Mapping[str, Any]) -> list[float]:
        timed = {task: other for task, other in others.items() if ours[task].step_to_full and other.step_to_full}
        return [ours[task].step_to_full.median / other.step_to_full.median for task, other in timed.items()]

    memory = [ours[task].memory.training / other.memory.training for task, other in lora.items()]
    return [
        difference_to(done, "lora", at_least=-0.5),
        difference_to(done, "full", at_least=-1.0),
        difference_to(done, "random-prune-lora", at_least=None),
        at_most("time of a training step, of LoRA's", step_over(lora), 0.89),
        at_most("time of a training step, of full fine-tuning's", step_over(full), 0.65),
        at_most("trained parameters, of the model's", [one.trained / one.parameters for one in ours.values()], 0.012),
        at_most("peak training memory, of LoRA's", memory, 1.0),
        forward_aim({task: (ours[task], dense) for task, dense in full.items() if ours[task].latencies}),
    ]


def difference_to(done: Done, other: str, *, at_least: float | None) -> Aim:
    """The mean difference in accuracy over tasks; without a bound, the interval has to be above 0."""
    pairs = pairs_with(done, other)
    mean = 100 * statistics.fmean(sign * pair.difference for pair, sign in pairs) if pairs else math.nan
    text, above = over_seeds(pairs)
    aim = "above it by more than noise" if at_least is None else f"at least {at_least:+.1f} points"
    met = above if at_least is None else mean >= at_least
    what = f"accuracy, mean over {len(pairs)} tasks, against {other}"
    return Aim(what, aim, f"{decimal(mean, 1, signed=True)} points; {text}", met)


def over_seeds(pairs: list[tuple[PairFacts, float]]) -> tuple[str, bool]:
    """The mean over tasks for every seed with its interval over seeds and rows, and whether that is above 0.

    Uses the tasks with the most seeds. Tasks share no rows, so the squares of their row errors add up; the trainings of
    one seed on all tasks are one draw.
    """
    seeds = max((len(pair.by_seed) for pair, _ in pairs), default=0)
    if seeds < 2:
        return "one seed, which says nothing about other seeds", False
    several = [(pair, sign) for pair, sign in pairs if len(pair.by_seed) == seeds]
    difference = Difference(
        tuple(statistics.fmean(sign * pair.by_seed[seed] for pair, sign in several) for seed in range(seeds)),
        math.hypot(*(pair.row_error for pair, _ in several)) / len(several),
        sum(pair.rows for pair, _ in several),
    )
    by_seed = ", ".join(decimal(100 * value, 1, signed=True) for value in difference.by_seed)
    interval = metric_interval("accuracy", *difference.interval(), signed=True)
    tasks = f"by seed, over the {len(several)} tasks with {seeds} seeds"
    return f"{tasks}: {by_seed} (95 % interval over seeds and rows {interval})", difference.interval()[0] > 0


def pairs_with(done: Done, other: str) -> list[tuple[PairFacts, float]]:
    """prune-lora with another method on the first split of every task, and the sign that makes it prune-lora's lead."""
    return [
        (pair, 1.0 if pair.first == OURS else -1.0)
        for one in done.values()
        for pair in one.pairs
        if {pair.first, pair.second} == {OURS, other} and pair.split == one.splits[0]
    ]


def at_most(what: str, values: Iterable[float], bound: float, aim: str = "", more: str = "") -> Aim:
    values, aim = list(values), aim or f"at most {bound:g}"
    if not values:
        return Aim(what, aim, "not measured", None)
    median = statistics.median(values)
    found = f"{median:.3f} (median of {len(values)} tasks, {min(values):.3f} to {max(values):.3f}){more}"
    return Aim(what, aim, found, median <= bound)


def forward_aim(methods: Mapping[str, tuple[Any, Any]]) -> Aim:
    """At the largest size, where work decides and not overhead."""
    largest = [max(own.latencies, key=lambda one: one.batch_size * one.tokens) for own, _ in methods.values()]
    macs = statistics.median(own.macs / dense.macs for own, dense in methods.values()) if methods else math.nan
    what = "time of a forward pass, 32 rows of 128 tokens, of the dense model's"
    aim = "at most the fraction of MACs that is left"
    return at_most(what, [one.to_dense.median for one in largest], macs, aim, f"; MACs left {macs:.3f}")


# Learning rates -------------------------------------------------------------------------------------------------------


def rates_on_mean(done: Done) -> str:
    """Every learning rate of every method: its mean over the tasks, how often it was chosen, and whether it is an end.

    The result beyond an end that every task chose is unknown.
    """
    rows = []
    for name in methods_of(done):
        methods = [method for one in done.values() if (method := one.method(name)) is not None]
        for rate in methods[0].tried:
            values = [method.tried[rate] for method in methods]
            mean = "diverged" if None in values else f"{100 * statistics.fmean(values):.1f}"
            chosen = sum(float(rate) == method.learning_rate for method in methods)
            end = "the end of the range" if chosen == len(methods) else ""
            rows.append((name, learning_rate(float(rate)), mean, f"{chosen} of {len(methods)} tasks", end))
    return markdown(("method", "learning rate", "accuracy, %", "chosen by", "chosen by all"), rows)


def methods_of(done: Done) -> list[str]:
    return list(dict.fromkeys(method.name for one in done.values() for method in one.methods))
