"""What a task is judged by: plain numbers from logits and labels."""

import importlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from prunelora.errors import MissingExtraError
from prunelora.models.problem_types import CAUSAL_LM, MULTI_LABEL, REGRESSION, SINGLE_LABEL, TOKENS

# What stands where a token has no label: padding, special tokens, all tokens of a word but the first.
IGNORED = -100

# B-PER, I-PER, ...: how chunks are written in tags of tokens (IOB, IOBES and BILOU).
_CHUNK_TAG = re.compile(r"[BIESLU]-.+")


def metrics(
    answers: np.ndarray, labels: np.ndarray, problem_type: str, label_names: Sequence[str] = ()
) -> dict[str, float]:
    """Judge predictions.

    Args:
        answers: Logits: (N, C); (N,) or (N, 1) for regression; (N, T, C) for token classification. For language
            modelling the log-likelihood of every token (N, T).
        labels: (N,) ids; (N, C) of 0 and 1 for multi-label; (N,) numbers for regression; (N, T) ids, IGNORED where
            there is none, for token classification and language modelling.
        problem_type: As in `prunelora.models.problem_types`.
        label_names: Names of the classes by id, which say what the chunks are; needed for token classification alone.

    Returns:
        "accuracy", "f1_macro" and "matthews" for one label, and "f1" of the class with id 1 where the classes are two;
        "f1_micro", "f1_macro" and "accuracy" (all labels right) for several labels; "pearson", "spearman" and "mse" for
        regression. Correlations of constant predictions count as 0, Matthews' too. For token classification "accuracy"
        over labelled tokens and, where the labels are tags of chunks (B-PER, I-PER, O), "entity_f1", "entity_precision"
        and "entity_recall" over whole chunks, as seqeval counts them. For language modelling "log_likelihood" (the mean
        over tokens, in nats) and "perplexity".

    Raises:
        MissingExtraError: If chunks are to be judged and seqeval is not installed.
    """
    if problem_type == TOKENS:
        return _token_metrics(answers, labels, label_names)
    if problem_type == CAUSAL_LM:
        found = labels[:, 1:] != IGNORED  # Before the first token there is nothing to tell it from.
        mean = float(answers[:, 1:][found].mean(dtype=np.float64)) if found.any() else float("nan")
        return {"log_likelihood": mean, "perplexity": float(np.exp(-mean))}
    logits = answers
    if problem_type == REGRESSION:
        predicted, wanted = np.ravel(logits).astype(np.float64), np.ravel(labels).astype(np.float64)
        constant = len(wanted) < 2 or np.ptp(predicted) == 0 or np.ptp(wanted) == 0
        return {
            "pearson": 0.0 if constant else float(pearsonr(predicted, wanted)[0]),
            "spearman": 0.0 if constant else float(spearmanr(predicted, wanted)[0]),
            "mse": float(np.mean((predicted - wanted) ** 2)),
        }
    if problem_type == MULTI_LABEL:
        chosen, present = logits > 0, np.asarray(labels) > 0.5
        return {
            "f1_micro": float(f1_score(present, chosen, average="micro", zero_division=0)),
            "f1_macro": float(f1_score(present, chosen, average="macro", zero_division=0)),
            "accuracy": float(accuracy_score(present, chosen)),
        }
    answers = np.argmax(logits, axis=-1)
    constant = np.ptp(answers) == 0 or np.ptp(labels) == 0
    found = {
        "accuracy": float(accuracy_score(labels, answers)),
        "f1_macro": float(f1_score(labels, answers, average="macro", zero_division=0)),
        "matthews": 0.0 if constant else float(matthews_corrcoef(labels, answers)),
    }
    if logits.shape[-1] == 2:
        found["f1"] = float(f1_score(np.asarray(labels) == 1, answers == 1, zero_division=0))
    return found


def _token_metrics(logits: np.ndarray, labels: np.ndarray, label_names: Sequence[str]) -> dict[str, float]:
    labelled = labels != IGNORED
    answers = logits.argmax(-1)
    found = {"accuracy": float((answers == labels)[labelled].mean()) if labelled.any() else float("nan")}
    if not tags_chunks(label_names):
        return found
    names = np.asarray(label_names, dtype=object)
    wanted = [names[row[kept]].tolist() for row, kept in zip(labels, labelled, strict=True)]
    given = [names[row[kept]].tolist() for row, kept in zip(answers, labelled, strict=True)]
    precision, recall, f1 = _judge_chunks(wanted, given)
    return found | {"entity_f1": f1, "entity_precision": precision, "entity_recall": recall}


def require_packages(problem_type: str, label_names: Sequence[str]) -> None:
    """Hold that what the metrics of a task need is installed.

    Raises:
        MissingExtraError: If labels tag chunks, and seqeval is not there.
    """
    if problem_type == TOKENS and tags_chunks(label_names):
        _seqeval()


def _seqeval() -> Any:
    try:
        return importlib.import_module("seqeval.metrics.sequence_labeling")
    except ImportError as error:
        raise MissingExtraError("Token classification", "tokens") from error


def _judge_chunks(wanted: list[list[str]], given: list[list[str]]) -> tuple[float, float, float]:
    found = _seqeval().precision_recall_fscore_support(wanted, given, average="micro", zero_division=0)
    precision, recall, f1, _ = found
    return float(precision), float(recall), float(f1)


def tags_chunks(label_names: Sequence[str]) -> bool:
    """Whether labels of tokens say where chunks begin and end (B-PER, I-PER, O), unlike parts of speech."""
    return any(_CHUNK_TAG.fullmatch(name) for name in label_names)


def default_metrics(problem_type: str, label_names: Sequence[str] = ()) -> tuple[str, ...]:
    """What a task is judged by where nobody said so. The first chooses checkpoints: more of it is better."""
    if problem_type == TOKENS:
        return ("entity_f1", "accuracy") if tags_chunks(label_names) else ("accuracy",)
    return _DEFAULT[problem_type]


_DEFAULT = {
    SINGLE_LABEL: ("accuracy",),
    MULTI_LABEL: ("f1_micro",),
    REGRESSION: ("pearson",),
    CAUSAL_LM: ("log_likelihood", "perplexity"),
}


def choosing_metrics(problem_type: str, label_names: Sequence[str]) -> tuple[str, ...]:
    """Names of the metrics that can choose a checkpoint: all of `metrics` of which more is better."""
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
