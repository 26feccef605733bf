"""Names and readers of the files in a folder that `save` wrote."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from prunelora.errors import CheckpointError, PruneLoraError, first_line
from prunelora.planning.plan import Plan

WEIGHTS = "model.safetensors"
PLAN = "plan.json"
ABOUT = "prunelora.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
FROZEN_HEAD = "frozen_head.safetensors"

# Kind of a model that is saved at its base's size.
DENSE = "dense"


def read_plan(path: Path, about: Mapping[str, Any]) -> Plan:
    """Read the plan of a folder; `about` is the result of `read_about`.

    Raises:
        CheckpointError: If the plan is missing, damaged, or not the one that the weights were saved with.
    """
    if not (path / PLAN).exists():
        raise CheckpointError(
            f"{path}: no {PLAN}, which lists the heads and neurons of the weights. Copy the folder again, or save it "
            "again."
        )
    try:
        plan = Plan.load(path / PLAN)
    except PruneLoraError as error:
        raise CheckpointError(str(error)) from error
    if about.get("plan_id") != plan.id:
        raise CheckpointError(
            f"{path}: the weights were saved with plan {about.get('plan_id')}, and {PLAN} is plan {plan.id}. It was "
            "edited, or belongs to another model. To apply an edited plan, prune the base model by it."
        )
    return plan


def read_about(path: Path, *kinds: str) -> dict[str, Any]:
    """Read `prunelora.json`, which describes a folder.

    Raises:
        CheckpointError: If it is missing, damaged, or of another kind than `kinds`.
    """
    with as_checkpoint_error(path, ABOUT):
        about: dict[str, Any] = json.loads((path / ABOUT).read_text(encoding="utf-8"))
    if about.get("format") != "prunelora-checkpoint-1" or about.get("kind") not in kinds:
        raise CheckpointError(
            f"{path / ABOUT}: format {about.get('format')!r} of a {about.get('kind')!r}, expected "
            f"'prunelora-checkpoint-1' of a {kinds[0]!r}."
        )
    return about


def read_tensors(path: Path) -> dict[str, Any]:
    """Read all tensors of a safetensors file.

    Raises:
        CheckpointError: If the file is damaged.
    """
    check_safetensors(path)
    return load_file(path)


def check_safetensors(path: Path) -> None:
    """Read the header of a file, which fails if the file is truncated.

    Raises:
        CheckpointError: If the file is damaged.
    """
    try:
        with safe_open(path, framework="pt"):
            pass
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: damaged or truncated ({first_line(error)}; {path.stat().st_size if path.exists() else 0} bytes). "
            "Copy the folder again, or save it again."
        ) from error


@contextlib.contextmanager
def as_checkpoint_error(path: Path, name: str) -> Iterator[None]:
    """Raises CheckpointError with the file's name if reading `name` in the folder `path` fails inside the block."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{path / name}: cannot be read ({first_line(error)}).") from error
