"""Can a model be saved and loaded again? Every way is tried, and what happens is written down."""

import copy
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch_pruning
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForSequenceClassification

from benchmarks.peers.facts import Trial
from benchmarks.peers.torch_pruning_cut import History, replay_
from prunelora.delivery.checkpoints import load, save
from prunelora.models.device import device_of, on_device
from prunelora.models.loading import progress_bars_off

Batch = Mapping[str, Any]
LONGEST = 200
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def try_saving(
    model: nn.Module, batch: Batch, *, dense: Callable[[], nn.Module], history: History | None = None
) -> tuple[Trial, ...]:
    """Try every way to save a model and to load it, and compare the logits.

    Args:
        model: Merged, in eval mode.
        batch: Rows to compare the logits on.
        dense: Gives the dense model with a task head of as many classes.
        history: Of the pruner, where Torch-Pruning made the cut.
    """
    ways: dict[str, Callable[[Path], nn.Module]] = {
        "prunelora.save, prunelora.load": lambda folder: load(
            save(copy.deepcopy(model), folder / "model")  # It leaves the plan's id in the configuration.
        ),
        "save_pretrained, AutoModel.from_pretrained": lambda folder: _transformers(model, folder),
        "state_dict as safetensors into the dense model": lambda folder: _state(model, dense(), folder),
        "torch.save of the module, torch.load": lambda folder: _module(model, folder, weights_only=True),
        "the same with weights_only=False, a pickle that can run code": lambda folder: _module(
            model, folder, weights_only=False
        ),
        "torch_pruning.state_dict into the dense model, a pickle too": lambda folder: _with_attributes(
            model, dense(), folder
        ),
    }
    if history is not None:
        ways["Torch-Pruning's history replayed on the dense model, weights as safetensors"] = lambda folder: _state(
            model, replay_(dense(), history, batch), folder
        )
    return tuple(_tried(what, way, model, batch) for what, way in ways.items())


def attempt(what: str, work: Callable[[], str]) -> Trial:
    """Do something that may fail; `work` says what came of it."""
    try:
        return Trial(what=what, works=True, outcome=work())
    # Whatever another library raises is what is to be written down.
    except Exception as error:
        return Trial(what=what, works=False, outcome=first_line(error))


def first_line(error: Exception) -> str:
    """Kind of an error and the first line of what it says; two where the first only announces the second."""
    lines = [line.strip() for line in _COLOUR.sub("", str(error)).splitlines() if line.strip()]
    said = " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1])
    return f"{type(error).__name__}: {said if len(said) <= LONGEST else said[:LONGEST] + ' ...'}"


def _tried(what: str, way: Callable[[Path], nn.Module], model: nn.Module, batch: Batch) -> Trial:
    with tempfile.TemporaryDirectory() as folder:

        def work() -> str:
            again = way(Path(folder)).to(device_of(model)).eval()
            return _compared(logits(model, batch), logits(again, batch))

        found = attempt(what, work)
    # The folder has another name every time, and what happened is counted.
    outcome = found.outcome.replace(folder, "FOLDER")
    return Trial(what=what, works=found.works and outcome == EQUAL, outcome=outcome)


EQUAL = "equal logits"


def _compared(before: torch.Tensor, after: torch.Tensor) -> str:
    if torch.equal(before, after):
        return EQUAL
    return f"logits differ by up to {float((before - after).abs().max()):.3g}"


@torch.no_grad()
def logits(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Of a batch, whose labels are left out."""
    return model(**{name: value for name, value in on_device(batch, model).items() if name != "labels"}).logits


def _transformers(model: Any, folder: Path) -> nn.Module:
    with progress_bars_off():
        model.save_pretrained(str(folder))
        return AutoModelForSequenceClassification.from_pretrained(str(folder))


def _state(model: nn.Module, into: nn.Module, folder: Path) -> nn.Module:
    save_file({name: one.contiguous() for name, one in model.state_dict().items()}, folder / "model.safetensors")
    into.load_state_dict(load_file(folder / "model.safetensors"))
    return into


def _module(model: nn.Module, folder: Path, *, weights_only: bool) -> nn.Module:
    torch.save(model, folder / "model.pt")
    return torch.load(folder / "model.pt", weights_only=weights_only)


def _with_attributes(model: nn.Module, into: nn.Module, folder: Path) -> nn.Module:
    torch_pruning.save(torch_pruning.state_dict(model), folder / "model.pt")
    return torch_pruning.load_state_dict(into, torch_pruning.load(folder / "model.pt", weights_only=False))
