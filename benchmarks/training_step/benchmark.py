"""Time and memory of a training step of LoRA on MiniLM, dense and cut, with and without recomputation."""

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

PLAIN, SELECTIVE, LAYERS = "nothing recomputed", "selective recomputation", "gradient checkpointing"
# Whether the model is cut, what the backward pass recomputes, and into how many parts a batch is split.
VARIANTS = {
    f"{model}, {way}": (model == "cut", way, 1) for model in ("dense", "cut") for way in (PLAIN, SELECTIVE, LAYERS)
}
HALF = f"dense, {SELECTIVE}, half of the rows"  # tune-first before its cut: two such steps an update.
VARIANTS[HALF] = (False, SELECTIVE, 2)
REFERENCE = f"dense, {PLAIN}"
# The C library's allocator returns memory late; with the variable it returns blocks of 1 MiB at once.
ALLOCATORS = {"allocator as it is": {}, "handing back": {"MALLOC_MMAP_THRESHOLD_": str(2**20)}}
STEPS = 5  # Steps whose peak memory is measured.
WARMUP = 2


def work(settings: argparse.Namespace) -> Iterator[Piece]:
    return measurement("training_step", "training_step", settings, lambda: measure(settings))


def measure(settings: argparse.Namespace) -> dict[str, Any]:
    # No step may run before the memory is counted: the allocator would use its memory again.
    prepared = {name: prepare(settings, name, count=True) for name in VARIANTS}
    variants = time_and_memory(
        "training_step",
        {name: getattr(settings, name) for name in OPTIONS},
        lambda: {name: step for name, (step, _) in prepared.items()},
        dict.fromkeys(VARIANTS, REFERENCE),
        warmup=WARMUP,
        repeats=settings.repeats,
        environments=ALLOCATORS,
    )
    return {
        "model": "minilm",
        "data": "random rows, none padded; cut at random",
        "variants": {name: {"counted_bytes": prepared[name][1], **one} for name, one in variants.items()},
    }


def prepare(settings: argparse.Namespace, name: str, *, count: bool) -> tuple[Callable[[], None], int | None]:
    """A function that takes one step, and the counted bytes of the step.

    None is counted with gradient checkpointing: the forward pass does not show what a layer needs while it is
    recomputed.
    """
    import torch
    import transformers

    import prunelora as pl
    from prunelora.data.embedded import embedded_model_path
    from prunelora.evaluation.training_cost import step_memory
    from prunelora.evaluation.training_step import random_batch, training_step
    from prunelora.finetuning.settings import FineTuneSettings
    from prunelora.models.family import PROJECTIONS

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    cut, way, parts = VARIANTS[name]
    rows = settings.rows // parts
    torch.manual_seed(0)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(embedded_model_path())
    budget = {"keep_macs": settings.keep_macs} if cut else {}
    scores = pl.score(model, [random_batch(model, rows=2, tokens=8)], criterion="random")
    plan = pl.make_plan(scores, targets=PROJECTIONS, rank_high=8, rank_low=8, **budget)
    model = pl.add_adapter(pl.prune_(model, plan), plan)
    tuning = FineTuneSettings(batch_size=rows, selective_recomputation=way == SELECTIVE, gradient_checkpointing=False)
    if way == LAYERS:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    counted = step_memory(model, tuning, tokens=settings.tokens).total if count and way != LAYERS else None
    return training_step(model, [random_batch(model, rows=rows, tokens=settings.tokens)], tuning), counted


def memory_of(settings: argparse.Namespace, name: str) -> int:
    step, _ = prepare(settings, name, count=False)
    return peak_memory(lambda: [step() for _ in range(STEPS)])


def table(result: dict[str, Any]) -> str:
    """The table of the page, which docs/finetuning.md shows too."""
    columns = ("step", "counted", *(f"peak, {name}" for name in ALLOCATORS), "time, of the first")
    return markdown(
        columns,
        [
            (
                name,
                megabytes(one["counted_bytes"]) if one["counted_bytes"] else "not counted",
                *(megabytes(one["peak_bytes_above_loaded_model"][allocator]) for allocator in ALLOCATORS),
                spread_text(one["time_to_reference"]),
            )
            for name, one in result["variants"].items()
        ],
    )


def megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"


def pages() -> list[Path]:
    result = read_results("training_step")["training_step"]
    settings = {name: str(value) for name, value in result["settings"].items()}
    return [write_page("training_step", {"table": table(result), "where": where([result])} | settings)]


OPTIONS = {
    "rows": Option(32, "rows a step"),
    "tokens": Option(128, "tokens a row"),
    "keep_macs": Option(0.5, "MACs of the cut model, as a fraction of the dense model's"),
    "repeats": Option(15, "timed rounds, after two rounds of warm-up"),
}
BENCHMARK = Benchmark(measures=__doc__, work=work, pages=pages, options=OPTIONS, alone=memory_of)
