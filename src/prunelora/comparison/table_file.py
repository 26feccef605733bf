"""All numbers of a comparison's methods as CSV, for machines."""

import csv
import io

from prunelora.comparison.results import ComparisonResults, MethodFacts, Share
from prunelora.comparison.tables import all_sizes, latency_at, reported_metrics

# Of what memory is counted; all else that is said of it is bytes.
_COUNTED_FOR = ("step_rows", "inference_rows", "tokens")


def to_csv(results: ComparisonResults) -> str:
    """Every number of the methods, a row each, unrounded, with units in the columns' names; empty where unknown."""
    rows = [_numbers(results, method) for method in results.methods]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
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
            figure = method.quality.get(split, {}).get(metric)
            row[f"{split}_{metric}_mean"] = figure.mean if figure else None
            row[f"{split}_{metric}_sd"] = figure.sd if figure else None
    row |= {
        "parameters": method.parameters, "trained_parameters": method.trained, "disk_bytes": method.disk_bytes,
        "macs": method.macs, "heads": method.heads[0], "heads_of": method.heads[1],
        "neurons": method.neurons[0], "neurons_of": method.neurons[1],
        "train_seconds": method.train_seconds, "step_ms": method.step_ms,
    }  # fmt: skip
    row |= _share_columns("step_to_full", method.step_to_full)
    row["training_memory_bytes"] = method.memory.training
    for name, value in method.memory.model_dump().items():
        row[f"memory_{name}" if name in _COUNTED_FOR else f"{name}_memory_bytes"] = value
    for size in all_sizes(results):
        name, one = f"latency_batch{size[0]}_tokens{size[1]}", latency_at(method, size)
        row[f"{name}_ms"] = one.milliseconds if one else None
        row |= _share_columns(f"{name}_to_dense", one.to_dense if one else None)
    return row


def _share_columns(name: str, share: Share | None) -> dict[str, object]:
    return {
        f"{name}_median": share.median if share else None,
        f"{name}_q25": share.q25 if share else None,
        f"{name}_q75": share.q75 if share else None,
    }
