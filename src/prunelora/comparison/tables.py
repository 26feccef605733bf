"""The tables of a comparison: narrow ones, each fit for a terminal and for a phone."""

from collections.abc import Callable, Iterable, Sequence

from prunelora.comparison.results import ComparisonResults, LatencyFacts, MethodFacts, PairFacts, trial_folder
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

Size = tuple[int, int]  # Rows and tokens of a batch.
_Column = tuple[str, Callable[[MethodFacts], str]]

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
    parameters = scaled_alike(method.parameters for method in results.methods)
    memory = scaled_alike((method.memory.training for method in results.methods), "B")

    def time_column(size: Size) -> _Column:
        def show(latency: LatencyFacts) -> str:
            return percent(latency.to_dense.median)

        return f"inference, of dense, {size_text(size)}", lambda m: optional(latency_at(m, size), show)

    return _by_method(
        results,
        "All methods",
        (
            *_quality_columns(results, (results.main_metric,)),
            # Two splits and the model's size together would be too wide; the table of methods has it.
            *([("parameters", lambda m: parameters(m.parameters))] if len(results.splits) < 2 else []),
            ("trained", lambda m: percent(m.trained / m.parameters)),
            ("training step, of full", lambda m: optional(m.step_to_full, lambda share: percent(share.median))),
            ("training memory", lambda m: memory(m.memory.training)),
            *map(time_column, sizes_shown(results)[: 2 if wide else 1]),
        ),
        "Quality: mean \N{PLUS-MINUS SIGN} standard deviation over the seeds; the first row is what always answering "
        "the most frequent class of the training rows reaches. Training step: time relative to full fine-tuning, of "
        "several fine-tunings the mean weighted by epochs. Training memory: of the fine-tuning that needs most.",
        constant=(results.main_metric,),
    )


def quality_table(results: ComparisonResults) -> Table:
    """Every metric of the task on every reported split; no rows if there is one metric."""
    metrics = reported_metrics(results)
    if len(metrics) < 2:
        return Table((), ())
    note = "Mean and standard deviation over the seeds."
    return _by_method(results, "Every metric", _quality_columns(results, metrics), note, constant=metrics)


def pairs_table(results: ComparisonResults) -> Table:
    """Every pair of methods: difference, its interval and p value, and whether it is significant."""
    several = len(results.splits) > 1
    rows = tuple(
        (
            # One column, which can be broken: two names beside each other are too wide for a terminal.
            f"{pair.first} against {pair.second}{f', {pair.split}' if several else ''}",
            metric_number(pair.metric, pair.difference, signed=True),
            metric_interval(pair.metric, pair.low, pair.high, signed=True),
            p_value(pair.p_holm),
            "no" if not pair.told_apart else "of rows alone" if pair.rows_alone else "yes",
            "  ".join(metric_number(pair.metric, value, signed=True) for value in pair.by_seed),
        )
        for pair in results.pairs
    )
    columns = ("methods", "difference", "95 % interval", "p, adjusted", "significant", "by seed")
    return Table(columns, rows, "Differences between methods", PAIRS_NOTES)


def beside_table(results: ComparisonResults) -> Table:
    """Costs of every other method relative to full fine-tuning and to LoRA; no rows without these."""
    rows = []
    for method in results.methods:
        for name in _YARDSTICKS:
            yardstick = results.method(name)
            if yardstick is None or method.name in _YARDSTICKS:
                continue
            step = {"full": method.step_to_full, "lora": method.step_to_lora}[name]
            rows.append(
                (
                    f"{method.name}, of {name}",
                    optional(step, lambda share: percent(share.median)),
                    *(
                        percent(ours / theirs) if theirs else NONE
                        for ours, theirs in (
                            (method.train_seconds, yardstick.train_seconds),
                            (method.memory.training, yardstick.memory.training),
                            (method.trained, yardstick.trained),
                            (method.disk_bytes, yardstick.disk_bytes),
                            (method.macs, yardstick.macs),
                        )
                    ),
                )
            )
    columns = ("methods", "training step", "all stages", "training memory", "trained", "on disk", "MACs")
    note = "Training step: median of the ratios taken round by round. All stages: as recorded in training."
    return Table(columns, tuple(rows), "Costs relative to full fine-tuning and LoRA", (note,))


def training_table(results: ComparisonResults) -> Table:
    """Learning rate and times of every method's training."""
    rows = (results.timing or {}).get("step_rows")
    return _by_method(
        results,
        "Time of training",
        (
            ("learning rate", lambda m: learning_rate(m.learning_rate)),
            ("time of a step", lambda m: optional(m.step_ms, milliseconds)),
            ("of full's", lambda m: optional(m.step_to_full, lambda share: with_quartiles(percent, share))),
            ("all stages", lambda m: duration(m.train_seconds)),
        ),
        f"Steps{f' of {rows} rows' if rows else ''} are timed after the trainings, all methods in turn on the same "
        "batches, also if a fine-tuning accumulates gradients of smaller ones; of several fine-tunings it is the mean "
        "weighted by epochs. Quartiles in parentheses. All stages: wall time up to the merged model, mean over the "
        "seeds, as recorded in training.",
    )


def memory_table(results: ComparisonResults) -> Table:
    """Memory of a training step with its parts, and of inference."""
    memory = scaled_alike((method.memory.training for method in results.methods), "B")
    device = any(method.memory.device_peak is not None for method in results.methods)
    # Results of earlier versions do not record the numbers of rows and tokens.
    recorded = any(method.memory.step_rows is not None for method in results.methods)
    return _by_method(
        results,
        "Memory",
        (
            *([("rows a step", lambda m: optional(m.memory.step_rows, str))] if recorded else []),
            *([("tokens a row", lambda m: optional(m.memory.tokens, str))] if recorded else []),
            ("training step", lambda m: memory(m.memory.training)),
            *([("device's own peak", lambda m: optional(m.memory.device_peak, memory))] if device else []),
            ("weights", lambda m: memory(m.memory.weights)),
            # Of LoRA a thousandth of the rest: 0.00 with the prefix of the others.
            ("gradients and optimiser", lambda m: scaled(m.memory.gradients + m.memory.optimizer, "B")),
            ("saved for backward", lambda m: memory(m.memory.saved)),
            ("inference", lambda m: memory(m.memory.inference)),
        ),
        "A training step of the fine-tuning that needs most: weights, gradients of the trained parameters, AdamW's two "
        "moments of each (12 bytes a trained parameter), and the tensors saved for the backward pass. Inference: "
        "weights and the most activations alive at once in a forward pass of 32 rows. Rows have 128 tokens, or as many "
        "as the model has positions for.",
    )


def latency_table(results: ComparisonResults) -> Table:
    """Time of a forward pass at every size, and relative to the dense model; no rows if nothing was timed."""

    def show(latency: LatencyFacts) -> str:
        return f"{milliseconds(latency.milliseconds)}, {with_quartiles(percent, latency.to_dense)}"

    def column(size: Size) -> _Column:
        return size_text(size), lambda m: optional(latency_at(m, size), show)

    sizes = all_sizes(results)
    if not sizes:
        return Table((), ())
    note = (
        "Of one forward pass: median, and relative to the dense model on the same batch with quartiles; below 100 % is "
        "faster."
    )
    return _by_method(results, "Time of inference", [column(size) for size in sizes], note)


def learning_rates_table(results: ComparisonResults) -> Table:
    """Every learning rate that was tried, its metric on the validation rows, and the chosen rate."""
    metric = results.main_metric

    def verdict(method: MethodFacts, tried: str) -> str:
        if method.tried_on is not None:
            return f"as of {method.tried_on}"
        return "chosen" if float(tried) == method.learning_rate else ""

    rows = tuple(
        (
            method.name,
            learning_rate(float(tried)),
            "diverged" if value is None else metric_number(metric, value),
            verdict(method, tried),
        )
        for method in results.methods
        for tried, value in sorted(method.tried.items(), key=lambda item: float(item[0]))
    )
    note = "Every method has the same number of tries. Validation rows, cut from training, choose; never reported rows."
    return Table(
        ("method", "learning rate", f"{metric_heading(metric)}, validation rows", ""), rows, "Learning rates", (note,)
    )


def methods_table(results: ComparisonResults) -> Table:
    """Size and work of every method's model, its budget and seeds, and the recipe file of its first seed's trial."""
    unit = next((method.unit_of_heads for method in results.methods), "heads")
    tokens = max((method.macs_tokens for method in results.methods), default=128)
    parameters = scaled_alike(method.parameters for method in results.methods)
    disk = scaled_alike((method.disk_bytes for method in results.methods), "B")
    macs = scaled_alike(method.macs for method in results.methods)
    return _by_method(
        results,
        "The methods",
        (
            ("parameters", lambda m: parameters(m.parameters)),
            ("trained", lambda m: f"{scaled(m.trained)} ({percent(m.trained / m.parameters)})"),
            ("on disk", lambda m: disk(m.disk_bytes)),
            (f"MACs, {tokens} tokens", lambda m: macs(m.macs)),
            (unit, lambda m: _of(m.heads)),
            ("neurons", lambda m: _of(m.neurons)),
            ("budget", lambda m: optional(m.keep_macs, lambda budget: f"{budget:g}")),
            ("seeds", lambda m: ", ".join(map(str, m.seeds))),
            ("recipe", lambda m: f"{trial_folder(m.name, m.learning_rate, m.seeds[0])}/recipe.yaml"),
        ),
        *(f"{method.name}: {method.title}" for method in results.methods if method.base is None),
        "Sizes are of the merged model; heads and neurons: kept, of all. MACs: multiplications, with their additions, "
        "of all blocks. Budget: the fraction of the dense model's MACs that the plan may keep. prunelora run --recipe "
        "RECIPE --out FOLDER trains the model again, with a recipe file of the comparison's folder.",
    )


def trials_table(results: ComparisonResults) -> Table:
    """Every finished training, with those of rejected learning rates."""
    metric = results.main_metric
    columns = (
        "method", "learning rate", "seed", f"{metric_heading(metric)}, validation rows",
        *(metric_column(results, metric, split) for split in results.splits), "best step", "time of a step",
        "all stages",
    )  # fmt: skip
    rows = [
        (
            trial.method,
            learning_rate(trial.learning_rate),
            str(trial.seed),
            *(
                optional(values.get(metric), lambda value: metric_number(metric, value))
                for values in (trial.validation, *(trial.test.get(split, {}) for split in results.splits))
            ),
            f"{trial.best_step:,} of {trial.steps:,}",
            optional(trial.step_ms, milliseconds),
            duration(sum(trial.seconds.values())),
        )
        for trial in results.trials
    ]
    constant = [(name, NONE, NONE, NONE, *rest) for name, *rest in _constant_row(results, (metric,), len(columns) - 3)]
    return Table(columns, (*constant, *rows) if rows else (), "Every training")


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


def one_seed(results: ComparisonResults) -> bool:
    """Whether no method has more than one seed."""
    return bool(results.methods) and all(len(method.seeds) == 1 for method in results.methods)


def pair_of(results: ComparisonResults, first: str, second: str, split: str) -> PairFacts | None:
    """The test of two methods in the given order: the difference is the first's metric minus the second's."""
    for pair in results.pairs:
        if pair.split == split and (pair.first, pair.second) == (first, second):
            return pair
        if pair.split == split and (pair.first, pair.second) == (second, first):
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


def _by_method(
    results: ComparisonResults,
    title: str,
    columns: Sequence[_Column],
    *notes: str,
    constant: Sequence[str] = (),
) -> Table:
    """A row a method; above them the constant answer's for the first columns, which are of these metrics."""
    rows = [(method.name, *(show(method) for _, show in columns)) for method in results.methods]
    first = _constant_row(results, constant, len(columns) + 1)
    return Table(("method", *(heading for heading, _ in columns)), (*first, *rows), title, notes)


def _quality_columns(results: ComparisonResults, metrics: Iterable[str]) -> list[_Column]:
    def column(metric: str, split: str) -> _Column:
        return metric_column(results, metric, split), lambda m: quality_text(m, metric, split)

    return [column(metric, split) for metric in metrics for split in results.splits]


def _constant_row(results: ComparisonResults, metrics: Iterable[str], width: int) -> list[tuple[str, ...]]:
    """One row of the constant answer's metrics, as wide as the table; none if they are not known."""
    values = [(metric, constant_value(results, split, metric)) for metric in metrics for split in results.splits]
    if all(value is None for _, value in values):
        return []
    texts = [NONE if value is None else metric_number(metric, value) for metric, value in values]
    return [(CONSTANT, *texts, *[NONE] * (width - 1 - len(texts)))]


def _of(counts: tuple[int, int]) -> str:
    return f"{counts[0]:,} of {counts[1]:,}"
