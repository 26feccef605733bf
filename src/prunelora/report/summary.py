"""The few lines at the end of a run that a person can act on."""

import math
from collections.abc import Iterator
from pathlib import Path

from prunelora.errors import NO_VALUE, advice
from prunelora.evaluation.significance import LEVEL
from prunelora.models.problem_types import MULTI_LABEL, REGRESSION
from prunelora.report.judged import BASELINE, PRUNED, TUNED, Judged, ends_text, judged, more_judged
from prunelora.report.reading import (
    SHARES,
    Pair,
    asked_latency,
    cut_off,
    duration,
    in_units,
    kind_of,
    main_metric,
    metric_text,
    metric_title,
    reported_rows,
    rows_tested,
    sizes,
    times,
    timings,
    training_seconds,
)
from prunelora.report.results import RunResults

# Quartiles further apart than this share of the median: other programs were probably running.
NOISY = 0.25


def summarise(results: RunResults) -> list[str]:
    """What was gained, what was lost, what to look at, and where the files are: a line each."""
    return [*measured_lines(results), *files(results)]


def measured_lines(results: RunResults) -> list[str]:
    """What was gained, what was lost and what to look at."""
    return [
        *(f"Asked for: {line}" for line in asked_for(results)),
        *(f"Gained: {line}" for line in gained(results)),
        *(f"Quality: {line}" for line in quality(results)),
        *(f"Cost: {line}" for line in cost(results)),
        *(f"Warning: {line}" for line in warnings(results)),
    ]


def asked_for(results: RunResults) -> list[str]:
    """Whether a latency that was asked for is met, where it was asked for."""
    asked = asked_latency(results)
    if asked is None:
        return []
    where = f"{asked.pair.size}, {asked.pair.engine}, {asked.threads} thread{'' if asked.threads == 1 else 's'}"
    line = f"{asked.option} at {where}: {'met' if asked.met else 'missed'}, {asked.found}."
    if not asked.met:
        line += " Times vary from hour to hour: measure again on a quiet machine, or ask for a little more."
    return [line]


def gained(results: RunResults) -> list[str]:
    """Size, work and speed beside the dense model."""
    lines = []
    plan = results.plan
    if plan is not None:
        lines.append(
            f"{plan.architecture.heads_of(plan.base, heads='attention heads')} and "
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
    measured_at = results.facts("plan").get("latency_measured_at")
    if measured_at is not None:
        lines.append(f"The plan's latency budget rests on times that were measured at {measured_at}.")
    return [*lines, *_speeds(timings(measurement))]


def quality(results: RunResults) -> list[str]:
    """What the pruned model reaches, beside the majority rate and the dense model with plain LoRA."""
    metric, pruned = main_metric(results), judged(results, PRUNED)
    if pruned is None or metric not in pruned.values:
        return ["not measured; the stage measure does that."]
    line = f"{metric_title(metric)} {pruned.said(metric)} on {reported_rows(results)}, one seed ({results.seed})"
    if metric == "accuracy" and (rate := results.task.get("majority_rate")) is not None:
        line += f"; always answering the most frequent class: {metric_text(metric, rate)}"
    lines = [f"{line}."]
    for split in results.facts("measure").get("more_tests", {}):
        line = f"on {results.task['rows'][split]:,} {split} rows: {more_judged(results, split).said(metric)}"
        if metric == "accuracy" and (rate := results.task["majority_rates"].get(split)) is not None:
            line += f"; always answering the most frequent class: {metric_text(metric, rate)}"
        lines.append(f"{line}.")
    tuned, baseline = judged(results, TUNED), judged(results, BASELINE)
    if tuned is not None:
        lines.append(
            f"the same training up to the cut, nothing cut: {tuned.said(metric)}. {_difference(metric, pruned, tuned)}"
        )
    if baseline is not None:
        lines.append(
            f"the dense model with plain LoRA, trained the same way: {baseline.said(metric)}. "
            f"{_difference(metric, pruned, baseline)}"
        )
    elif tuned is None:
        lines.append(
            f"no dense model was trained beside it; {advice('baseline', True)} trains one, with plain LoRA, the same "
            "way."
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
    unread = (f"{line}." for line in cut_off(results)[:1])
    return [*unread, *_nothing_learnt(results), *_not_finished(results), *_not_faster(results)]


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


def _difference(metric: str, pruned: Judged, dense: Judged) -> str:
    """How the pruned model stands against a dense one, with the interval over the rows that both answered."""
    change = pruned.values[metric] - dense.values[metric]
    size = f"{100 * abs(change):.1f} points" if metric in SHARES else f"{abs(change):.3f}"
    text = f"The pruned model is {size} {'below' if change < 0 else 'above'} it" if change else "The two are equal"
    difference = pruned.against(dense, metric)
    if difference is None:
        return f"{text}."
    text += f" (95 % interval of the difference, over rows: {ends_text(metric, difference.interval())})"
    if not change:
        return f"{text}."
    if difference.p_value >= LEVEL:
        return f"{text}, which one seed on {difference.rows:,} rows does not tell from 0."
    return f"{text}; another seed may give another difference."


def _nothing_learnt(results: RunResults) -> Iterator[str]:
    metric, count, pruned = main_metric(results), rows_tested(results), judged(results, PRUNED)
    if pruned is None or metric not in pruned.values or not count:
        return
    value = pruned.values[metric]
    rate, problem = results.task.get("majority_rate"), results.task.get("problem_type")
    interval = pruned.interval(metric)
    if metric == "accuracy" and rate is not None and (interval or (value, value))[0] <= rate:
        yield (
            f"nothing was learnt, as far as these rows tell: the accuracy {pruned.said(metric)} is not clearly above "
            f"that of always answering the most frequent class ({metric_text(metric, rate)}). To try: {_learn_more()}. "
            f"If the dense model learns nothing either ({advice('baseline', True)}), look at the labels."
        )
    # Under no relation at all, a correlation of n rows has the standard error 1 / sqrt(n - 1).
    elif problem == REGRESSION and count > 1 and value <= 1 / math.sqrt(count - 1):
        found = f"a correlation of {value:.3f} is within the error of {count:,} rows"
        yield f"nothing was learnt: {found}. To try: {_learn_more()}."
    elif problem == MULTI_LABEL and value == 0:
        yield f"nothing was learnt: not one label is predicted rightly. To try: {_learn_more()}."
    elif metric == "entity_f1" and value == 0:
        yield f"nothing was learnt: not one entity is found. To try: {_learn_more()}."


def _learn_more() -> str:
    return (
        f"train longer ({advice('epochs')}), change the learning rate ({advice('learning_rate')}), or keep more (the "
        "budget of the stage plan)"
    )


def _not_finished(results: RunResults) -> Iterator[str]:
    """Asked of the longest fine-tuning; a short one after the cut mends what the cut broke, and teaches little more."""
    tunings = [stage for stage in results.stages if kind_of(stage) == "finetune"]
    if not tunings:
        return
    longest = max(tunings, key=lambda stage: results.facts(stage).get("steps", 0))
    own, metric = results.facts(longest), f"validation_{main_metric(results)}"
    evaluations = [entry for entry in own.get("history", ()) if metric in entry]
    if len(evaluations) > 1 and own.get("steps") and own.get("best_step") == own["steps"]:
        yield f"the last evaluation was the best one, so more training may help ({advice('epochs')})."


def _not_faster(results: RunResults) -> Iterator[str]:
    measurement = results.facts("measure").get("measurement", {})
    pairs = timings(measurement)
    slower = [pair for pair in pairs if pair.speed < 1]
    if slower:
        yield (
            f"not faster than the dense model at {_places(slower, pairs)}. Cut more (the budget of the stage plan), "
            "or use it at other sizes."
        )
    noisy = [pair for pair in pairs if max(pair.dense.vary, pair.pruned.vary) > NOISY]
    if noisy:
        rounds = measurement.get("settings", {}).get("repeats")
        more = advice("measure.repeats", NO_VALUE if rounds is None else 2 * rounds)
        yield (
            f"timings vary much at {_places(noisy, pairs)}: something else was probably running. "
            f"Repeat them on a quiet machine, or with more rounds ({more})."
        )


def _places(some: list[Pair], pairs: list[Pair]) -> str:
    """Where that was; a count where it was in many places."""
    if len(some) > 3:
        return f"{len(some)} of the {len(pairs)} sizes and engines measured"
    return "; ".join(f"{pair.size}, {pair.engine}" for pair in some)
