"""The page of results, made from benchmarks/glue/results alone: RESULTS.md, and the paper's tables beside it."""

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from prunelora.comparison.page import PAIRS_TEXT
from prunelora.comparison.results import ComparisonResults, MethodFacts, PairFacts
from prunelora.comparison.tables import learning_rates_table, pairs_table
from prunelora.evaluation.significance import Difference
from prunelora.report.sections import Section
from prunelora.report.tables import Table
from prunelora.report.writing import Page, page_as_markdown
from prunelora.reproduction.results import Reproduction, read
from prunelora.reproduction.tables import accuracy_table, time_table
from prunelora.reproduction.writing import write_reproduction
from prunelora.storage import write_text

COMMAND = "python -m benchmarks.glue"
OURS = "prune-lora"


@dataclass(frozen=True)
class Target:
    """Something that was aimed at.

    Attributes:
        what: It.
        aim: At most or at least what.
        found: What was measured, with its spread.
        met: Whether it was met; None where it was not measured.
    """

    what: str
    aim: str
    found: str
    met: bool | None


def write_page(results: Path, notes: Mapping[str, str]) -> list[Path]:
    """Write RESULTS.md beside the folder of results, and reproduction.md, .html and figures into it."""
    found = read(results, notes=notes, command=COMMAND)
    written = [results / name for name in write_reproduction(found, results)]
    page = results.parent / "RESULTS.md"
    write_text(page, page_as_markdown(page_of(found)))
    return [page, *written]


_RECOMPUTED = (
    "The answers of these trainings were not kept: the spread over rows is that of the bootstrap over rows which was "
    "made when they were."
)


def page_of(found: Reproduction) -> Page:
    """What RESULTS.md says."""
    done = {one.task: one.comparison for one in found.tasks if one.comparison is not None}
    trainings = sum(len(one.trials) for one in done.values())
    machines = sorted({cell.machine["cpu"] for one in done.values() for cell in one.trials})
    missed = [one for one in targets(done) if one.met is False]
    return Page(
        title="Six GLUE tasks, four methods",
        subtitle=f"MiniLM, {trainings} trainings on two cores ({', '.join(machines)}); made by {COMMAND}",
        summary=(("Aims that were missed", tuple(f"{one.what}: {one.found} ({one.aim})" for one in missed)),),
        warnings=tuple(_missing(found)),
        sections=(
            Section("What was aimed at", table=_targets_table(done)),
            Section(
                "Accuracy",
                (
                    "Mean and standard deviation over seeds, on GLUE's validation rows (the reported rows here); "
                    "learning rate and checkpoint were chosen on rows cut from training.",
                    *(f"{task}: {note}." for task, note in _notes(found)),
                ),
                table=accuracy_table(found),
            ),
            Section("Time of a training step", table=time_table(found)),
            Section("Which differences are more than noise", (*PAIRS_TEXT, _RECOMPUTED)),
            *(
                Section(
                    f"{task}: which differences are more than noise",
                    (_setting(one),),
                    table=pairs_table(one),
                )
                for task, one in done.items()
            ),
            Section(
                "Learning rates",
                (
                    "Accuracy on the validation rows of the first seed, by which each task chose its own, and its mean "
                    f"over the tasks: {', '.join(_trying(done)) or 'none'}.",
                    *_at_the_edge(done),
                ),
                table=_rates_on_mean(done),
            ),
            *(
                Section(f"{task}: learning rates", table=learning_rates_table(one))
                for task, one in _trying(done).items()
            ),
        ),
        numbers="results/TASK/comparison.json, a row for every training with its recipe, seed, machine and version",
    )


def targets(done: Mapping[str, ComparisonResults]) -> list[Target]:
    """What the benchmark was to show, and whether it does."""
    ours = [method for one in done.values() if (method := one.method(OURS)) is not None]
    if not ours:
        return []
    return [
        _difference(done, "lora", at_least=-0.5),
        _difference(done, "full", at_least=-1.0),
        _above_random(done),
        _ratio("time of a training step, of LoRA's", _steps(done, "lora"), 0.89),
        _ratio("time of a training step, of full fine-tuning's", _steps(done, "full"), 0.65),
        _ratio("trained parameters, of the model's", [one.trained / one.parameters for one in ours], 0.012),
        _ratio(
            "peak training memory, of LoRA's",
            [
                one.method(OURS).memory.training / one.method("lora").memory.training
                for one in done.values()
                if one.method(OURS) and one.method("lora")
            ],
            1.0,
        ),
        _inference(done),
    ]


def _targets_table(done: Mapping[str, ComparisonResults]) -> Table:
    said = {True: "yes", False: "no", None: "not measured"}
    return Table(
        ("prune-lora", "aim", "found", "met"),
        tuple((one.what, one.aim, one.found, said[one.met]) for one in targets(done)),
    )


def _difference(done: Mapping[str, ComparisonResults], other: str, *, at_least: float) -> Target:
    pairs = _pairs(done, other)
    mean = statistics.fmean(sign * pair.difference for pair, sign in pairs) if pairs else math.nan
    return Target(
        f"accuracy, mean over {len(pairs)} tasks, against {other}",
        f"at least {at_least:+.1f} points",
        f"{100 * mean:+.1f} points; {_over_seeds(pairs)[0]}",
        100 * mean >= at_least,
    )


def _above_random(done: Mapping[str, ComparisonResults]) -> Target:
    """Every seed draws a cut of its own."""
    pairs = _pairs(done, "random-prune-lora")
    mean = statistics.fmean(sign * pair.difference for pair, sign in pairs) if pairs else math.nan
    said, above = _over_seeds(pairs)
    return Target(
        f"accuracy, mean over {len(pairs)} tasks, against random-prune-lora",
        "above it by more than noise",
        f"{100 * mean:+.1f} points; {said}",
        above,
    )


def _over_seeds(pairs: list[tuple[PairFacts, float]]) -> tuple[str, bool]:
    """The mean over tasks, seed by seed, and its interval over seeds and rows; and whether that is above 0.

    Of the tasks that have most seeds. Tasks share no rows, so the squares of their row errors add up; one seed's
    trainings on all tasks are one draw.
    """
    seeds = max((len(pair.by_seed) for pair, _ in pairs), default=0)
    several = [(pair, sign) for pair, sign in pairs if len(pair.by_seed) == seeds]
    if seeds < 2:
        return "one seed, of which nothing follows for others", False
    difference = Difference(
        tuple(statistics.fmean(sign * pair.by_seed[seed] for pair, sign in several) for seed in range(seeds)),
        math.hypot(*(pair.row_error for pair, _ in several)) / len(several),
        sum(pair.rows for pair, _ in several),
    )
    said = ", ".join(f"{100 * one:+.1f}" for one in difference.by_seed)
    low, high = (f"{100 * end:+.1f}" for end in difference.interval())
    text = (
        f"by seed, over the {len(several)} tasks that have {seeds}: {said} (95 % interval over seeds and rows {low} to "
        f"{high})"
    )
    return text, difference.interval()[0] > 0


def _pairs(done: Mapping[str, ComparisonResults], other: str) -> list[tuple[PairFacts, float]]:
    """Prune-LoRA with another method on the first reported split of every task; the sign turns it to ours minus its."""
    found = []
    for one in done.values():
        for pair in one.pairs:
            if {pair.first, pair.second} == {OURS, other} and pair.split == one.splits[0]:
                found.append((pair, 1.0 if pair.first == OURS else -1.0))
    return found


def _steps(done: Mapping[str, ComparisonResults], other: str) -> list[float]:
    """Prune-LoRA's step over another method's, a task each: both were timed in the same rounds."""
    found = []
    for one in done.values():
        ours, theirs = one.method(OURS), one.method(other)
        if ours and theirs and ours.step_to_full and theirs.step_to_full:
            found.append(ours.step_to_full.median / theirs.step_to_full.median)
    return found


def _ratio(what: str, values: Iterable[float], at_most: float) -> Target:
    values = list(values)
    if not values:
        return Target(what, f"at most {at_most:g}", "not measured", None)
    found = f"{statistics.median(values):.3f} (median of {len(values)} tasks, {min(values):.3f} to {max(values):.3f})"
    return Target(what, f"at most {at_most:g}", found, statistics.median(values) <= at_most)


def _inference(done: Mapping[str, ComparisonResults]) -> Target:
    """At the largest size, where work and not overhead decides."""
    shares, work = [], []
    for one in done.values():
        ours, dense = one.method(OURS), one.method("full")
        if ours and dense and ours.latencies:
            shares.append(_largest(ours))
            work.append(ours.macs / dense.macs)
    aim = "at most the share of MACs that is left"
    what = "time of a forward pass, 32 rows of 128 tokens, of the dense model's"
    if not shares:
        return Target(what, aim, "not measured", None)
    found = (
        f"{statistics.median(shares):.3f} (median of {len(shares)} tasks, {min(shares):.3f} to {max(shares):.3f}); "
        f"MACs left {statistics.median(work):.3f}"
    )
    return Target(what, aim, found, statistics.median(shares) <= statistics.median(work))


def _largest(method: MethodFacts) -> float:
    return max(method.latencies, key=lambda one: one.batch_size * one.tokens).to_dense.median


def _trying(done: Mapping[str, ComparisonResults]) -> dict[str, ComparisonResults]:
    return {task: one for task, one in done.items() if any(len(method.tried) > 1 for method in one.methods)}


def _rates_on_mean(done: Mapping[str, ComparisonResults]) -> Table:
    """Every learning rate of every method: its mean over the tasks that tried several, and how often it was chosen."""
    tasks = list(_trying(done).values())
    rows = []
    for name in _methods_of(tasks):
        own = [method for one in tasks if (method := one.method(name)) is not None]
        for rate in own[0].tried:
            values = [method.tried[rate] for method in own]
            mean = "diverged" if None in values else f"{100 * statistics.fmean(values):.1f}"
            chosen = sum(float(rate) == method.learning_rate for method in own)
            rows.append((name, rate, mean, f"{chosen} of {len(own)} tasks"))
    return Table(("method", "learning rate", "accuracy, %", "chosen by"), tuple(rows))


def _at_the_edge(done: Mapping[str, ComparisonResults]) -> Iterable[str]:
    """Methods that chose the largest or smallest of what was tried everywhere: what lies beyond is not known."""
    tasks = list(_trying(done).values())
    for name in _methods_of(tasks):
        own = [method for one in tasks if (method := one.method(name)) is not None]
        for what, end in (("largest", max), ("smallest", min)):
            if all(method.learning_rate == end(map(float, method.tried)) for method in own):
                yield f"{name} chose the {what} that was tried on every task: one beyond it was not looked at."


def _methods_of(tasks: Iterable[ComparisonResults]) -> list[str]:
    return list(dict.fromkeys(method.name for one in tasks for method in one.methods))


def _missing(found: Reproduction) -> Iterable[str]:
    if found.missing:
        yield f"not run yet: {', '.join(found.missing)}"
    for one in found.tasks:
        if one.comparison is not None and len(one.comparison.seeds) < 3:
            seeds = ", ".join(map(str, one.comparison.seeds))
            yield f"{one.task}: seed {seeds} alone" if len(one.comparison.seeds) == 1 else f"{one.task}: seeds {seeds}"


def _notes(found: Reproduction) -> list[tuple[str, str]]:
    return [(one.task, one.note) for one in found.tasks if one.note and one.comparison is not None]


def _setting(one: ComparisonResults) -> str:
    rows, recipe = one.task["rows"], one.trials[0].recipe
    epochs = next(stage["epochs"] for stage in recipe["stages"] if stage["stage"] == "finetune")
    reported = sum(count for split, count in rows.items() if split not in ("train", "validation"))
    return (
        f"{rows['train']:,} training rows, {rows['validation']:,} that choose, {reported:,} reported; "
        f"{epochs:g} epochs; seeds {', '.join(map(str, one.seeds))}."
    )
