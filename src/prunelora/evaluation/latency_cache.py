"""Latency models, kept for the device that they were measured on."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from prunelora import __version__
from prunelora.errors import PlanError
from prunelora.evaluation.latency_model import FORMAT, LatencyModel, LatencySettings
from prunelora.evaluation.latency_sweep import (
    dense_architecture,
    describe_model,
    measure_latency_model,
    measured_device,
    resolved,
)
from prunelora.evaluation.machine import describe_machine

# What of the machine a time depends on; a new kernel or Python does not make the old times wrong.
_OF_MACHINE = ("cpu", "cores", "device", "versions")


def latency_model_for(
    model: nn.Module,
    settings: LatencySettings | None = None,
    *,
    cache: Path | str | None = None,
    tell: Callable[[str], None] | None = None,
    **options: Any,
) -> LatencyModel:
    """The latency model of this device for this model: from the cache, or measured and put there.

    The entry is found by what times depend on: the model's architecture, class, dtype, attention and configuration;
    engine, size of the input and threads; processor, cores and device; versions of torch, transformers, onnxruntime
    and prunelora. Where its file is broken, the model is measured again.

    Args:
        model: A dense model of a supported family, on the device that is meant.
        settings: Engine and size of the input.
        cache: Folder of the cache; `cache_folder()` if not given.
        tell: Called with a line on what is done.
        options: Of `measure_latency_model`: repeats, warmup, max_seconds.

    Raises:
        PlanError: If the model was cut.
        UnsupportedModelError, ExportError, MissingExtraError: As in `measure_latency_model`.
    """
    tell = tell or (lambda _: None)
    settings = resolved(settings or LatencySettings(), model)
    path = (Path(cache) if cache is not None else cache_folder()) / "latency" / f"{cache_key(model, settings)}.json"
    try:
        found = LatencyModel.load(path) if path.exists() else None
    except (PlanError, OSError) as error:
        tell(f"{error} Measuring again.")
        found = None
    if found is not None:
        return found
    measured = measure_latency_model(model, settings, tell=tell, **options)
    try:
        measured.save(path)
    except OSError as error:
        tell(f"{path}: the latency model cannot be kept there ({error}); next time it is measured again.")
    return measured


def cache_folder() -> Path:
    """Folder that the environment variable PRUNELORA_CACHE names, else prunelora's in the user's cache folder."""
    named = os.environ.get("PRUNELORA_CACHE")
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "prunelora"


def cache_key(model: nn.Module, settings: LatencySettings) -> str:
    """Hash of everything that a time depends on: 16 hexadecimal digits."""
    settings = resolved(settings, model)
    machine = describe_machine(measured_device(model, settings))
    content = {
        "format": FORMAT,
        "prunelora": __version__,
        "architecture": vars(dense_architecture(model)),
        "model": describe_model(model),
        "settings": settings.model_dump(),
        "machine": {name: machine[name] for name in _OF_MACHINE},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
