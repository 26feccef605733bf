"""Quality of a model on rows."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import nn

from prunelora.data.answers import answers_of, labels_of, stacked
from prunelora.data.fit import fitting
from prunelora.data.metrics import metrics
from prunelora.data.tokens import Processor, batches, by_length
from prunelora.models.padding import prepare_batch
from prunelora.models.problem_types import CAUSAL_LM, label_names_of
from prunelora.models.state import left_as_found
from prunelora.progress import over

# Most logits of a batch: with a vocabulary of 50,000, one row of 512 tokens has 100 MB.
MOST_LOGITS = 2**28


def evaluate(
    model: nn.Module,
    tokenised: Dataset,
    tokenizer: Processor,
    *,
    problem_type: str,
    batch_size: int = 64,
) -> dict[str, float]:
    """Evaluate a model on tokenised rows.

    Args:
        model: Any model with a task head, with an adapter or without; left as it was found.
        tokenised: Columns as `tokenise` makes them, `labels` among them.
        tokenizer: The model's, for padding.
        problem_type: As in `prunelora.models.problem_types`.
        batch_size: Rows a batch, fewer for a language model with a large vocabulary; does not change the result.

    Returns:
        The metrics of `prunelora.data.metrics` for this problem type.

    Raises:
        UnsupportedModelError: If the model cannot read a row (`prunelora.data.fit.fitting`).
    """
    answers = predict_rows(model, tokenised, tokenizer, problem_type=problem_type, batch_size=batch_size)
    return metrics(answers, labels_of(tokenised), problem_type, label_names_of(model))


def predict_rows(
    model: nn.Module,
    tokenised: Dataset,
    tokenizer: Processor,
    *,
    problem_type: str | None = None,
    batch_size: int = 64,
) -> np.ndarray:
    """Answers to tokenised rows as `metrics` takes them, in their order. The model is left as it was found.

    Returns:
        Logits (N, C), or (N, T, C) with arbitrary values after a row's end; for a language model the log-likelihood of
        tokens (N, T). Float32.
    """
    tokenised = fitting(model, tokenised)
    # Rows of similar length share a batch: less padding.
    order = by_length(tokenised)
    if problem_type == CAUSAL_LM and len(order):
        longest = len(tokenised[order[-1]]["input_ids"])
        batch_size = min(batch_size, max(1, MOST_LOGITS // (longest * _vocabulary(model))))
    ordered = predict(model, batches(tokenised.select(order), tokenizer, batch_size=batch_size), problem_type)
    answers = np.empty_like(ordered)
    answers[order] = ordered
    return answers


def _vocabulary(model: nn.Module) -> int:
    config: Any = model.config
    return int(config.get_text_config().vocab_size)


def predict(model: nn.Module, batches: Iterable[Mapping[str, Any]], problem_type: str | None = None) -> np.ndarray:
    """Answers to all rows of batches, in their order; logits if no problem type is given."""
    parts = []
    with left_as_found(model), torch.inference_mode():
        model.eval()
        for batch in over(batches, "judging"):
            inputs = prepare_batch(batch, model)
            labels = inputs.pop("labels", None)
            parts.append(answers_of(model(**inputs).logits, labels, problem_type).float().cpu().numpy())
    return stacked(parts)
