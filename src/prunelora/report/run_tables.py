"""The tables of a run: dense against pruned, quality along the way, times of the stages, data."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from prunelora.errors import advice, option
from prunelora.report.judged import BASELINE, PRUNED, TUNED, judged, more_judged
from prunelora.report.numbers import (
    count,
    decimal,
    duration,
    factor,
    metric_title,
    metric_value,
    milliseconds,
    percent,
    scaled,
    with_quartiles,
)
from prunelora.report.reading import (
    Pair,
    kind_of,
    measured,
    moments,
    reported_rows,
    timings,
    training_seconds,
)
from prunelora.report.results import RunResults
from prunelora.report.table import Table

NOT_TRAINED = "not trained"


class Fact(NamedTuple):
    """One fact of a run, as text: a row of dense against pruned.

    Attributes:
        what: Name of the quantity.
        dense: Of the dense model.
        pruned: Of the pruned model.
        change: Pruned beside dense.
    """

    what: str
    dense: str
    pruned: str
    change: str = ""

    def __str__(self) -> str:
        beside = f"; dense {self.dense}" if self.dense and self.dense != self.pruned else ""
        return f"{self.what}: {self.pruned}{beside}{f'; {self.change}' if self.change else ''}"


def facts(results: RunResults) -> list[Fact]:
    """Every fact that the summary, the report and metrics.json show, most important first."""
    return [
        *_asked(results), *_quality(results), *_left(results), *_sizes(measured(results)), *_training(results),
        *(_time(f"time at {pair.place}", pair) for pair in timings(measured(results))),
    ]  # fmt: skip


def comparison_table(results: RunResults) -> Table:
    """Dense against pruned, with what a reader must know of this run."""
    tuned = judged(results, TUNED)
    notes = []
    if tuned is not None:
        notes.append("Before the cut: the same training up to the cut, nothing cut.")
    if not results.facts("baseline"):
        scope = "on this task" if tuned is None else "for all of the epochs"
        notes.append(f"No dense model was trained {scope}. {advice('baseline', True)} trains one with plain LoRA.")
    measured_at = results.facts("plan").get("latency_measured_at")
    if measured_at is not None:
        notes.append(f"The plan's latency budget uses times measured at {measured_at}.")
    return Table(("", "dense", "pruned", "beside dense"), tuple(facts(results)), notes=tuple(notes))


def journey(results: RunResults) -> Table:
    """The main metric on the validation rows after every stage that changed the model."""
    metric, rate = results.main_metric, results.task["validation_majority_rate"]
    rows = [
        (results.stages[stage].get("label") or f"after {stage}", stage, metric_value(metric, value))
        for stage, value in moments(results)
    ]
    if metric == "accuracy" and rate is not None:
        rows.insert(0, ("most frequent class", "", metric_value(metric, rate)))
    note = (
        f"The {metric_title(metric)} on the validation rows, which choose the best checkpoint, after each stage that "
        "changes the model."
    )
    columns = ("", "stage", f"{metric_title(metric)}, validation rows")
    return Table(columns, tuple(rows), "Quality along the way", (note,))


def stage_times(results: RunResults) -> Table:
    """Wall time of every stage, and of all."""
    seconds = {name: float(stage.get("seconds", 0.0)) for name, stage in results.stages.items()}
    total = sum(seconds.values())
    rows = [(name, duration(spent), percent(spent / total) if total else "") for name, spent in seconds.items()]
    rows.append(("all", duration(total), ""))
    note = "Wall time on the machine of this run."
    return Table(("stage", "time", "share"), tuple(rows), "Time of every stage", (note,))


def task_rows(data: str, task: Mapping[str, Any], rates: Mapping[str, float | None]) -> tuple[tuple[str, str], ...]:
    """Facts of a task, a name and a text each.

    Args:
        data: Name of the data.
        task: "problem_type", and where known "columns", "rows", "label_names", "fingerprint".
        rates: Majority rate by reported split; None where there is none.
    """
    rows = [("data", data), ("problem", str(task.get("problem_type", "")).replace("_", " "))]
    rows += [(f"column for {role}", str(column)) for role, column in task.get("columns", {}).items()]
    rows += [(f"{split} rows", count(number)) for split, number in task.get("rows", {}).items()]
    names = [str(name) for name in task.get("label_names", ())]
    if names:
        more = f" and {len(names) - 12} more" if len(names) > 12 else ""
        rows.append(("classes", f"{len(names)}: {', '.join(names[:12])}{more}"))
    rows += [
        (f"most frequent class of training, {split} rows", metric_value("accuracy", rate))
        for split, rate in rates.items()
        if rate is not None
    ]
    if task.get("fingerprint"):
        rows.append(("fingerprint", str(task["fingerprint"])))
    return tuple(rows)


def _asked(results: RunResults) -> Iterator[Fact]:
    """The latency budget of the plan, and whether it is met where it was asked for."""
    asked = results.facts("measure").get("asked_latency")
    if asked is None:
        return
    pair, threads = Pair.read(asked), asked["threads"]
    name = "speedup" if asked["max_latency_ms"] is None else "max_latency_ms"
    value = float(asked[name])
    met = pair.speed.median >= value if name == "speedup" else pair.pruned.median <= value
    budget = option(name, int(value) if value.is_integer() else value)
    what = f"{budget} at {pair.place}, {threads} thread{'' if threads == 1 else 's'}"
    yield _time(what, pair, verdict="met: " if met else "missed: ", show=partial(decimal, digits=2))


def _time(what: str, pair: Pair, *, verdict: str = "", show: Callable[[float], str] = factor) -> Fact:
    speed, low, high = map(show, (pair.speed.median, pair.speed.q25, pair.speed.q75))
    dense, pruned = (with_quartiles(milliseconds, spread) for spread in (pair.dense, pair.pruned))
    return Fact(what, dense, pruned, f"{verdict}{speed} times as fast ({low}\N{EN DASH}{high})")


def _quality(results: RunResults) -> Iterator[Fact]:
    """Every metric beside every dense model there is, and the majority rate below an accuracy."""
    pruned = judged(results, PRUNED)
    if pruned is None:
        return
    tuned, baseline = judged(results, TUNED), judged(results, BASELINE)
    # Beside the model before the cut, the baseline needs a title too.
    titles = ((" (dense: before the cut)", tuned), (" (dense: plain LoRA)" if tuned else "", baseline))
    for metric in pruned.values:
        what = f"{metric_title(metric)}, {reported_rows(results)}"
        beside = [(title, dense) for title, dense in titles if dense is not None and metric in dense.values]
        for title, dense in beside:
            change = pruned.difference_text(dense, metric)
            yield Fact(f"{what}{title}", dense.text(metric), pruned.text(metric), change)
        if not beside:
            yield Fact(what, NOT_TRAINED, pruned.text(metric))
        yield from _majority(metric, results.task["majority_rate"])
    for split in results.facts(PRUNED).get("more_tests", {}):
        metric, more = results.main_metric, more_judged(results, split)
        what = f"{metric_title(metric)}, {count(more.rows)} {split} rows"
        yield Fact(what, "", more.text(metric))
        yield from _majority(metric, results.task["majority_rates"][split])


def _majority(metric: str, rate: float | None) -> Iterator[Fact]:
    if metric == "accuracy" and rate is not None:
        always = metric_value(metric, rate)
        yield Fact("always the most frequent class", always, always)


def _left(results: RunResults) -> Iterator[Fact]:
    """Heads and neurons that stay."""
    if results.plan is None:
        return
    pruned, base = results.plan.architecture, results.plan.base
    yield _numbers(base.unit_of_heads, base.total_heads, pruned.total_heads, count)
    yield _numbers("neurons", base.total_neurons, pruned.total_neurons, count)


def _sizes(measurement: Mapping[str, Any]) -> Iterator[Fact]:
    """Parameters, MACs and memory from `Measurement.to_dict()`."""
    model, base = measurement.get("model"), measurement.get("base") or {}
    if not model:
        return
    settings = measurement.get("settings", {})
    step, tokens = settings.get("training_batch_size"), settings.get("macs_tokens", 128)
    size = f", batch {step}, {settings.get('training_tokens')} tokens" if step else ""
    for what, key, unit in (
        ("parameters", "parameters", ""),
        (f"MACs of the blocks, {tokens} tokens", "macs", ""),
        ("memory of the weights", "weight_bytes", "B"),
        (f"saved for backward{size}", "saved_for_backward_bytes", "B"),
    ):
        dense, pruned = (content.get(key) for content in (base, model))
        if key == "parameters":
            dense, pruned = (content and content["total"] for content in (dense, pruned))
        if pruned is not None:
            yield _numbers(what, dense, pruned, partial(scaled, unit=unit, like=dense), missing="not measured")


def _training(results: RunResults) -> Iterator[Fact]:
    """Trained parameters, time of a step and of the whole training."""
    tuning, baseline = results.facts("finetune"), results.facts("baseline").get("training", {})
    missing = NOT_TRAINED if judged(results, TUNED) is None else "no baseline"
    trained, dense = (sum(facts.get("trainable", {}).values()) or None for facts in (tuning, baseline))
    if trained is not None:
        yield _numbers("trained parameters", dense, trained, partial(scaled, like=dense), missing=missing)
    if tuning.get("step_ms"):
        last = " of the last tuning" if sum(kind_of(stage) == "finetune" for stage in results.stages) > 1 else ""
        yield _numbers(
            f"time of a training step{last}", baseline.get("step_ms"), tuning["step_ms"], milliseconds, missing=missing
        )
    if "baseline" in results.stages:
        spent = float(results.stages["baseline"]["seconds"])
        yield _numbers(
            "time of training, all stages up to the merged model", spent, training_seconds(results), duration
        )


def _numbers(
    what: str, dense: float | None, pruned: float, show: Callable[[float], str], *, missing: str = NOT_TRAINED
) -> Fact:
    share = percent(pruned / dense) if dense else ""
    return Fact(what, missing if dense is None else show(dense), show(pruned), share)
