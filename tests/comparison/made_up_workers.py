"""What worker processes are given in place of a training; a module of its own, which they can import."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from prunelora.comparison.workers import workers
from prunelora.errors import DivergenceError, MissingExtraError
from prunelora.storage import locked


@dataclass(frozen=True)
class MadeUpTrial:
    """A trial that `work` can run."""

    name: str
    folder: Path

    def __str__(self):
        return self.name

    @property
    def key(self):
        return self.name, 0.1, 0

    def facts(self):
        return None


def work(trial, _threads, _store):
    """Fails at once, ends at once, or takes seconds, by the trial's name; leaves a file behind where it ends."""
    if trial.name == "fails":
        raise MissingExtraError("This training", "onnx")
    if trial.name == "diverges":
        raise DivergenceError("In step 3 the training loss is nan.")
    if trial.name != "ends":
        time.sleep(3)
    trial.folder.joinpath(trial.name).touch()
    return SimpleNamespace(seconds={})


def lock_and_wait(folder):
    """Locks a folder for minutes, as a training does."""
    with locked(folder):
        folder.joinpath("begun").touch()
        time.sleep(300)


def start_and_die(folder):
    """Starts a worker as a comparison does, and is killed while that works."""
    with workers(1) as pool:
        pool.submit(lock_and_wait, folder)
        while not folder.joinpath("begun").exists():
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGKILL)
