"""Callbacks of the Trainer: step times, progress, early stopping, order of rows, TensorBoard."""

import base64
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import EarlyStoppingCallback, TrainerCallback
from transformers.integrations import TensorBoardCallback
from transformers.trainer_callback import ExportableState

from prunelora.finetuning.settings import FineTuneSettings
from prunelora.progress import bar


def chosen_callbacks(settings: FineTuneSettings, logs: Path) -> Iterator[TrainerCallback]:
    """Callbacks that the settings ask for; `logs` is TensorBoard's folder."""
    if settings.patience:
        yield Patience(early_stopping_patience=settings.patience)
    if settings.tensorboard:
        from torch.utils.tensorboard import SummaryWriter  # Needs the extra `tensorboard`.

        # The Trainer's own writer would write into the folder of checkpoints, which is deleted.
        yield TensorBoardCallback(tb_writer=SummaryWriter(log_dir=str(logs)))


def _saved_attributes(callback: ExportableState, state: Any) -> dict[str, Any]:
    """A callback's attributes in the checkpoint from which training resumes; its present ones without a checkpoint."""
    # setdefault: without an entry for this callback, writing the next checkpoint fails.
    saved: dict[str, Any] = state.stateful_callbacks.setdefault(type(callback).__name__, callback.state())
    return saved["attributes"]


class Patience(EarlyStoppingCallback):
    """Early stopping whose counter is restored on resuming; the Trainer's own starts at 0 again."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **options: Any) -> None:
        """Restore the counter."""
        super().on_train_begin(args, state, control, **options)
        self.early_stopping_patience_counter = _saved_attributes(self, state)["early_stopping_patience_counter"]

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop after this step if patience was exhausted before an interruption."""
        if self.early_stopping_patience_counter >= self.early_stopping_patience:
            control.should_training_stop = True


class OrderOfRows(TrainerCallback, ExportableState):
    """Draws the rows of an epoch in the same order when training resumes within it.

    The order of rows grouped by length comes from torch's global generator, which the Trainer restores only after the
    order is drawn. Every checkpoint therefore has the generator's state at the beginning of its epoch.
    """

    def __init__(self) -> None:
        self.drawn_from = ""
        self.resumed = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Read the state from the checkpoint."""
        saved = _saved_attributes(self, state)
        self.resumed = state.global_step > 0
        if self.resumed and float(state.epoch).is_integer():
            # Between two epochs: the next epoch's order is drawn from the state when the checkpoint was written.
            self.drawn_from = saved["saved_at"]
        else:
            self.drawn_from = saved["drawn_from"]

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Record the generator's state, or restore it in the epoch that training resumes in."""
        if self.resumed and self.drawn_from:
            content = np.frombuffer(base64.b64decode(self.drawn_from), dtype=np.uint8).copy()
            torch.set_rng_state(torch.from_numpy(content))
        else:
            self.drawn_from = _generator_state()
        self.resumed = False

    def state(self) -> dict[str, Any]:
        """State for the checkpoint."""
        return {"args": {}, "attributes": {"drawn_from": self.drawn_from, "saved_at": _generator_state()}}


def _generator_state() -> str:
    return base64.b64encode(torch.get_rng_state().numpy().tobytes()).decode("ascii")


class StepClock(TrainerCallback):
    """Wall time of every optimiser step."""

    def __init__(self) -> None:
        self.started: float | None = None
        self.times: list[float] = []

    @property
    def median_ms(self) -> float | None:
        """Median time of a step, which the slower first steps hardly change."""
        return 1000 * statistics.median(self.times) if self.times else None

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Start the clock."""
        self.started = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Record the step's time."""
        if self.started is not None:
            self.times.append(time.perf_counter() - self.started)


class StepProgress(TrainerCallback):
    """Progress bars of the steps, with the loss, and of every evaluation."""

    def __init__(self) -> None:
        self.training: Any = None
        self.evaluation: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Open the bar at the step of the checkpoint."""
        if state.is_world_process_zero:
            self.training = bar("fine-tuning", state.max_steps, initial=state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Count a step."""
        if self.training is not None:
            self.training.update(state.global_step - self.training.n)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Show the loss beside the steps."""
        if self.training is not None and logs and "loss" in logs:
            self.training.set_postfix(loss=f"{float(logs['loss']):.3f}", refresh=False)

    def on_prediction_step(self, args: Any, state: Any, control: Any, eval_dataloader: Any = None, **_: Any) -> None:
        """Count a batch of the evaluation."""
        if not state.is_world_process_zero:
            return
        if self.evaluation is None:
            self.evaluation = bar("judging", len(eval_dataloader))
        self.evaluation.update()

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Close the bar of the evaluation."""
        if self.evaluation is not None:
            self.evaluation.close()
        self.evaluation = None

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Close the bar."""
        if self.training is not None:
            self.training.close()
        self.training = None
