"""What is called at the Trainer's steps: the clock, the bar, early stopping, TensorBoard."""

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
    """Those that the settings ask for; `logs` is TensorBoard's folder."""
    if settings.patience:
        yield Patience(early_stopping_patience=settings.patience)
    if settings.tensorboard:
        from torch.utils.tensorboard import SummaryWriter  # Fails to import where the extra is not installed.

        # A writer of our own: the Trainer's would write into the folder of checkpoints, which does not stay.
        yield TensorBoardCallback(tb_writer=SummaryWriter(log_dir=str(logs)))


def _kept(callback: ExportableState, state: Any) -> dict[str, Any]:
    """A callback's attributes in the checkpoint that a training goes on from; its own at the beginning."""
    # A checkpoint of other callbacks would fail at the next one that is written.
    found: dict[str, Any] = state.stateful_callbacks.setdefault(type(callback).__name__, callback.state())
    return found["attributes"]


class Patience(EarlyStoppingCallback):
    """Early stopping that goes on with the patience already spent: the Trainer alone begins again with all of it."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **options: Any) -> None:
        """Take up the count."""
        super().on_train_begin(args, state, control, **options)
        self.early_stopping_patience_counter = _kept(self, state)["early_stopping_patience_counter"]

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop after this step where all of it was spent before: a kill came between the decision and the end."""
        if self.early_stopping_patience_counter >= self.early_stopping_patience:
            control.should_training_stop = True


class OrderOfRows(TrainerCallback, ExportableState):
    """Draws the rows of an epoch in the same order where a training goes on within it.

    Rows grouped by length are drawn by torch's own generator, whose state the Trainer puts back only after the order
    was drawn. So its state at the beginning of the epoch is kept in every checkpoint.
    """

    def __init__(self) -> None:
        self.drawn_from = ""
        self.resumed = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Look for the state in the checkpoint."""
        kept = _kept(self, state)
        self.resumed = state.global_step > 0
        if self.resumed and float(state.epoch).is_integer():
            # Between two epochs. The Trainer puts the generator back before it draws the next one's order.
            self.drawn_from = kept["saved_at"]
        else:
            self.drawn_from = kept["drawn_from"]

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Keep the generator's state; in an epoch that was begun before, put it back."""
        if self.resumed and self.drawn_from:
            content = np.frombuffer(base64.b64decode(self.drawn_from), dtype=np.uint8).copy()
            torch.set_rng_state(torch.from_numpy(content))
        else:
            self.drawn_from = _generator_state()
        self.resumed = False

    def state(self) -> dict[str, Any]:
        """For the checkpoint."""
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
        """Median time of a step; the first ones, which allocate, hardly move it."""
        return 1000 * statistics.median(self.times) if self.times else None

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Start the clock."""
        self.started = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Stop it."""
        if self.started is not None:
            self.times.append(time.perf_counter() - self.started)


class StepProgress(TrainerCallback):
    """Progress of the steps, with the loss, and of every evaluation."""

    def __init__(self) -> None:
        self.training: Any = None
        self.judging: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Begin, at the step that a checkpoint is of."""
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
        """Count a batch of an evaluation."""
        if not state.is_world_process_zero:
            return
        if self.judging is None:
            self.judging = bar("judging", len(eval_dataloader))
        self.judging.update()

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """End the evaluation."""
        if self.judging is not None:
            self.judging.close()
        self.judging = None

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """End."""
        if self.training is not None:
            self.training.close()
        self.training = None
