"""A run folder: the recipe, and a record of every finished stage.

A record has a key: a hash of the stage's settings and of everything before it. A stage is not repeated if its record
has the key that the recipe gives now and its files exist.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from prunelora.errors import PruneLoraError, RecipeError
from prunelora.run.recipe import Recipe, load_recipe
from prunelora.run.store import Store, read_record
from prunelora.stages.base import Record
from prunelora.storage import LOCK, is_temporary, sweep, write_json, write_text

RECIPE = "recipe.yaml"
_RECORDS = "stages"


class RunFolder:
    """The folder of one run."""

    def __init__(self, path: Path | str, store: Path | None = None) -> None:
        """Open a folder that is new, empty, or was begun by an earlier run.

        Args:
            path: The folder.
            store: Folder of a store of finished stages that is shared with other run folders.

        Raises:
            RecipeError: If it holds other files.
        """
        self.path = Path(path)
        self._store = Store(store) if store is not None else None
        if self.path.is_file():
            raise RecipeError(f"{path} is a file. Give a folder for the run.")
        if self.path.is_dir() and not self.begun and any(map(_is_foreign, self.path.iterdir())):
            raise RecipeError(
                f"{path} is not empty and holds no run (no {RECIPE}); it is left as it is. Give another folder."
            )

    @property
    def begun(self) -> bool:
        """Whether the folder holds a recipe."""
        return (self.path / RECIPE).exists()

    def recipe(self) -> Recipe:
        """The recipe of the run in the folder."""
        if not self.begun:
            raise RecipeError(f"{self.path}: no run there (no {RECIPE}). Start one: prunelora run --out {self.path}")
        return load_recipe(self.path / RECIPE)

    def write_recipe(self, recipe: Recipe) -> None:
        """Write the resolved recipe into the folder."""
        recipe.save(self.path / RECIPE)

    def sweep_records(self) -> None:
        """Remove half-written records of killed processes; the folder must be locked."""
        if (self.path / _RECORDS).is_dir():
            sweep(self.path / _RECORDS)

    @contextmanager
    def kept_recipe(self, keep: Callable[[], bool]) -> Iterator[None]:
        """Write the folder's present recipe back if the block refuses its work, and `keep` returns True."""
        path = self.path / RECIPE
        text = path.read_text(encoding="utf-8") if path.exists() else None
        try:
            yield
        except PruneLoraError:
            if text is not None and keep():
                write_text(path, text)
            raise

    def check_writable(self) -> None:
        """Check, before any work, that files can be written into the folder, or that it can be made.

        Raises:
            RecipeError: Naming the file or folder that does not permit it.
        """
        path = self.path.absolute()
        there = next(place for place in (path, *path.parents) if os.access(place, os.F_OK))
        if not there.is_dir():
            raise RecipeError(f"{self.path}: {there} is a file. Give another folder for the run.")
        if not os.access(there, os.W_OK | os.X_OK):
            raise RecipeError(f"{self.path}: {there} cannot be written to. Give another folder for the run.")

    def file(self, name: str) -> Path:
        """Path of a file in the folder."""
        return self.path / name

    def record(self, stage: str) -> Record | None:
        """The record of a stage, whether or not it is up to date; None if the stage was never finished."""
        return read_record(self._record_file(stage))

    def leftovers(self, current: Iterable[Record]) -> list[str]:
        """Files of finished stages that are of other settings or of another recipe.

        Args:
            current: Records that are up to date.
        """
        kept = {name for record in current for name in record.files}
        records = filter(None, map(read_record, sorted((self.path / _RECORDS).glob("[!.]*.json"))))
        names = dict.fromkeys(name for record in records for name in record.files)
        return [name for name in names if name not in kept and (self.path / name).exists()]

    def take_shared(self, stage: str, key: str) -> None:
        """Copy a stage from the store, if it is not finished here under this key."""
        record = self._store.find(stage, key) if self._store is not None and not self.is_done(stage, key) else None
        if self._store is not None and record is not None:
            self.forget(stage)
            with suppress(OSError):  # Another process may be replacing the entry; the stage is then run here.
                self._store.take(record, self.path)
                write_json(self._record_file(stage), vars(record))

    def is_done(self, stage: str, key: str) -> bool:
        """Whether a stage is finished under a key, with all its files."""
        record = self.record(stage)
        return record is not None and record.key == key and all((self.path / name).exists() for name in record.files)

    def finish(self, record: Record) -> None:
        """Write a stage's record; the stage is then finished, and in the store."""
        write_json(self._record_file(record.stage), vars(record))
        if self._store is not None:
            self._store.put(record, self.path)
        self._spent_file(record.stage).unlink(missing_ok=True)

    def forget(self, stage: str) -> None:
        """Remove a stage's record, before its files change; the stage is then unfinished."""
        self._record_file(stage).unlink(missing_ok=True)

    @contextmanager
    def working(self, stage: str, key: str, unfinished: Sequence[Path] = ()) -> Iterator[None]:
        """Work on a stage under a key while the block runs.

        The stage's record is removed, since its files are about to change; so are checkpoints that were written under
        another key. The time of the block is added to the time that earlier processes spent under this key.

        Args:
            stage: Its name.
            key: Its key now.
            unfinished: Folders that the stage resumes from, if they exist.
        """
        if self._begun_under(stage) != key:
            self._spent_file(stage).unlink(missing_ok=True)  # First: nothing resumes from half-removed folders.
            for folder in unfinished:
                shutil.rmtree(folder, ignore_errors=True)
        self.forget(stage)
        path, spent = self._spent_file(stage), self.spent(stage, key)
        write_json(path, {"key": key, "seconds": spent})
        started = time.perf_counter()
        try:
            yield
        finally:
            write_json(path, {"key": key, "seconds": spent + time.perf_counter() - started})

    def _begun_under(self, stage: str) -> str | None:
        """The key of the last work on the stage, if that is not finished."""
        try:
            return str(json.loads(self._spent_file(stage).read_text(encoding="utf-8"))["key"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def spent(self, stage: str, key: str) -> float:
        """Seconds that processes have spent on a stage under a key so far."""
        try:
            content = json.loads(self._spent_file(stage).read_text(encoding="utf-8"))
            return float(content["seconds"]) if content["key"] == key else 0.0
        except (OSError, ValueError, KeyError):
            return 0.0

    def _record_file(self, stage: str) -> Path:
        return self.path / _RECORDS / f"{stage}.json"

    def _spent_file(self, stage: str) -> Path:
        return self.path / _RECORDS / f".{stage}.spent.json"


def _is_foreign(entry: Path) -> bool:
    """Whether a file in a folder without a recipe is not from a run that was killed at its start."""
    return not (entry.name == LOCK or (entry.name.startswith(f".{RECIPE}.") and is_temporary(entry)))
