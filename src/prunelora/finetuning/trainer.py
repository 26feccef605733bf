"""A Trainer whose updates and evaluations do not depend on the batching of rows, and that stops on divergence."""

import math
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import Trainer

from prunelora.errors import DivergenceError
from prunelora.importance.losses import count_losses

# Name that `compute_metrics` gives the mean loss over all labels of an evaluation.
MEAN_LOSS = "mean_loss"


class Counts(NamedTuple):
    """Numbers of labels and rows of a batch, each of shape ().

    Attributes:
        labels: Labels that the loss is averaged over: one for each row, or for each labelled token.
        rows: Rows.
    """

    labels: torch.Tensor
    rows: torch.Tensor


class ExactTrainer(Trainer):
    """A Trainer for models whose loss is the mean over the rows of a batch, or over its labelled tokens.

    An update equals the update of all its rows in one batch::

        loss = sum over micro-batches of n * mean loss / N,    n labels in the micro-batch, N in the update

    transformers' Trainer divides by the number of micro-batches instead, so that labels of small micro-batches count
    more. Its `num_items_in_batch` reaches the losses of some models and tasks only, and its `compute_loss_func` removes
    the labels from the model's inputs, where encoder-decoders read them.
    """

    def __init__(self, *args: Any, base: nn.Module, **kwargs: Any) -> None:
        """Take the Trainer's arguments, and the model without an adapter."""
        super().__init__(*args, **kwargs)
        self.base = base
        # The model returns a mean loss, which `compute_loss` scales; otherwise the Trainer assumes that any model with
        # **kwargs normalises by num_items_in_batch.
        self.model_accepts_loss_kwargs = False
        self.loss_is_scaled_for_ga = True
        self._update_loss = torch.zeros(())

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list, Any]:
        """Return the micro-batches of an update, and its `Counts` over all processes.

        The counts are None for an update of one micro-batch in one process: its loss needs no scaling.
        """
        batches, _ = super().get_batch_samples(*args, **kwargs)
        self._update_loss = torch.zeros((), device=self.args.device)
        if not batches or (len(batches) == 1 and self.args.world_size == 1):
            return batches, None
        counts = torch.stack([torch.stack(self._counts(batch)) for batch in batches]).sum(0)
        if self.args.world_size > 1:
            counts = self.accelerator.gather(counts).reshape(-1, 2).sum(0)
        return batches, Counts(*counts)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the loss; within an update it is scaled so that the losses of its micro-batches add up to the mean."""
        loss, outputs = self.shared_loss(model, inputs, self._counts(inputs), num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def shared_loss(self, model: Any, inputs: dict[str, Any], counts: Counts, total: Counts | None) -> tuple[Any, Any]:
        """Return the scaled loss of a micro-batch and the model's outputs.

        Args:
            model: The model as the Trainer wraps it.
            inputs: Inputs of the model.
            counts: Counts of the micro-batch.
            total: Counts of the update; None if the micro-batch is the whole update, or in evaluation.
        """
        outputs = model(**inputs)
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs[0]
        return self.share(loss, counts.labels, None if total is None else total.labels), outputs

    def share(self, mean: torch.Tensor, count: torch.Tensor, total: torch.Tensor | None) -> torch.Tensor:
        """Scale a mean over `count` by its share of a total; a mean over nothing, which is NaN, becomes 0."""
        if total is not None:
            # Gradients are averaged over processes, so each multiplies by their number.
            mean = mean * count * self.args.world_size / total.clamp(min=1)
        return torch.where(count > 0, mean, torch.zeros_like(mean))

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Run a micro-batch forward and backward, and add its loss to the update's loss."""
        loss: torch.Tensor = super().training_step(*args, **kwargs)
        self._update_loss = self._update_loss + loss
        return loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """Return the norm of the gradients before clipping.

        Raises:
            DivergenceError: If the norm or the loss is not finite. The weights do not have the update yet.
        """
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        # One test for both, because each waits for the GPU.
        if not math.isfinite(float(norm + self._update_loss)):
            raise DivergenceError(
                f"In step {self.state.global_step + 1} the training loss is {float(self._update_loss):.4g} and the "
                f"norm of the gradient {float(norm):.4g}."
            )
        return norm

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate; the loss is the mean over all labels, where transformers' Trainer averages over batches.

        Raises:
            DivergenceError: If the loss is not finite. No checkpoint of this model is written.
        """
        output = super().evaluation_loop(*args, **kwargs)
        prefix = kwargs["metric_key_prefix"]
        values: Any = output.metrics
        loss = values.pop(f"{prefix}_{MEAN_LOSS}")
        if not math.isfinite(loss):
            raise DivergenceError(f"After step {self.state.global_step} the loss on the validation rows is {loss:.4g}.")
        values[f"{prefix}_loss"] = loss
        metric = f"eval_{self.args.metric_for_best_model}"
        if math.isnan(values.get(metric, 0.0)):
            values[metric] = -math.inf  # No value is greater than NaN, which would stay the best.
        return output

    def _counts(self, batch: dict[str, Any]) -> Counts:
        rows = len(batch["labels"])
        labels = count_losses(self.base, batch, rows).to(self.args.device)
        return Counts(labels, torch.full_like(labels, rows))
