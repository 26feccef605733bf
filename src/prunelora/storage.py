"""Files and folders, written atomically: a reader sees the old or the new file or folder, never a part."""

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from prunelora.errors import RecipeError

LOCK = ".lock"

# Stands in the names of temporary files and folders: ".plan.json.prunelora-k3x_9a2b.json". No other file is swept away.
_MARK = ".prunelora-"

# Temporary files are private to their owner; the final files are readable by all.
_FILE_MODE = 0o644
_FOLDER_MODE = 0o755

_POINTER = b"version https://git-lfs.github.com/"


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8 under a temporary name, then rename it into place."""
    with replacing_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def name_of(source: str) -> str:
    """The last part of a path on this machine; a name, as on a hub, as it stands.

    "/home/ann/models/bert" -> "bert"; "org/bert" -> "org/bert", unless there is such a folder.
    """
    path = Path(source)
    local = path.is_absolute() or source.startswith((".", "~")) or source.count("/") > 1 or "\\" in source
    return path.resolve().name if source and (local or path.exists()) else source


def is_lfs_pointer(file: Path) -> bool:
    """Whether a file is a git-lfs pointer, the few lines that git writes in place of a large file."""
    with file.open("rb") as stream:
        return stream.read(len(_POINTER)) == _POINTER


def is_temporary(path: Path) -> bool:
    """Whether a path has the name of a temporary file or folder of this module."""
    return re.fullmatch(rf"\..+{re.escape(_MARK)}[a-z0-9_]{{8}}(\.\w+)?", path.name) is not None


def sweep(folder: Path) -> None:
    """Remove the temporary files of killed processes in a folder into which no process is writing."""
    for path in filter(is_temporary, list(folder.iterdir())):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder against other processes, and remove the temporary files of killed ones.

    The system releases the lock of a killed process.

    Raises:
        RecipeError: If another process holds the lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, blocking=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise RecipeError(f"{folder}: another prunelora process works there. Wait for it, or stop it.") from error
    try:
        sweep(folder)
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` if the block succeeds, delete it if it fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}{_MARK}", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(_FILE_MODE)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`; it replaces `path` if the block succeeds.

    A folder cannot be renamed onto a folder with files, so the old folder is moved aside first. Only between the two
    renames does `path` not exist.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}{_MARK}"))
    temporary.chmod(_FOLDER_MODE)
    old = temporary.with_name(temporary.name + ".old")
    try:
        yield temporary
        for file in temporary.rglob("*"):
            file.chmod(_FOLDER_MODE if file.is_dir() else _FILE_MODE)
        if path.exists():
            path.replace(old)
        temporary.replace(path)
    finally:
        if old.exists() and not path.exists():
            old.replace(path)
        shutil.rmtree(old, ignore_errors=True)
        shutil.rmtree(temporary, ignore_errors=True)
