"""A Trainer whose updates and evaluations do not depend on how rows are batched, and that stops on divergence."""

import math
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import Trainer

from prunelora.errors import DivergenceError
from prunelora.importance.losses import count_losses

# What `compute_metrics` calls the mean loss over all labels of an evaluation.
MEAN_LOSS = "mean_loss"


class Counts(NamedTuple):
    """How much a batch holds, each ().

    Attributes:
        labels: That its loss is the mean over: one a row, or one a labelled token.
        rows: All of them.
    """

    labels: torch.Tensor
    rows: torch.Tensor


class ExactTrainer(Trainer):
    """A Trainer for models whose loss is the mean over the rows of a batch, or over its labelled tokens.

    An update is that of all its rows in one batch::

        loss = sum over micro-batches of n * mean loss / N,    n labels in the micro-batch, N in the update

    The Trainer alone divides by the number of micro-batches, so labels of short micro-batches count for more. Its own
    `num_items_in_batch` reaches the losses of some models and tasks only, and its `compute_loss_func` takes the labels
    out of the model's inputs, where encoder-decoders read them.
    """

    def __init__(self, *args: Any, own: nn.Module, **kwargs: Any) -> None:
        """Take the Trainer's arguments, and the model without an adapter around it."""
        super().__init__(*args, **kwargs)
        self.own = own
        # The model's loss is a mean, whatever its signature says, and `compute_loss` gives it its share.
        self.model_accepts_loss_kwargs = False
        self.loss_is_scaled_for_ga = True
        self._update_loss = torch.zeros(())

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list, Any]:
        """Take the micro-batches of an update, and its `Counts` over all processes.

        The counts are None for an update of one micro-batch in one process, whose loss is its mean as it is.
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
        """Take the model's loss; in an update its share of it, so that the shares add up to the update's mean."""
        loss, outputs = self.shared_loss(model, inputs, self._counts(inputs), num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def shared_loss(self, model: Any, inputs: dict[str, Any], counts: Counts, total: Counts | None) -> tuple[Any, Any]:
        """Loss of a micro-batch, and the model's outputs.

        Args:
            model: As the Trainer has wrapped it.
            inputs: Of the model.
            counts: Of the micro-batch.
            total: Of the update; None where the micro-batch stands for itself.
        """
        outputs = model(**inputs)
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs[0]
        return self.share(loss, counts.labels, None if total is None else total.labels), outputs

    def share(self, mean: torch.Tensor, count: torch.Tensor, total: torch.Tensor | None) -> torch.Tensor:
        """A mean over `count` weighed by its share of a total; 0 for a mean over nothing, which is not a number."""
        if total is not None:
            # Gradients of several processes are averaged, so every process weighs its own by their number.
            mean = mean * count * self.args.world_size / total.clamp(min=1)
        return torch.where(count > 0, mean, torch.zeros_like(mean))

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Run a micro-batch forward and backward, and add its loss to that of the update."""
        loss: torch.Tensor = super().training_step(*args, **kwargs)
        self._update_loss = self._update_loss + loss
        return loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """Norm of the gradients before they are clipped.

        Raises:
            DivergenceError: If it is not finite, or the loss is not; the weights are still those before the update.
        """
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        # Both in one test: on a GPU a test waits for all that was computed before.
        if not math.isfinite(float(norm + self._update_loss)):
            raise DivergenceError(
                f"In step {self.state.global_step + 1} the training loss is {float(self._update_loss):.4g} and the "
                f"norm of the gradient {float(norm):.4g}."
            )
        return norm

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate; the loss is the mean over all labels, where the Trainer alone takes the mean over batches.

        Raises:
            DivergenceError: If it is not finite; no checkpoint of such a model is written.
        """
        output = super().evaluation_loop(*args, **kwargs)
        prefix = kwargs["metric_key_prefix"]
        values: Any = output.metrics
        loss = values.pop(f"{prefix}_{MEAN_LOSS}")
        if not math.isfinite(loss):
            raise DivergenceError(f"After step {self.state.global_step} the loss on the validation rows is {loss:.4g}.")
        values[f"{prefix}_loss"] = loss
        chosen_by = f"eval_{self.args.metric_for_best_model}"
        if math.isnan(values.get(chosen_by, 0.0)):
            values[chosen_by] = -math.inf  # Nothing compares as better than NaN: it would stay the best for good.
        return output

    def _counts(self, batch: dict[str, Any]) -> Counts:
        rows = len(batch["labels"])
        labels = count_losses(self.own, batch, rows).to(self.args.device)
        return Counts(labels, torch.full_like(labels, rows))
