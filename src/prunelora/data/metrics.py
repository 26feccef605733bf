"""What a task is judged by: plain numbers from logits and labels."""

import numpy as np
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

SINGLE_LABEL = "single_label_classification"
MULTI_LABEL = "multi_label_classification"
REGRESSION = "regression"

# The metric that picks the best checkpoint; higher is better for all of them.
MAIN_METRIC = {SINGLE_LABEL: "accuracy", MULTI_LABEL: "f1_micro", REGRESSION: "pearson"}


def metrics(logits: np.ndarray, labels: np.ndarray, problem_type: str) -> dict[str, float]:
    """Judge predictions.

    Args:
        logits: (N, C), or (N,) or (N, 1) for regression.
        labels: (N,) ids; (N, C) of 0 and 1 for multi-label; (N,) numbers for regression.
        problem_type: As in a transformers config.

    Returns:
        "accuracy", "f1_macro" and "matthews" for one label, and "f1" of the class with id 1 where the classes are two;
        "f1_micro", "f1_macro" and "accuracy" (all labels right) for several labels; "pearson", "spearman" and "mse" for
        regression. Correlations of constant predictions count as 0, Matthews' too.
    """
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


def choosing_metrics(problem_type: str, num_labels: int) -> tuple[str, ...]:
    """Names of the metrics that can choose a checkpoint: all of `metrics` of which more is better."""
    if problem_type == REGRESSION:
        return ("pearson", "spearman")
    if problem_type == MULTI_LABEL:
        return ("f1_micro", "f1_macro", "accuracy")
    return ("accuracy", "f1_macro", "matthews", *(("f1",) if num_labels == 2 else ()))
