"""Memory and time of repair of MiniLM at half of its heads and neurons, by the number of calibration rows."""

import argparse
import copy
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.harness import Option, variants_benchmark

BATCH_SIZE = 32
MIB = 1024**2


def prepare(settings: argparse.Namespace, variants: Sequence[str]) -> dict[str, Callable[[], Any]]:
    """A repair for each number of rows."""
    import torch
    import transformers

    import prunelora as pl
    from prunelora.data.embedded import embedded_model_path
    from prunelora.pruning import repair

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    repair.MOST_BYTES = settings.most_mib * MIB
    torch.manual_seed(0)
    dense = transformers.AutoModelForSequenceClassification.from_pretrained(embedded_model_path()).eval()
    plan = pl.make_plan(pl.score(dense, criterion="magnitude"), keep_heads=0.5, keep_ffn=0.5)
    pruned = pl.prune_(copy.deepcopy(dense), plan)
    counts = [int(name) for name in variants]
    ids = torch.randint(1000, 20_000, (max(counts), settings.tokens), generator=torch.Generator().manual_seed(0))

    def repair_with(count: int) -> Callable[[], object]:
        batches = [
            {"input_ids": part, "attention_mask": torch.ones_like(part)} for part in ids[:count].split(BATCH_SIZE)
        ]
        return lambda: repair.repair_(pruned, dense, batches)

    return {str(count): repair_with(count) for count in counts}


BENCHMARK = variants_benchmark(
    "repair_memory",
    __doc__,
    prepare,
    lambda settings: {str(rows): str(settings.rows[0]) for rows in settings.rows},
    {
        "rows": Option((128, 256), "calibration rows, joined by commas, fewest first"),
        "tokens": Option(64, "tokens a row"),
        "most_mib": Option(4, "MiB of hidden states that repair holds in memory"),
        "repeats": Option(5, "timed rounds"),
    },
    warmup=0,
    facts=lambda settings, _: {
        "batch_size": BATCH_SIZE,
        "hidden_state_mib": {str(rows): rows * settings.tokens * 384 * 4 / MIB for rows in settings.rows},
    },
)
