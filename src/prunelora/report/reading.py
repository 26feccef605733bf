"""Reading the facts that the stages of a run recorded: the one module that knows their layout."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prunelora.data.truncation import Truncation
from prunelora.evaluation.timing import Spread
from prunelora.report.numbers import METRIC_TITLES, duration, metric_value, milliseconds
from prunelora.report.results import RunResults


@dataclass(frozen=True)
class Pair:
    """Milliseconds of the dense and the pruned model; `speed` is their ratio, round by round: 2 is twice as fast."""

    engine: str
    batch: int
    tokens: int
    dense: Spread
    pruned: Spread
    speed: Spread

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> "Pair":
        """Read the JSON of an `evaluation.measurement.Latency`."""
        dense, pruned, ratio = (Spread.read(content[name]) for name in ("base", "model", "ratio"))
        return cls(content["engine"], content["batch_size"], content["tokens"], dense, pruned, ratio.inverse())

    @property
    def place(self) -> str:
        """Size and engine: "batch 1, 32 tokens, torch"."""
        return f"batch {self.batch}, {self.tokens} tokens, {self.engine}"


def kind_of(stage: str) -> str:
    """Kind of a stage from its name: "finetune-1" -> "finetune"."""
    kind, dash, number = stage.rpartition("-")
    return kind if dash and number.isdigit() else stage


def cut_off(results: RunResults) -> list[str]:
    """Sentences on truncated rows, one for each split that has some."""
    recorded = (results.facts(stage).get("truncation") for stage in results.stages)
    truncations: dict[str, Any] = next(filter(None, recorded), {})
    lines = (Truncation(**values).describe(split) for split, values in truncations.items())
    return [line for line in lines if line is not None]


def fact_text(name: str, value: Any) -> str:
    """A fact of a stage as text, by its name: "validation.accuracy" as "83.3 %", "step_ms" as "21.3 ms"."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    last = name.rpartition(".")[2].removeprefix("validation_")
    if last == "majority_rate":
        last = "accuracy"
    if last in METRIC_TITLES:
        return metric_value(last, value)
    if last == "seconds":
        return duration(value)
    if last.endswith("_ms"):
        return milliseconds(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def reported_rows(results: RunResults) -> str:
    """The reported rows by number and name: "9,815 matched rows"."""
    return f"{results.task['rows']['test']:,} {results.task['test_name']} rows"


def measured(results: RunResults) -> Mapping[str, Any]:
    """`Measurement.to_dict()` of the stage measure; empty if it did not run."""
    measurement: Mapping[str, Any] = results.facts("measure").get("measurement", {})
    return measurement


def timings(measurement: Mapping[str, Any]) -> list[Pair]:
    """Times of the pruned model beside those of the dense model, from `Measurement.to_dict()`."""
    return [Pair.read(latency) for latency in measurement.get("latencies", ()) if latency.get("ratio")]


def training_seconds(results: RunResults) -> float:
    """Wall time of all stages up to the merged model, scoring and repair included."""
    return sum(float(stage["seconds"]) for stage in results.stages.values() if stage.get("makes_model", True))


def moments(results: RunResults) -> Iterator[tuple[str, float]]:
    """The main metric on the validation rows after every stage that has it, by the stage's name."""
    metric = results.main_metric
    for stage in results.stages:
        facts = results.facts(stage)
        value = facts.get("best", {}).get(f"validation_{metric}", facts.get("validation", {}).get(metric))
        if value is not None:
            yield stage, float(value)


def finetunings(results: RunResults) -> tuple[list[dict[str, float]], list[float]]:
    """Histories of all fine-tunings of the run in a row.

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


def machine_text(machine: Mapping[str, Any]) -> str:
    """A machine as `describe_machine` gives it: "cpu, AMD EPYC, 2 threads, torch 2.13.0"; empty if unknown."""
    parts = [machine.get("device"), machine.get("cpu")]
    if machine.get("threads"):
        parts.append(f"{machine['threads']} thread{'' if machine['threads'] == 1 else 's'}")
    parts += [f"{name} {version}" for name, version in machine.get("versions", {}).items() if version]
    return ", ".join(str(part) for part in parts if part)
