"""The few lines of a comparison that a person can act on, and what to look at before believing them."""

import math
from collections.abc import Iterator, Sequence

from prunelora.comparison.results import ComparisonResults, MethodFacts, PairFacts
from prunelora.comparison.tables import constant_value, largest_size, latency_at, one_seed, pair_of
from prunelora.comparison.texts import (
    interval_text,
    number_text,
    p_said,
    quality_said,
    share_text,
    signed,
    size_text,
    with_quartiles,
    with_unit,
)
from prunelora.comparison.tradeoff import how_far_down
from prunelora.evaluation.significance import Difference
from prunelora.report.reading import SHARES, metric_title
from prunelora.report.summary import NOISY

# Whose results are told beside those of the others: the recipe of a run, and the paper's.
FOCUS = ("tune-first", "prune-lora")
YARDSTICKS = ("full", "lora")

_MOST_NAMED = 4


def summarise(results: ComparisonResults) -> list[str]:
    """What is best, what tune-first and prune-lora give and cost, and what to look at: a line each."""
    return [
        *(f"Quality: {line}" for line in quality(results)),
        *(f"Cost: {line}" for line in costs(results)),
        *(f"Warning: {line}" for line in warnings(results)),
    ]


def quality(results: ComparisonResults) -> list[str]:
    """Which method is best, what cannot be told from it, and how tune-first and prune-lora stand against every other.

    Of methods at several budgets, how far down their quality holds.
    """
    lines = [line for split in results.splits for line in _best(results, split)]
    lines += [
        f"against {other.name}{_on(results, split)}, {name} is at {_verdict(pair)}"
        for place, name in enumerate(FOCUS)
        for split in results.splits
        for other in results.methods
        if other.name not in FOCUS[:place] and (pair := pair_of(results, name, other.name, split)) is not None
    ]
    lines += how_far_down(results)
    return lines or ["no method has been judged yet."]


def costs(results: ComparisonResults) -> list[str]:
    """What tune-first and prune-lora take, beside full fine-tuning and beside LoRA."""
    return [line for name in FOCUS if (own := results.method(name)) is not None for line in _costs_of(own, results)]


def _costs_of(own: MethodFacts, results: ComparisonResults) -> list[str]:
    lines = []
    for name in YARDSTICKS:
        other = results.method(name)
        if other is None:
            continue
        step = {"full": own.step_to_full, "lora": own.step_to_lora}[name]
        parts = [
            f"{share_text(step.median)} of the time of a training step" if step else "",
            f"{share_text(own.train_seconds / other.train_seconds)} of the time of all its stages, as recorded"
            if other.train_seconds
            else "",
            f"{share_text(own.memory.training / other.memory.training)} of the training memory{_rows(own, other)}",
            f"{share_text(own.trained / other.trained)} of the trained parameters" if other.trained else "",
            f"{share_text(own.disk_bytes / other.disk_bytes)} of the bytes on disk",
            f"{share_text(own.macs / other.macs)} of the MACs",
        ]
        lines.append(f"beside {name}, {own.name} takes {', '.join(part for part in parts if part)}.")
    size = largest_size(results)
    timed = latency_at(own, size)
    if size is not None and timed is not None:
        lines.append(
            f"inference of {own.name} takes {with_quartiles(timed.to_dense)} of the dense model's time at "
            f"{size_text(size)}."
        )
    return lines


def _rows(own: MethodFacts, other: MethodFacts) -> str:
    """Where their memory is of steps of other numbers of rows: that."""
    rows = own.memory.step_rows, other.memory.step_rows
    return f" (steps of {rows[0]} rows and of {rows[1]})" if None not in rows and rows[0] != rows[1] else ""


def warnings(results: ComparisonResults) -> list[str]:
    """What is missing or may mislead, each with what to do."""
    return [
        *_missing(results),
        *_one_seed(results),
        *_nothing_learnt(results),
        *_noise(results),
        *_at_the_edge(results),
        *_times(results),
    ]


def not_done(results: ComparisonResults) -> str | None:
    """Which of the trainings asked for are missing; None where all are done."""
    if not results.missing:
        return None
    count = len(results.missing)
    return f"{count} of the trainings asked for {'is' if count == 1 else 'are'} not done: {_some(results.missing)}"


def _best(results: ComparisonResults, split: str) -> Iterator[str]:
    """The best method with the majority rate; what is within noise of it; and which of these does the least work."""
    metric = results.main_metric
    judged = [method for method in results.methods if metric in method.quality.get(split, {})]
    if not judged:
        return
    best = max(judged, key=lambda method: method.quality[split][metric].mean)
    value = quality_said(metric, best.quality[split][metric])
    count = results.task.get("rows", {}).get(split)
    rows = f"{count:,} {split} rows" if count else f"{split} rows"
    line = f"best {metric_title(metric)} on the {rows}: {best.name}, {value}"
    constant = constant_value(results, split, metric)
    if constant is not None:
        line += f"; always the most frequent class: {with_unit(metric, number_text(metric, constant))}"
    yield f"{line}."
    others = [method for method in judged if method is not best]
    tests = {method.name: pair_of(results, best.name, method.name, split) for method in others}
    alike = [method for method in others if (test := tests[method.name]) and not test.told_apart]
    if alike:
        least = _least_work(results, [best, *alike])
        yield f"within noise of {best.name}{_on(results, split)}{_rows_alone(results)}: {_names(alike)}.{least}"
    elif others and all(tests.values()):
        yield f"every other method is below {best.name} by more than noise{_on(results, split)}{_rows_alone(results)}."


def _least_work(results: ComparisonResults, methods: Sequence[MethodFacts]) -> str:
    fewest, most = (choose(method.macs for method in methods) for choose in (min, max))
    if fewest == most:
        return ""
    cheapest = [method for method in methods if method.macs == fewest]
    does = "does" if len(cheapest) == 1 else "do"
    busiest = next(method.name for method in methods if method.macs == most)
    text = (
        f" Of all these, {_names(cheapest)} {does} the least work: {share_text(fewest / most)} of the MACs of {busiest}"
    )
    size = largest_size(results)
    timed = [latency_at(method, size) for method in cheapest]
    if size is not None and len(timed) == 1 and timed[0] is not None:
        text += f" and {share_text(timed[0].to_dense.median)} of the dense model's time at {size_text(size)}"
    return f"{text}."


def _verdict(pair: PairFacts) -> str:
    unit = " points" if pair.metric in SHARES else ""
    text = (
        f"{signed(pair.metric, pair.difference)}{unit} (95 % interval {interval_text(pair)}, p {p_said(pair.p_holm)})"
    )
    better = "better" if pair.difference > 0 else "worse"
    if pair.rows_alone:
        return f"{text}: {f'{better} by more' if pair.told_apart else 'no more'} than other rows explain, for one seed."
    return f"{text}: {f'{better} by more' if pair.told_apart else 'no more'} than noise."


def _missing(results: ComparisonResults) -> Iterator[str]:
    text = not_done(results)
    if text is not None:
        yield f"{text}. The same command goes on with them."
    partly = [method for method in results.methods if set(method.seeds) != set(results.seeds)]
    if partly:
        those = "; ".join(f"{method.name} has {_seeds(method.seeds)}" for method in partly)
        yield (
            f"not every method has all of the seeds {_seeds(results.seeds)}: {those}. Means over other seeds do not "
            "stand side by side; the tests take the seeds that both methods have."
        )


def _one_seed(results: ComparisonResults) -> Iterator[str]:
    if one_seed(results):
        yield "one seed only: how far another seed would be away is not known. Run it with more seeds."


def _nothing_learnt(results: ComparisonResults) -> Iterator[str]:
    metric = results.main_metric
    for split in results.splits:
        constant = constant_value(results, split, metric)
        rows = results.task.get("rows", {}).get(split)
        if constant is None or not rows or rows < 2:
            continue
        low = []
        for method in results.methods:
            figure = method.quality.get(split, {}).get(metric)
            if figure is None:
                continue
            # Under no relation at all, a correlation of n rows has the standard error 1 / sqrt(n - 1), and an accuracy
            # that of the constant answer's.
            share = constant * (1 - constant) if metric == "accuracy" else 1.0
            above = Difference(tuple(value - constant for value in figure.values), math.sqrt(share / (rows - 1)), rows)
            if above.interval()[0] <= 0:
                low.append(f"{method.name}, {quality_said(metric, figure)}")
        if low:
            always = with_unit(metric, number_text(metric, constant))
            yield (
                f"not above always answering the most frequent class ({always}) by more than noise"
                f"{_on(results, split)}: {'; '.join(low)}. What such methods differ in says nothing; train longer, "
                "try other learning rates, or take more rows."
            )


def _noise(results: ComparisonResults) -> Iterator[str]:
    for split in results.splits:
        pairs = [pair for pair in results.pairs if pair.split == split]
        alike = [pair for pair in pairs if not pair.told_apart]
        if not alike:
            continue
        if len(alike) == len(pairs) and len(pairs) > 1:
            yield (
                f"no difference between any two methods is more than noise{_on(results, split)}: "
                "these rows and seeds do not rank them."
            )
            continue
        shown = "; ".join(f"{pair.first} and {pair.second}" for pair in alike[:_MOST_NAMED])
        more = f"; and {len(alike) - _MOST_NAMED} more, in the table below" if len(alike) > _MOST_NAMED else ""
        yield f"within noise of each other{_on(results, split)}: {shown}{more}. Do not read an order into them."


def _at_the_edge(results: ComparisonResults) -> Iterator[str]:
    """A learning rate that won as the largest or smallest one tried may not be the best there is."""
    found = []
    for method in results.methods:
        tried = sorted(float(rate) for rate in method.tried)
        if len(tried) > 1 and method.learning_rate in (tried[0], tried[-1]):
            edge = "smallest" if method.learning_rate == tried[0] else "largest"
            found.append(f"{method.name} ({method.learning_rate:g}, the {edge})")
    if found:
        yield (
            f"the chosen learning rate is the last one tried on its side: {', '.join(found)}. "
            "One further out may be better."
        )


def _times(results: ComparisonResults) -> Iterator[str]:
    size = largest_size(results)
    if size is None and all(method.step_ms is None for method in results.methods):
        yield "nothing was timed: how long a training step and inference take is not known."
        return
    most = max((method.macs for method in results.methods), default=0)
    slow, noisy = [], []
    for method in results.methods:
        for one in method.latencies:
            place = f"{method.name} at {size_text((one.batch_size, one.tokens))}"
            if method.macs < most and one.to_dense.median >= 1:
                slow.append(place)
            if one.to_dense.q75 - one.to_dense.q25 > NOISY * one.to_dense.median:
                noisy.append(place)
    if slow:
        yield f"not faster than the dense model: {_some(slow)}."
    if noisy:
        yield f"timings vary much: {_some(noisy)}. Something else was probably running; time it on a quiet machine."


def _on(results: ComparisonResults, split: str) -> str:
    """Which rows, where there are several kinds: " (matched)"."""
    return f" ({split})" if len(results.splits) > 1 else ""


def _rows_alone(results: ComparisonResults) -> str:
    """What is known of one seed: how these trainings do on other rows."""
    return ", of the rows alone" if one_seed(results) else ""


def _names(methods: Sequence[MethodFacts]) -> str:
    names = [method.name for method in methods]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _seeds(seeds: Sequence[int]) -> str:
    return ", ".join(str(seed) for seed in seeds)


def _some(places: Sequence[str]) -> str:
    rest = len(places) - _MOST_NAMED
    return "; ".join(places[:_MOST_NAMED]) + (f"; and {rest} more" if rest > 0 else "")
