"""Reading what the stages found: the one place that knows how their facts are laid out."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prunelora.data.metrics import default_metrics
from prunelora.data.truncation import Truncation
from prunelora.errors import option
from prunelora.models.problem_types import SINGLE_LABEL
from prunelora.report.results import RunResults

_TO_THE_MODEL = ("linear_probe", "score", "plan", "prune", "finetune", "merge")

_TITLES = {
    "accuracy": "accuracy",
    "f1": "F1",
    "f1_macro": "F1, mean of classes",
    "f1_micro": "F1, all labels together",
    "matthews": "Matthews correlation",
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
    "mse": "mean squared error",
    "entity_f1": "entity F1",
    "entity_precision": "entity precision",
    "entity_recall": "entity recall",
    "log_likelihood": "log-likelihood of a token",
    "perplexity": "perplexity",
    "loss": "loss",
}
# Shares, which people read as per cent.
SHARES = frozenset({"accuracy", "f1", "f1_macro", "f1_micro", "entity_f1", "entity_precision", "entity_recall"})


@dataclass(frozen=True)
class Moment:
    """The main metric on the validation rows at some point of the run.

    Attributes:
        stage: Name of the stage after which it was taken.
        kind: Kind of that stage.
        value: Of the main metric.
    """

    stage: str
    kind: str
    value: float


@dataclass(frozen=True)
class Size:
    """A size of the model that does not depend on the clock.

    Attributes:
        what: Name for tables.
        short: Name for a sentence; empty where it is not for one.
        unit: "B" for bytes, or nothing.
        dense: Of the dense model; None if it was not measured.
        pruned: Of the pruned model.
    """

    what: str
    short: str
    unit: str
    dense: float | None
    pruned: float


@dataclass(frozen=True)
class Timing:
    """Median and quartiles of the time of one forward pass."""

    median_ms: float
    q25_ms: float
    q75_ms: float

    @property
    def vary(self) -> float:
        """How far the quartiles are apart, as a share of the median."""
        return (self.q75_ms - self.q25_ms) / self.median_ms


@dataclass(frozen=True)
class Pair:
    """Time of the dense and the pruned model in one engine at one size.

    Attributes:
        engine: "torch" or "onnxruntime".
        batch: Rows.
        tokens: Tokens in each of them.
        dense: Of the dense model.
        pruned: Of the pruned model.
        speed: Dense over pruned, the median of the rounds: 2 is twice as fast.
        speed_low: Its lower quartile.
        speed_high: Its upper quartile.
    """

    engine: str
    batch: int
    tokens: int
    dense: Timing
    pruned: Timing
    speed: float
    speed_low: float
    speed_high: float

    @property
    def size(self) -> str:
        """Batch and length for people."""
        return f"batch {self.batch}, {self.tokens} tokens"

    @property
    def speed_text(self) -> str:
        """For people: "1.8 times as fast"."""
        return f"{times(self.speed)} times as fast"


@dataclass(frozen=True)
class Asked:
    """A budget in time, and what was measured where it was asked for.

    Attributes:
        max_latency_ms: Milliseconds that were asked for; None if a speed-up was.
        speedup: How many times as fast as the dense model; None if milliseconds were asked for.
        threads: Of the CPU.
        pair: What was measured.
    """

    max_latency_ms: float | None
    speedup: float | None
    threads: int
    pair: Pair

    @property
    def met(self) -> bool:
        """Whether the median of the rounds is what was asked for."""
        if self.max_latency_ms is not None:
            return self.pair.pruned.median_ms <= self.max_latency_ms
        return self.pair.speed >= (self.speedup or 0.0)

    @property
    def option(self) -> str:
        """What was asked for, as it is typed."""
        name = "speedup" if self.max_latency_ms is None else "max_latency_ms"
        value = float(getattr(self, name))
        return option(name, int(value) if value.is_integer() else value)

    @property
    def found(self) -> str:
        """What was measured, with the middle half of the rounds."""
        if self.max_latency_ms is not None:
            low, high = (
                milliseconds(one).removesuffix(" ms") for one in (self.pair.pruned.q25_ms, self.pair.pruned.q75_ms)
            )
            return f"{milliseconds(self.pair.pruned.median_ms)} (middle half of the rounds {low} to {high})"
        low, high = (f"{one:.2f}" for one in (self.pair.speed_low, self.pair.speed_high))
        return f"{self.pair.speed:.2f} times as fast (middle half of the rounds {low} to {high})"


def kind_of(stage: str) -> str:
    """Kind of a stage from its name: "finetune-1" -> "finetune"."""
    kind, dash, number = stage.rpartition("-")
    return kind if dash and number.isdigit() else stage


def main_metric(results: RunResults) -> str:
    """Name of the metric that the task is judged by: "accuracy" where there is one label and nothing else was named."""
    if results.task.get("metrics"):
        return str(results.task["metrics"][0])
    return default_metrics(results.task.get("problem_type") or SINGLE_LABEL)[0]


def cut_off(results: RunResults) -> list[str]:
    """What was cut off of the rows, a sentence for every split of which something was."""
    every = (results.facts(stage).get("truncation") for stage in results.stages)
    found: dict[str, Any] = next((one for one in every if one), {})
    lines = (Truncation(**values).describe(split) for split, values in found.items())
    return [line for line in lines if line is not None]


def metric_title(metric: str) -> str:
    """Name of a metric for people."""
    return _TITLES.get(metric, metric)


def metric_text(metric: str, value: float) -> str:
    """A metric's value for people: "86.6 %", "0.712"."""
    text = f"{100 * value:.1f} %" if metric in SHARES else f"{value:.3f}"
    return text.replace("-", "\N{MINUS SIGN}")


def fact_text(name: str, value: Any) -> str:
    """A fact of a stage for people, by its name: "validation.accuracy" as "83.3 %", "step_ms" as "21.3 ms"."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    last = name.rpartition(".")[2].removeprefix("validation_")
    if last == "majority_rate":
        last = "accuracy"
    if last in _TITLES:
        return metric_text(last, value)
    if last == "seconds":
        return duration(value)
    if last.endswith("_ms"):
        return milliseconds(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def rows_tested(results: RunResults) -> int:
    """Rows that the reported metrics were taken on; 0 if not known."""
    return int(results.facts("measure").get("test_rows") or results.task.get("rows", {}).get("test", 0))


def reported_rows(results: RunResults) -> str:
    """The reported rows by number and name: "9,815 matched rows"; "test rows" if their number is not known."""
    name, count = results.task.get("test_name", "test"), rows_tested(results)
    return f"{count:,} {name} rows" if count else f"{name} rows"


def asked_latency(results: RunResults) -> Asked | None:
    """The latency that the plan was asked for; None if it was asked for something else."""
    facts = results.facts("measure").get("asked_latency")
    if facts is None:
        return None
    return Asked(facts["max_latency_ms"], facts["speedup"], facts["threads"], _pair(facts))


def training_seconds(results: RunResults) -> float:
    """Wall time of all stages up to the merged model: linear probe, scoring and repair are counted with the tunings."""
    return sum(float(stage["seconds"]) for name, stage in results.stages.items() if kind_of(name) in _TO_THE_MODEL)


def moments(results: RunResults) -> Iterator[Moment]:
    """The main metric on the validation rows, stage after stage."""
    metric = main_metric(results)
    for stage in results.stages:
        facts = results.facts(stage)
        value = facts.get("best", {}).get(f"validation_{metric}", facts.get("validation", {}).get(metric))
        if value is not None:
            yield Moment(stage, kind_of(stage), float(value))


def finetunings(results: RunResults) -> tuple[list[dict[str, float]], list[float]]:
    """Histories of all fine-tunings of the run, one after the other.

    Returns:
        The entries, their epochs counted on from the training before; and the epochs at which the second, third ...
        training began.
    """
    entries: list[dict[str, float]] = []
    starts = []
    done = 0.0
    for stage in results.stages:
        history = results.facts(stage).get("history") if kind_of(stage) == "finetune" else None
        if not history:
            continue
        if entries:
            starts.append(done)
        entries += [{**entry, "epoch": done + entry["epoch"]} for entry in history]
        done = max(entry["epoch"] for entry in entries)
    return entries, starts


def sizes(measurement: Mapping[str, Any]) -> list[Size]:
    """Parameters, MACs and memory from `Measurement.to_dict()`; nothing if nothing was measured."""
    model, base = measurement.get("model"), measurement.get("base") or {}
    if not model:
        return []
    settings = measurement.get("settings", {})
    tokens, step = settings.get("macs_tokens", 128), settings.get("training_batch_size")
    rows = [
        Size("parameters", "parameters", "", _total(base.get("parameters")), _total(model["parameters"]) or 0),
        Size(f"MACs of the blocks, {tokens} tokens", "MACs", "", base.get("macs"), model["macs"]),
        Size("memory of the weights", "of weights", "B", base.get("weight_bytes"), model["weight_bytes"]),
    ]  # fmt: skip
    if model.get("saved_for_backward_bytes") is not None:
        size = f", batch {step}, {settings.get('training_tokens')} tokens" if step else ""
        rows.append(
            Size(f"saved for backward{size}", "", "B",
                 base.get("saved_for_backward_bytes"), model["saved_for_backward_bytes"])
        )  # fmt: skip
    return rows


def timings(measurement: Mapping[str, Any]) -> list[Pair]:
    """Times of the pruned model that stand beside those of the dense one, from `Measurement.to_dict()`."""
    return [_pair(one) for one in measurement.get("latencies", ()) if one.get("base") and one.get("ratio")]


def _pair(one: Mapping[str, Any]) -> Pair:
    return Pair(
        engine=one["engine"],
        batch=one["batch_size"],
        tokens=one["tokens"],
        dense=_timing(one["base"]),
        pruned=_timing(one["model"]),
        # The measured ratio is of the time, pruned over dense: its quartiles change places.
        speed=1 / one["ratio"]["median"],
        speed_low=1 / one["ratio"]["q75"],
        speed_high=1 / one["ratio"]["q25"],
    )


def machine_text(measurement: Mapping[str, Any]) -> str:
    """What it was measured on: "cpu, AMD EPYC, 2 threads, torch 2.13.0"; empty if that is not known."""
    machine = measurement.get("machine", {})
    parts = [machine.get("device"), machine.get("cpu")]
    if machine.get("threads"):
        parts.append(f"{machine['threads']} thread{'' if machine['threads'] == 1 else 's'}")
    parts += [f"{name} {version}" for name, version in machine.get("versions", {}).items() if version]
    return ", ".join(str(part) for part in parts if part)


def duration(seconds: float) -> str:
    """Wall time for people: "0.4 s", "42 s", "3 min 07 s", "2 h 05 min"."""
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def milliseconds(value: float) -> str:
    """A time for people, three digits: "0.412 ms", "11.0 ms", "1,240 ms"."""
    decimals = 2 - math.floor(math.log10(value)) if value > 0 else 0
    return f"{value:,.{min(3, max(0, decimals))}f} ms"


def percent(share: float) -> str:
    """A share for people: "76 %"."""
    return f"{100 * share:.0f} %"


def in_units(value: float, unit: str = "", *, like: float | None = None) -> str:
    """A count with a prefix: 109_482_240 -> "109.5 M"; with "B": "109.5 MB". Below 10,000 to the last digit.

    Args:
        value: The count.
        unit: What is counted.
        like: A larger count that this one stands beside, and whose prefix and digits it gets.
    """
    largest = max(value, like or 0)
    if largest < 10_000 and not unit:
        return f"{value:,.0f}"
    for prefix, scale in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if largest >= scale:
            return f"{value / scale:,.{1 if largest >= 10 * scale else 2}f} {prefix}{unit}"
    return f"{value:,.0f} {unit}"


def times(factor: float) -> str:
    """A factor for people, two digits: "1.8", "0.93", "12"."""
    return f"{factor:.0f}" if factor >= 9.95 else f"{factor:.1f}" if factor >= 1.05 else f"{factor:.2f}"


def _timing(content: Mapping[str, float]) -> Timing:
    return Timing(content["median_ms"], content["q25_ms"], content["q75_ms"])


def _total(count: Any) -> float | None:
    return count.get("total") if isinstance(count, Mapping) else count
