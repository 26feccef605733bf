"""Memory of a training step and of inference, counted from tensors, so that it is the same on every device."""

import contextlib
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from prunelora.evaluation.counting import weight_bytes
from prunelora.finetuning.recomputation import recomputing
from prunelora.models.device import on_device
from prunelora.models.state import left_as_found


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes that one training step needs.

    Attributes:
        weights_bytes: All parameters.
        gradients_bytes: Gradients of the trainable ones.
        optimizer_bytes: State of the optimiser for the trainable ones.
        saved_bytes: Tensors that autograd keeps from the forward to the backward pass.
    """

    weights_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    saved_bytes: int

    @property
    def total(self) -> int:
        """Sum of the parts."""
        return self.weights_bytes + self.gradients_bytes + self.optimizer_bytes + self.saved_bytes


def saved_for_backward_bytes(model: nn.Module, batch: Mapping[str, Any], *, recompute: bool = False) -> int:
    """Bytes that autograd keeps between the forward and the backward pass of one training step.

    The model runs forward in training mode, with gradients for the parameters that require them, and is left as it was
    found. Tensors that share memory count once; the model's own parameters and buffers do not count.

    Args:
        model: Pruned or not, with or without an adapter.
        batch: As `model(**batch)` takes it, with `labels`.
        recompute: Whether selective recomputation is used, which keeps fewer tensors.
    """
    weights = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    saved: list[weakref.ref[torch.Tensor]] = []

    def keeps(tensor: torch.Tensor) -> None:
        saved.append(weakref.ref(tensor))

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        # An output saved with its own history would keep itself and the graph alive.
        tensor = tensor.detach()
        keeps(tensor)
        return tensor

    with left_as_found(model), _problem_type_kept(model), torch.enable_grad():
        model.train()
        with recomputing(keeps) if recompute else saved_tensors_hooks(pack, lambda tensor: tensor):
            output = model(**on_device(batch, model))
        # Tensors outside the output's graph have already been freed, and their addresses may be in use again.
        kept = [tensor.untyped_storage() for reference in saved if (tensor := reference()) is not None]
        sizes = {storage.data_ptr(): storage.nbytes() for storage in kept if storage.data_ptr() not in weights}
        del output
    return sum(sizes.values())


def training_memory(model: nn.Module, batch: Mapping[str, Any], *, recompute: bool = False) -> TrainingMemory:
    """Count the memory of one training step with Adam, which keeps two numbers for a trainable parameter.

    Args:
        model: With its adapter and `requires_grad` set.
        batch: As `model(**batch)` takes it, with `labels`.
        recompute: Whether selective recomputation is used.
    """
    trainable = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    return TrainingMemory(
        weights_bytes=weight_bytes(model),
        gradients_bytes=trainable,
        optimizer_bytes=2 * trainable,
        saved_bytes=saved_for_backward_bytes(model, batch, recompute=recompute),
    )


@contextlib.contextmanager
def _problem_type_kept(model: nn.Module) -> Iterator[None]:
    """Restore the configuration's problem type, which transformers guesses from labels and writes."""
    config: Any = getattr(model, "config", None)
    previous = getattr(config, "problem_type", None)
    try:
        yield
    finally:
        if hasattr(config, "problem_type"):
            config.problem_type = previous


def inference_memory(model: nn.Module, batch: Mapping[str, Any]) -> int:
    """Bytes of a forward pass in eval mode: all parameters, and the largest sum of live activations.

    A tensor counts from its creation until nothing refers to it; tensors that share memory count once. Scratch memory
    inside an operation does not count.

    Args:
        model: Left as it was found.
        batch: As `model(**batch)` takes it; labels are left out.
    """
    inputs = {name: value for name, value in on_device(batch, model).items() if name != "labels"}
    with left_as_found(model), torch.no_grad():
        model.eval()
        with _LiveBytes(known=[*model.parameters(), *model.buffers()]) as live:
            model(**inputs)
    return weight_bytes(model) + live.peak


class _LiveBytes(TorchDispatchMode):
    """Tracks the memory of the tensors that operations create while it is active."""

    def __init__(self, known: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.peak = 0
        self._now = 0
        # Storages, not tensors, since a view has no memory of its own. Python objects of storages do not live long
        # enough, so each storage is tracked by the tensors that use it.
        self._users: dict[int, int] = {tensor.untyped_storage().data_ptr(): 1 for tensor in known}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._follow(tensor)
        return result

    def _follow(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        address, size = storage.data_ptr(), storage.nbytes()
        if not address:
            return
        if not self._users.get(address):
            self._now += size
            self.peak = max(self.peak, self._now)
        self._users[address] = self._users.get(address, 0) + 1
        weakref.finalize(tensor, self._release, address, size)

    def _release(self, address: int, size: int) -> None:
        self._users[address] -= 1
        if not self._users[address]:
            self._now -= size
