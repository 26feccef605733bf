"""The tasks of the benchmarks: their rows, and how long is trained on them."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prunelora.data.settings import DataSettings

GLUE = Path(os.environ.get("GLUE", Path(__file__).resolve().parents[2] / "shared" / "glue"))
NO_GLUE = f"{GLUE} is not there. Set the environment variable GLUE to a folder with the tasks."

# Memory is counted of trainings that keep what autograd keeps; what recomputation saves, benchmarks.training_step says.
STOCK_MEMORY = {"selective_recomputation": False}


@dataclass(frozen=True)
class BenchmarkTask:
    """How a task is run.

    Attributes:
        epochs: Passes over the training rows, of all fine-tunings of a training together.
        seeds: Seeds that are run; fewer where a training is long.
        max_train_rows: Most rows to use, those that choose checkpoints among them.
        note: What the files are, where they are not GLUE's own.
    """

    epochs: int = 2
    seeds: tuple[int, ...] = (0, 1, 2)
    max_train_rows: int | None = None
    note: str = ""


# The six tasks of the paper.
TASKS = {
    "wnli": BenchmarkTask(),
    "mrpc": BenchmarkTask(),
    "rte": BenchmarkTask(),
    "qnli": BenchmarkTask(note="not GLUE's split: GLUE's validation rows, split into train and validation"),
    "sst2": BenchmarkTask(epochs=1, max_train_rows=12_000, note="12,000 of GLUE's 67,349 training rows"),
    "mnli": BenchmarkTask(epochs=1, seeds=(0,), note="not GLUE's rows: a subset whose texts lost their full stops"),
}
# Those of them that MiniLM learns, or nearly: what is left out is at the most frequent class, or a third long.
FOUR = ("sst2", "mrpc", "qnli", "rte")


def data_of(name: str, folder: Path = GLUE) -> "DataSettings":
    """A task's rows, from a folder with a folder for every task."""
    from prunelora.data.settings import DataSettings

    return DataSettings(task=name, data_dir=str(folder), max_train_rows=TASKS[name].max_train_rows)
