"""The end of a run in the terminal: dense against pruned, warnings, and the written files."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from prunelora.errors import NO_VALUE, advice
from prunelora.models.problem_types import MULTI_LABEL, REGRESSION
from prunelora.report.judged import PRUNED, judged
from prunelora.report.numbers import count, metric_value
from prunelora.report.reading import cut_off, kind_of, measured, timings
from prunelora.report.results import RunResults
from prunelora.report.run_tables import comparison_table, facts
from prunelora.report.table import Table

# Quartiles further apart than this share of the median: other programs were probably running.
NOISY = 0.25
RANGES = "Ranges of quality are 95 % intervals over rows, ranges of times are quartiles."


def summarise(results: RunResults) -> list[str]:
    """The summary for JSON: a line for every fact, warning and file."""
    return [
        *map(str, facts(results)), *(f"Warning: {line}" for line in warnings(results)), *files(results)
    ]  # fmt: skip


def shown(results: RunResults) -> list[Table | str]:
    """The summary for a terminal, without the files."""
    table = comparison_table(results)
    title = f"{results.model} on {results.data}, seed {results.seed}"
    table = replace(table, title=title, notes=(RANGES, *table.notes))
    return [table, *(f"Warning: {line}" for line in warnings(results))]


def warnings(results: RunResults) -> list[str]:
    """Results that may mislead, each with what to do."""
    unread = (f"{line}." for line in cut_off(results)[:1])
    return [*unread, *_not_judged(results), *_nothing_learnt(results), *_not_finished(results), *_not_faster(results)]


def files(results: RunResults) -> list[str]:
    """Paths of report, model and export."""
    folder = Path(results.folder)
    lines = [f"Report: {folder / 'report.html'}"]
    saved = saved_model(results)
    if saved is not None:
        lines.append(f'Model: {saved}, loaded by prunelora.load("{saved}")')
    exported = results.facts("export").get("file")
    if exported:
        lines.append(f"ONNX: {folder / exported}")
    return lines


def saved_model(results: RunResults) -> Path | None:
    """Folder of the merged model, otherwise of the last tuned one; None if nothing was saved."""
    kinds = {kind_of(stage) for stage in results.stages}
    folder = Path(results.folder)
    if "merge" in kinds:
        return folder / "model"
    if "finetune" in kinds:
        return folder / ("adapter" if results.facts("finetune").get("trainable", {}).get("lora") else "tuned")
    return None


def _not_judged(results: RunResults) -> Iterator[str]:
    if judged(results, PRUNED) is None:
        yield "quality was not measured; the stage measure does that."


def _nothing_learnt(results: RunResults) -> Iterator[str]:
    """Whether quality is no better than that of a constant answer."""
    metric, rows, pruned = results.main_metric, results.task["rows"]["test"], judged(results, PRUNED)
    if pruned is None or metric not in pruned.values:
        return
    value = pruned.values[metric]
    rate, problem = results.task["majority_rate"], results.task["problem_type"]
    interval = pruned.interval(metric) or (value, value)
    if metric == "accuracy" and rate is not None and interval[0] <= rate:
        reason = (
            f"the accuracy {pruned.text(metric)} is not clearly above the {metric_value(metric, rate)} of always "
            "answering the most frequent class"
        )
    # Without any relation, a correlation of n rows has the standard error 1 / sqrt(n - 1).
    elif problem == REGRESSION and rows > 1 and value <= 1 / math.sqrt(rows - 1):
        reason = f"a correlation of {metric_value(metric, value)} is within the error of {count(rows)} rows"
    elif problem == MULTI_LABEL and value == 0:
        reason = "no label is predicted correctly"
    elif metric == "entity_f1" and value == 0:
        reason = "no entity is found"
    else:
        return
    yield (
        f"nothing was learnt: {reason}. Train longer ({advice('epochs')}), change the learning rate "
        f"({advice('learning_rate')}), or keep more (the budget of the stage plan). If the dense model learns nothing "
        f"either ({advice('baseline', True)}), look at the labels."
    )


def _not_finished(results: RunResults) -> Iterator[str]:
    """Whether the longest fine-tuning was still improving; a short one after the cut only repairs."""
    tunings = [results.facts(stage) for stage in results.stages if kind_of(stage) == "finetune"]
    longest = max(tunings, key=lambda facts: facts.get("steps", 0), default={})
    metric = f"validation_{results.main_metric}"
    evaluations = [entry for entry in longest.get("history", ()) if metric in entry]
    if len(evaluations) > 1 and longest.get("steps") and longest.get("best_step") == longest["steps"]:
        yield f"the last evaluation was the best, so more training may help ({advice('epochs')})."


def _not_faster(results: RunResults) -> Iterator[str]:
    pairs = timings(measured(results))
    slower = [pair.place for pair in pairs if pair.speed.median < 1]
    if slower:
        yield (
            f"not faster than the dense model at {listed(slower)}. Cut more (the budget of the stage plan), "
            "or use it at other sizes."
        )
    noisy = [pair.place for pair in pairs if max(pair.dense.noise, pair.pruned.noise) > NOISY]
    if noisy:
        rounds = measured(results).get("settings", {}).get("repeats")
        more = advice("measure.repeats", NO_VALUE if rounds is None else 2 * rounds)
        yield (
            f"timings vary much at {listed(noisy)}: other programs were probably running. Repeat them on a "
            f"quiet machine, or with more rounds ({more})."
        )


def listed(names: Sequence[str]) -> str:
    """The first four names, and the number of the others: "a; b; c; d; and 2 more"."""
    others = [f"and {len(names) - 4} more"] if len(names) > 4 else []
    return "; ".join([*names[:4], *others])
