"""Time and memory of scoring, against a plain forward pass and against one example at a time."""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.benchmark import (
    Benchmark,
    Option,
    Piece,
    markdown,
    measurement,
    peak_memory,
    read_results,
    spread_text,
    time_and_memory,
    where,
    write_page,
)
from benchmarks.tasks import GLUE

SST2 = GLUE / "sst2" / "train.tsv"
FORWARD, SCORE, SINGLE = "forward pass", "score", "score, one at a time"
REFERENCES = {FORWARD: FORWARD, SCORE: FORWARD, SINGLE: SCORE}
AIMS = {FORWARD: "", SCORE: "at most 3", SINGLE: "at least 4"}
WARMUP = 1


def work(settings: argparse.Namespace) -> Iterator[Piece]:
    return measurement("importance", "importance", settings, lambda: measure(settings))


def measure(settings: argparse.Namespace) -> dict[str, Any]:
    calls, data, scores = prepare(settings)
    asked = {name: getattr(settings, name) for name in OPTIONS}
    variants = time_and_memory(
        "importance", asked, lambda: calls, REFERENCES, warmup=WARMUP, repeats=settings.repeats, environments={"": {}}
    )
    return {
        "model": "minilm",
        "data": data,
        "variants": variants,
        "largest_relative_difference_of_scores": largest_difference(scores[SCORE], scores[SINGLE]),
    }


def prepare(settings: argparse.Namespace) -> tuple[dict[str, Callable[[], None]], str, dict[str, Any]]:
    """Callables by variant, the name of the data, and a dict that receives each variant's scores."""
    import torch
    import transformers

    from prunelora.data.embedded import EMBEDDED_DATA, embedded_model_path
    from prunelora.data.load import load_task
    from prunelora.data.settings import DataSettings
    from prunelora.data.tokens import calibration_batches
    from prunelora.importance.score import score

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    data = f"SST-2 ({SST2.name})" if SST2.exists() else f"{EMBEDDED_DATA} (no {SST2} found)"
    task = load_task(DataSettings(data=str(SST2) if SST2.exists() else EMBEDDED_DATA))
    tokenizer = transformers.AutoTokenizer.from_pretrained(embedded_model_path())
    torch.manual_seed(settings.seed)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(embedded_model_path()).eval()
    batches, single = (
        calibration_batches(task, tokenizer, rows=settings.rows, batch_size=size, seed=settings.seed)
        for size in (settings.batch_size, 1)
    )
    scores: dict[str, Any] = {}

    def forward() -> None:
        with torch.no_grad():
            for batch in batches:
                model(**batch)

    calls = {
        FORWARD: forward,
        SCORE: lambda: scores.update({SCORE: score(model, batches)}),
        SINGLE: lambda: scores.update({SINGLE: score(model, single)}),
    }
    return calls, data, scores


def largest_difference(first: Any, second: Any) -> float:
    """Largest difference of two scores of a unit, as a fraction of the largest score of its layer."""
    pairs = zip((*first.heads, *first.neurons), (*second.heads, *second.neurons), strict=True)
    return float(max((abs(a - b) / abs(b).max()).max() for a, b in pairs))


def pages() -> list[Path]:
    result = read_results("importance")["importance"]
    rows = [
        (
            name,
            spread_text(one["time"], seconds=True),
            "" if name == FORWARD else f"{spread_text(one['time_to_reference'])} of: {one['reference']}",
            AIMS[name],
            f"{one['peak_bytes_above_loaded_model'][''] / 1e6:.1f} MB",
        )
        for name, one in result["variants"].items()
    ]
    table = markdown(("variant", "time", "ratio", "aim", "peak memory above the loaded model"), rows)
    difference = f"{result['largest_relative_difference_of_scores']:.1e}"
    settings = result["settings"]
    return [
        write_page(
            "importance",
            {"table": table, "difference": difference, "where": where([result]), "data": result["data"]}
            | {name: f"{settings[name]:,}" for name in ("rows", "batch_size", "repeats")},
        )
    ]


OPTIONS = {
    "rows": Option(1024, "training rows to score with"),
    "batch_size": Option(32, "rows a batch"),
    "repeats": Option(3, "timed rounds, after one round of warm-up"),
    "seed": Option(0, "seed of the sample and of the task head"),
}
BENCHMARK = Benchmark(
    measures=__doc__,
    work=work,
    pages=pages,
    options=OPTIONS,
    alone=lambda settings, variant: peak_memory(prepare(settings)[0][variant]),
)
