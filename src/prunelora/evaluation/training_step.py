"""A training step (forward, backward, AdamW) whose memory is counted and whose time is measured."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from peft import PeftModel
from torch import nn

from prunelora.evaluation.measurement import labels_for
from prunelora.finetuning.contexts import checkpointing_of, precision_of, recomputation_of
from prunelora.finetuning.settings import FineTuneSettings
from prunelora.models.device import on_device
from prunelora.models.inputs import longest_input, random_inputs


def training_step(
    model: nn.Module, batches: Sequence[Mapping[str, Any]], settings: FineTuneSettings
) -> Callable[[], None]:
    """Returns a function that does one training step on the next batch, in the settings' precision.

    Args:
        model: With its adapter and `requires_grad` set; left in training mode.
        batches: As `model(**batch)` takes them, with `labels`; repeated in a circle.
        settings: Weight decay, clipping, precision, recomputation, checkpointing of layers.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # The full cost of a step with hardly any change of the weights.
    optimiser = torch.optim.AdamW(trained, lr=1e-8, weight_decay=settings.weight_decay)
    queue = _endless(batches)
    model.train()

    def step() -> None:
        with checkpointing_of(model, settings):
            with recomputation_of(settings), precision_of(model, settings):
                loss = model(**on_device(next(queue), model)).loss
            loss.backward()
        nn.utils.clip_grad_norm_(trained, settings.max_grad_norm or float("inf"))
        optimiser.step()
        optimiser.zero_grad()

    return step


def random_batch(model: nn.Module, *, rows: int, tokens: int) -> dict[str, torch.Tensor]:
    """Random rows with labels and without padding, of `tokens` tokens or the model's number of positions."""
    model = model.get_base_model() if isinstance(model, PeftModel) else model
    tokens = min(tokens, longest_input(model) or tokens)
    inputs = random_inputs(model, batch_size=rows, tokens=tokens, generator=torch.Generator().manual_seed(0))
    return inputs | labels_for(model, inputs)


def _endless(batches: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    while True:
        yield from batches
