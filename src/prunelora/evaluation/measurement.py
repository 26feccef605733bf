"""What a model costs: parameters, MACs, memory and latency, side by side with the model it came from."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    """What does not depend on the clock.

    Attributes:
        parameters: By place.
        macs: Of the blocks, for one example of 128 tokens, or one image.
        weight_bytes: Memory of the parameters.
        saved_for_backward_bytes: What autograd keeps in one training step of all weights; None if it was not counted.
    """

    parameters: ParameterCount
    macs: int
    weight_bytes: int
    saved_for_backward_bytes: int | None


@dataclass(frozen=True)
class Latency:
    """Time of one forward pass.

    Attributes:
        engine: "torch" or "onnxruntime".
        batch_size: B.
        tokens: T, none of them padding.
        model: Of the model.
        base: Of the base, where there is one in this engine.
        ratio: Model over base, round by round: 0.5 is twice as fast.
    """

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
    """Costs of a model, and of its base where one was given.

    Attributes:
        model: The model.
        base: What it is compared with.
        latencies: One for every engine and size.
        settings: What was asked for.
        machine: What it was measured on.
    """

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
            "latencies": [one.to_dict() for one in self.latencies],
            "settings": self.settings,
            "machine": self.machine,
        }

    def __str__(self) -> str:
        """Two tables: sizes, and latencies with their ratios."""
        machine, versions = self.machine, self.machine["versions"]
        lines = [
            f"{machine['device']}, {machine['cpu']}, {machine['threads']} threads, "
            f"torch {versions['torch']}, onnxruntime {versions['onnxruntime']}",
            "",
            _row("", "base", "model", "model/base"),
        ]
        for title, value, show in _COST_ROWS:
            now, before = value(self.model), value(self.base) if self.base else None
            if now is not None:
                share = f"{now / before:.3f}" if before else ""
                title = title.format(tokens=self.settings["macs_tokens"])
                lines.append(_row(title, show(before) if before is not None else "", show(now), share))
        lines += ["", _row("latency, median of rounds", "base", "model", "model/base (quartiles)")]
        for one in self.latencies:
            share = f"{one.ratio.median:.3f} ({one.ratio.q25:.3f} to {one.ratio.q75:.3f})" if one.ratio else ""
            lines.append(
                _row(
                    f"{one.engine}, {one.batch_size} x {one.tokens} tokens",
                    f"{one.base.median_ms:.1f} ms" if one.base else "",
                    f"{one.model.median_ms:.1f} ms",
                    share,
                )
            )
        return "\n".join(line.rstrip() for line in lines)


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
    """Count and time a model, beside the one it came from.

    All that is timed at one size, in torch and in onnxruntime, runs in turn within one run, with the same random tokens
    and the same number of threads. Models are left as they were found.

    Args:
        model: A model of a supported family, pruned or not.
        base: What to compare it with: the dense model.
        onnx: The exported model.
        base_onnx: The exported base.
        sizes: Pairs of batch size and tokens; if not given, 1 and 32 by 32 and 128, as far as the model has positions.
        warmup: Rounds that are not timed.
        repeats: Rounds that are timed.
        max_seconds: Seconds after which a size gets no more rounds, though never fewer than five (or `repeats`).
        training_batch_size: Rows of the training step whose memory is counted; 0 counts none.
        training_tokens: Tokens a row of it; fewer where the model has fewer positions.
        seed: Of the random tokens.

    Raises:
        UnsupportedModelError: If the family is not supported, a size has more tokens than the model has positions, or
            images become another number of them.
        MeasureError: If a size, or a number of rounds, is no whole number that can be timed.
        ExportError: If an exported model cannot be opened.
    """
    check_count(MeasureError, "warmup", warmup, at_least=0)
    check_count(MeasureError, "repeats", repeats)
    check_count(MeasureError, "training_batch_size", training_batch_size, at_least=0)
    longest = min((n for n in map(longest_input, _present(model, base)) if n is not None), default=None)
    chosen = _chosen_sizes(model, sizes, longest) if sizes is not None else sizes_for(model, longest=longest)
    if reads_images(model):
        training_tokens = image_tokens(model)
    training = (training_batch_size, training_tokens if longest is None else min(training_tokens, longest))
    threads = torch.get_num_threads()
    sessions = {
        name: onnx_delivery.session(path, threads=threads)
        for name, path in (("model", onnx), ("base", base_onnx))
        if path is not None
    }
    models = {name: one for name, one in (("model", model), ("base", base)) if one is not None}
    costs = {name: _cost(one, training, seed) for name, one in models.items()}
    latencies: list[Latency] = []
    for size in chosen:
        latencies += _latencies(models, sessions, size, warmup, repeats, max_seconds, seed)
    return Measurement(
        model=costs["model"],
        base=costs.get("base"),
        latencies=tuple(sorted(latencies, key=lambda one: ENGINES.index(one.engine))),
        settings={
            "sizes": [list(size) for size in chosen],
            "warmup": warmup,
            "repeats": repeats,
            "max_seconds": max_seconds,
            "macs_tokens": macs_tokens(model),
            "training_batch_size": training[0],
            "training_tokens": training[1],
            "seed": seed,
        },
        machine=describe_machine(device_of(model)),
    )


def _present(*models: nn.Module | None) -> list[nn.Module]:
    return [one for one in models if one is not None]


def sizes_for(
    model: nn.Module, sizes: Sequence[tuple[int, int]] = DEFAULT_SIZES, *, longest: int | None = None
) -> list[tuple[int, int]]:
    """Sizes (B, T) that a model can be timed at: those for which it has positions; images have one length.

    Args:
        model: Of a supported family.
        sizes: What is wanted.
        longest: Most tokens, where others than the model's own positions bound them.
    """
    batch_sizes = sorted({one for one, _ in sizes})
    if reads_images(model):
        return [(batch_size, image_tokens(model)) for batch_size in batch_sizes]
    most = longest if longest is not None else longest_input(model)
    fitting = [size for size in sizes if most is None or size[1] <= most]
    return fitting or [(batch_size, most or 1) for batch_size in batch_sizes]


def macs_tokens(model: nn.Module) -> int:
    """Tokens that MACs are counted for: 128, and of images as many as they become."""
    return image_tokens(model) if reads_images(model) else MACS_TOKENS


def _chosen_sizes(model: nn.Module, sizes: Sequence[tuple[int, int]], longest: int | None) -> list[tuple[int, int]]:
    for batch_size, tokens in sizes:
        check_count(MeasureError, f"sizes has {(batch_size, tokens)}: batch size", batch_size)
        check_count(MeasureError, f"sizes has {(batch_size, tokens)}: tokens", tokens)
        if reads_images(model) and tokens != image_tokens(model):
            raise UnsupportedModelError(
                f"sizes asks for {tokens} tokens, and every image becomes {image_tokens(model)} of them in this model. "
                f"Ask for {(batch_size, image_tokens(model))}."
            )
    too_long = [size for size in sizes if longest is not None and size[1] > longest]
    if too_long:
        raise UnsupportedModelError(
            f"sizes asks for {too_long[0][1]} tokens, and the model has positions for {longest}. "
            f"Ask for {longest} tokens or fewer."
        )
    return list(sizes)


def _cost(model: nn.Module, training: tuple[int, int], seed: int) -> Cost:
    return Cost(
        parameters=parameters(model),
        macs=macs(model, tokens=macs_tokens(model)).total,
        weight_bytes=weight_bytes(model),
        saved_for_backward_bytes=_saved_bytes(model, training, seed) if training[0] else None,
    )


def _saved_bytes(model: nn.Module, training: tuple[int, int], seed: int) -> int:
    """Of a step that trains every weight, so that two models compare whatever is frozen in them now."""
    batch_size, tokens = training
    generator = torch.Generator().manual_seed(seed)
    batch = random_inputs(model, batch_size=batch_size, tokens=tokens, generator=generator)
    with left_as_found(model):
        model.requires_grad_(True)
        return saved_for_backward_bytes(model, batch | labels_for(model, batch))


def labels_for(model: nn.Module, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Labels of the kind the task head takes; their values do not matter. None for a model without a task head."""
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
    models: dict[str, nn.Module],
    sessions: dict[str, Any],
    size: tuple[int, int],
    warmup: int,
    repeats: int,
    max_seconds: float,
    seed: int,
) -> list[Latency]:
    batch_size, tokens = size
    generator = torch.Generator().manual_seed(seed)
    inputs = random_inputs(models["model"], batch_size=batch_size, tokens=tokens, generator=generator)
    calls: dict[str, Callable[[], object]] = {}
    for name, model in models.items():
        calls[f"torch {name}"] = partial(model, **on_device(inputs, model))
    for name, opened in sessions.items():
        calls[f"onnxruntime {name}"] = partial(onnx_delivery.run, opened, inputs)
    with _ready(models), torch.inference_mode():
        timings = interleaved(
            calls,
            warmup=warmup,
            repeats=repeats,
            max_seconds=max_seconds,
            synchronise=synchronise(device_of(models["model"])),
        )
    found = []
    for engine in ENGINES:
        timing, base = timings.get(f"{engine} model"), timings.get(f"{engine} base")
        if timing is not None:
            found.append(Latency(engine, batch_size, tokens, timing, base, ratio(timing, base) if base else None))
    return found


@contextlib.contextmanager
def _ready(models: dict[str, nn.Module]) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for model in models.values():
            stack.enter_context(left_as_found(model))
            model.eval()
        yield


def synchronise(device: torch.device) -> Callable[[], None] | None:
    """What waits until the device has done its work; None for a CPU, which has when it returns."""
    if device.type == "cuda":
        return partial(torch.cuda.synchronize, device)
    return torch.mps.synchronize if device.type == "mps" else None


def _bytes(count: float) -> str:
    return f"{count / 1e6:,.1f} MB"


def _count(count: float) -> str:
    return f"{int(count):,}"


_COST_ROWS: tuple[tuple[str, Callable[[Cost], int | None], Callable[[float], str]], ...] = (
    ("parameters", lambda cost: cost.parameters.total, _count),
    ("parameters in heads and neurons", lambda cost: cost.parameters.blocks, _count),
    ("MACs of the blocks, {tokens} tokens", lambda cost: cost.macs, _count),
    ("weights", lambda cost: cost.weight_bytes, _bytes),
    ("saved for backward, all trained", lambda cost: cost.saved_for_backward_bytes, _bytes),
)


def _row(title: str, base: str, model: str, share: str) -> str:
    return f"{title:<34}{base:>16}{model:>16}  {share}"
