"""What is called at the Trainer's steps: the clock, the bar, early stopping, TensorBoard."""

import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import EarlyStoppingCallback, ProgressCallback, TrainerCallback
from transformers.integrations import TensorBoardCallback

from prunelora.finetuning.settings import FineTuneSettings


def chosen_callbacks(settings: FineTuneSettings, logs: Path) -> Iterator[TrainerCallback]:
    """Those that the settings ask for; `logs` is TensorBoard's folder."""
    if settings.patience:
        yield EarlyStoppingCallback(early_stopping_patience=settings.patience)
    if settings.tensorboard:
        from torch.utils.tensorboard import SummaryWriter  # Fails to import where the extra is not installed.

        # A writer of our own: the Trainer's would write into the folder of checkpoints, which does not stay.
        yield TensorBoardCallback(tb_writer=SummaryWriter(log_dir=str(logs)))


class StepClock(TrainerCallback):
    """Wall time of every optimiser step."""

    def __init__(self) -> None:
        self.started: float | None = None
        self.times: list[float] = []

    @property
    def median_ms(self) -> float | None:
        """Median time of a step; the first ones, which allocate, hardly move it."""
        return 1000 * statistics.median(self.times) if self.times else None

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Start the clock."""
        self.started = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Stop it."""
        if self.started is not None:
            self.times.append(time.perf_counter() - self.started)


class QuietProgress(ProgressCallback):
    """The Trainer's progress bar without a dict printed at every log."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Show the loss at the end of the bar."""
        if state.is_world_process_zero and self.training_bar is not None and logs and "loss" in logs:
            self.training_bar.set_postfix(loss=f"{float(logs['loss']):.3f}")
