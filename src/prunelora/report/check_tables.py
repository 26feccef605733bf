"""The text of `check`: costs of a budget, of its training and of the run, as tables."""

from collections.abc import Callable, Iterator
from typing import Any

from prunelora.errors import option
from prunelora.evaluation.feasibility import COUNTS, Feasibility
from prunelora.evaluation.outlook import Outlook, RunOutlook
from prunelora.evaluation.training_cost import TrainingOutlook
from prunelora.report.numbers import count, metric_value, milliseconds, optional, percent, scaled
from prunelora.report.table import Table

_WAYS = {
    "full": "full fine-tuning",
    "lora": "dense LoRA",
    "before-the-cut": "before the cut",
    "prune-lora": "LoRA after cut",
    "prune-full": "all after cut",
}


def check_tables(result: Feasibility) -> Iterator[Table | str]:
    """Lines and tables for a terminal."""
    yield result.architecture.describe()
    yield _budget(result)
    yield _costs(result)
    if result.training is not None:
        yield _training(result.training)
    if result.run is not None:
        yield _run(result.run)
    if result.data is not None:
        yield _data(result.data)


def _budget(result: Feasibility) -> str:
    base = result.architecture
    counts = f"{result.left.heads_of(base)}, {count(result.left.total_neurons)} of {count(base.total_neurons)} neurons"
    if not result.budget:
        return f"no budget: {counts} stay"
    budget = ", ".join(option(name, value) for name, value in result.budget.items())
    if result.budget.keys() <= {*COUNTS}:
        return f"{budget} can be met: {counts} stay"
    return f"{budget} can be met: about {counts} stay (the scores decide)"


def _costs(result: Feasibility) -> Table:
    unit = result.architecture.unit_of_heads.split()[-1]

    def costs(title: str, cost: Outlook, show: Any) -> tuple[str, ...]:
        return title, show(cost.dense), *(f"{show(cut)} ({percent(cost.share(cut))})" for cut in cost.cuts)

    def speeds(title: str, cost: Outlook) -> tuple[str, ...]:
        factors = map(cost.times_as_fast, cost.cuts)
        return title, "", *("no bound" if factor is None else f"{factor:.2f} times" for factor in factors)

    rows = [
        costs("parameters", result.parameters, count),
        costs(f"parameters in {unit} and neurons", result.block_parameters, count),
        costs(f"MACs of the blocks, 1 x {result.tokens} tokens", result.macs, lambda macs: f"{count(macs / 1e6)} M"),
        speeds("speed limit, if time followed MACs", result.macs),
    ]
    notes = []
    if result.latency is not None and result.latency_settings is not None:
        settings = result.latency_settings
        size = f"{settings.engine}, {settings.batch_size} x {settings.tokens}, threads: {settings.threads}"
        rows += [
            costs(f"latency, {size}", result.latency, milliseconds),
            speeds("speed, predicted for this device", result.latency),
        ]
        notes.append(f"Latency was {result.latency_measured}; --remeasure measures it again.")
    columns = ("", "dense", "after the cut", f"all {unit} cut", "and all neurons")
    return Table(columns, tuple(rows), title="Costs of the model", notes=tuple(notes))


def _training(result: TrainingOutlook) -> Table:
    ways, rows = result.ways, result.train_rows

    def minutes(of: Callable[[str], float | None]) -> tuple[str, ...]:
        return tuple(f"{of(name) or 0:,.1f} min" for name in ways)

    costs = [
        ("rows a step", *(count(cost.rows) for cost in ways.values())),
        (f"memory at {result.memory_tokens} tokens", *(scaled(cost.memory.total, "B") for cost in ways.values())),
        (f"time at {result.step_tokens} tokens", *(milliseconds(cost.step.median_ms) for cost in ways.values())),
        ("epochs", *(f"{cost.epochs:g}" for cost in ways.values())),
    ]
    if rows is not None:
        costs += [
            (f"an epoch of {count(rows)} rows", *minutes(result.epoch_minutes)),
            ("all epochs, with those before the cut", *minutes(result.all_minutes)),
        ]
    return Table(
        ("", *(_WAYS[name] for name in ways)),
        tuple(costs),
        title="Training steps, random weights",
        notes=("Memory is counted from tensors; times are measured here.",),
    )


def _run(result: RunOutlook) -> Table:
    def row(name: str, seconds: float, share: str, memory: int | None) -> tuple[str, ...]:
        return name, f"{seconds:,.1f}", share, optional(memory, lambda size: scaled(size, "B"))

    rows = [
        row(stage.stage, stage.seconds, percent(stage.seconds / result.seconds) if result.seconds else "", memory)
        for stage in result.stages
        for memory in (stage.memory_bytes,)
    ]
    rows.append(row("all stages", result.seconds, f"{result.seconds / 60:,.1f} min", result.memory_bytes))
    note = (
        f"Predicted in {result.seconds_of_check:,.0f} s from short pieces of the work, whose rounds differed by "
        f"{percent(result.noise)}; valid while the load of the machine stays the same."
    )
    return Table(("stage", "seconds", "share", "memory"), tuple(rows), title="The run", notes=(note,))


def _data(data: dict[str, Any]) -> str:
    rates = data["majority_rates"]
    parts = [f"data: {count(data['rows']['train'])} training rows"]
    parts += [f"{count(data['rows'][split])} {split} rows" for split in rates]
    parts.append(f"median length {data['median_tokens']:.0f} tokens" if data["median_tokens"] else "images")
    parts += [
        f"majority-class rate {metric_value('accuracy', rate)}" + (f" ({split})" if len(rates) > 1 else "")
        for split, rate in rates.items()
        if rate is not None
    ]
    return ", ".join(parts)
