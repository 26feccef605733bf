"""Memory that this process really holds."""

import gc
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def peak_above(call: Callable[[], object]) -> int:
    """The most resident bytes while something runs, above what the process held before."""
    gc.collect()
    _forget_peak()
    before = _resident_bytes("VmRSS")
    call()
    return max(0, _resident_bytes("VmHWM") - before)


def peak_in_fresh_process(module: str, name: str, variables: Mapping[str, str] | None = None) -> int:
    """What a benchmark prints for `--memory-of NAME`, with this process's arguments, in a process of its own.

    Args:
        module: The benchmark.
        name: What it is to run.
        variables: Of the environment, beside those that are there.
    """
    command = [sys.executable, "-m", module, *sys.argv[1:], "--memory-of", name]
    environment = os.environ | dict(variables or {})
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return int(json.loads(done.stdout.splitlines()[-1]))


def _forget_peak() -> None:
    """Loading peaks too; Linux can start its high-water mark afresh, elsewhere that of loading stays."""
    clear_refs = Path("/proc/self/clear_refs")
    if clear_refs.exists():
        clear_refs.write_text("5", encoding="ascii")


def _resident_bytes(field: str) -> int:
    status = Path("/proc/self/status")
    if status.exists():
        # Not ru_maxrss, which on Linux starts from the peak of the process that started this one.
        line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith(f"{field}:"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
