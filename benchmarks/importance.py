"""Scoring against a plain forward pass and against one example at a time: time and peak memory.

python -m benchmarks.importance [--rows 1024] [--batch-size 32] [--repeats 5] [--out FILE]
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.resident import peak_above, peak_in_fresh_process
from benchmarks.tasks import GLUE

ROOT = Path(__file__).resolve().parents[1]
SST2 = GLUE / "sst2" / "train.tsv"

FORWARD, SCORE, SINGLE = "forward pass", "score", "score, one at a time"
VARIANTS = (FORWARD, SCORE, SINGLE)
MOST_OVER_FORWARD = 3.0
LEAST_OVER_SINGLE = 4.0


def main() -> int:
    arguments = parsed()
    if arguments.memory_of:
        print(json.dumps(peak_memory(arguments)))
        return 0

    from prunelora.evaluation.machine import describe_machine
    from prunelora.evaluation.timing import interleaved, ratio
    from prunelora.storage import write_json

    # Every variant's memory in a process of its own, where no other variant has left anything behind.
    memory = {name: peak_in_fresh_process("benchmarks.importance", name) for name in VARIANTS}
    calls, data, results = prepared(arguments)
    timings = interleaved(calls, warmup=1, repeats=arguments.repeats)
    over_forward, over_score = ratio(timings[SCORE], timings[FORWARD]), ratio(timings[SINGLE], timings[SCORE])
    result = {
        "benchmark": "importance",
        "model": "minilm",
        "data": data,
        "settings": {
            "rows": arguments.rows,
            "batch_size": arguments.batch_size,
            "repeats": arguments.repeats,
            "warmup": 1,
            "seed": arguments.seed,
        },
        "times": {name: timing.to_dict() for name, timing in timings.items()},
        "score_over_forward": vars(over_forward) | {"target_at_most": MOST_OVER_FORWARD},
        "one_at_a_time_over_score": vars(over_score) | {"target_at_least": LEAST_OVER_SINGLE},
        "largest_relative_difference_of_scores": largest_difference(results[SCORE], results[SINGLE]),
        "peak_memory_bytes_above_loaded_model": memory,
        "machine": describe_machine(),
    }
    write_json(arguments.out, result)
    print_table(result, arguments.out)
    return 0


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.importance", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1024, help="training rows to score with")
    parser.add_argument("--batch-size", type=int, default=32, help="rows a batch")
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds, after one round of warm-up")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample and of the task head")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "importance.json")
    parser.add_argument("--memory-of", choices=VARIANTS, help=argparse.SUPPRESS)
    return parser.parse_args()


def prepared(arguments: argparse.Namespace) -> tuple[dict[str, Callable[[], None]], str, dict[str, Any]]:
    """Callables by variant, what data they run on, and a dict that holds each variant's last scores."""
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
    torch.manual_seed(arguments.seed)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(embedded_model_path()).eval()

    def batches(size: int) -> list[dict[str, torch.Tensor]]:
        return calibration_batches(task, tokenizer, rows=arguments.rows, batch_size=size, seed=arguments.seed)

    many, single = batches(arguments.batch_size), batches(1)
    results: dict[str, Any] = {}

    def forward() -> None:
        with torch.no_grad():
            for batch in many:
                model(**batch)

    def scored(name: str, batches: list[dict[str, torch.Tensor]]) -> Callable[[], None]:
        def run() -> None:
            results[name] = score(model, batches)

        return run

    return {FORWARD: forward, SCORE: scored(SCORE, many), SINGLE: scored(SINGLE, single)}, data, results


def largest_difference(first: Any, second: Any) -> float:
    pairs = zip((*first.heads, *first.neurons), (*second.heads, *second.neurons), strict=True)
    return float(max((abs(a - b) / abs(b).max()).max() for a, b in pairs))


def peak_memory(arguments: argparse.Namespace) -> int:
    """Peak resident bytes of one variant above what the process holds once everything is loaded."""
    calls, _, _ = prepared(arguments)
    return peak_above(calls[arguments.memory_of])


def print_table(result: dict[str, Any], out: Path) -> None:
    settings, machine = result["settings"], result["machine"]
    print(
        f"{result['model']}, {result['data']}, {settings['rows']} rows, batch {settings['batch_size']}, "
        f"seed {settings['seed']}"
    )
    print(f"{machine['cpu']}, {machine['threads']} threads, torch {machine['versions']['torch']}\n")
    print(f"{'':<24}{'median':>10}{'quartiles':>20}{'peak memory':>14}")
    for name, timing in result["times"].items():
        quartiles = f"{timing['q25_ms'] / 1000:.2f} to {timing['q75_ms'] / 1000:.2f}"
        peak = result["peak_memory_bytes_above_loaded_model"][name] / 1e6
        print(f"{name:<24}{timing['median_ms'] / 1000:>8.2f} s{quartiles:>20}{peak:>11.1f} MB")
    first, second = result["score_over_forward"], result["one_at_a_time_over_score"]
    print(f"\nscore / forward pass:         {shown(first)}, target at most {first['target_at_most']:g}")
    print(f"one at a time / score:        {shown(second)}, target at least {second['target_at_least']:g}")
    print(f"scores differ by at most:     {result['largest_relative_difference_of_scores']:.1e} of the layer's largest")
    print(f"\n{out}")


def shown(spread: dict[str, float]) -> str:
    return f"{spread['median']:.2f} ({spread['q25']:.2f} to {spread['q75']:.2f})"


if __name__ == "__main__":
    sys.exit(main())
