"""A run folder: what is finished, under which settings, and what is therefore still to do.

Every finished stage leaves a record with a key: a hash of its settings and of all that came before. A stage whose
record has the key that the recipe gives now, and whose files are there, is not repeated.
"""

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from prunelora.errors import RecipeError
from prunelora.recipe import Recipe, load_recipe
from prunelora.storage import is_temporary, sweep, write_json

RECIPE = "recipe.yaml"
_RECORDS = "stages"
_LOCK = ".lock"


@dataclass(frozen=True)
class Record:
    """A finished stage.

    Attributes:
        stage: Its name in the recipe.
        key: Hash of its settings and of everything before it.
        seconds: Wall time, over all the processes that worked on it and were not killed outright.
        files: What it left in the run folder, relative to it.
        facts: Numbers for the report.
    """

    stage: str
    key: str
    seconds: float
    files: tuple[str, ...]
    facts: dict[str, Any]


class RunFolder:
    """The folder of one run."""

    def __init__(self, path: Path | str) -> None:
        """Take a folder that is new, empty, or was begun by an earlier run.

        Raises:
            RecipeError: If it holds something else.
        """
        self.path = Path(path)
        if self.path.is_file():
            raise RecipeError(f"{path} is a file. Give a folder for the run.")
        if self.path.is_dir() and not self.begun and any(map(_is_of_others, self.path.iterdir())):
            raise RecipeError(
                f"{path} is not empty and holds no run (no {RECIPE}); it is left as it is. Give another folder."
            )

    @property
    def begun(self) -> bool:
        """Whether there is a recipe in it."""
        return (self.path / RECIPE).exists()

    def recipe(self) -> Recipe:
        """The recipe of the run in it."""
        if not self.begun:
            raise RecipeError(f"{self.path}: no run there (no {RECIPE}). Start one: prunelora run --out {self.path}")
        return load_recipe(self.path / RECIPE)

    def write_recipe(self, recipe: Recipe) -> None:
        """Put the resolved recipe in the folder."""
        recipe.save(self.path / RECIPE)

    def file(self, name: str) -> Path:
        """Path of something in the folder."""
        return self.path / name

    def record(self, stage: str) -> Record | None:
        """The record of a stage that was finished once, whether or not it is still up to date."""
        try:
            content = json.loads(self._record_file(stage).read_text(encoding="utf-8"))
            return Record(**(content | {"files": tuple(content["files"])}))
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def is_done(self, stage: str, key: str) -> bool:
        """Whether a stage need not be repeated."""
        record = self.record(stage)
        return record is not None and record.key == key and all((self.path / name).exists() for name in record.files)

    def finish(self, record: Record) -> None:
        """Write a stage's record, which makes it finished."""
        write_json(self._record_file(record.stage), vars(record))
        self._spent_file(record.stage).unlink(missing_ok=True)

    def forget(self, stage: str) -> None:
        """Remove a stage's record, which makes it unfinished: before its files change."""
        self._record_file(stage).unlink(missing_ok=True)

    @contextmanager
    def working(self, stage: str, key: str, unfinished: Sequence[Path] = ()) -> Iterator[None]:
        """Work on a stage under a key, for the length of the block; nothing of other work under its name counts then.

        Its record goes, since the files that it vouches for are about to change; and so does what a training leaves to
        go on from, where that was begun under another key. The time of the block is added to what earlier processes
        already spent on the stage under this key.

        Args:
            stage: Its name.
            key: What it is done under now.
            unfinished: Folders that the stage goes on from, if they are there.
        """
        if self._begun_under(stage) != key:
            self._spent_file(stage).unlink(missing_ok=True)  # First: what is half removed must not be gone on from.
            for folder in unfinished:
                shutil.rmtree(folder, ignore_errors=True)
        self.forget(stage)
        path, before = self._spent_file(stage), self.spent(stage, key)
        write_json(path, {"key": key, "seconds": before})
        started = time.perf_counter()
        try:
            yield
        finally:
            write_json(path, {"key": key, "seconds": before + time.perf_counter() - started})

    def _begun_under(self, stage: str) -> str | None:
        """Key of the work that was begun last and not finished."""
        try:
            return str(json.loads(self._spent_file(stage).read_text(encoding="utf-8"))["key"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def spent(self, stage: str, key: str) -> float:
        """Seconds that processes have spent on a stage so far."""
        try:
            content = json.loads(self._spent_file(stage).read_text(encoding="utf-8"))
            return float(content["seconds"]) if content["key"] == key else 0.0
        except (OSError, ValueError, KeyError):
            return 0.0

    def _record_file(self, stage: str) -> Path:
        return self.path / _RECORDS / f"{stage}.json"

    def _spent_file(self, stage: str) -> Path:
        return self.path / _RECORDS / f".{stage}.spent.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second process out of the folder; the system releases it when a process is killed.

        Raises:
            RecipeError: If another process works in it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / _LOCK, blocking=False)
        try:
            lock.acquire()
        except Timeout as error:
            raise RecipeError(
                f"{self.path}: another prunelora process works there. Wait for it, or stop it."
            ) from error
        try:
            sweep(self.path)
            yield
        finally:
            lock.release()


def _is_of_others(entry: Path) -> bool:
    """Whether something in a folder without a recipe is not what a run that was killed at once has left."""
    return not (entry.name == _LOCK or (entry.name.startswith(f".{RECIPE}.") and is_temporary(entry)))
