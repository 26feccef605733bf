"""The text of `check`: costs of a budget, of its training and of the run, as tables."""

from collections.abc import Iterator
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
    "prune-lora": "LoRA after cut",
    "prune-full": "all after cut",
}


def check_tables(found: Feasibility) -> Iterator[Table | str]:
    """Lines and tables for a terminal."""
    yield found.architecture.describe()
    yield _budget(found)
    yield _costs(found)
    if found.training is not None:
        yield _training(found.training)
    if found.run is not None:
        yield _run(found.run)
    if found.data is not None:
        yield _data(found.data)


def _budget(found: Feasibility) -> str:
    base = found.architecture
    counts = f"{found.left.heads_of(base)}, {count(found.left.total_neurons)} of {count(base.total_neurons)} neurons"
    if not found.budget:
        return f"no budget: {counts} stay"
    budget = ", ".join(option(name, value) for name, value in found.budget.items())
    if found.budget.keys() <= {*COUNTS}:
        return f"{budget} can be met: {counts} stay"
    return f"{budget} can be met: about {counts} stay (the scores decide)"


def _costs(found: Feasibility) -> Table:
    unit = found.architecture.unit_of_heads.split()[-1]

    def costs(title: str, cost: Outlook, show: Any) -> tuple[str, ...]:
        return title, show(cost.dense), *(f"{show(cut)} ({percent(cost.share(cut))})" for cut in cost.cuts)

    def speeds(title: str, cost: Outlook) -> tuple[str, ...]:
        factors = map(cost.times_as_fast, cost.cuts)
        return title, "", *("no bound" if factor is None else f"{factor:.2f} times" for factor in factors)

    rows = [
        costs("parameters", found.parameters, count),
        costs(f"parameters in {unit} and neurons", found.block_parameters, count),
        costs(f"MACs of the blocks, 1 x {found.tokens} tokens", found.macs, lambda macs: f"{count(macs / 1e6)} M"),
        speeds("speed limit, if time followed MACs", found.macs),
    ]
    notes = []
    if found.latency is not None and found.latency_settings is not None:
        settings = found.latency_settings
        size = f"{settings.engine}, {settings.batch_size} x {settings.tokens}, threads: {settings.threads}"
        rows += [
            costs(f"latency, {size}", found.latency, milliseconds),
            speeds("speed, predicted for this device", found.latency),
        ]
        notes.append(f"Latency was {found.latency_measured}; --remeasure measures it again.")
    columns = ("", "dense", "after the cut", f"all {unit} cut", "and all neurons")
    return Table(columns, tuple(rows), title="Costs of the model", notes=tuple(notes))


def _training(found: TrainingOutlook) -> Table:
    before, ways = found.before_the_cut, found.ways
    memory, step = f"memory at {found.memory_tokens} tokens", f"time at {found.step_tokens} tokens"
    rows = [
        (memory, *(scaled(cost.memory.total, "B") for cost in ways.values())),
        (step, *(milliseconds(cost.step.median_ms) for cost in ways.values())),
    ]
    if before is not None:
        kind = f"before the cut, {'LoRA' if before.way == 'lora' else 'all weights'}, {before.rows} rows"
        texts = (scaled(before.cost.memory.total, "B"), milliseconds(before.cost.step.median_ms))
        for name, text in zip(("memory", "time"), texts, strict=True):
            # In the column of the same way to train.
            place = list(ways).index(before.way) if before.way in ways else 0
            rows.append((f"{name} {kind}", *(text if column == place else "" for column in range(len(ways)))))
    if found.steps_per_epoch is not None:
        minutes = {f"an epoch of {count(found.steps_per_epoch)} such steps": found.epoch_minutes}
        if before is not None:
            minutes[f"all {found.all_epochs:g} epochs, {before.epochs:g} before the cut"] = found.all_minutes
        rows += [(title, *(f"{of(name) or 0:,.1f} min" for name in ways)) for title, of in minutes.items()]
    return Table(
        ("", *(_WAYS[name] for name in ways)),
        tuple(rows),
        title=f"Training step of {found.rows} rows, random weights",
        notes=("Memory is counted from tensors; times are measured here.",),
    )


def _run(found: RunOutlook) -> Table:
    def row(name: str, seconds: float, share: str, memory: int | None) -> tuple[str, ...]:
        return name, f"{seconds:,.1f}", share, optional(memory, lambda size: scaled(size, "B"))

    rows = [
        row(stage.stage, stage.seconds, percent(stage.seconds / found.seconds) if found.seconds else "", memory)
        for stage in found.stages
        for memory in (stage.memory_bytes,)
    ]
    rows.append(row("all stages", found.seconds, f"{found.seconds / 60:,.1f} min", found.memory_bytes))
    note = (
        f"Predicted in {found.seconds_of_check:,.0f} s from short pieces of the work, whose rounds differed by "
        f"{percent(found.noise)}; valid while the load of the machine stays the same."
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
