"""The few lines at the end of a run that a person can act on."""

import math
from collections.abc import Iterator
from pathlib import Path

from prunelora.models.problem_types import MULTI_LABEL, REGRESSION
from prunelora.report.reading import (
    SHARES,
    Pair,
    accuracy_error,
    answers_counted,
    duration,
    in_units,
    kind_of,
    main_metric,
    metric_text,
    metric_title,
    paired_error,
    reported_rows,
    right_rows,
    rows_tested,
    sizes,
    times,
    timings,
    training_seconds,
    value_with_error,
)
from prunelora.report.results import RunResults

PM = "\N{PLUS-MINUS SIGN}"

# Quartiles further apart than this share of the median: other programs were probably running.
NOISY = 0.25

_LEARN_MORE = (
    "train longer (finetune.epochs), change the learning rate (finetune.learning_rate), or keep more "
    "(the budget of the stage plan)"
)


def summarise(results: RunResults) -> list[str]:
    """What was gained, what was lost, what to look at, and where the files are: a line each."""
    return [
        *(f"Gained: {line}" for line in gained(results)),
        *(f"Quality: {line}" for line in quality(results)),
        *(f"Cost: {line}" for line in cost(results)),
        *(f"Warning: {line}" for line in warnings(results)),
        *files(results),
    ]


def gained(results: RunResults) -> list[str]:
    """Size, work and speed beside the dense model."""
    lines = []
    plan = results.plan
    if plan is not None:
        lines.append(
            f"{plan.architecture.total_heads:,} of {plan.base.total_heads:,} attention heads and "
            f"{plan.architecture.total_neurons:,} of {plan.base.total_neurons:,} feed-forward neurons stay."
        )
    measurement = results.facts("measure").get("measurement", {})
    parts = [
        f"{in_units(size.pruned, size.unit, like=size.dense)} instead of {in_units(size.dense, size.unit)} {size.short}"
        for size in sizes(measurement)
        if size.short and size.dense is not None
    ]
    facts = results.facts("prune")
    if not parts and facts:
        before, after = facts["parameters_before"], facts["parameters_after"]
        parts = [f"{in_units(after, like=before)} instead of {in_units(before)} parameters"]
    if parts:
        lines.append(f"{', '.join(parts)}.")
    return [*lines, *_speeds(timings(measurement))]


def quality(results: RunResults) -> list[str]:
    """What the pruned model reaches, beside the majority rate and the dense model with plain LoRA."""
    metric, answers = main_metric(results), answers_counted(results)
    value = results.facts("measure").get("test", {}).get(metric)
    if value is None:
        return ["not measured; the stage measure does that."]
    line = (
        f"{metric_title(metric)} {value_with_error(metric, value, answers)} on {reported_rows(results)}, one seed "
        f"({results.seed})"
    )
    if metric == "accuracy" and (rate := results.task.get("majority_rate")) is not None:
        line += f"; always answering the most frequent class: {metric_text(metric, rate)}"
    lines = [f"{line}."]
    for split, values in results.facts("measure").get("more_tests", {}).items():
        number = results.task["rows"][split]
        line = f"on {number:,} {split} rows: {value_with_error(metric, values[metric], number if answers else 0)}"
        if metric == "accuracy" and (rate := results.task["majority_rates"].get(split)) is not None:
            line += f"; always answering the most frequent class: {metric_text(metric, rate)}"
        lines.append(f"{line}.")
    dense = results.facts("baseline").get("test", {}).get(metric)
    if dense is None:
        lines.append("no dense model was trained beside it; --baseline trains one, with plain LoRA, the same way.")
    else:
        lines.append(
            f"the dense model with plain LoRA, trained the same way: {value_with_error(metric, dense, answers)}. "
            f"{_difference(results, metric, value, dense)}"
        )
    return lines


def cost(results: RunResults) -> list[str]:
    """Wall time of training beside the dense model's, where one was trained."""
    dense = results.stages.get("baseline")
    if dense is None:
        return []
    return [
        f"training took {duration(training_seconds(results))}, all stages up to the merged model, and "
        f"{duration(float(dense['seconds']))} for the dense model with plain LoRA."
    ]


def warnings(results: RunResults) -> list[str]:
    """What went wrong or may mislead, each with what to do."""
    return [*_nothing_learnt(results), *_not_finished(results), *_not_faster(results)]


def files(results: RunResults) -> list[str]:
    """Where things are."""
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
    """Folder of the final model, or of what was last tuned where nothing was merged; None if nothing was saved."""
    kinds = {kind_of(stage) for stage in results.stages}
    folder = Path(results.folder)
    if "merge" in kinds:
        return folder / "model"
    if "finetune" in kinds:
        return folder / ("adapter" if results.facts("finetune").get("trainable", {}).get("lora") else "tuned")
    return None


def _speeds(pairs: list[Pair]) -> Iterator[str]:
    """A line for every engine that is faster at its largest batch and length, with the range over all sizes."""
    for engine in dict.fromkeys(pair.engine for pair in pairs):
        own = sorted((pair for pair in pairs if pair.engine == engine), key=lambda pair: (pair.batch, pair.tokens))
        if own[-1].speed < 1:
            continue
        least, most = (times(choose(pair.speed for pair in own)) for choose in (min, max))
        spread = f" ({least} to {most} over all sizes measured)" if least != most else ""
        yield f"{own[-1].speed_text} at {own[-1].size}, {engine}{spread}."


def _difference(results: RunResults, metric: str, value: float, dense: float) -> str:
    where = "below" if value < dense else "above"
    if metric not in SHARES:
        return f"The pruned model is {abs(value - dense):.3f} {where} it."
    points = 100 * (value - dense)
    text = f"The pruned model is {abs(points):.1f} points {where} it"
    if metric != "accuracy":
        return f"{text}."
    right = [right_rows(results, stage) for stage in ("measure", "baseline")]
    if right[0] is None or right[1] is None:
        return f"{text}."
    error = 100 * paired_error(right[0], right[1])
    text += f" ({PM} {error:.1f}, paired by row)"
    if abs(points) < 2 * error:
        return f"{text}, which one seed on {len(right[0]):,} rows does not tell from 0."
    return f"{text}."


def _nothing_learnt(results: RunResults) -> Iterator[str]:
    metric, count = main_metric(results), rows_tested(results)
    value = results.facts("measure").get("test", {}).get(metric)
    if value is None or not count:
        return
    rate, problem = results.task.get("majority_rate"), results.task.get("problem_type")
    if metric == "accuracy" and rate is not None and value - rate <= accuracy_error(value, count):
        found = value_with_error(metric, value, answers_counted(results))
        yield (
            f"nothing was learnt: the accuracy {found} is not above that of always answering the most frequent class "
            f"({metric_text(metric, rate)}) by more than its standard error. To try: {_LEARN_MORE}. If the dense model "
            "learns nothing either (--baseline), look at the labels."
        )
    # Under no relation at all, a correlation of n rows has the standard error 1 / sqrt(n - 1).
    elif problem == REGRESSION and count > 1 and value <= 1 / math.sqrt(count - 1):
        found = f"a correlation of {value:.3f} is within the error of {count:,} rows"
        yield f"nothing was learnt: {found}. To try: {_LEARN_MORE}."
    elif problem == MULTI_LABEL and value == 0:
        yield f"nothing was learnt: not one label is predicted rightly. To try: {_LEARN_MORE}."
    elif metric == "entity_f1" and value == 0:
        yield f"nothing was learnt: not one entity is found. To try: {_LEARN_MORE}."


def _not_finished(results: RunResults) -> Iterator[str]:
    """Asked of the longest fine-tuning; a short one after the cut mends what the cut broke, and teaches little more."""
    tunings = [stage for stage in results.stages if kind_of(stage) == "finetune"]
    if not tunings:
        return
    longest = max(tunings, key=lambda stage: results.facts(stage).get("steps", 0))
    own, metric = results.facts(longest), f"validation_{main_metric(results)}"
    evaluations = [entry for entry in own.get("history", ()) if metric in entry]
    if len(evaluations) > 1 and own.get("steps") and own.get("best_step") == own["steps"]:
        yield f"the last evaluation was the best one, so more training may help ({longest}.epochs)."


def _not_faster(results: RunResults) -> Iterator[str]:
    pairs = timings(results.facts("measure").get("measurement", {}))
    slower = [pair for pair in pairs if pair.speed < 1]
    if slower:
        yield (
            f"not faster than the dense model at {_places(slower, pairs)}. Cut more (the budget of the stage plan), "
            "or use it at other sizes."
        )
    noisy = [pair for pair in pairs if max(pair.dense.vary, pair.pruned.vary) > NOISY]
    if noisy:
        yield (
            f"timings vary much at {_places(noisy, pairs)}: something else was probably running. "
            "Repeat them on a quiet machine, or with more rounds (measure.repeats)."
        )


def _places(some: list[Pair], pairs: list[Pair]) -> str:
    """Where that was; a count where it was in many places."""
    if len(some) > 3:
        return f"{len(some)} of the {len(pairs)} sizes and engines measured"
    return "; ".join(f"{pair.size}, {pair.engine}" for pair in some)
