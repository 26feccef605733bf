"""The result of a fine-tuning, read from the Trainer's log."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

VALIDATION = "validation_"


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """Result of a fine-tuning.

    Attributes:
        history: One dict for every log and evaluation: "step", "epoch", and "loss" or "validation_..." values.
        best: Metrics on the validation rows of the checkpoint that was kept.
        best_step: Optimiser step of that checkpoint; 0 if the model is as it was before the first step.
        steps: Optimiser steps in all.
        seconds: Wall time of training and evaluation in this process, without the time before it was resumed.
        step_ms: Median wall time of an optimiser step, without evaluation; None if this process took no step.
        trainable: Trainable parameters, by kind.
    """

    history: list[dict[str, float]]
    best: dict[str, float]
    best_step: int
    steps: int
    seconds: float
    step_ms: float | None
    trainable: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Values for JSON."""
        return dataclasses.asdict(self)


def log_entry(entry: Mapping[str, Any]) -> dict[str, float]:
    """A log entry without timings and without the prefix "eval_": "eval_validation_loss" -> "validation_loss"."""
    return {
        name.removeprefix("eval_"): float(value)
        for name, value in entry.items()
        if isinstance(value, int | float) and not name.endswith(("_runtime", "_per_second", "_time"))
    }


def validation_metrics(entry: Mapping[str, float]) -> dict[str, float]:
    """The metrics on the validation rows in a log entry."""
    return {name: value for name, value in entry.items() if name.startswith(VALIDATION)}


def metrics_at(history: Iterable[Mapping[str, float]], step: int) -> dict[str, float]:
    """Metrics of the evaluation after a step; empty if there was none."""
    evaluations = (entry for entry in history if entry["step"] == step and f"{VALIDATION}loss" in entry)
    return validation_metrics(next(evaluations, {}))
