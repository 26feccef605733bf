"""Hidden states of all calibration rows at one layer: in memory up to a limit, the rest in temporary files."""

import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from prunelora.errors import PlanError, advice

_TENSOR = "state"


class HiddenStates:
    """A store with one tensor for each name and number of a batch; used in a `with` block.

    A tensor that would exceed the limit goes into a file of a folder that is removed at the end of the block. `get`
    returns the same tensor on its original device in both cases.

    Example:
        >>> with HiddenStates(most_bytes=2**28) as states:
        ...     states.put("pruned", 0, hidden)
        ...     hidden = states.get("pruned", 0)
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.bytes_in_memory = 0
        self._in_memory: dict[tuple[str, int], torch.Tensor] = {}
        self._devices: dict[tuple[str, int], torch.device] = {}
        self._stack = ExitStack()
        self._folder: Path | None = None

    def __enter__(self) -> "HiddenStates":
        """The folder is made when the first file is written."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Remove the files."""
        self._in_memory.clear()
        self._stack.close()

    def put(self, name: str, batch: int, state: torch.Tensor) -> None:
        """Store a tensor, in place of an earlier one with the same key.

        Raises:
            PlanError: If its file cannot be written.
        """
        key = name, batch
        replaced = self._in_memory.pop(key, None)
        if replaced is not None:
            self.bytes_in_memory -= _bytes(replaced)
        self._devices[key] = state.device
        if self.bytes_in_memory + _bytes(state) <= self.most_bytes:
            # A view would keep the whole storage alive.
            self._in_memory[key] = state if state.untyped_storage().nbytes() == _bytes(state) else state.clone()
            self.bytes_in_memory += _bytes(state)
            return
        try:
            if self._folder is None:
                self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="prunelora-repair-")))
            save_file({_TENSOR: state.detach().cpu().contiguous()}, self._file(key))
        except (OSError, SafetensorError) as error:
            raise PlanError(
                f"Repair keeps hidden states of its rows in temporary files, and "
                f"{self._folder or tempfile.gettempdir()} cannot be written ({error}). Set the environment variable "
                f"TMPDIR to a folder with more space, or use fewer rows ({advice('repair_rows')})."
            ) from error

    def get(self, name: str, batch: int) -> torch.Tensor:
        """Return the tensor of a key."""
        key = name, batch
        state = self._in_memory.get(key)
        return state if state is not None else load_file(self._file(key), device=str(self._devices[key]))[_TENSOR]

    def has(self, name: str, batch: int) -> bool:
        """Whether a tensor is stored under a key."""
        return (name, batch) in self._devices

    def _file(self, key: tuple[str, int]) -> Path:
        return Path(str(self._folder)) / f"{key[0]}-{key[1]}.safetensors"


def _bytes(state: torch.Tensor) -> int:
    return state.numel() * state.element_size()
