"""Costs of a model beside the model that it came from: parameters, MACs, memory and latency."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from prunelora.delivery import onnx as onnx_delivery
from prunelora.errors import MeasureError, UnsupportedModelError, check_count
from prunelora.evaluation.counting import ParameterCount, macs, parameters, weight_bytes
from prunelora.evaluation.machine import describe_machine
from prunelora.evaluation.memory import saved_for_backward_bytes
from prunelora.evaluation.timing import Spread, Timing, interleaved, ratio
from prunelora.models.device import device_of, on_device
from prunelora.models.inputs import image_tokens, longest_input, random_inputs, reads_images
from prunelora.models.problem_types import BY_TOKEN, MULTI_LABEL, REGRESSION, problem_type_of
from prunelora.models.state import left_as_found

DEFAULT_SIZES = ((1, 32), (1, 128), (32, 32), (32, 128))
MACS_TOKENS = 128
ENGINES = ("torch", "onnxruntime")


@dataclass(frozen=True)
class Cost:
    """Costs that do not depend on the clock.

    Attributes:
        parameters: Parameters by place.
        macs: MACs of the blocks, for one example of 128 tokens, or one image.
        weight_bytes: Memory of the parameters.
        saved_for_backward_bytes: Memory that autograd keeps in a training step of all weights; None if not counted.
    """

    parameters: ParameterCount
    macs: int
    weight_bytes: int
    saved_for_backward_bytes: int | None


@dataclass(frozen=True)
class Latency:
    """Time of one forward pass without padding; `ratio` is model over base, round by round: 0.5 is twice as fast."""

    engine: str
    batch_size: int
    tokens: int
    model: Timing
    base: Timing | None
    ratio: Spread | None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "engine": self.engine,
            "batch_size": self.batch_size,
            "tokens": self.tokens,
            "model": self.model.to_dict(),
            "base": self.base.to_dict() if self.base else None,
            "ratio": asdict(self.ratio) if self.ratio else None,
        }


@dataclass(frozen=True)
class Measurement:
    """Costs of a model, and of its base if one was given; a latency for every engine and size."""

    model: Cost
    base: Cost | None
    latencies: tuple[Latency, ...]
    settings: dict[str, Any]
    machine: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "model": asdict(self.model),
            "base": asdict(self.base) if self.base else None,
            "latencies": [latency.to_dict() for latency in self.latencies],
            "settings": self.settings,
            "machine": self.machine,
        }

    def __str__(self) -> str:
        """Two tables: sizes, and latencies with their ratios."""
        machine, versions = self.machine, self.machine["versions"]
        rows: list[tuple[str, ...]] = [("", "base", "model", "model/base")]
        for title, cost_of, unit in (
            ("parameters", lambda cost: cost.parameters.total, ""),
            ("parameters in heads and neurons", lambda cost: cost.parameters.blocks, ""),
            (f"MACs of the blocks, {self.settings['macs_tokens']} tokens", lambda cost: cost.macs, ""),
            ("weights", lambda cost: cost.weight_bytes, "MB"),
            ("saved for backward, all trained", lambda cost: cost.saved_for_backward_bytes, "MB"),
        ):
            model, base = cost_of(self.model), cost_of(self.base) if self.base else None
            if model is not None:
                texts = (
                    "" if value is None else f"{value / 1e6:,.1f} MB" if unit else f"{value:,}"
                    for value in (base, model)
                )
                rows.append((title, *texts, f"{model / base:.3f}" if base else ""))
        rows += [("",) * 4, ("latency, median of rounds", "base", "model", "model/base (quartiles)")]
        for latency in self.latencies:
            title = f"{latency.engine}, {latency.batch_size} x {latency.tokens} tokens"
            times = ("" if timing is None else f"{timing.median_ms:.1f} ms" for timing in (latency.base, latency.model))
            ratio = latency.ratio
            rows.append((title, *times, f"{ratio.median:.3f} ({ratio.q25:.3f} to {ratio.q75:.3f})" if ratio else ""))
        first = (
            f"{machine['device']}, {machine['cpu']}, {machine['threads']} threads, "
            f"torch {versions['torch']}, onnxruntime {versions['onnxruntime']}"
        )
        lines = (f"{title:<34}{base:>16}{model:>16}  {share}".rstrip() for title, base, model, share in rows)
        return "\n".join([first, "", *lines])


def measure(
    model: nn.Module,
    *,
    base: nn.Module | None = None,
    onnx: Path | str | None = None,
    base_onnx: Path | str | None = None,
    sizes: Sequence[tuple[int, int]] | None = None,
    warmup: int = 3,
    repeats: int = 15,
    max_seconds: float = 4.0,
    training_batch_size: int = 32,
    training_tokens: int = 128,
    seed: int = 0,
) -> Measurement:
    """Count and time a model, beside the model that it came from.

    All timings of one size, in torch and in onnxruntime, run in turn within one run, with the same random tokens and
    the same number of threads. Models are left as they were found.

    Args:
        model: A model of a supported family, pruned or not.
        base: Model to compare with: the dense model.
        onnx: The exported model.
        base_onnx: The exported base.
        sizes: Pairs of batch size and tokens; if not given, 1 and 32 by 32 and 128, within the model's positions.
        warmup: Number of untimed rounds.
        repeats: Number of timed rounds.
        max_seconds: Seconds after which a size gets no more rounds, though never fewer than five (or `repeats`).
        training_batch_size: Rows of the training step whose memory is counted; 0 counts none.
        training_tokens: Tokens of its rows; fewer if the model has fewer positions.
        seed: Seed of the random tokens.

    Raises:
        UnsupportedModelError: If the family is not supported, a size has more tokens than the model has positions, or
            another number than its images have.
        MeasureError: If a size or a number of rounds is not a positive whole number.
        ExportError: If an exported model cannot be opened.
    """
    check_count(MeasureError, "warmup", warmup, at_least=0)
    check_count(MeasureError, "repeats", repeats)
    check_count(MeasureError, "training_batch_size", training_batch_size, at_least=0)
    models = {"model": model} | ({"base": base} if base is not None else {})
    longest = min((most for most in map(longest_input, models.values()) if most is not None), default=None)
    chosen = _checked(model, sizes, longest) if sizes is not None else sizes_for(model, longest=longest)
    if reads_images(model):
        training_tokens = image_tokens(model)
    training = (training_batch_size, training_tokens if longest is None else min(training_tokens, longest))
    sessions = {
        name: onnx_delivery.session(path, threads=torch.get_num_threads())
        for name, path in (("model", onnx), ("base", base_onnx))
        if path is not None
    }
    costs = {name: _cost(measured, training, seed) for name, measured in models.items()}
    rounds = {"warmup": warmup, "repeats": repeats, "max_seconds": max_seconds}
    latencies = [latency for size in chosen for latency in _latencies(models, sessions, size, seed, rounds)]
    return Measurement(
        model=costs["model"],
        base=costs.get("base"),
        latencies=tuple(sorted(latencies, key=lambda latency: ENGINES.index(latency.engine))),
        settings={
            "sizes": [list(size) for size in chosen],
            **rounds,
            "macs_tokens": macs_tokens(model),
            "training_batch_size": training[0],
            "training_tokens": training[1],
            "seed": seed,
        },
        machine=describe_machine(device_of(model)),
    )


def sizes_for(
    model: nn.Module, sizes: Sequence[tuple[int, int]] = DEFAULT_SIZES, *, longest: int | None = None
) -> list[tuple[int, int]]:
    """Sizes (B, T) that a model can read: those for which it has positions; images have one length.

    Args:
        model: Of a supported family.
        sizes: Wanted sizes.
        longest: Most tokens; the model's positions if not given.
    """
    batch_sizes = sorted({rows for rows, _ in sizes})
    if reads_images(model):
        return [(batch_size, image_tokens(model)) for batch_size in batch_sizes]
    most = longest if longest is not None else longest_input(model)
    fitting = [size for size in sizes if most is None or size[1] <= most]
    return fitting or [(batch_size, most or 1) for batch_size in batch_sizes]


def macs_tokens(model: nn.Module) -> int:
    """Tokens that MACs are counted for: 128, or those of an image."""
    return image_tokens(model) if reads_images(model) else MACS_TOKENS


def _checked(model: nn.Module, sizes: Sequence[tuple[int, int]], longest: int | None) -> list[tuple[int, int]]:
    """The sizes; raises MeasureError or UnsupportedModelError if the model cannot read one."""
    for batch_size, tokens in sizes:
        check_count(MeasureError, f"sizes has {(batch_size, tokens)}: batch size", batch_size)
        check_count(MeasureError, f"sizes has {(batch_size, tokens)}: tokens", tokens)
        if reads_images(model) and tokens != image_tokens(model):
            raise UnsupportedModelError(
                f"sizes asks for {tokens} tokens, and every image of this model has {image_tokens(model)}. "
                f"Ask for {(batch_size, image_tokens(model))}."
            )
        if longest is not None and tokens > longest:
            raise UnsupportedModelError(
                f"sizes asks for {tokens} tokens, and the model has positions for {longest}. "
                f"Ask for {longest} tokens or fewer."
            )
    return list(sizes)


def _cost(model: nn.Module, training: tuple[int, int], seed: int) -> Cost:
    """Costs; the training step trains every weight, whatever is frozen now, so that two models compare."""
    saved = None
    if training[0]:
        generator = torch.Generator().manual_seed(seed)
        batch = random_inputs(model, batch_size=training[0], tokens=training[1], generator=generator)
        with left_as_found(model):
            model.requires_grad_(True)
            saved = saved_for_backward_bytes(model, batch | labels_for(model, batch))
    return Cost(parameters(model), macs(model, tokens=macs_tokens(model)).total, weight_bytes(model), saved)


def labels_for(model: nn.Module, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Labels of the task head's kind, whose values do not matter; none for a model without a task head."""
    first = next(iter(inputs.values()))
    kind = problem_type_of(model)
    if kind is None or not hasattr(model, "loss_function"):
        return {}
    if kind == MULTI_LABEL:
        return {"labels": torch.zeros(len(first), cast(Any, model.config).num_labels)}
    if kind == REGRESSION:
        return {"labels": torch.zeros(len(first))}
    return {"labels": torch.zeros(first.shape if kind in BY_TOKEN else len(first), dtype=torch.long)}


def _latencies(
    models: Mapping[str, nn.Module],
    sessions: Mapping[str, Any],
    size: tuple[int, int],
    seed: int,
    rounds: Mapping[str, Any],
) -> list[Latency]:
    """Times of models and sessions at one size, all in turn."""
    timings = timed_passes(
        {f"torch {name}": model for name, model in models.items()},
        size,
        sessions={f"onnxruntime {name}": session for name, session in sessions.items()},
        seed=seed,
        **rounds,
    )
    latencies = []
    for engine in ENGINES:
        timing, base = timings.get(f"{engine} model"), timings.get(f"{engine} base")
        if timing is not None:
            latencies.append(Latency(engine, *size, timing, base, ratio(timing, base) if base else None))
    return latencies


def timed_passes(
    models: Mapping[str, nn.Module],
    size: tuple[int, int],
    *,
    sessions: Mapping[str, Any] | None = None,
    seed: int = 0,
    **rounds: Any,
) -> dict[str, Timing]:
    """Time a forward pass of models on the same random tokens, all in turn.

    Args:
        models: By name, on one device; left as they were found.
        size: Batch size and tokens.
        sessions: Exported models by other names.
        seed: Seed of the tokens.
        **rounds: `warmup`, `repeats` and `max_seconds` of `interleaved`.
    """
    first = next(iter(models.values()))
    generator = torch.Generator().manual_seed(seed)
    inputs = random_inputs(first, batch_size=size[0], tokens=size[1], generator=generator)
    calls: dict[str, Callable[[], object]] = {}
    with contextlib.ExitStack() as stack:
        for name, model in models.items():
            stack.enter_context(left_as_found(model))
            calls[name] = partial(model.eval(), **on_device(inputs, model))
        for name, session in (sessions or {}).items():
            calls[name] = partial(onnx_delivery.run, session, inputs)
        stack.enter_context(torch.inference_mode())
        return interleaved(calls, **rounds, synchronise=synchronise(device_of(first)))


def synchronise(device: torch.device) -> Callable[[], None] | None:
    """A function that waits until the device has finished; None for a CPU, which works synchronously."""
    if device.type == "cuda":
        return partial(torch.cuda.synchronize, device)
    return torch.mps.synchronize if device.type == "mps" else None
