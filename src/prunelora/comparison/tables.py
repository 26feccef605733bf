"""The tables of a comparison: narrow ones, each fit for a terminal and for a phone."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from operator import attrgetter

from prunelora.comparison.results import (
    ComparisonResults,
    LatencyFacts,
    MethodFacts,
    PairFacts,
    TrialFacts,
    trial_folder,
)
from prunelora.evaluation.timing import Spread
from prunelora.report.numbers import (
    NONE,
    duration,
    estimate,
    learning_rate,
    metric_heading,
    metric_interval,
    metric_number,
    milliseconds,
    optional,
    p_value,
    percent,
    scaled,
    scaled_alike,
    with_quartiles,
)
from prunelora.report.table import Table

CONSTANT = "most frequent class"
# Metrics of which a constant answer reaches 0, whatever the classes are.
_UNCORRELATED = frozenset({"matthews", "pearson", "spearman"})
_YARDSTICKS = ("full", "lora")
_COSTS = {
    "all stages": attrgetter("train_seconds"),
    "training memory": attrgetter("memory.training"),
    "trained": attrgetter("trained"),
    "on disk": attrgetter("disk_bytes"),
    "MACs": attrgetter("macs"),
}

Size = tuple[int, int]  # Rows and tokens of a batch.
_Column = Callable[[MethodFacts], str]

PAIRS_NOTES = (
    "Both methods answer the same rows and are trained with the same seeds. The 95 % interval covers other seeds and "
    "other rows of the same kind, for a single pair: a t interval that joins the spread over seeds with the spread "
    "over rows.",
    "p is adjusted for the number of pairs in this table (Holm); below 0.05 a difference is significant, which happens "
    "in at most one of twenty tables of methods that are alike. Other pairs may still differ: few seeds show only "
    "large differences. With one seed the test is of the rows alone and says nothing about other seeds.",
)


def main_table(results: ComparisonResults, *, wide: bool = False) -> Table:
    """A row a method: the main metric on every reported split, and the most important costs.

    Args:
        results: Of the comparison.
        wide: Also show the time of a single row.
    """
    columns = _quality_columns(results, (results.main_metric,))
    # Two splits and the model's size together would be too wide; the table of methods has it.
    if len(results.splits) < 2:
        columns["parameters"] = _scaled(results, "parameters")
    columns |= {
        "trained": lambda m: percent(m.trained / m.parameters),
        "training step, of full": lambda m: optional(m.step_to_full, _median),
        "training memory": _scaled(results, "memory.training", "B"),
    }
    for size in sizes_shown(results)[: 2 if wide else 1]:
        columns[f"inference, of dense, {size_text(size)}"] = time_to_dense(size)
    return _by_method(
        results,
        columns,
        "All methods",
        "Quality: mean \N{PLUS-MINUS SIGN} standard deviation over the seeds; the first row is what always answering "
        "the most frequent class of the training rows reaches. Training step: time relative to full fine-tuning, of "
        "several fine-tunings the mean weighted by epochs. Training memory: of the fine-tuning that needs most.",
    )


def quality_table(results: ComparisonResults) -> Table:
    """Every metric of the task on every reported split; no rows if there is one metric."""
    metrics = reported_metrics(results)
    if len(metrics) < 2:
        return Table((), ())
    note = "Mean and standard deviation over the seeds."
    return _by_method(results, _quality_columns(results, metrics), "Every metric", note)


def pairs_table(results: ComparisonResults) -> Table:
    """Every pair of methods: difference, its interval and p value, and whether it is significant."""
    columns: dict[str, Callable[[PairFacts], str]] = {
        # One column, which can be broken: two names beside each other are too wide for a terminal.
        "methods": lambda pair: pair_name(results, pair.first, pair.second, pair.split),
        "difference": lambda pair: metric_number(pair.metric, pair.difference, signed=True),
        "95 % interval": lambda pair: metric_interval(pair.metric, pair.low, pair.high, signed=True),
        "p, adjusted": lambda pair: p_value(pair.p_holm),
        "significant": lambda pair: "no" if not pair.told_apart else "of rows alone" if pair.rows_alone else "yes",
        "by seed": lambda pair: "  ".join(metric_number(pair.metric, value, signed=True) for value in pair.by_seed),
    }
    return Table.of(results.pairs, columns, "Differences between methods", *PAIRS_NOTES)


def beside_table(results: ComparisonResults) -> Table:
    """Costs of every other method relative to full fine-tuning and to LoRA; no rows without these."""
    rows = tuple(
        (
            f"{method.name}, of {yardstick.name}",
            optional(method.step_to_full if yardstick.name == "full" else method.step_to_lora, _median),
            *(percent(cost(method) / cost(yardstick)) if cost(yardstick) else NONE for cost in _COSTS.values()),
        )
        for method in results.methods
        for yardstick in map(results.method, _YARDSTICKS)
        if yardstick is not None and method.name not in _YARDSTICKS
    )
    columns = ("methods", "training step", *_COSTS)
    note = "Training step: median of the ratios taken round by round. All stages: as recorded in training."
    return Table(columns, rows, "Costs relative to full fine-tuning and LoRA", (note,))


def training_table(results: ComparisonResults) -> Table:
    """Every learning rate that was tried, the chosen one, and times of the training, of every method."""
    rows, metric = (results.timing or {}).get("step_rows"), results.main_metric

    def tries(method: MethodFacts) -> str:
        return "; ".join(
            f"{learning_rate(rate)}: {'diverged' if value is None else metric_number(metric, value)}"
            for rate, value in sorted((float(tried), value) for tried, value in method.tried.items())
        )

    return _by_method(
        results,
        {
            "learning rate": lambda m: learning_rate(m.learning_rate) + (f", as of {m.tried_on}" if m.tried_on else ""),
            f"tried: {metric_heading(metric)}, validation rows": tries,
            "time of a step": lambda m: optional(m.step_ms, milliseconds),
            "of full's": lambda m: optional(m.step_to_full, lambda share: with_quartiles(percent, share)),
            "all stages": lambda m: duration(m.train_seconds),
        },
        "Training",
        "Every method has the same number of learning rates tried. Validation rows, cut from training, choose; never "
        "reported rows.",
        f"Steps{f' of {rows} rows' if rows else ''} are timed after the trainings, all methods in turn on the same "
        "batches, also if a fine-tuning accumulates gradients of smaller ones; of several fine-tunings it is the mean "
        "weighted by epochs. Quartiles in parentheses. All stages: wall time up to the merged model, mean over the "
        "seeds, as recorded in training.",
    )


def memory_table(results: ComparisonResults) -> Table:
    """Memory of a training step with its parts, and of inference."""
    memory = scaled_alike((method.memory.training for method in results.methods), "B")
    columns: dict[str, _Column] = {
        "rows a step": lambda m: optional(m.memory.step_rows, str),
        "tokens a row": lambda m: optional(m.memory.tokens, str),
        "training step": lambda m: memory(m.memory.training),
        "device's own peak": lambda m: optional(m.memory.device_peak, memory),
        "weights": lambda m: memory(m.memory.weights),
        # Of LoRA a thousandth of the rest: 0.00 with the prefix of the others.
        "gradients and optimiser": lambda m: scaled(m.memory.gradients + m.memory.optimizer, "B"),
        "saved for backward": lambda m: memory(m.memory.saved),
        "inference": lambda m: memory(m.memory.inference),
    }
    return _by_method(
        results,
        # CPUs have no peak, and results of earlier versions no numbers of rows and tokens.
        {heading: text for heading, text in columns.items() if any(text(m) != NONE for m in results.methods)},
        "Memory",
        "A training step of the fine-tuning that needs most: weights, gradients of the trained parameters, AdamW's two "
        "moments of each (12 bytes a trained parameter), and the tensors saved for the backward pass. Inference: "
        "weights and the most activations alive at once in a forward pass of 32 rows. Rows have 128 tokens, or as many "
        "as the model has positions for.",
    )


def latency_table(results: ComparisonResults) -> Table:
    """Time of a forward pass at every size, and relative to the dense model; no rows if nothing was timed."""
    columns = {size_text(size): partial(_latency_text, size=size) for size in all_sizes(results)}
    if not columns:
        return Table((), ())
    note = (
        "Of one forward pass: median, and relative to the dense model on the same batch with quartiles; below 100 % is "
        "faster."
    )
    return _by_method(results, columns, "Time of inference", note)


def methods_table(results: ComparisonResults) -> Table:
    """Size and work of every method's model, its budget and seeds, and the recipe file of its first seed's trial."""
    unit = next((method.unit_of_heads for method in results.methods), "heads")
    tokens = max((method.macs_tokens for method in results.methods), default=128)
    return _by_method(
        results,
        {
            "parameters": _scaled(results, "parameters"),
            "trained": lambda m: f"{scaled(m.trained)} ({percent(m.trained / m.parameters)})",
            "on disk": _scaled(results, "disk_bytes", "B"),
            f"MACs, {tokens} tokens": _scaled(results, "macs"),
            unit: lambda m: _of(m.heads),
            "neurons": lambda m: _of(m.neurons),
            "budget": lambda m: optional(m.keep_macs, lambda budget: f"{budget:g}"),
            "seeds": lambda m: ", ".join(map(str, m.seeds)),
            "recipe": lambda m: f"{trial_folder(m.name, m.learning_rate, m.seeds[0])}/recipe.yaml",
        },
        "The methods",
        *(f"{method.name}: {method.title}" for method in results.methods if method.base is None),
        "Sizes are of the merged model; heads and neurons: kept, of all. MACs: multiplications, with their additions, "
        "of all blocks. Budget: the fraction of the dense model's MACs that the plan may keep. prunelora run --recipe "
        "RECIPE --out FOLDER trains the model again, with a recipe file of the comparison's folder.",
    )


def trials_table(results: ComparisonResults) -> Table:
    """Every finished training, with those of rejected learning rates."""
    metric = results.main_metric
    number = partial(metric_number, metric)

    def reported(split: str) -> Callable[[TrialFacts], str]:
        return lambda trial: optional(trial.test.get(split, {}).get(metric), number)

    columns: dict[str, Callable[[TrialFacts], str]] = {
        "method": lambda trial: trial.method,
        "learning rate": lambda trial: learning_rate(trial.learning_rate),
        "seed": lambda trial: str(trial.seed),
        f"{metric_heading(metric)}, validation rows": lambda trial: optional(trial.validation.get(metric), number),
        **{metric_column(results, metric, split): reported(split) for split in results.splits},
        "best step": lambda trial: f"{trial.best_step:,} of {trial.steps:,}",
        "time of a step": lambda trial: optional(trial.step_ms, milliseconds),
        "all stages": lambda trial: duration(sum(trial.seconds.values())),
    }
    return _with_constant(results, Table.of(results.trials, columns, "Every training"))


def reported_metrics(results: ComparisonResults) -> tuple[str, ...]:
    """The task's metrics that were measured, the main metric first."""
    measured = {metric for method in results.methods for values in method.quality.values() for metric in values}
    return tuple(str(metric) for metric in results.task["metrics"] if metric in measured)


def constant_value(results: ComparisonResults, split: str, metric: str) -> float | None:
    """Metric of one constant answer: the majority rate as accuracy, 0 as correlation; None if not known."""
    if metric == "accuracy":
        rate = results.task["majority_rate"].get(split)
        return None if rate is None else float(rate)
    return 0.0 if metric in _UNCORRELATED else None


def pair_name(results: ComparisonResults, first: str, second: str, split: str) -> str:
    """Two methods and, if there are several splits, the split: "prune-lora against lora, matched"."""
    return f"{first} against {second}{f', {split}' if len(results.splits) > 1 else ''}"


def pair_of(results: ComparisonResults, first: str, second: str, split: str) -> PairFacts | None:
    """The test of two methods in the given order: the difference is the first's metric minus the second's."""
    for pair in results.pairs:
        if pair.split == split and {pair.first, pair.second} == {first, second}:
            if pair.first == first:
                return pair
            turned = {
                "first": first, "second": second, "difference": -pair.difference, "low": -pair.high, "high": -pair.low,
                "by_seed": tuple(-value for value in pair.by_seed),
            }  # fmt: skip
            return pair.model_copy(update=turned)
    return None


def all_sizes(results: ComparisonResults) -> list[Size]:
    """Batch size and tokens of all timed forward passes, smallest first."""
    return sorted({(latency.batch_size, latency.tokens) for method in results.methods for latency in method.latencies})


def largest_size(results: ComparisonResults) -> Size | None:
    """The timed size with most tokens in total; None if nothing was timed."""
    return max(all_sizes(results), key=lambda size: (size[0] * size[1], size), default=None)


def sizes_shown(results: ComparisonResults) -> list[Size]:
    """The two timed sizes that methods are compared by: the largest, and the longest single row."""
    single = max((size for size in all_sizes(results) if size[0] == 1), default=None)
    return [size for size in dict.fromkeys((largest_size(results), single)) if size is not None]


def latency_at(method: MethodFacts, size: Size | None) -> LatencyFacts | None:
    """A method's time at one size; None if it was not timed there."""
    return next((latency for latency in method.latencies if (latency.batch_size, latency.tokens) == size), None)


def time_to_dense(size: Size | None) -> _Column:
    """Text of a method's time at one size, relative to the dense model's."""
    return lambda m: optional(latency_at(m, size), lambda latency: _median(latency.to_dense))


def size_text(size: Size) -> str:
    """A size as text: "batch 32, 128 tokens"."""
    return f"batch {size[0]}, {size[1]} tokens"


def metric_column(results: ComparisonResults, metric: str, split: str) -> str:
    """Heading of a metric on a split, which is named if there are several: "accuracy, %, matched"."""
    return metric_heading(metric) + (f", {split}" if len(results.splits) > 1 else "")


def quality_text(method: MethodFacts, metric: str, split: str) -> str:
    """Mean and standard deviation of a method's metric; a dash if it was not measured."""
    quality = method.quality.get(split, {}).get(metric)
    return NONE if quality is None else estimate(metric, quality.mean, quality.sd)


def _by_method(results: ComparisonResults, columns: Mapping[str, _Column], title: str, *notes: str) -> Table:
    table = Table.of(results.methods, {"method": lambda m: m.name, **columns}, title, *notes)
    return _with_constant(results, table)


def _quality_columns(results: ComparisonResults, metrics: Iterable[str]) -> dict[str, _Column]:
    return {
        metric_column(results, metric, split): partial(quality_text, metric=metric, split=split)
        for metric in metrics
        for split in results.splits
    }


def _with_constant(results: ComparisonResults, table: Table) -> Table:
    """The table with a first row of the constant answer's metrics, if it shows metrics of which they are known."""
    values = {
        metric_column(results, metric, split): metric_number(metric, value)
        for metric in results.task["metrics"]
        for split in results.splits
        if (value := constant_value(results, split, metric)) is not None
    }
    if not table.rows or not values.keys() & set(table.columns):
        return table
    constant = (CONSTANT, *(values.get(heading, NONE) for heading in table.columns[1:]))
    return replace(table, rows=(constant, *table.rows))


def _scaled(results: ComparisonResults, number: str, unit: str = "") -> _Column:
    """Text of a method's number, such as "memory.training", with the same prefix for all methods."""
    value = attrgetter(number)
    show = scaled_alike(map(value, results.methods), unit)
    return lambda m: show(value(m))


def _latency_text(method: MethodFacts, size: Size) -> str:
    latency = latency_at(method, size)
    if latency is None:
        return NONE
    return f"{milliseconds(latency.milliseconds)}, {with_quartiles(percent, latency.to_dense)}"


def _median(share: Spread) -> str:
    return percent(share.median)


def _of(counts: tuple[int, int]) -> str:
    return f"{counts[0]:,} of {counts[1]:,}"
