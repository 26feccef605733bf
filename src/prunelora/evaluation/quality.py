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
    logits = predict_rows(model, tokenised, tokenizer, batch_size=batch_size)
    return metrics(logits, np.asarray(tokenised["labels"]), problem_type)


def predict_rows(
    model: nn.Module, tokenised: Dataset, tokenizer: PreTrainedTokenizerBase, *, batch_size: int = 64
) -> np.ndarray:
    """Logits of tokenised rows, in the order of the rows: (N, C), float32. The model is left as it was found."""
    # Rows of one length together: less padding.
    order = np.argsort([len(ids) for ids in tokenised["input_ids"]], kind="stable")
    ordered = predict(model, batches(tokenised.select(order.tolist()), tokenizer, batch_size=batch_size))
    logits = np.empty_like(ordered)
    logits[order] = ordered
    return logits


def predict(model: nn.Module, batches: Iterable[Mapping[str, Any]]) -> np.ndarray:
    """Logits of all rows of the batches, in their order: (N, C), float32. The model is left as it was found."""
    parts = []
    with left_as_found(model), torch.inference_mode():
        model.eval()
        for batch in batches:
            inputs = {name: value for name, value in batch.items() if name != "labels"}
            parts.append(model(**on_device(inputs, model)).logits.float().cpu().numpy())
    return np.concatenate(parts)
