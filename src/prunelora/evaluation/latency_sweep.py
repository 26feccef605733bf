"""Measurement of a latency model, by timing the dense model and copies cut alike in every layer; and of one budget."""

import contextlib
import datetime
import hashlib
import json
import math
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from prunelora.delivery import onnx as onnx_delivery
from prunelora.delivery.onnx_packages import require_packages
from prunelora.errors import PlanError, UnsupportedModelError, option
from prunelora.evaluation.latency_cuts import Cut, bytes_of, cut_copy, cuts, groups_of, plan_of
from prunelora.evaluation.machine import describe_machine
from prunelora.evaluation.measurement import Latency, synchronise, timed_passes
from prunelora.evaluation.timing import Spread, Timing, interleaved, ratio
from prunelora.models.anatomy import dissect
from prunelora.models.architecture import Architecture
from prunelora.models.device import device_of, on_device
from prunelora.models.inputs import image_tokens, longest_input, random_inputs, reads_images
from prunelora.models.state import left_as_found
from prunelora.planning.latency_model import LatencyModel, LatencyPoint, LatencySettings, whole_layer

# Bytes of copies in memory at once; further copies are timed in further runs, each against the dense model.
MOST_BYTES = 2 * 1024**3

# The dense model runs several times a round, since its noise enters every ratio.
_DENSE_RUNS = 3

# Settings that no time depends on: names and versions, labels and kind of task, special tokens, training and
# initialisation. The dtype is recorded separately.
_NO_MATTER = re.compile(
    r"_?name_or_path|architectures|transformers_version|auto_map|dtype|torch_dtype|return_dict"
    r"|id2label|label2id|num_labels|problem_type|finetuning_task|task_specific_params|prunelora.*"
    r"|\w*token_ids?|\w*dropout\w*|\w*_pdrop|\w*layerdrop|drop_path_rate"
    r"|initializer_\w+|init_std|layerscale_value|gradient_checkpointing"
)

_DENSE = "dense"

# Rounds and seconds of the pass that shows whether the machine's speed has changed.
_REFERENCE_UNTIMED, _REFERENCE_REPEATS, _REFERENCE_SECONDS = 2, 15, 1.0

# Seconds after which a latency budget's check gets no more rounds.
_BUDGET_SECONDS = 8.0

Call = Callable[[], object]


def measure_latency_model(
    model: nn.Module,
    settings: LatencySettings | None = None,
    *,
    repeats: int = 25,
    warmup: int = 3,
    max_seconds: float = 20.0,
    tell: Callable[[str], None] = lambda _: None,
    clock: Callable[[], float] = time.perf_counter,
) -> LatencyModel:
    """Time the model and uniformly cut copies of it, all in turn, on the device it is on.

    Which heads and neurons a copy keeps does not matter, and neither do the weights. Copies share the parameters
    outside the blocks but have blocks of their own: weights that another copy has just brought into the cache would
    make a copy seem too fast. The model is left as it was found.

    Args:
        model: A dense model of a supported family.
        settings: Engine and size of the input; images have the model's own size.
        repeats: Number of timed rounds.
        warmup: Number of untimed rounds.
        max_seconds: Seconds after which there are no more rounds, though never fewer than five (or `repeats`).
        tell: Called with lines on progress.
        clock: Returns seconds.

    Raises:
        PlanError: If the model was cut.
        UnsupportedModelError: If the family is not supported, or has positions for fewer tokens.
        ExportError: If a copy cannot be exported, for onnxruntime.
        MissingExtraError: If the packages of the extra "onnx" are not installed, for onnxruntime.
    """
    settings = resolved(settings or LatencySettings(), model)
    architecture = dense_architecture(model)
    if settings.engine == "onnxruntime":
        require_packages()
    check_tokens(longest_input(model), settings)
    dense, *others = cuts(architecture, settings.engine)
    tell(
        f"timing {len(others) + 1} models of {architecture.num_layers} layers in {settings.engine}, "
        f"{settings.batch_size} x {settings.tokens} tokens, {settings.threads} threads ..."
    )
    inputs = _inputs(model, settings)
    groups = groups_of({cut: bytes_of(model, architecture, cut, settings.engine) for cut in others}, MOST_BYTES)
    ratios: dict[Cut, list[float]] = {}
    dense_rounds: list[float] = []

    def call(cut: Cut) -> Call:
        """One forward pass of a cut copy, or of the model itself if nothing is cut."""
        if settings.engine == "onnxruntime":
            tell(f"exporting it with {cut.heads} heads and {cut.neurons} neurons a layer ...")
        return _forward(model if cut == dense else cut_copy(model, plan_of(architecture, cut)), inputs, settings)

    with left_as_found(model), threads_set(settings.threads):
        model.eval()
        of_dense = call(dense)
        for group in groups:
            # The copies have no name, so that they are freed before the next group is built.
            timings = _timed(
                {str(cut): call(cut) for cut in group},
                of_dense,
                warmup=warmup,
                repeats=repeats,
                max_seconds=max_seconds / len(groups),
                synchronise=synchronise(measured_device(model, settings)),
                clock=clock,
            )
            whole = timings[_DENSE].rounds_ms
            dense_rounds += whole
            for cut in group:
                times = timings[str(cut)].rounds_ms
                ratios[cut] = [time / dense_time for time, dense_time in zip(times, whole, strict=True)]
        machine = describe_machine(measured_device(model, settings))
    dense_ms = Spread.of(dense_rounds)

    def point(cut: Cut, times: Spread, unit_ms: float) -> LatencyPoint:
        median, q25, q75 = (unit_ms * time for time in (times.median, times.q25, times.q75))
        return LatencyPoint(heads=cut.heads, neurons=cut.neurons, ms=median, q25_ms=q25, q75_ms=q75)

    return LatencyModel(
        architecture=architecture,
        settings=settings,
        points=(point(dense, dense_ms, 1.0), *(point(cut, Spread.of(ratios[cut]), dense_ms.median) for cut in others)),
        of_model=describe_model(model),
        machine=machine,
        rounds=min(map(len, ratios.values())),
        measured_at=datetime.datetime.now(datetime.UTC).replace(microsecond=0),
    )


def reference_ms(model: nn.Module, settings: LatencySettings) -> float | None:
    """Median milliseconds of a forward pass of the dense model alone in torch; takes about a second.

    It is compared with another reference only: alone, the model finds its weights in the cache and is faster than in
    turn with others. None if the engine runs on another device than the model.
    """
    device = measured_device(model, settings)
    if device_of(model).type != device.type:
        return None
    with threads_set(settings.threads):
        timings = timed_passes(
            {_DENSE: model},
            (settings.batch_size, settings.tokens),
            warmup=_REFERENCE_UNTIMED,
            repeats=_REFERENCE_REPEATS,
            max_seconds=_REFERENCE_SECONDS,
        )
    return timings[_DENSE].median_ms


def resolved(settings: LatencySettings, model: nn.Module) -> LatencySettings:
    """The settings with torch's number of threads if none is given, and with the tokens of an image."""
    tokens = image_tokens(model) if reads_images(model) else settings.tokens
    return settings.model_copy(update={"threads": settings.threads or torch.get_num_threads(), "tokens": tokens})


def check_tokens(longest: int | None, settings: LatencySettings) -> None:
    """Raises UnsupportedModelError if an input is longer than the model's positions."""
    if longest is not None and settings.tokens > longest:
        raise UnsupportedModelError(
            f"{option('tokens', settings.tokens)}, and the model has positions for {longest}. Ask for {longest} tokens "
            "or fewer."
        )


def dense_architecture(model: nn.Module) -> Architecture:
    """Sizes of a dense model.

    Raises:
        PlanError: If the model was cut.
    """
    anatomy = dissect(model)
    architecture, base = anatomy.architecture, anatomy.lineage.base
    if architecture != base:
        raise PlanError(
            f"Latency is modelled for cuts of a dense model; this model has {architecture.describe()} left of "
            f"{base.describe()}. Load the base model, and predict the latency of this model from it."
        )
    whole_layer(architecture)
    return architecture


def describe_model(model: nn.Module) -> dict[str, Any]:
    """Properties of a model that its time depends on, beside its architecture; for JSON.

    The configuration enters as a hash of all settings except those known not to matter, so that an unknown setting
    leads to a new measurement rather than to the times of another model.
    """
    config: Any = model.config
    counts = {name: value for name, value in config.to_dict().items() if not _NO_MATTER.fullmatch(name)}
    return {
        "class": type(model).__name__,
        "dtype": str(next(model.parameters()).dtype),
        "attention": str(config._attn_implementation),
        "settings": hashlib.sha256(json.dumps(counts, sort_keys=True, default=str).encode()).hexdigest()[:16],
    }


def latency_at(
    model: nn.Module,
    base: nn.Module,
    settings: LatencySettings,
    *,
    repeats: int,
    warmup: int,
) -> Latency:
    """Time a cut model and its dense base in turn, at the size, engine and threads of a latency budget.

    Raises:
        ExportError: If a model cannot be exported, for onnxruntime.
        MissingExtraError: If the packages of the extra "onnx" are not installed, for onnxruntime.
    """
    settings = resolved(settings, base)
    inputs = _inputs(base, settings)
    with left_as_found(model), left_as_found(base), threads_set(settings.threads):
        calls = {"model": _forward(model.eval(), inputs, settings), "base": _forward(base.eval(), inputs, settings)}
        with torch.inference_mode():
            timings = interleaved(
                calls,
                warmup=warmup,
                repeats=repeats,
                max_seconds=_BUDGET_SECONDS,
                synchronise=synchronise(measured_device(base, settings)),
            )
    of_model, of_base = timings["model"], timings["base"]
    return Latency(settings.engine, settings.batch_size, settings.tokens, of_model, of_base, ratio(of_model, of_base))


def _forward(model: nn.Module, inputs: dict[str, torch.Tensor], settings: LatencySettings) -> Call:
    """One forward pass of a model in the engine of the settings; for onnxruntime the model is exported."""
    if settings.engine == "torch":
        return partial(model, **on_device(inputs, model))
    with tempfile.TemporaryDirectory() as folder:
        # Only its time matters.
        path = onnx_delivery.export(model, Path(folder) / "model.onnx", tolerance=math.inf)
        return partial(onnx_delivery.run, onnx_delivery.session(path, threads=settings.threads), inputs)


def _timed(calls: dict[str, Call], of_dense: Call, **options: Any) -> dict[str, Timing]:
    """Time calls in turn, and the dense model several times a round, of which the median counts."""
    names = list(calls)
    mixed: dict[str, Call] = {}
    dense_names: list[str] = []
    # a b c d -> dense a b, dense c d: spread over the round.
    for part in np.array_split(np.arange(len(names)), min(_DENSE_RUNS, len(names))):
        dense_names.append(f"{_DENSE} {len(dense_names)}")
        mixed[dense_names[-1]] = of_dense
        mixed |= {names[place]: calls[names[place]] for place in part}
    with torch.inference_mode():
        timings = interleaved(mixed, **options)
    rounds = zip(*(timings.pop(name).rounds_ms for name in dense_names), strict=True)
    return timings | {_DENSE: Timing(tuple(float(np.median(times)) for times in rounds))}


def _inputs(model: nn.Module, settings: LatencySettings) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return random_inputs(model, batch_size=settings.batch_size, tokens=settings.tokens, generator=generator)


def measured_device(model: nn.Module, settings: LatencySettings) -> torch.device:
    """Device of the engine: the model's device for torch, the CPU for onnxruntime."""
    return device_of(model) if settings.engine == "torch" else torch.device("cpu")


@contextlib.contextmanager
def threads_set(number: int | None) -> Iterator[None]:
    """Set torch's number of threads within the block; None leaves it."""
    previous = torch.get_num_threads()
    torch.set_num_threads(number or previous)
    try:
        yield
    finally:
        torch.set_num_threads(previous)
