"""A comparison's tables as data: narrow ones, each fit for a terminal and for a phone."""

from collections.abc import Callable, Iterable
from typing import TypeVar

from prunelora.comparison.results import ComparisonResults, Estimate, LatencyFacts, MethodFacts, PairFacts
from prunelora.comparison.texts import (
    NONE,
    UNCORRELATED,
    Size,
    interval_text,
    learning_rate_text,
    metric_unit,
    number_text,
    p_text,
    points_of,
    quality_text,
    share_text,
    signed,
    size_text,
    told_apart_text,
    with_quartiles,
)
from prunelora.report.reading import duration, in_units, milliseconds
from prunelora.report.tables import Table

CONSTANT = "most frequent class"

_T = TypeVar("_T")


def main_table(results: ComparisonResults) -> Table:
    """A row a method: the main metric on every reported split, and what matters most of the costs."""
    metric, size = results.main_metric, largest_size(results)
    # Two splits and the size of the model together would be too wide; the table of costs has the size.
    sized = len(results.splits) < 2
    columns = (
        "method", *(_mean_column(results, metric, split) for split in results.splits),
        *(("parameters",) if sized else ()), "trained", "training step, of full", "training memory",
        "inference, of dense",
    )  # fmt: skip
    parameters = _alike([method.parameters for method in results.methods])
    memory = _alike([method.memory.training for method in results.methods], "B")
    rows = [
        (
            method.name,
            *(_mean_text(results, method, split, metric) for split in results.splits),
            *((parameters(method.parameters),) if sized else ()),
            share_text(method.trained / method.parameters),
            _optional(method.step_to_full, lambda share: share_text(share.median)),
            memory(method.memory.training),
            _optional(latency_at(method, size), lambda one: share_text(one.to_dense.median)),
        )
        for method in results.methods
    ]
    return Table(columns, (*_constant_row(results, (metric,), len(columns)), *rows))


def quality_table(results: ComparisonResults) -> Table:
    """Every metric of the task on every reported split; no rows where the main table says it all."""
    metrics = reported_metrics(results)
    if len(metrics) < 2:
        return Table((), ())
    places = [(metric, split) for metric in metrics for split in results.splits]
    columns = ("method", *(_mean_column(results, metric, split) for metric, split in places))
    rows = [
        (method.name, *(_mean_text(results, method, split, metric) for metric, split in places))
        for method in results.methods
    ]
    return Table(columns, (*_constant_row(results, metrics, len(columns)), *rows))


def methods_table(results: ComparisonResults) -> Table:
    """What every method leaves of the model, and its seeds."""
    rows = tuple(
        (method.name, _of(method.heads), _of(method.neurons), ", ".join(str(seed) for seed in method.seeds))
        for method in results.methods
    )
    return Table(("method", unit_of_heads(results), "neurons", "seeds"), rows)


def cost_table(results: ComparisonResults) -> Table:
    """Size and work of every method's model: parameters, trained ones, bytes on disk, MACs."""
    parameters = _alike([method.parameters for method in results.methods])
    disk = _alike([method.disk_bytes for method in results.methods], "B")
    macs = _alike([method.macs for method in results.methods])
    rows = tuple(
        (
            method.name,
            parameters(method.parameters),
            f"{in_units(method.trained)} ({share_text(method.trained / method.parameters)})",
            disk(method.disk_bytes),
            macs(method.macs),
        )
        for method in results.methods
    )
    return Table(("method", "parameters", "trained", "on disk", f"MACs, {macs_length(results)}"), rows)


def training_table(results: ComparisonResults) -> Table:
    """Time and learning rate of every method's training."""
    rows = tuple(
        (
            method.name,
            learning_rate_text(method.learning_rate),
            _optional(method.step_ms, milliseconds),
            _optional(method.step_to_full, with_quartiles),
            duration(method.train_seconds),
        )
        for method in results.methods
    )
    return Table(("method", "learning rate", "time of a step", "of full's", "all stages"), rows)


def memory_table(results: ComparisonResults) -> Table:
    """Memory of a training step with its parts, and of inference."""
    peaks = [method.memory.device_peak for method in results.methods]
    memory = _alike([method.memory.training for method in results.methods], "B")
    device = any(peak is not None for peak in peaks)
    counted = any(method.memory.step_rows is not None for method in results.methods)
    columns = (
        "method", *(("rows a step",) if counted else ()), "training step",
        *(("device's own peak",) if device else ()),
        "weights", "gradients and optimiser", "saved for backward", "inference",
    )  # fmt: skip
    rows = tuple(
        (
            method.name,
            *((_optional(method.memory.step_rows, str),) if counted else ()),
            memory(method.memory.training),
            *((_optional(method.memory.device_peak, memory),) if device else ()),
            memory(method.memory.weights),
            # Of LoRA it is a thousandth of the rest, and would be 0.00 with the prefix of the others.
            in_units(method.memory.gradients + method.memory.optimizer, "B"),
            memory(method.memory.saved),
            memory(method.memory.inference),
        )
        for method in results.methods
    )
    return Table(columns, rows)


def latency_table(results: ComparisonResults) -> Table:
    """Time of a forward pass over the dense model's, at every size; no rows if nothing was timed."""
    return _latencies(results, lambda one: with_quartiles(one.to_dense))


def times_table(results: ComparisonResults) -> Table:
    """The same in milliseconds."""
    return _latencies(results, lambda one: milliseconds(one.milliseconds))


def pairs_table(results: ComparisonResults) -> Table:
    """Every pair of methods: difference, its interval and p value, and whether it is more than noise."""
    several = len(results.splits) > 1
    unit = ", points" if points_of(results.main_metric) > 1 else ""
    columns = ("method", f"difference{unit}", "95 % interval", "p, adjusted", "more than noise", "seed by seed")
    rows = tuple(
        (
            # One column, which can be broken: two names beside each other are too wide for a terminal.
            f"{pair.first} against {pair.second}{f', {pair.split}' if several else ''}",
            signed(pair.metric, pair.difference),
            interval_text(pair),
            p_text(pair.p_holm),
            told_apart_text(pair),
            "  ".join(signed(pair.metric, one) for one in pair.by_seed),
        )
        for pair in results.pairs
    )
    return Table(columns, rows)


def learning_rates_table(results: ComparisonResults) -> Table:
    """Every learning rate that was tried, what it reached on the validation rows, and which was chosen."""
    metric = results.main_metric

    def verdict(method: MethodFacts, tried: str) -> str:
        if method.tried_on is not None:
            return f"as of {method.tried_on}"
        return "chosen" if float(tried) == method.learning_rate else ""

    rows = tuple(
        (
            method.name,
            learning_rate_text(float(tried)),
            "diverged" if value is None else number_text(metric, value),
            verdict(method, tried),
        )
        for method in results.methods
        for tried, value in sorted(method.tried.items(), key=lambda pair: float(pair[0]))
    )
    return Table(("method", "learning rate", f"{metric_unit(metric)}, validation rows", ""), rows)


def cells_table(results: ComparisonResults) -> Table:
    """Every training that was done."""
    metric = results.main_metric
    columns = (
        "method", "learning rate", "seed", f"{metric_unit(metric)}, validation rows",
        *(metric_column(results, metric, split) for split in results.splits),
        "best step", "time of a step", "all stages",
    )  # fmt: skip
    constant = [(name, NONE, NONE, NONE, *rest) for name, *rest in _constant_row(results, (metric,), len(columns) - 3)]
    rows = [
        (
            trial.method,
            learning_rate_text(trial.learning_rate),
            str(trial.seed),
            _optional(trial.validation.get(metric), lambda value: number_text(metric, value)),
            *(
                _optional(trial.test.get(split, {}).get(metric), lambda value: number_text(metric, value))
                for split in results.splits
            ),
            f"{trial.best_step:,} of {trial.steps:,}",
            _optional(trial.step_ms, milliseconds),
            duration(sum(trial.seconds.values())),
        )
        for trial in results.trials
    ]
    return Table(columns, (*constant, *rows) if rows else ())


def reported_metrics(results: ComparisonResults) -> tuple[str, ...]:
    """The task's metrics that were taken, the main one first."""
    taken = {metric for method in results.methods for figures in method.quality.values() for metric in figures}
    return tuple(str(metric) for metric in results.task["metrics"] if metric in taken)


def constant_value(results: ComparisonResults, split: str, metric: str) -> float | None:
    """What always giving one answer reaches: the majority rate as accuracy, 0 as correlation; None if not known."""
    if metric == "accuracy":
        rate = results.task["majority_rate"].get(split)
        return None if rate is None else float(rate)
    return 0.0 if metric in UNCORRELATED else None


def one_seed(results: ComparisonResults) -> bool:
    """Whether no method has more than one seed."""
    return bool(results.methods) and all(len(method.seeds) == 1 for method in results.methods)


def pair_of(results: ComparisonResults, first: str, second: str, split: str) -> PairFacts | None:
    """The test of two methods, whichever way round it was made: the difference is the first's minus the second's."""
    for pair in results.pairs:
        if pair.split == split and (pair.first, pair.second) == (first, second):
            return pair
        if pair.split == split and (pair.first, pair.second) == (second, first):
            turned = {
                "first": first, "second": second, "difference": -pair.difference, "low": -pair.high, "high": -pair.low,
                "by_seed": tuple(-one for one in pair.by_seed),
            }  # fmt: skip
            return pair.model_copy(update=turned)
    return None


def all_sizes(results: ComparisonResults) -> list[Size]:
    """Batch size and tokens of everything that was timed, smallest first."""
    return sorted({(one.batch_size, one.tokens) for method in results.methods for one in method.latencies})


def largest_size(results: ComparisonResults) -> Size | None:
    """The size with most tokens in all; None if nothing was timed."""
    return max(all_sizes(results), key=lambda size: (size[0] * size[1], size), default=None)


def memory_length(results: ComparisonResults) -> str:
    """Length of the rows whose memory is counted: "128 tokens"; "up to 128 tokens" in results that do not say."""
    tokens = {method.memory.tokens for method in results.methods} - {None}
    return f"{tokens.pop()} tokens" if len(tokens) == 1 else "up to 128 tokens"


def inference_size(results: ComparisonResults) -> str:
    """Of what inference memory is counted: "32 rows of 128 tokens"."""
    rows = {method.memory.inference_rows for method in results.methods} - {None}
    # Comparisons that do not say had 32, all of them.
    return f"{rows.pop() if len(rows) == 1 else 32} rows of {memory_length(results)}"


def unit_of_heads(results: ComparisonResults) -> str:
    """What the methods' `heads` count; all methods are of one model."""
    return next((method.unit_of_heads for method in results.methods), "heads")


def macs_length(results: ComparisonResults) -> str:
    """Length of the example that MACs are counted for: "128 tokens"."""
    # All methods are of one model; without any there is nothing to say it of.
    return f"{max((method.macs_tokens for method in results.methods), default=128)} tokens"


def latency_at(method: MethodFacts, size: Size | None) -> LatencyFacts | None:
    """A method's time at one size; None if it was not timed there."""
    return next((one for one in method.latencies if (one.batch_size, one.tokens) == size), None)


def metric_column(results: ComparisonResults, metric: str, split: str) -> str:
    """Heading for a metric on a split, which is named where there are several: "accuracy, %, matched"."""
    return metric_unit(metric) + (f", {split}" if len(results.splits) > 1 else "")


def _quality(method: MethodFacts, split: str, metric: str) -> Estimate | None:
    return method.quality.get(split, {}).get(metric)


def _mean_column(results: ComparisonResults, metric: str, split: str) -> str:
    return metric_column(results, metric, split) + (", 1 seed" if one_seed(results) else "")


def _mean_text(results: ComparisonResults, method: MethodFacts, split: str, metric: str) -> str:
    """As `quality_text`; where every method has one seed the heading says so, and the numbers stand alone."""
    figure = _quality(method, split, metric)
    if figure is not None and one_seed(results):
        return number_text(metric, figure.mean)
    return quality_text(metric, figure)


def _constant_row(results: ComparisonResults, metrics: Iterable[str], width: int) -> list[tuple[str, ...]]:
    """One row, of what a constant answer gets, as wide as the table; none where that is nowhere known."""
    values = [(metric, constant_value(results, split, metric)) for metric in metrics for split in results.splits]
    if all(value is None for _, value in values):
        return []
    texts = [NONE if value is None else number_text(metric, value) for metric, value in values]
    return [(CONSTANT, *texts, *[NONE] * (width - 1 - len(texts)))]


def _latencies(results: ComparisonResults, text: Callable[[LatencyFacts], str]) -> Table:
    sizes = all_sizes(results)
    rows = tuple(
        (method.name, *(_optional(latency_at(method, size), text) for size in sizes)) for method in results.methods
    )
    return Table(("method", *(size_text(size) for size in sizes)), rows if sizes else ())


def _alike(values: list[int], unit: str = "") -> Callable[[float], str]:
    """Writes all values of a column with the prefix of its largest."""
    largest = max(values, default=0)
    return lambda value: in_units(value, unit, like=largest)


def _optional(value: _T | None, text: Callable[[_T], str]) -> str:
    return NONE if value is None else text(value)


def _of(counts: tuple[int, int]) -> str:
    return f"{counts[0]:,} of {counts[1]:,}"
