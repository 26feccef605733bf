"""The GLUE tasks of the benchmarks: their rows, and how long models train on them."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prunelora.data.settings import DataSettings

GLUE = Path(os.environ.get("GLUE", Path(__file__).resolve().parents[2] / "shared" / "glue"))
NO_GLUE = f"{GLUE} does not exist. Set the environment variable GLUE to a folder with a folder for every task."

# Settings of trainings whose memory is counted as autograd saves it; benchmarks/training_step counts recomputation.
STOCK_MEMORY = {"selective_recomputation": False}


@dataclass(frozen=True)
class BenchmarkTask:
    """A task and the length of its trainings.

    Attributes:
        epochs: Passes over the training rows, over all fine-tunings of a training.
        seeds: Seeds of the trainings; fewer where a training is long.
        max_train_rows: Highest number of rows used for training and validation.
        note: What the files contain, if not GLUE's own rows.
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
# The tasks of the studies. MiniLM stays near the majority class on wnli; a training on mnli takes three times as long.
FOUR = ("sst2", "mrpc", "qnli", "rte")


def data_of(name: str) -> "DataSettings":
    """A task's rows, from the folder GLUE."""
    from prunelora.data.settings import DataSettings

    return DataSettings(task=name, data_dir=str(GLUE), max_train_rows=TASKS[name].max_train_rows)
