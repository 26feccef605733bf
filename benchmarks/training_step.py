"""A training step of LoRA: dense and cut, with and without recomputation. Memory, counted and measured, and time.

Counted are weights, gradients, the optimiser and what is kept for the backward pass. Measured is what the process
holds at most above the loaded model, in five steps: with the C library's allocator as it is, which hands memory back
late, and (on Linux) with one that hands every larger block back at once, which shows what steps need and costs time.

python -m benchmarks.training_step [--rows 32] [--tokens 128] [--keep-macs 0.5] [--repeats 15] [--out FILE]
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.resident import peak_above, peak_in_fresh_process

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "training_step.json"

# Whether the model is cut, what is recomputed in the backward pass, and into how many parts the rows are split.
PLAIN, SELECTIVE, LAYERS = "nothing recomputed", "selective recomputation", "gradient checkpointing"
VARIANTS = {
    f"{model}, {way}": (model == "cut", way, 1) for model in ("dense", "cut") for way in (PLAIN, SELECTIVE, LAYERS)
}
# What tune-first does before the cut: half of the rows a step, two steps an update.
HALF = f"dense, {SELECTIVE}, half of the rows"
VARIANTS[HALF] = (False, SELECTIVE, 2)
# The C library's allocator by its variables: as it is, and giving blocks of 1 MiB back as soon as they are free.
ALLOCATORS = {"allocator as it is": {}, "handing back": {"MALLOC_MMAP_THRESHOLD_": str(2**20)}}
STEPS = 5  # Of which the memory is the peak.
REFERENCE = f"dense, {PLAIN}"


def main() -> int:
    arguments = parsed()
    if arguments.memory_of:
        # Nothing of the kind may have run before: memory that it left to the allocator would be used again.
        step, _ = prepared(arguments, arguments.memory_of, count=False)
        print(json.dumps(peak_above(lambda: [step() for _ in range(STEPS)])))
        return 0

    from prunelora.evaluation.machine import describe_machine
    from prunelora.evaluation.timing import interleaved, ratio
    from prunelora.storage import write_json

    # Each in a process of its own, where no other has left anything behind.
    measured = {
        name: {way: peak_in_fresh_process("benchmarks.training_step", name, own) for way, own in ALLOCATORS.items()}
        for name in VARIANTS
    }
    steps, counted = {}, {}
    for name in VARIANTS:
        steps[name], counted[name] = prepared(arguments, name)
    timings = interleaved(steps, warmup=2, repeats=arguments.repeats)
    result = {
        "benchmark": "training_step",
        "model": "minilm",
        "data": "random rows, none padded; cut at random",
        "settings": {
            "rows": arguments.rows,
            "tokens": arguments.tokens,
            "keep_macs": arguments.keep_macs,
            "repeats": arguments.repeats,
            "warmup": 2,
            "seed": 0,
        },
        "steps": {
            name: {
                "counted_bytes": counted[name],
                "peak_bytes_above_loaded_model": measured[name],
                "time": timings[name].to_dict(),
                "time_to_reference": vars(ratio(timings[name], timings[REFERENCE])),
            }
            for name in VARIANTS
        },
        "reference": REFERENCE,
        "machine": describe_machine(),
    }
    write_json(arguments.out, result)
    print_table(result, arguments.out)
    return 0


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training_step", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=32, help="rows a step")
    parser.add_argument("--tokens", type=int, default=128, help="tokens a row")
    parser.add_argument("--keep-macs", type=float, default=0.5, help="share of the MACs that the cut model has")
    parser.add_argument("--repeats", type=int, default=15, help="timed rounds, after two rounds of warm-up")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--memory-of", choices=VARIANTS, help=argparse.SUPPRESS)
    return parser.parse_args()


def prepared(arguments: argparse.Namespace, name: str, *, count: bool = True) -> tuple[Callable[[], None], int | None]:
    """What takes one step, and the bytes that are counted of it; None where layers are checkpointed.

    What a checkpointed layer needs while it is computed again is not seen in the forward pass, so it is not counted.
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
    rows = arguments.rows // parts
    torch.manual_seed(0)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(embedded_model_path())
    budget = {"keep_macs": arguments.keep_macs} if cut else {}
    scores = pl.score(model, [random_batch(model, rows=2, tokens=8)], criterion="random")
    plan = pl.make_plan(scores, targets=PROJECTIONS, rank_high=8, rank_low=8, **budget)
    trained = pl.add_adapter(pl.prune_(model, plan), plan)
    settings = FineTuneSettings(batch_size=rows, selective_recomputation=way == SELECTIVE, gradient_checkpointing=False)
    if way == LAYERS:
        trained.enable_input_require_grads()
        trained.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    for module in trained.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    counted = None if way == LAYERS or not count else step_memory(trained, settings, tokens=arguments.tokens).total
    batch = random_batch(trained, rows=rows, tokens=arguments.tokens)
    return training_step(trained, [batch], settings), counted


def print_table(result: dict[str, Any], out: Path) -> None:
    settings, machine = result["settings"], result["machine"]
    print(
        f"{result['model']}, {settings['rows']} rows of {settings['tokens']} tokens, keep_macs {settings['keep_macs']}"
    )
    print(f"{machine['cpu']}, {machine['threads']} threads, torch {machine['versions']['torch']}\n")
    print("\n".join(table(result)))
    print(f"\n{out}")


def table(result: dict[str, Any]) -> list[str]:
    """As in docs/finetuning.md."""
    lines = [
        f"| step | counted | peak, {' | peak, '.join(ALLOCATORS)} | time, of the first |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, step in result["steps"].items():
        counted = _megabytes(step["counted_bytes"]) if step["counted_bytes"] else "not counted"
        peaks = " | ".join(_megabytes(step["peak_bytes_above_loaded_model"][way]) for way in ALLOCATORS)
        share = step["time_to_reference"]
        lines.append(
            f"| {name} | {counted} | {peaks} | {share['median']:.2f} ({share['q25']:.2f} to {share['q75']:.2f}) |"
        )
    return lines


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"


if __name__ == "__main__":
    sys.exit(main())
