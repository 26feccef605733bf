"""A store of finished stages, which run folders share: STORE/KEY-STAGE holds the record and the files of one stage.

A key says exactly what a stage's result depends on, so a stage with the same name and key need not be run again.
Weights are hard links where the file system has them, since they are never changed in place; text, which people edit,
is copied.
"""

import contextlib
import json
import os
import shutil
from pathlib import Path

from prunelora.stages.base import Record
from prunelora.storage import replacing_file, replacing_folder, write_json

_RECORD = "record.json"
_WEIGHTS = ".safetensors"


def read_record(path: Path) -> Record | None:
    """Read a record; None if there is none or it is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Record(**(content | {"files": tuple(content["files"])}))
    except (OSError, ValueError, TypeError, KeyError):
        return None


class Store:
    """A folder with an entry for every finished stage."""

    def __init__(self, path: Path) -> None:
        """Open a store; its folder is made with the first entry."""
        self.path = path

    def find(self, stage: str, key: str) -> Record | None:
        """The record of a stage; None if it is not in the store with all its files."""
        entry = self._entry(stage, key)
        record = read_record(entry / _RECORD)
        return record if record is not None and all((entry / name).exists() for name in record.files) else None

    def put(self, record: Record, folder: Path) -> None:
        """Add a finished stage, with its files from a run folder; if that fails, the stage is just not shared."""
        if self.find(record.stage, record.key) is not None:
            return
        with contextlib.suppress(OSError), replacing_folder(self._entry(record.stage, record.key)) as entry:
            for name in record.files:
                _copy(folder / name, entry / name)
            write_json(entry / _RECORD, vars(record))

    def take(self, record: Record, folder: Path) -> None:
        """Copy the files of a stage that was found into a run folder."""
        for name in record.files:
            source = self._entry(record.stage, record.key) / name
            replacing = replacing_folder if source.is_dir() else replacing_file
            with replacing(folder / name) as target:
                _copy(source, target)

    def _entry(self, stage: str, key: str) -> Path:
        return self.path / f"{key}-{stage}"


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, copy_function=_link_or_copy, dirs_exist_ok=True)
    else:
        _link_or_copy(source, target)


def _link_or_copy(source: Path | str, target: Path | str) -> None:
    if Path(source).suffix == _WEIGHTS:
        Path(target).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # Another file system, or one without hard links.
            os.link(source, target)
            return
    shutil.copyfile(source, target)
