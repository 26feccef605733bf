"""The latency model of this device against models that were really cut: predicted and measured ratio to the dense one.

python -m benchmarks.latency [--engine torch ...] [--size 1x128 ...] [--seeds 3] [--repeats 25] [--out FOLDER] [--again]

Every engine and size has a file of its own, ENGINE-SIZE.json, written when it is measured; what has one is not measured
again, but for --again.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

ENGINES = ("torch", "onnxruntime")
SIZES = ("1x32", "1x128", "32x128")
KEEP = (0.75, 0.5, 0.35, 0.2)
DENSE = "dense"
MOST_ERROR_PERCENT = 10.0
# What a result depends on, beside its engine and size.
_OF_A_RESULT = ("keep", "seeds", "threads", "repeats", "warmup", "max_seconds")


def main() -> int:
    arguments = parsed()

    import torch
    import transformers

    from prunelora.data.embedded import model_source
    from prunelora.evaluation.machine import describe_machine
    from prunelora.models.loading import load_pretrained
    from prunelora.storage import write_json

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    model = load_pretrained(
        model_source(arguments.model), label_names=["no", "yes"], problem_type="single_label_classification"
    ).eval()
    plans = uneven_plans(model, arguments.keep, arguments.seeds)
    settings = {name: getattr(arguments, name) for name in ("model", *_OF_A_RESULT)}
    results = []
    for engine in arguments.engine:
        runners: dict[str, Callable[[dict[str, Any]], object]] = {}
        for batch_size, tokens in arguments.size:
            path = arguments.out / f"{engine}-{batch_size}x{tokens}.json"
            if path.exists() and not arguments.again:
                found = json.loads(path.read_text(encoding="utf-8"))
            else:
                # Built once an engine: an export takes longer than all timing of it.
                runners = runners or {DENSE: runner(model, engine)} | {
                    name: runner(cut(model, plan), engine) for name, plan in plans
                }
                found = compared(model, dict(plans), runners, engine, batch_size, tokens, arguments)
                found |= {"settings": settings, "machine": describe_machine()}
                write_json(path, found)
            print_table(found)
            results.append(found)
    worst = max(one["worst_error_percent"] for one in results)
    print(f"\nworst error {worst:.1f} %, target at most {MOST_ERROR_PERCENT:g} %\n\n{arguments.out}")
    return 0


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="minilm", help="folder, hub name, or minilm")
    parser.add_argument("--engine", nargs="+", choices=ENGINES, default=ENGINES, help="what runs the models")
    parser.add_argument(
        "--size", nargs="+", type=size, default=[size(one) for one in SIZES], help="batch size x tokens, such as 1x128"
    )
    parser.add_argument("--keep", nargs="+", type=float, default=KEEP, help="fractions of heads and neurons that stay")
    parser.add_argument("--seeds", type=int, default=3, help="random plans for every fraction")
    parser.add_argument("--threads", type=int, help="threads of the CPU; torch's own number if not given")
    parser.add_argument("--repeats", type=int, default=25, help="timed rounds at most")
    parser.add_argument("--warmup", type=int, default=3, help="rounds before the clock counts")
    parser.add_argument("--max-seconds", type=float, default=60.0, help="of timed rounds, though never fewer than five")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "latency", help="folder")
    parser.add_argument("--again", action="store_true", help="measure also what has a result")
    return parser.parse_args()


def size(text: str) -> tuple[int, int]:
    batch_size, _, tokens = text.partition("x")
    return int(batch_size), int(tokens)


def uneven_plans(model: Any, keep: list[float], seeds: int) -> list[tuple[str, Any]]:
    """Plans by name. Layers matter differently here, some little enough to lose all they have."""
    import numpy as np

    from prunelora.importance.importance import Importance
    from prunelora.models.anatomy import dissect
    from prunelora.planning.make_plan import make_plan

    lineage = dissect(model).lineage
    base = lineage.base

    def scores(random: np.random.Generator, counts: tuple[int, ...]) -> tuple[np.ndarray, ...]:
        return tuple(random.lognormal(0, 0.7) * random.random(count) for count in counts)

    plans = []
    for fraction in keep:
        for seed in range(seeds):
            random = np.random.default_rng([seed, round(1000 * fraction)])
            importance = Importance(scores(random, base.num_heads), scores(random, base.num_neurons), lineage)
            plan = make_plan(importance, keep_heads=float(fraction), keep_ffn=float(fraction), normalise="none")
            plans.append((f"keep {fraction:g}, seed {seed}", plan))
    return plans


def cut(model: Any, plan: Any) -> Any:
    from prunelora.evaluation.latency_cuts import cut_copy

    return cut_copy(model, plan)


def runner(model: Any, engine: str) -> Callable[[dict[str, Any]], object]:
    """What takes inputs and does a forward pass."""
    import torch

    from prunelora.delivery.onnx import export, run, session

    if engine == "torch":
        return lambda inputs: model(**inputs)
    with tempfile.TemporaryDirectory() as folder:
        path = export(model, Path(folder) / "model.onnx")
        return partial(run, session(path, threads=torch.get_num_threads()))


def compared(
    model: Any,
    plans: dict[str, Any],
    runners: dict[str, Callable[[dict[str, Any]], object]],
    engine: str,
    batch_size: int,
    tokens: int,
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    """Predicted beside measured, for one engine and size."""
    import time

    import torch

    from prunelora.evaluation.latency_model import LatencySettings
    from prunelora.evaluation.latency_sweep import measure_latency_model
    from prunelora.evaluation.timing import interleaved, ratio
    from prunelora.models.inputs import random_inputs

    rounds = {"repeats": arguments.repeats, "warmup": arguments.warmup, "max_seconds": arguments.max_seconds}
    start = time.perf_counter()
    latency = measure_latency_model(
        model, LatencySettings(engine=engine, batch_size=batch_size, tokens=tokens), **rounds
    )
    seconds = time.perf_counter() - start
    generator = torch.Generator().manual_seed(1)
    inputs = random_inputs(model, batch_size=batch_size, tokens=tokens, generator=generator)
    with torch.inference_mode():
        timings = interleaved({name: partial(run, inputs) for name, run in runners.items()}, **rounds)
    rows = []
    for name, plan in plans.items():
        found = ratio(timings[name], timings[DENSE])
        predicted = latency.predict(plan.architecture) / latency.dense_ms
        rows.append(
            {
                "name": name,
                "heads": plan.architecture.num_heads,
                "neurons": plan.architecture.num_neurons,
                "predicted_ratio": predicted,
                "measured_ratio": vars(found),
                "error_percent": 100 * (predicted / found.median - 1),
            }
        )
    return {
        "engine": engine,
        "batch_size": batch_size,
        "tokens": tokens,
        "seconds_for_the_latency_model": seconds,
        "latency_model": latency.model_dump(mode="json", exclude={"architecture", "machine"}),
        "dense_ms": timings[DENSE].to_dict(),
        "rows": rows,
        "worst_error_percent": max(abs(row["error_percent"]) for row in rows),
    }


def print_table(result: dict[str, Any]) -> None:
    print(
        f"\n{result['engine']}, {result['batch_size']} x {result['tokens']} tokens: dense "
        f"{result['dense_ms']['median_ms']:.1f} ms, latency model of {len(result['latency_model']['points'])} points "
        f"in {result['seconds_for_the_latency_model']:.0f} s, worst error {result['worst_error_percent']:.1f} %"
    )
    print(f"{'':<22}{'predicted / dense':>18}{'measured / dense (quartiles)':>34}{'error':>10}")
    for row in result["rows"]:
        found = row["measured_ratio"]
        shown = f"{found['median']:.3f} ({found['q25']:.3f} to {found['q75']:.3f})"
        print(f"{row['name']:<22}{row['predicted_ratio']:>18.3f}{shown:>34}{row['error_percent']:>8.1f} %")


if __name__ == "__main__":
    sys.exit(main())
