"""What worker processes are given in place of a training; a module of its own, which they can import."""

import time
from pathlib import Path

from prunelora.errors import DivergenceError, MissingExtraError


def work(trial, _threads, _store):
    """Fails at once, ends at once, or takes seconds, by the trial's name; leaves a file behind where it ends."""
    if trial.method.name == "fails":
        raise MissingExtraError("This training", "onnx")
    if trial.method.name == "diverges":
        raise DivergenceError("In step 3 the training loss is nan.")
    if trial.method.name != "ends":
        time.sleep(3)
    Path(trial.folder).joinpath(trial.method.name).touch()
    return trial.facts
