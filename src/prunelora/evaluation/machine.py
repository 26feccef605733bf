"""Description of the machine of a measurement."""

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import torch


def describe_machine(device: torch.device | None = None) -> dict[str, Any]:
    """Platform, processor, cores, threads, device and versions, for JSON.

    Args:
        device: Device of the model; the CPU if not given.
    """
    on_gpu = device is not None and device.type == "cuda"
    return {
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if on_gpu else str(device or "cpu"),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in ("torch", "transformers", "onnxruntime")},
    }


def _cpu_name() -> str:
    """Name of the processor; of its architecture if the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
