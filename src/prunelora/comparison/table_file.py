"""comparison.csv: every number of the methods, unrounded, for scripts."""

import csv
import io

from prunelora.comparison.results import ComparisonResults, MethodFacts
from prunelora.comparison.tables import all_sizes, latency_at, reported_metrics
from prunelora.evaluation.timing import Spread

# Fields of the memory that are not bytes.
_COUNTS = ("step_rows", "inference_rows", "tokens")


def to_csv(results: ComparisonResults) -> str:
    """A row a method, with units in the columns' names; empty if unknown."""
    rows = [_numbers(results, method) for method in results.methods]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else (), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _numbers(results: ComparisonResults, method: MethodFacts) -> dict[str, object]:
    row: dict[str, object] = {
        "model": results.model, "data": results.data, "method": method.name, "keep_macs": method.keep_macs,
        "learning_rate": method.learning_rate, "seeds": len(method.seeds),
    }  # fmt: skip
    for split in results.splits:
        row[f"{split}_majority_rate"] = results.task["majority_rate"][split]
        for metric in reported_metrics(results):
            quality = method.quality.get(split, {}).get(metric)
            row[f"{split}_{metric}_mean"] = quality.mean if quality else None
            row[f"{split}_{metric}_sd"] = quality.sd if quality else None
    row |= {
        "parameters": method.parameters, "trained_parameters": method.trained, "disk_bytes": method.disk_bytes,
        "macs": method.macs, "heads": method.heads[0], "heads_of": method.heads[1],
        "neurons": method.neurons[0], "neurons_of": method.neurons[1],
        "train_seconds": method.train_seconds, "step_ms": method.step_ms,
    }  # fmt: skip
    row |= _spread("step_to_full", method.step_to_full) | _spread("step_to_lora", method.step_to_lora)
    row["training_memory_bytes"] = method.memory.training
    for name, value in method.memory.model_dump().items():
        row[f"memory_{name}" if name in _COUNTS else f"{name}_memory_bytes"] = value
    for size in all_sizes(results):
        name, latency = f"latency_batch{size[0]}_tokens{size[1]}", latency_at(method, size)
        row[f"{name}_ms"] = latency.milliseconds if latency else None
        row |= _spread(f"{name}_to_dense", latency.to_dense if latency else None)
    return row


def _spread(name: str, spread: Spread | None) -> dict[str, object]:
    return {f"{name}_{part}": getattr(spread, part) if spread else None for part in ("median", "q25", "q75")}
