"""Metrics of a task: plain numbers from logits and labels."""

import importlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from prunelora.errors import MissingExtraError
from prunelora.models.problem_types import CAUSAL_LM, MULTI_LABEL, REGRESSION, SINGLE_LABEL, TOKENS

# Label of a token without a label: padding, special tokens, all tokens of a word but the first.
IGNORED = -100

# B-PER, I-PER, ...: tags that mark chunks (IOB, IOBES and BILOU).
_CHUNK_TAG = re.compile(r"[BIESLU]-.+")


def metrics(
    answers: np.ndarray, labels: np.ndarray, problem_type: str, label_names: Sequence[str] = ()
) -> dict[str, float]:
    """Metrics of predictions.

    Args:
        answers: Logits: (N, C); (N,) or (N, 1) for regression; (N, T, C) for token classification. For language
            modelling the log-likelihood of every token (N, T).
        labels: (N,) ids; (N, C) of 0 and 1 for multi-label; (N,) numbers for regression; (N, T) ids, IGNORED for
            tokens without a label, for token classification and language modelling.
        problem_type: As in `prunelora.models.problem_types`.
        label_names: Names of the classes by id, which define the chunks; needed only for token classification.

    Returns:
        "accuracy", "f1_macro" and "matthews" for one label, and for two classes "f1" of the class with id 1;
        "f1_micro", "f1_macro" and "accuracy" (all labels right) for several labels; "pearson", "spearman" and "mse" for
        regression. Correlations of constant predictions count as 0, Matthews' too. For token classification "accuracy"
        over labelled tokens and, if the labels are tags of chunks (B-PER, I-PER, O), "entity_f1", "entity_precision"
        and "entity_recall" over whole chunks, as seqeval counts them. For language modelling "log_likelihood" (the mean
        over tokens, in nats) and "perplexity".

    Raises:
        MissingExtraError: If the labels tag chunks and seqeval is not installed.
    """
    if problem_type == TOKENS:
        return _token_metrics(answers, labels, label_names)
    if problem_type == CAUSAL_LM:
        labelled = labels[:, 1:] != IGNORED  # Nothing predicts the first token.
        mean = float(answers[:, 1:][labelled].mean(dtype=np.float64)) if labelled.any() else float("nan")
        return {"log_likelihood": mean, "perplexity": float(np.exp(-mean))}
    if problem_type == REGRESSION:
        return _regression_metrics(answers, labels)
    # Imported here, since it takes a second and reading data needs only the names in this module.
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

    if problem_type == MULTI_LABEL:
        predicted, present = answers > 0, np.asarray(labels) > 0.5
        return {
            "f1_micro": float(f1_score(present, predicted, average="micro", zero_division=0)),
            "f1_macro": float(f1_score(present, predicted, average="macro", zero_division=0)),
            "accuracy": float(accuracy_score(present, predicted)),
        }
    predicted = np.argmax(answers, axis=-1)
    constant = np.ptp(predicted) == 0 or np.ptp(labels) == 0
    values = {
        "accuracy": float(accuracy_score(labels, predicted)),
        "f1_macro": float(f1_score(labels, predicted, average="macro", zero_division=0)),
        "matthews": 0.0 if constant else float(matthews_corrcoef(labels, predicted)),
    }
    if answers.shape[-1] == 2:
        values["f1"] = float(f1_score(np.asarray(labels) == 1, predicted == 1, zero_division=0))
    return values


def _regression_metrics(answers: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    from scipy.stats import pearsonr, spearmanr

    predicted, targets = np.ravel(answers).astype(np.float64), np.ravel(labels).astype(np.float64)
    constant = len(targets) < 2 or np.ptp(predicted) == 0 or np.ptp(targets) == 0
    return {
        "pearson": 0.0 if constant else float(pearsonr(predicted, targets)[0]),
        "spearman": 0.0 if constant else float(spearmanr(predicted, targets)[0]),
        "mse": float(np.mean((predicted - targets) ** 2)),
    }


def _token_metrics(logits: np.ndarray, labels: np.ndarray, label_names: Sequence[str]) -> dict[str, float]:
    labelled = labels != IGNORED
    predicted = logits.argmax(-1)
    values = {"accuracy": float((predicted == labels)[labelled].mean()) if labelled.any() else float("nan")}
    if not tags_chunks(label_names):
        return values
    names = np.asarray(label_names, dtype=object)
    true_tags, predicted_tags = (
        [names[row[kept]].tolist() for row, kept in zip(ids, labelled, strict=True)] for ids in (labels, predicted)
    )
    precision, recall, f1, _ = _seqeval().precision_recall_fscore_support(
        true_tags, predicted_tags, average="micro", zero_division=0
    )
    return values | {"entity_f1": float(f1), "entity_precision": float(precision), "entity_recall": float(recall)}


def require_packages(problem_type: str, label_names: Sequence[str]) -> None:
    """Raises MissingExtraError if the metrics of a task need seqeval, for tags of chunks, and it is not installed."""
    if problem_type == TOKENS and tags_chunks(label_names):
        _seqeval()


def _seqeval() -> Any:
    try:
        return importlib.import_module("seqeval.metrics.sequence_labeling")
    except ImportError as error:
        raise MissingExtraError("Token classification", "tokens") from error


def tags_chunks(label_names: Sequence[str]) -> bool:
    """Whether tags mark where chunks begin and end (B-PER, I-PER, O), unlike parts of speech."""
    return any(_CHUNK_TAG.fullmatch(name) for name in label_names)


_DEFAULT = {
    SINGLE_LABEL: ("accuracy",),
    MULTI_LABEL: ("f1_micro",),
    REGRESSION: ("pearson",),
    CAUSAL_LM: ("log_likelihood", "perplexity"),
}


def default_metrics(problem_type: str, label_names: Sequence[str] = ()) -> tuple[str, ...]:
    """Reported metrics of a user's own task. The first chooses checkpoints, where higher is better."""
    if problem_type == TOKENS:
        return ("entity_f1", "accuracy") if tags_chunks(label_names) else ("accuracy",)
    return _DEFAULT[problem_type]


def choosing_metrics(problem_type: str, label_names: Sequence[str]) -> tuple[str, ...]:
    """Names of the metrics that can choose a checkpoint: all of `metrics` where higher is better."""
    if problem_type == TOKENS:
        chunks = ("entity_f1", "entity_precision", "entity_recall") if tags_chunks(label_names) else ()
        return (*chunks, "accuracy")
    if problem_type == CAUSAL_LM:
        return ("log_likelihood",)
    if problem_type == REGRESSION:
        return ("pearson", "spearman")
    if problem_type == MULTI_LABEL:
        return ("f1_micro", "f1_macro", "accuracy")
    return ("accuracy", "f1_macro", "matthews", *(("f1",) if len(label_names) == 2 else ()))
