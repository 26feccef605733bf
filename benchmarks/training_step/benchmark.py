"""Time and memory of a training step of LoRA on MiniLM, dense and cut, with and without recomputation."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.harness import Option, variants_benchmark

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


def adapted(settings: argparse.Namespace, name: str) -> tuple[Any, Any]:
    """The model of a variant with its adapter, and the settings of its fine-tuning."""
    import torch
    import transformers

    import prunelora as pl
    from prunelora.data.embedded import embedded_model_path
    from prunelora.evaluation.training_step import random_batch
    from prunelora.finetuning.settings import FineTuneSettings
    from prunelora.models.family import PROJECTIONS

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    cut, way, parts = VARIANTS[name]
    torch.manual_seed(0)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(embedded_model_path())
    budget = {"keep_macs": settings.keep_macs} if cut else {}
    scores = pl.score(model, [random_batch(model, rows=2, tokens=8)], criterion="random")
    plan = pl.make_plan(scores, targets=PROJECTIONS, rank_high=8, rank_low=8, **budget)
    model = pl.add_adapter(pl.prune_(model, plan), plan)
    if way == LAYERS:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    recomputation = {"selective_recomputation": way == SELECTIVE, "gradient_checkpointing": False}
    return model, FineTuneSettings(batch_size=settings.rows // parts, **recomputation)


def prepare(settings: argparse.Namespace, variants: Sequence[str]) -> dict[str, Callable[[], Any]]:
    from prunelora.evaluation.training_step import random_batch, training_step

    models = {name: adapted(settings, name) for name in variants}
    return {
        name: training_step(model, [random_batch(model, rows=tuning.batch_size, tokens=settings.tokens)], tuning)
        for name, (model, tuning) in models.items()
    }


def facts(settings: argparse.Namespace, _: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    """The counted bytes of a step; None with gradient checkpointing, whose recomputed layers the count does not see."""
    from prunelora.evaluation.training_cost import step_memory

    def count(name: str) -> int | None:
        model, tuning = adapted(settings, name)
        return None if LAYERS in name else step_memory(model, tuning, tokens=settings.tokens).total

    data = "random rows, none padded; cut at random"
    return {"data": data, "counted_bytes": {name: count(name) for name in VARIANTS}}


BENCHMARK = variants_benchmark(
    "training_step",
    __doc__,
    prepare,
    lambda _: dict.fromkeys(VARIANTS, REFERENCE),
    {
        "rows": Option(32, "rows a step"),
        "tokens": Option(128, "tokens a row"),
        "keep_macs": Option(0.5, "MACs of the cut model, as a fraction of the dense model's"),
        "repeats": Option(15, "timed rounds, after two rounds that are not timed"),
    },
    warmup=2,
    memory_calls=5,
    environments=ALLOCATORS,
    facts=facts,
)
