"""Memory and time of repair of MiniLM at half of its heads and neurons, by the number of calibration rows."""

import argparse
import copy
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

BATCH_SIZE = 32
MIB = 1024**2


def work(settings: argparse.Namespace) -> Iterator[Piece]:
    return measurement("repair_memory", "repair_memory", settings, lambda: measure(settings))


def measure(settings: argparse.Namespace) -> dict[str, Any]:
    fewest = str(settings.rows[0])
    variants = time_and_memory(
        "repair_memory",
        {name: getattr(settings, name) for name in OPTIONS},
        lambda: prepare(settings, settings.rows),
        {str(rows): fewest for rows in settings.rows},
        warmup=0,
        repeats=settings.repeats,
        environments={"": {}},
    )
    states = {str(rows): rows * settings.tokens * 384 * 4 / MIB for rows in settings.rows}
    return {
        "model": "minilm, half of its heads and neurons",
        "batch_size": BATCH_SIZE,
        "variants": {name: {"hidden_state_mib": states[name], **one} for name, one in variants.items()},
    }


def prepare(settings: argparse.Namespace, rows: tuple[int, ...]) -> dict[str, Callable[[], object]]:
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
    ids = torch.randint(1000, 20_000, (max(rows), settings.tokens), generator=torch.Generator().manual_seed(0))

    def repair_with(count: int) -> Callable[[], object]:
        batches = [
            {"input_ids": part, "attention_mask": torch.ones_like(part)} for part in ids[:count].split(BATCH_SIZE)
        ]
        return lambda: repair.repair_(pruned, dense, batches)

    return {str(count): repair_with(count) for count in rows}


def pages() -> list[Path]:
    result = read_results("repair_memory")["repair_memory"]
    variants = result["variants"]
    first = next(iter(variants.values()))
    rows = [
        (
            name,
            f"{one['hidden_state_mib']:.0f} MiB",
            f"{one['peak_bytes_above_loaded_model'][''] / MIB:.0f} MiB",
            f"{one['peak_bytes_above_loaded_model'][''] / first['peak_bytes_above_loaded_model']['']:.2f}",
            spread_text(one["time"], seconds=True),
            spread_text(one["time_to_reference"]),
        )
        for name, one in variants.items()
    ]
    columns = ("rows", "one hidden state of all rows", "peak memory", "of the first", "time", "of the first")
    settings = {name: str(result["settings"][name]) for name in ("tokens", "most_mib", "repeats")}
    return [write_page("repair_memory", {"table": markdown(columns, rows), "where": where([result])} | settings)]


OPTIONS = {
    "rows": Option((128, 256), "calibration rows, joined by commas, fewest first"),
    "tokens": Option(64, "tokens a row"),
    "most_mib": Option(4, "MiB of hidden states that repair holds in memory"),
    "repeats": Option(5, "timed rounds"),
}
BENCHMARK = Benchmark(
    measures=__doc__,
    work=work,
    pages=pages,
    options=OPTIONS,
    alone=lambda settings, rows: peak_memory(prepare(settings, (int(rows),))[rows]),
)
