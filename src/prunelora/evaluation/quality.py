"""How well a model does its task on rows it has not seen."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import nn
from transformers import PreTrainedTokenizerBase

from prunelora.data.metrics import metrics
from prunelora.data.tokens import batches
from prunelora.models.device import on_device
from prunelora.models.state import left_as_found


def evaluate(
    model: nn.Module,
    tokenised: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    problem_type: str,
    batch_size: int = 64,
) -> dict[str, float]:
    """Judge a model on tokenised rows.

    Args:
        model: Any classifier or regressor, with an adapter or without; left as it was found.
        tokenised: Columns as `tokenise` makes them, `labels` among them.
        tokenizer: The model's, for padding.
        problem_type: As in a transformers config.
        batch_size: Rows a batch; the result does not depend on it.

    Returns:
        The metrics of `prunelora.data.metrics` for this problem type.
    """
    # Rows of one length together: less padding, and no metric depends on the order.
    order = np.argsort([len(ids) for ids in tokenised["input_ids"]], kind="stable")
    ordered = tokenised.select(order.tolist())
    logits = predict(model, batches(ordered, tokenizer, batch_size=batch_size))
    return metrics(logits, np.asarray(ordered["labels"]), problem_type)


def predict(model: nn.Module, batches: Iterable[Mapping[str, Any]]) -> np.ndarray:
    """Logits of all rows of the batches, in their order: (N, C), float32. The model is left as it was found."""
    parts = []
    with left_as_found(model), torch.inference_mode():
        model.eval()
        for batch in batches:
            inputs = {name: value for name, value in batch.items() if name != "labels"}
            parts.append(model(**on_device(inputs, model)).logits.float().cpu().numpy())
    return np.concatenate(parts)
