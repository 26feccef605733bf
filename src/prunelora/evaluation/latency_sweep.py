"""Measuring a latency model: the dense model and copies of it with every layer cut alike, timed in turn."""

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
from prunelora.errors import PlanError, UnsupportedModelError, option
from prunelora.evaluation.latency_cuts import Cut, bytes_of, cut_copy, cuts, groups_of, plan_of
from prunelora.evaluation.latency_model import LatencyModel, LatencyPoint, LatencySettings, whole_layer
from prunelora.evaluation.machine import describe_machine
from prunelora.evaluation.measurement import synchronise
from prunelora.evaluation.timing import Spread, Timing, interleaved
from prunelora.models.anatomy import dissect
from prunelora.models.architecture import Architecture
from prunelora.models.device import device_of, on_device
from prunelora.models.inputs import image_tokens, longest_input, random_inputs, reads_images
from prunelora.models.state import left_as_found

# Copies that are held at once. What does not fit is timed in further runs, each against the dense model again.
MOST_BYTES = 2 * 1024**3

# Every ratio is to the dense model's time: its noise would be in all of them alike, so that it runs more often.
_DENSE_RUNS = 3

# Settings that are shown, by the names that families have for them: people look for these where times differ.
_SHOWN = (
    "hidden_act",
    "activation",
    "activation_function",
    "hidden_activation",
    "dense_act_fn",
    "embedding_size",
    "vocab_size",
    "image_size",
    "patch_size",
    "sliding_window",
    "local_attention",
)
# Settings that no time depends on: what the model is called and was made by, its labels and its kind of task, which
# tokens are special, and what only training, or the making of weights, reads. The dtype is said by itself.
_NO_MATTER = re.compile(
    r"_?name_or_path|architectures|transformers_version|auto_map|dtype|torch_dtype|return_dict"
    r"|id2label|label2id|num_labels|problem_type|finetuning_task|task_specific_params|prunelora.*"
    r"|\w*token_ids?|\w*dropout\w*|\w*_pdrop|\w*layerdrop|drop_path_rate"
    r"|initializer_\w+|init_std|layerscale_value|gradient_checkpointing"
)

_DENSE = "dense"

# Of the pass that shows whether the machine's speed has changed; never fewer than five rounds.
_REFERENCE_WARMUP, _REFERENCE_REPEATS, _REFERENCE_SECONDS = 2, 15, 1.0

Call = Callable[[], object]


def measure_latency_model(
    model: nn.Module,
    settings: LatencySettings | None = None,
    *,
    repeats: int = 25,
    warmup: int = 3,
    max_seconds: float = 20.0,
    tell: Callable[[str], None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> LatencyModel:
    """Time the model and uniformly cut copies of it, all in turn, on the device it is on.

    Which heads and neurons a copy keeps does not matter, and neither do the weights. Copies share what is outside the
    blocks but have their own blocks, as models that take turns on a device have: a copy that found its weights in the
    cache because another one had just used them would seem too fast. The model is left as it was found.

    Args:
        model: A dense model of a supported family.
        settings: Engine and size of the input; a model that reads images is given those of its own size.
        repeats: Rounds that are timed.
        warmup: Rounds that are not.
        max_seconds: Seconds after which there are no more rounds, though never fewer than five (or `repeats`).
        tell: Called with a line on what is done.
        clock: Seconds.

    Raises:
        PlanError: If the model was cut.
        UnsupportedModelError: If the family is not supported, or has positions for fewer tokens.
        ExportError: If a copy cannot be exported, for onnxruntime.
        MissingExtraError: If the packages of the extra "onnx" are not installed, for onnxruntime.
    """
    tell = tell or (lambda _: None)
    settings = resolved(settings or LatencySettings(), model)
    architecture = dense_architecture(model)
    if settings.engine == "onnxruntime":
        onnx_delivery.require_packages()
    longest = longest_input(model)
    if longest is not None and settings.tokens > longest:
        raise UnsupportedModelError(
            f"{option('tokens', settings.tokens)}, and the model has positions for {longest}. Ask for {longest} tokens "
            "or fewer."
        )
    dense, *others = cuts(architecture, settings.engine)
    tell(
        f"timing {len(others) + 1} models of {architecture.num_layers} layers in {settings.engine}, "
        f"{settings.batch_size} x {settings.tokens} tokens, {settings.threads} threads ..."
    )
    generator = torch.Generator().manual_seed(0)
    inputs = random_inputs(model, batch_size=settings.batch_size, tokens=settings.tokens, generator=generator)
    groups = groups_of({cut: bytes_of(model, architecture, cut, settings.engine) for cut in others}, MOST_BYTES)
    ratios: dict[Cut, list[float]] = {}
    dense_rounds: list[float] = []
    with left_as_found(model), threads_set(settings.threads):
        model.eval()
        of_dense = _call(model, architecture, dense, inputs, settings, tell)
        for group in groups:
            # No name for the copies: they must be gone when those of the next group are built.
            timings = _timed(
                {_name(cut): _call(model, architecture, cut, inputs, settings, tell) for cut in group},
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
                times = timings[_name(cut)].rounds_ms
                ratios[cut] = [one / of_whole for one, of_whole in zip(times, whole, strict=True)]
        machine = describe_machine(measured_device(model, settings))
    dense_ms = Spread.of(dense_rounds)
    found = {dense: dense_ms} | {
        cut: Spread(**{name: dense_ms.median * one for name, one in vars(Spread.of(ratios[cut])).items()})
        for cut in others
    }
    return LatencyModel(
        architecture=architecture,
        settings=settings,
        points=tuple(
            LatencyPoint(heads=cut.heads, neurons=cut.neurons, ms=of.median, q25_ms=of.q25, q75_ms=of.q75)
            for cut, of in found.items()
        ),
        of_model=describe_model(model),
        machine=machine,
        rounds=min(map(len, ratios.values())),
        measured_at=datetime.datetime.now(datetime.UTC).replace(microsecond=0),
    )


def reference_ms(model: nn.Module, settings: LatencySettings) -> float | None:
    """Median time of a forward pass of the dense model alone in torch, whatever the engine; takes about a second.

    Alone it finds its weights in the cache, and is faster than in the measurement, where models take turns: it is
    compared with another reference only.

    Returns:
        Milliseconds; None where the engine runs on another device than the model is on.
    """
    device = measured_device(model, settings)
    if device_of(model).type != device.type:
        return None
    generator = torch.Generator().manual_seed(0)
    inputs = random_inputs(model, batch_size=settings.batch_size, tokens=settings.tokens, generator=generator)
    with left_as_found(model), threads_set(settings.threads), torch.inference_mode():
        model.eval()
        timing = interleaved(
            {_DENSE: partial(model, **on_device(inputs, model))},
            warmup=_REFERENCE_WARMUP,
            repeats=_REFERENCE_REPEATS,
            max_seconds=_REFERENCE_SECONDS,
            synchronise=synchronise(device),
        )
    return timing[_DENSE].median_ms


def resolved(settings: LatencySettings, model: nn.Module) -> LatencySettings:
    """The same with the number of threads that is meant, and of tokens: an image makes as many as the model has it."""
    meant = {"threads": settings.threads or torch.get_num_threads()}
    if reads_images(model):
        meant["tokens"] = image_tokens(model)
    return settings.model_copy(update=meant)


def dense_architecture(model: nn.Module) -> Architecture:
    """Sizes of a model that nothing was cut from.

    Raises:
        PlanError: If something was.
    """
    anatomy = dissect(model)
    found, base = anatomy.architecture, anatomy.lineage.base
    if found != base:
        raise PlanError(
            f"Latency is modelled for cuts of a dense model; this one has {found.describe()} left of "
            f"{base.describe()}. Load the base model, and predict the latency of this one from it."
        )
    whole_layer(found)
    return found


def describe_model(model: nn.Module) -> dict[str, Any]:
    """What a model's time depends on, beside its architecture; for JSON.

    Of its configuration everything counts but what is known not to matter, as a hash of it: a setting that nobody
    thought of makes a model another one, whose times are measured, and never gives it those of another.
    """
    config: Any = model.config
    counts = {name: value for name, value in config.to_dict().items() if not _NO_MATTER.fullmatch(name)}
    shown = {name: counts[name] for name in _SHOWN if name in counts}
    return {
        "class": type(model).__name__,
        "dtype": str(next(model.parameters()).dtype),
        "attention": str(config._attn_implementation),
        **{name: value if isinstance(value, int) else str(value) for name, value in shown.items()},
        "settings": hashlib.sha256(json.dumps(counts, sort_keys=True, default=str).encode()).hexdigest()[:16],
    }


def _call(
    model: nn.Module,
    architecture: Architecture,
    cut: Cut,
    inputs: dict[str, torch.Tensor],
    settings: LatencySettings,
    tell: Callable[[str], None],
) -> Call:
    """One forward pass of a cut copy; of the model itself where nothing is cut."""
    copied = model if cut == whole_layer(architecture) else cut_copy(model, plan_of(architecture, cut))
    if settings.engine == "onnxruntime":
        tell(f"exporting it with {cut.heads} heads and {cut.neurons} neurons a layer ...")
    return forward(copied, inputs, settings)


def forward(model: nn.Module, inputs: dict[str, torch.Tensor], settings: LatencySettings) -> Call:
    """One forward pass of a model in the engine of the settings; for onnxruntime the model is exported."""
    if settings.engine == "torch":
        return partial(model, **on_device(inputs, model))
    with tempfile.TemporaryDirectory() as folder:
        # Here its time alone matters.
        path = onnx_delivery.export(model, Path(folder) / "model.onnx", tolerance=math.inf)
        return partial(onnx_delivery.run, onnx_delivery.session(path, threads=settings.threads), inputs)


def _timed(calls: dict[str, Call], of_dense: Call, **options: Any) -> dict[str, Timing]:
    """Time calls in turn, and the dense model several times a round; of its times in a round the median counts."""
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


def _name(cut: Cut) -> str:
    return f"{cut.heads} heads, {cut.neurons} neurons"


def measured_device(model: nn.Module, settings: LatencySettings) -> torch.device:
    """Where the engine runs: the model's device, or the CPU in onnxruntime."""
    return device_of(model) if settings.engine == "torch" else torch.device("cpu")


@contextlib.contextmanager
def threads_set(number: int | None) -> Iterator[None]:
    """Torch with a number of threads, for the length of the block; as it is where none is given."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
