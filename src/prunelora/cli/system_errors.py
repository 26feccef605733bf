"""Errors of the operating system that end a command: a full disk, a missing permission, too little memory."""

import errno
import os
import re
from collections.abc import Iterator

_NAMES = ("EACCES", "EPERM", "EROFS", "ENOSPC", "EDQUOT", "EFBIG", "EIO", "ENAMETOOLONG", "EMFILE", "ENFILE", "ENOMEM")
_NUMBERS = {getattr(errno, name) for name in _NAMES if hasattr(errno, name)}
# How safetensors and tokenizers, which are written in Rust, name an error of the system.
_OF_RUST = re.compile(r"\(os error (\d+)\)")
_OF_TORCH = ("PytorchStreamWriter failed writing", "file write failed")
_KEPT = " Finished stages are kept: once this is mended, the same command goes on where it stopped."
_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def system_error(error: BaseException) -> str | None:
    """A message for an error that the system caused; None for any other error.

    Libraries wrap such errors in classes of their own, so causes and messages are read too.
    """
    for cause in _with_causes(error):
        text = str(cause)
        if isinstance(cause, MemoryError) or any(words in text.lower() for words in _MEMORY):
            return "The memory does not suffice. Use a smaller batch size, shorter rows, or a smaller model."
        number = _number(cause)
        if number in _NUMBERS:
            name = getattr(cause, "filename", None)
            return f"{os.strerror(number)}{f': {name}' if name else ''}.{_KEPT}"
        if any(words in text for words in _OF_TORCH):
            return f"A file could not be written; the disk may be full.{_KEPT}"
    return None


def _number(error: BaseException) -> int:
    """The number of the system's error; 0 if the error has none."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    match = _OF_RUST.search(str(error))
    return int(match[1]) if match else 0


def _with_causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
