"""Time and memory of scoring, against a plain forward pass and against one example at a time."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.harness import Option, variants_benchmark
from benchmarks.tasks import GLUE

SST2 = GLUE / "sst2" / "train.tsv"
FORWARD, SCORE, SINGLE = "forward pass", "score", "score, one at a time"


def prepare(settings: argparse.Namespace, variants: Sequence[str]) -> dict[str, Callable[[], Any]]:
    import torch
    import transformers

    from prunelora.data.embedded import EMBEDDED_DATA, embedded_model_path
    from prunelora.data.load import load_task
    from prunelora.data.settings import DataSettings
    from prunelora.data.tokens import calibration_batches
    from prunelora.importance.score import score

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    task = load_task(DataSettings(data=str(SST2) if SST2.exists() else EMBEDDED_DATA))
    tokenizer = transformers.AutoTokenizer.from_pretrained(embedded_model_path())
    torch.manual_seed(settings.seed)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(embedded_model_path()).eval()
    batches, single = (
        calibration_batches(task, tokenizer, rows=settings.rows, batch_size=size, seed=settings.seed)
        for size in (settings.batch_size, 1)
    )

    def forward() -> None:
        with torch.no_grad():
            for batch in batches:
                model(**batch)

    calls = {FORWARD: forward, SCORE: lambda: score(model, batches), SINGLE: lambda: score(model, single)}
    return {name: calls[name] for name in variants}


def facts(_: argparse.Namespace, calls: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    """The data, and the largest difference of two scores of a unit, as a fraction of the largest of its layer."""
    first, second = calls[SCORE](), calls[SINGLE]()
    pairs = zip((*first.heads, *first.neurons), (*second.heads, *second.neurons), strict=True)
    return {
        "data": f"SST-2 ({SST2.name})" if SST2.exists() else f"the embedded reviews (no {SST2} found)",
        "largest_relative_difference_of_scores": float(max((abs(a - b) / abs(b).max()).max() for a, b in pairs)),
    }


BENCHMARK = variants_benchmark(
    "importance",
    __doc__,
    prepare,
    lambda _: {FORWARD: FORWARD, SCORE: FORWARD, SINGLE: SCORE},
    {
        "rows": Option(1024, "training rows to score with"),
        "batch_size": Option(32, "rows a batch"),
        "repeats": Option(3, "timed rounds, after one round that is not timed"),
        "seed": Option(0, "seed of the sample and of the task head"),
    },
    warmup=1,
    facts=facts,
    aims={SCORE: "at most 3", SINGLE: "at least 4"},
)
