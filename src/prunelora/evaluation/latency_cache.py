"""Cache of latency models, each valid for its device while the speed of the device does not change."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

from torch import nn

from prunelora.errors import PlanError
from prunelora.evaluation.latency_sweep import (
    dense_architecture,
    describe_model,
    measure_latency_model,
    measured_device,
    reference_ms,
    resolved,
)
from prunelora.evaluation.machine import describe_machine
from prunelora.planning.latency_model import FORMAT, LatencyModel, LatencySettings
from prunelora.version import __version__

# Latency is measured again if the dense model's time has changed by more than this share; less is noise.
CHANGED = 0.3

# Properties of the machine that a time depends on; platform and Python are none.
_OF_MACHINE = ("cpu", "cores", "device", "versions")


def latency_model_for(
    model: nn.Module,
    settings: LatencySettings,
    *,
    remeasure: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> LatencyModel:
    """Read the latency model of a model on its device from the cache, or measure it and store it there.

    The key covers the model's architecture, class, dtype, attention and configuration; engine, input size and threads;
    processor, cores and device; versions of torch, transformers, onnxruntime and prunelora. The model is measured again
    if the file is broken, and if a forward pass of the dense model now takes another time, because the machine was busy
    or is now.

    Args:
        model: A dense model of a supported family, on the device to measure.
        settings: Engine and size of the input.
        remeasure: Measure even if the cache has an entry.
        tell: Called with lines on progress and on the age of the times.

    Raises:
        PlanError: If the model was cut.
        UnsupportedModelError, ExportError, MissingExtraError: As in `measure_latency_model`.
    """
    settings = resolved(settings, model)
    path = cache_folder() / "latency" / f"{cache_key(model, settings)}.json"
    try:
        cached = LatencyModel.load(path) if path.exists() else None
    except (PlanError, OSError) as error:
        tell(f"{error} Measuring again.")
        cached = None
    if cached is not None and not remeasure:
        stale = _stale(cached, model, settings)
        if stale is None:
            tell(f"latency of {settings.engine}: {cached.when()}; --remeasure measures it again")
            return cached
        tell(f"{stale} Measuring again.")
    measured = measure_latency_model(model, settings, tell=tell)
    # Right after it, under the same load.
    measured = measured.model_copy(update={"reference_ms": reference_ms(model, settings)})
    try:
        measured.save(path)
    except OSError as error:
        tell(f"{path}: the latency model cannot be saved ({error}); it is measured again next time.")
    return measured


def _stale(cached: LatencyModel, model: nn.Module, settings: LatencySettings) -> str | None:
    """Reason against the cached times; None if they are valid."""
    if cached.reference_ms is None:
        return None
    now = reference_ms(model, settings)
    if now is None or 1 / (1 + CHANGED) <= now / cached.reference_ms <= 1 + CHANGED:
        return None
    return (
        f"A forward pass of the dense model takes {now:.3g} ms and took {cached.reference_ms:.3g} ms when latency was "
        f"{cached.when()}: the speed of this machine has changed."
    )


def cache_folder() -> Path:
    """Folder in the environment variable PRUNELORA_CACHE, otherwise "prunelora" in the user's cache folder."""
    named = os.environ.get("PRUNELORA_CACHE")
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "prunelora"


def cache_key(model: nn.Module, settings: LatencySettings) -> str:
    """Hash of all properties that a time depends on: 16 hexadecimal digits."""
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
