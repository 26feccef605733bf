"""The report's tables as data, shared by HTML and Markdown."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prunelora.report.judged import BASELINE, PRUNED, TUNED, Judged, ends_text, judged
from prunelora.report.reading import (
    SHARES,
    Timing,
    duration,
    in_units,
    kind_of,
    main_metric,
    metric_text,
    metric_title,
    milliseconds,
    moments,
    percent,
    reported_rows,
    sizes,
    times,
    timings,
)
from prunelora.report.results import RunResults

NOT_TRAINED = "not trained"
TUNED_TITLE = "dense: the same training up to the cut, nothing cut"
NO_BASELINE = "no baseline"
BASELINE_TITLE = "dense: plain LoRA"


@dataclass(frozen=True)
class Row:
    """One line of dense against pruned.

    Attributes:
        what: What is compared.
        dense: Of the dense model, for people.
        pruned: Of the pruned model, for people.
        change: One beside the other, for people.
        dense_value: The number itself; None if there is none.
        pruned_value: The number itself; None if there is none.
    """

    what: str
    dense: str
    pruned: str
    change: str
    dense_value: float | None
    pruned_value: float | None


@dataclass(frozen=True)
class Table:
    """Any table: headings, and rows of as many texts. The first column names what the row is about."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def comparison(results: RunResults) -> list[Row]:
    """Dense against pruned: quality with the majority rate beside it, size, work, memory, training, time."""
    measurement = results.facts("measure").get("measurement", {})
    rows = _quality(results)
    rows += [
        _pair(size.what, size.dense, size.pruned, size.unit, missing="not measured") for size in sizes(measurement)
    ]
    rows += _training(results)
    rows += [
        Row(
            f"time at {pair.size}, {pair.engine}",
            _with_quartiles(pair.dense),
            _with_quartiles(pair.pruned),
            f"{pair.speed_text} ({times(pair.speed_low)}\N{EN DASH}{times(pair.speed_high)})",
            pair.dense.median_ms,
            pair.pruned.median_ms,
        )
        for pair in timings(measurement)
    ]
    return rows


def comparison_table(results: RunResults) -> Table:
    """`comparison` for a page."""
    rows = tuple((row.what, row.dense, row.pruned, row.change) for row in comparison(results))
    return Table(("", "dense", "pruned", "beside dense"), rows)


def journey(results: RunResults) -> Table:
    """The main metric on the validation rows after every stage that changed the model."""
    metric = main_metric(results)
    after = {
        "linear_probe": "after the linear probe of the task head",
        "prune": "right after the cut",
        "finetune": "after fine-tuning",
        "merge": "adapter merged",
        "baseline": "dense baseline after its training",
    }
    rows = [
        (after.get(moment.kind, f"after {moment.kind}"), moment.stage, metric_text(metric, moment.value))
        for moment in moments(results)
    ]
    rate = results.task.get("validation_majority_rate")
    if metric == "accuracy" and rate is not None:
        rows.insert(0, ("most frequent class", "", metric_text(metric, rate)))
    return Table(("", "stage", f"{metric_title(metric)}, validation rows"), tuple(rows))


def stage_times(results: RunResults) -> Table:
    """Wall time of every stage, and of all of them."""
    spent = {name: float(stage.get("seconds", 0.0)) for name, stage in results.stages.items()}
    total = sum(spent.values())
    rows = [(name, duration(seconds), percent(seconds / total) if total else "") for name, seconds in spent.items()]
    return Table(("stage", "time", "share"), (*rows, ("all", duration(total), "")))


def data_table(results: RunResults) -> Table:
    """Columns, rows per split, classes and majority rate."""
    rates = {results.task.get("test_name", "test"): results.task.get("majority_rate")}
    return Table(("", ""), task_rows(results.data, results.task, rates))


def task_rows(data: str, task: Mapping[str, Any], rates: Mapping[str, float | None]) -> tuple[tuple[str, str], ...]:
    """What is known of a task, a name and a text each.

    Args:
        data: What the data is called.
        task: "problem_type", and where known "columns", "rows", "label_names", "fingerprint".
        rates: Majority rate by reported split; None where there is none.
    """
    rows = [("data", data), ("problem", str(task.get("problem_type", "")).replace("_", " "))]
    rows += [(f"column for {role}", str(column)) for role, column in task.get("columns", {}).items()]
    rows += [(f"{split} rows", f"{count:,}") for split, count in task.get("rows", {}).items()]
    names = [str(name) for name in task.get("label_names", ())]
    if names:
        shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
        rows.append(("classes", f"{len(names)}: {shown}"))
    for split, rate in rates.items():
        if rate is not None:
            most = f"{100 * rate:.1f} % of the {split} rows have the most frequent class of the training rows"
            rows.append(("majority rate", most))
    if task.get("fingerprint"):
        rows.append(("fingerprint", str(task["fingerprint"])))
    return tuple(rows)


def _training(results: RunResults) -> list[Row]:
    own, baseline = results.facts("finetune"), results.facts("baseline").get("training", {})
    rows = []
    missing = NOT_TRAINED if judged(results, TUNED) is None else NO_BASELINE
    trained = _sum(own.get("trainable"))
    if trained is not None:
        rows.append(_pair("trained parameters", _sum(baseline.get("trainable")), trained, "", missing=missing))
    if own.get("step_ms"):
        last = sum(kind_of(stage) == "finetune" for stage in results.stages) > 1
        what = f"time of a training step{' of the last tuning' if last else ''}"
        rows.append(_pair(what, baseline.get("step_ms"), own["step_ms"], "ms", missing=missing))
    return rows


def _quality(results: RunResults) -> list[Row]:
    pruned = judged(results, PRUNED)
    if pruned is None:
        return []
    tuned, baseline = judged(results, TUNED), judged(results, BASELINE)
    beside: list[tuple[str, Judged | None]] = [(TUNED_TITLE, tuned)] if tuned is not None else []
    # The same values stand in two rows where two dense models are known.
    beside += [(BASELINE_TITLE if tuned is not None else "", baseline)] if baseline is not None or not beside else []
    rate = results.task.get("majority_rate")
    rows = []
    for metric, value in pruned.values.items():
        for title, dense in beside:
            other = None if dense is None else dense.values.get(metric)
            rows.append(
                Row(
                    f"{metric_title(metric)}, {reported_rows(results)}{f' ({title})' if title else ''}",
                    NOT_TRAINED if dense is None or other is None else dense.text(metric),
                    pruned.text(metric),
                    "" if dense is None or other is None else _change(metric, pruned, dense),
                    other,
                    value,
                )
            )
        if metric == "accuracy" and rate is not None:
            always = metric_text(metric, rate)
            rows.append(Row("always the most frequent class", always, always, "", rate, rate))
    return rows


def _change(metric: str, pruned: Judged, dense: Judged) -> str:
    """The difference in points, with its interval over rows where that is known."""
    change, difference = pruned.values[metric] - dense.values[metric], pruned.against(dense, metric)
    text = f"{100 * change:+.1f} points" if metric in SHARES else f"{change:+.3f}"
    text += f" ({ends_text(metric, difference.interval())})" if difference is not None else ""
    return text.replace("-", "\N{MINUS SIGN}")


def _pair(what: str, dense: float | None, pruned: float, unit: str, *, missing: str = NOT_TRAINED) -> Row:
    def text(value: float) -> str:
        return milliseconds(value) if unit == "ms" else in_units(value, unit, like=dense)

    return Row(
        what,
        missing if dense is None else text(dense),
        text(pruned),
        _share(dense, pruned),
        dense,
        pruned,
    )


def _share(dense: float | None, pruned: float) -> str:
    return percent(pruned / dense) if dense else ""


def _sum(counts: dict[str, int] | None) -> float | None:
    return sum(counts.values()) if counts else None


def _with_quartiles(time: Timing) -> str:
    low, high = (milliseconds(value).removesuffix(" ms") for value in (time.q25_ms, time.q75_ms))
    return f"{milliseconds(time.median_ms)} ({low}\N{EN DASH}{high})"
