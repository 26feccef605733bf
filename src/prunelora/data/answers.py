"""Model outputs that metrics read, and stacking of batches with rows of different lengths into one array."""

from collections.abc import Sequence

import datasets
import numpy as np
import torch
from torch.nn import functional

from prunelora.data.metrics import IGNORED
from prunelora.models.problem_types import CAUSAL_LM, MULTI_LABEL, REGRESSION


def answers_of(logits: torch.Tensor, labels: torch.Tensor | None, problem_type: str | None) -> torch.Tensor:
    """The output of a batch that `metrics` takes: logits, or the log-likelihood of every token for a language model.

    Args:
        logits: (B, C), or (B, T, C).
        labels: (B, T) of a language model: its tokens, IGNORED where they do not count.
        problem_type: As in `prunelora.models.problem_types`.

    Returns:
        The logits, or (B, T): log-likelihoods, 0 for the first token and where a label is IGNORED.
    """
    if problem_type != CAUSAL_LM or labels is None:
        return logits
    targets = labels[:, 1:].to(logits.device)
    # Row by row, since a second copy of all logits (B, T, V) would dominate the memory.
    losses = [
        functional.cross_entropy(row.float(), target, ignore_index=IGNORED, reduction="none")
        for row, target in zip(logits[:, :-1], targets, strict=True)
    ]
    return functional.pad(-torch.stack(losses), (1, 0))


def mean_loss(answers: np.ndarray, labels: np.ndarray, problem_type: str) -> float:
    """The training loss, from the output of `answers_of`: the mean over all rows, or over all labelled tokens.

    Args:
        answers: As `metrics` takes them.
        labels: As `metrics` takes them.
        problem_type: As in `prunelora.models.problem_types`.

    Returns:
        NaN if no token has a label.
    """
    if problem_type == CAUSAL_LM:
        labelled = labels[:, 1:] != IGNORED
        return -float(answers[:, 1:][labelled].mean(dtype=np.float64)) if labelled.any() else float("nan")
    logits, targets = torch.from_numpy(answers), torch.from_numpy(labels)
    if problem_type == REGRESSION:
        losses = (logits.reshape(targets.shape).double() - targets.double()).square()
    elif problem_type == MULTI_LABEL:
        losses = functional.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="none")
    else:
        present = targets != IGNORED
        losses = functional.cross_entropy(logits[present], targets[present], reduction="none")
    return float(losses.double().mean())


def labels_of(tokenised: datasets.Dataset) -> np.ndarray:
    """Labels of tokenised rows: (N,) or (N, C); (N, T) for labelled tokens, shorter rows filled with IGNORED.

    Padding of rows that are already padded is removed, as in batches that a model reads.
    """
    plain = tokenised.with_format(None)  # Reads no pixels of images.
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
    """Whether every token has a label. These are lists of integers; several labels a row are lists of 0.0 and 1.0."""
    element = getattr(tokenised.features["labels"], "feature", None)
    return isinstance(element, datasets.Value) and element.dtype.startswith("int")


def stacked(batches: Sequence[np.ndarray], fill: float = IGNORED) -> np.ndarray:
    """Concatenate batches; those of different lengths (B, T, ...) are filled up to the longest."""
    if batches[0].ndim == 1 or len({batch.shape[1:] for batch in batches}) == 1:
        return np.concatenate(batches)
    longest = max(batch.shape[1] for batch in batches)
    rows = np.full((sum(map(len, batches)), longest, *batches[0].shape[2:]), fill, dtype=batches[0].dtype)
    start = 0
    for batch in batches:
        rows[start : start + len(batch), : batch.shape[1]] = batch
        start += len(batch)
    return rows
