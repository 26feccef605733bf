"""What of a model's output is kept to judge it by, and rows of different lengths as one array."""

from collections.abc import Sequence

import datasets
import numpy as np
import torch
from torch.nn import functional

from prunelora.data.metrics import IGNORED
from prunelora.models.problem_types import CAUSAL_LM, MULTI_LABEL, REGRESSION


def answers_of(logits: torch.Tensor, labels: torch.Tensor | None, problem_type: str | None) -> torch.Tensor:
    """What `metrics` takes for a batch: the logits; of a language model, whose words are many, what they say of labels.

    Args:
        logits: (B, C), or (B, T, C).
        labels: (B, T) of a language model: its tokens, IGNORED where they do not count.
        problem_type: As in `prunelora.models.problem_types`.

    Returns:
        The logits, or (B, T): the log-likelihood of every token, 0 for the first one and where there is none.
    """
    if problem_type != CAUSAL_LM or labels is None:
        return logits
    targets = labels[:, 1:].to(logits.device)
    # Row by row: a second copy of all logits would be most of the memory.
    losses = [
        functional.cross_entropy(row.float(), wanted, ignore_index=IGNORED, reduction="none")
        for row, wanted in zip(logits[:, :-1], targets, strict=True)
    ]
    return functional.pad(-torch.stack(losses), (1, 0))


def mean_loss(answers: np.ndarray, labels: np.ndarray, problem_type: str) -> float:
    """The loss that models train on, from what `answers_of` gives: the mean over all rows, or over all labelled tokens.

    Args:
        answers: As `metrics` takes them.
        labels: As `metrics` takes them.
        problem_type: As in `prunelora.models.problem_types`.

    Returns:
        NaN where no token has a label.
    """
    if problem_type == CAUSAL_LM:
        found = labels[:, 1:] != IGNORED
        return -float(answers[:, 1:][found].mean(dtype=np.float64)) if found.any() else float("nan")
    logits, targets = torch.from_numpy(answers), torch.from_numpy(labels)
    if problem_type == REGRESSION:
        losses = (logits.reshape(targets.shape).double() - targets.double()).square()
    elif problem_type == MULTI_LABEL:
        losses = functional.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="none")
    else:
        labelled = targets != IGNORED
        losses = functional.cross_entropy(logits[labelled], targets[labelled], reduction="none")
    return float(losses.double().mean())


def labels_of(tokenised: datasets.Dataset) -> np.ndarray:
    """Labels of tokenised rows: (N,) or (N, C); (N, T) where tokens have them, shorter rows filled with IGNORED.

    Rows that are padded already lose their padding, as in batches that a model reads.
    """
    plain = tokenised.with_format(None)  # Of images, without reading their pixels.
    labels = list(plain["labels"])
    if not is_by_token(tokenised):
        return np.asarray(labels)
    if "attention_mask" in tokenised.column_names:
        labels = [_unpadded(row, mask) for row, mask in zip(labels, plain["attention_mask"], strict=True)]
    return stacked([np.asarray(row)[None] for row in labels])


def _unpadded(row: list[int], mask: list[int]) -> list[int]:
    # [0, 0, 5, 6] and [0, 0, 1, 1] -> [5, 6]
    if mask[0] and mask[-1]:
        return row
    real = np.flatnonzero(mask)
    return row[real[0] : real[-1] + 1] if len(real) else []


def is_by_token(tokenised: datasets.Dataset) -> bool:
    """Whether labels are one a token: lists of whole numbers; several labels a row are lists of 0.0 and 1.0."""
    inner = getattr(tokenised.features["labels"], "feature", None)
    return isinstance(inner, datasets.Value) and inner.dtype.startswith("int")


def stacked(parts: Sequence[np.ndarray], fill: float = IGNORED) -> np.ndarray:
    """Batches one after the other; where they are of different lengths (B, T, ...), filled up to the longest."""
    if parts[0].ndim == 1 or len({part.shape[1:] for part in parts}) == 1:
        return np.concatenate(parts)
    longest = max(part.shape[1] for part in parts)
    whole = np.full((sum(map(len, parts)), longest, *parts[0].shape[2:]), fill, dtype=parts[0].dtype)
    row = 0
    for part in parts:
        whole[row : row + len(part), : part.shape[1]] = part
        row += len(part)
    return whole
