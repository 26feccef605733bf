"""Quality on the reported rows, for the stages measure and baseline."""

from typing import Any

from prunelora.data.metrics import metrics
from prunelora.evaluation.significance import bootstrap
from prunelora.models.problem_types import SINGLE_LABEL, TOKENS
from prunelora.report.judged import bits_of
from prunelora.stages.base import Facts
from prunelora.stages.context import Run


def tested(run: Run, model: Any) -> Facts:
    """Metrics on the test rows, and samples that show how much other rows would change them.

    For rows with one label, the samples are the rows that were answered right; for metrics that are not a share of the
    rows, their values on bootstrap samples of the rows. Entities are not sampled: one evaluation is slow enough.
    """
    answers, labels = run.answers("test", model)
    kind, names = run.task.problem_type, run.task.label_names
    facts: Facts = {"test": metrics(answers, labels, kind, names)}
    if kind == SINGLE_LABEL:
        facts["test_right"] = bits_of(answers.argmax(-1) == labels)
    others = [metric for metric in run.task.metrics if metric != "accuracy"]
    if others and kind != TOKENS:
        draws = bootstrap(lambda drawn, of: metrics(drawn, of, kind, names), answers, labels)
        facts["test_draws"] = {metric: [float(f"{draw[metric]:.6g}") for draw in draws] for metric in others}
    return facts
