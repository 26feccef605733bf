"""Predictions of the latency model of this device, against models that were really cut."""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

from benchmarks import harness

ENGINES = ("torch", "onnxruntime")
SIZES = ("1x32", "1x128", "32x128")
DENSE = "dense"
MOST_ERROR_PERCENT = 10.0
WARMUP = 3


def work(settings: argparse.Namespace) -> Iterator[harness.Piece]:
    for engine in settings.engines:
        for size in settings.sizes:
            yield from harness.measurement(
                "latency",
                f"{engine}-{size}",
                settings,
                lambda engine=engine, size=size: measure(settings, engine, *map(int, size.split("x"))),
            )


def measure(settings: argparse.Namespace, engine: str, batch_size: int, tokens: int) -> dict[str, Any]:
    """Predicted beside measured ratios for one engine and size."""
    import torch

    from prunelora.evaluation.latency_sweep import measure_latency_model
    from prunelora.evaluation.timing import interleaved, ratio
    from prunelora.models.inputs import random_inputs
    from prunelora.planning.latency_model import LatencySettings

    model, plans, runners = prepare(settings.model, settings.keep, settings.seeds, engine)
    rounds = {"repeats": settings.repeats, "warmup": WARMUP, "max_seconds": settings.max_seconds}
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
        measured = ratio(timings[name], timings[DENSE])
        prediction = latency.predict(plan.architecture) / latency.dense_ms
        rows.append(
            {
                "name": name,
                "heads": plan.architecture.num_heads,
                "neurons": plan.architecture.num_neurons,
                "predicted_ratio": prediction,
                "measured_ratio": vars(measured),
                "error_percent": 100 * (prediction / measured.median - 1),
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


@cache  # An export takes longer than the timing of its sizes.
def prepare(
    name: str, keep: tuple[float, ...], seeds: int, engine: str
) -> tuple[Any, dict[str, Any], dict[str, Callable[[dict[str, Any]], object]]]:
    """The dense model, plans by name, and a forward pass of the dense model and of every cut one."""
    import numpy as np
    import torch
    import transformers

    from prunelora.data.embedded import model_source
    from prunelora.delivery.onnx import export, run, session
    from prunelora.evaluation.latency_cuts import cut_copy
    from prunelora.importance.importance import Importance
    from prunelora.models.anatomy import dissect
    from prunelora.models.loading import load_pretrained
    from prunelora.planning.make_plan import make_plan

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    problem = {"label_names": ["no", "yes"], "problem_type": "single_label_classification"}
    model = load_pretrained(model_source(name), **problem).eval()
    lineage = dissect(model).lineage

    def scores(random: np.random.Generator, counts: tuple[int, ...]) -> tuple[np.ndarray, ...]:
        # Layers differ so much that some lose all their units.
        return tuple(random.lognormal(0, 0.7) * random.random(count) for count in counts)

    def forward(cut: Any) -> Callable[[dict[str, Any]], object]:
        if engine == "torch":
            return lambda inputs: cut(**inputs)
        with tempfile.TemporaryDirectory() as folder:
            return partial(run, session(export(cut, Path(folder) / "model.onnx"), threads=torch.get_num_threads()))

    plans = {}
    for fraction in keep:
        for seed in range(seeds):
            random = np.random.default_rng([seed, round(1000 * fraction)])
            heads, neurons = scores(random, lineage.base.num_heads), scores(random, lineage.base.num_neurons)
            plans[f"keep {fraction:g}, seed {seed}"] = make_plan(
                Importance(heads, neurons, lineage), keep_heads=fraction, keep_ffn=fraction, normalise="none"
            )
    runners = {DENSE: forward(model)} | {name: forward(cut_copy(model, plan)) for name, plan in plans.items()}
    return model, plans, runners


def pages() -> list[Path]:
    results = harness.read_results("latency")
    overview = [
        (
            one["engine"],
            f"{one['batch_size']} x {one['tokens']}",
            f"{one['dense_ms']['median_ms']:.1f} ms",
            f"{len(one['latency_model']['points'])}",
            f"{one['seconds_for_the_latency_model']:.0f} s",
            f"{one['worst_error_percent']:.1f} %",
        )
        for one in results.values()
    ]
    rows = [
        (
            f"{one['engine']}, {one['batch_size']} x {one['tokens']}",
            row["name"],
            f"{row['predicted_ratio']:.3f}",
            harness.spread_text(row["measured_ratio"]),
            f"{row['error_percent']:.1f} %",
        )
        for one in results.values()
        for row in one["rows"]
    ]
    texts = {
        "overview": harness.markdown(
            ("engine", "size", "dense", "points of the latency model", "time to measure it", "largest error"), overview
        ),
        "rows": harness.markdown(("engine, size", "cut model", "predicted / dense", "measured / dense", "error"), rows),
        "worst": f"{max(one['worst_error_percent'] for one in results.values()):.1f}",
        "aim": f"{MOST_ERROR_PERCENT:g}",
        "where": harness.where(results.values()),
    }
    return [harness.write_page("latency", texts)]


BENCHMARK = harness.Benchmark(
    measures=__doc__,
    work=work,
    pages=pages,
    options={
        "model": harness.Option("minilm", "folder, hub name, or minilm"),
        "engines": harness.Option(ENGINES, "engines, joined by commas", ENGINES),
        "sizes": harness.Option(SIZES, "batch size x tokens, joined by commas"),
        "keep": harness.Option((0.75, 0.5, 0.35, 0.2), "fractions of heads and neurons that stay"),
        "seeds": harness.Option(3, "random plans for every fraction"),
        "repeats": harness.Option(25, "timed rounds at most"),
        "max_seconds": harness.Option(60.0, "seconds of timed rounds, though never fewer than five rounds"),
    },
)
