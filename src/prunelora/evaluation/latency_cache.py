"""Latency models, kept for the device that they were measured on while its speed stays what it was."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from prunelora.errors import PlanError
from prunelora.evaluation.latency_model import FORMAT, LatencyModel, LatencySettings
from prunelora.evaluation.latency_sweep import (
    dense_architecture,
    describe_model,
    measure_latency_model,
    measured_device,
    reference_ms,
    resolved,
)
from prunelora.evaluation.machine import describe_machine
from prunelora.version import __version__

# Times are measured again where the dense model's has changed by more than this share; less is noise.
CHANGED = 0.3

# What of the machine a time depends on; a new kernel or Python does not make the old times wrong.
_OF_MACHINE = ("cpu", "cores", "device", "versions")


def latency_model_for(
    model: nn.Module,
    settings: LatencySettings | None = None,
    *,
    cache: Path | str | None = None,
    remeasure: bool = False,
    tell: Callable[[str], None] | None = None,
    **options: Any,
) -> LatencyModel:
    """The latency model of this device for this model: from the cache, or measured and put there.

    The entry is found by what times depend on: the model's architecture, class, dtype, attention and configuration;
    engine, size of the input and threads; processor, cores and device; versions of torch, transformers, onnxruntime
    and prunelora. The model is measured again where the entry's file is broken or does not say when it was measured,
    and where a forward pass of the dense model takes another time than it took then: the machine was busy, or is now.

    Args:
        model: A dense model of a supported family, on the device that is meant.
        settings: Engine and size of the input.
        cache: Folder of the cache; `cache_folder()` if not given.
        remeasure: Measure the model whatever is in the cache.
        tell: Called with a line on what is done, and on how old the times are.
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
    if found is not None and not remeasure:
        stale = _stale(found, model, settings)
        if stale is None:
            tell(f"latency of {settings.engine}: {found.when()}; --remeasure measures it again")
            return found
        tell(f"{stale} Measuring again.")
    measured = measure_latency_model(model, settings, tell=tell, **options)
    # Right after it, so that whatever else the machine does is in both.
    measured = measured.model_copy(update={"reference_ms": reference_ms(model, settings)})
    try:
        measured.save(path)
    except OSError as error:
        tell(f"{path}: the latency model cannot be kept there ({error}); next time it is measured again.")
    return measured


def _stale(found: LatencyModel, model: nn.Module, settings: LatencySettings) -> str | None:
    """Why times are not to be used again; None if they are."""
    if found.measured_at is None:
        return "The kept latency does not say when it was measured."
    if found.reference_ms is None:
        return None
    now = reference_ms(model, settings)
    if now is None or 1 / (1 + CHANGED) <= now / found.reference_ms <= 1 + CHANGED:
        return None
    return (
        f"A forward pass of the dense model takes {now:.3g} ms and took {found.reference_ms:.3g} ms when latency was "
        f"{found.when()}: this machine's speed has changed."
    )


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
