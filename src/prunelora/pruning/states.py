"""Hidden states of all rows between two layers: in memory up to a limit, and the rest in temporary files."""

import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from prunelora.errors import PlanError, advice

_STATE = "state"


class States:
    """A tensor for every key, which is a name and the number of a batch; used in a `with` block.

    A tensor that would exceed the limit goes into a file of a folder that the block's end removes. What is read is
    what was put, on the device that it was on, whether it was kept in memory or not.

    Example:
        >>> with States(most_bytes=2**28) as states:
        ...     states.put("ours", 0, hidden)
        ...     hidden = states.get("ours", 0)
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.bytes_held = 0
        self._held: dict[tuple[str, int], torch.Tensor] = {}
        self._devices: dict[tuple[str, int], torch.device] = {}
        self._stack = ExitStack()
        self._folder: Path | None = None

    def __enter__(self) -> "States":
        """Nothing is written before it must be."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Remove the files."""
        self._held.clear()
        self._stack.close()

    def put(self, name: str, batch: int, state: torch.Tensor) -> None:
        """Keep a tensor in place of the one that has its key.

        Raises:
            PlanError: If its file cannot be written.
        """
        key = name, batch
        before = self._held.pop(key, None)
        if before is not None:
            self.bytes_held -= _bytes(before)
        self._devices[key] = state.device
        if self.bytes_held + _bytes(state) <= self.most_bytes:
            # Alone: a view would keep all of what it is a view of.
            self._held[key] = state if state.untyped_storage().nbytes() == _bytes(state) else state.clone()
            self.bytes_held += _bytes(state)
            return
        try:
            if self._folder is None:
                self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="prunelora-repair-")))
            save_file({_STATE: state.detach().cpu().contiguous()}, self._file(key))
        except (OSError, SafetensorError) as error:
            raise PlanError(
                "Repair keeps hidden states of its rows in temporary files, and "
                f"{self._folder or tempfile.gettempdir()} cannot be written ({error}). Set the environment variable "
                f"TMPDIR to a folder with more space, or use fewer rows ({advice('repair_rows')})."
            ) from error

    def get(self, name: str, batch: int) -> torch.Tensor:
        """The tensor of a key."""
        key = name, batch
        held = self._held.get(key)
        return held if held is not None else load_file(self._file(key), device=str(self._devices[key]))[_STATE]

    def has(self, name: str, batch: int) -> bool:
        """Whether a tensor was put under a key."""
        return (name, batch) in self._devices

    def _file(self, key: tuple[str, int]) -> Path:
        return Path(str(self._folder)) / f"{key[0]}-{key[1]}.safetensors"


def _bytes(state: torch.Tensor) -> int:
    return state.numel() * state.element_size()
