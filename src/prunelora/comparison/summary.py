"""The few lines above a comparison's tables: the best methods, and warnings."""

import math
from collections.abc import Iterator

from prunelora.comparison.results import ComparisonResults
from prunelora.comparison.tables import constant_value, largest_size, pair_of, quality_text, size_text
from prunelora.evaluation.significance import Difference
from prunelora.report.numbers import metric_title, metric_value
from prunelora.report.summary import NOISY, listed


def summarise(results: ComparisonResults) -> list[str]:
    """The best methods and the warnings, a line each, for a terminal."""
    return [*best(results), *(f"Warning: {line}" for line in warnings(results))]


def best(results: ComparisonResults) -> list[str]:
    """The best method on every reported split with the majority rate, and the methods within noise of it."""
    return [line for split in results.splits for line in _best(results, split)] or ["no method has been judged yet."]


def warnings(results: ComparisonResults) -> list[str]:
    """What is missing or may mislead, each with what to do."""
    return [*_missing(results), *_nothing_learnt(results), *_at_the_edge(results), *_times(results)]


def _best(results: ComparisonResults, split: str) -> Iterator[str]:
    metric = results.main_metric
    judged = [method for method in results.methods if metric in method.quality.get(split, {})]
    if not judged:
        return
    winner = max(judged, key=lambda method: method.quality[split][metric].mean)
    rows = f"{results.task['rows'][split]:,} {split} rows"
    line = f"best {metric_title(metric)} on the {rows}: {winner.name}, {quality_text(winner, metric, split)}"
    constant = constant_value(results, split, metric)
    if constant is not None:
        line += f"; always the most frequent class: {metric_value(metric, constant)}"
    yield f"{line}."
    tests = {
        method.name: pair_of(results, winner.name, method.name, split) for method in judged if method is not winner
    }
    alike = [name for name, test in tests.items() if test is not None and not test.told_apart]
    if alike:
        yield f"within noise of {winner.name}{_on(results, split)}: {', '.join(alike)}."
    elif tests and all(tests.values()):
        yield f"every other method is significantly below {winner.name}{_on(results, split)}."


def _missing(results: ComparisonResults) -> Iterator[str]:
    if results.missing:
        yield (
            f"requested trainings that are not done: {len(results.missing)} ({listed(results.missing)}). The same "
            "command continues with them."
        )
    partly = [method for method in results.methods if set(method.seeds) != set(results.seeds)]
    if partly:
        those = "; ".join(f"{method.name} has {', '.join(map(str, method.seeds))}" for method in partly)
        yield (
            f"not every method has all seeds ({', '.join(map(str, results.seeds))}): {those}. "
            "Means over different seeds are not comparable; the tests use the seeds that both methods have."
        )
    if results.methods and all(len(method.seeds) == 1 for method in results.methods):
        yield "one seed only: the spread over seeds is not known. Add seeds."


def _nothing_learnt(results: ComparisonResults) -> Iterator[str]:
    metric = results.main_metric
    for split in results.splits:
        constant, rows = constant_value(results, split, metric), results.task["rows"][split]
        if constant is None or rows < 2:
            continue
        # The standard error over n rows of a correlation is 1 / sqrt(n - 1) if nothing is related; of an accuracy that
        # of the constant answer's.
        variance = constant * (1 - constant) if metric == "accuracy" else 1.0
        error = math.sqrt(variance / (rows - 1))
        low = [
            f"{method.name}, {quality_text(method, metric, split)}"
            for method in results.methods
            if (quality := method.quality.get(split, {}).get(metric)) is not None
            and Difference(tuple(value - constant for value in quality.values), error, rows).interval()[0] <= 0
        ]
        if low:
            always = metric_value(metric, constant)
            yield (
                f"not significantly above always answering the most frequent class ({always}){_on(results, split)}: "
                f"{'; '.join(low)}. Differences between such methods mean nothing; train longer, try other learning "
                "rates, or take more rows."
            )


def _at_the_edge(results: ComparisonResults) -> Iterator[str]:
    names = []
    for method in results.methods:
        tried = sorted(float(rate) for rate in method.tried)
        if len(tried) > 1 and method.learning_rate in (tried[0], tried[-1]):
            end = "smallest" if method.learning_rate == tried[0] else "largest"
            names.append(f"{method.name} ({method.learning_rate:g}, the {end})")
    if names:
        yield f"the chosen learning rate is at the end of the range tried: {', '.join(names)}. Try rates further out."


def _times(results: ComparisonResults) -> Iterator[str]:
    if largest_size(results) is None and all(method.step_ms is None for method in results.methods):
        yield "nothing was timed: the times of training steps and of inference are not known."
        return
    most = max((method.macs for method in results.methods), default=0)
    slow, noisy = [], []
    for method in results.methods:
        for latency in method.latencies:
            place = f"{method.name} at {size_text((latency.batch_size, latency.tokens))}"
            if method.macs < most and latency.to_dense.median >= 1:
                slow.append(place)
            if latency.to_dense.q75 - latency.to_dense.q25 > NOISY * latency.to_dense.median:
                noisy.append(place)
    if slow:
        yield f"not faster than the dense model: {listed(slow)}."
    if noisy:
        yield f"timings vary much: {listed(noisy)}. Time it again on an idle machine."


def _on(results: ComparisonResults, split: str) -> str:
    """The split's name where there are several: " (matched)"."""
    return f" ({split})" if len(results.splits) > 1 else ""
