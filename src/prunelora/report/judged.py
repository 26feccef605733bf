"""A model's quality on the reported rows with its interval, and its difference to another model's."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from prunelora.evaluation.significance import LEVEL, ROUNDING, Difference, error_of_mean, wilson
from prunelora.models.problem_types import BY_TOKEN
from prunelora.report.numbers import metric_difference, metric_interval, metric_value
from prunelora.report.results import RunResults

# Models whose quality a run may hold, by the place of their facts: the delivered model, the baseline, and the model
# that was tuned and merged before the cut.
PRUNED, BASELINE, TUNED = "measure", "baseline", "tuned_dense"


@dataclass(frozen=True)
class Judged:
    """One model on the reported rows.

    Attributes:
        values: Metrics by name.
        rows: Number of rows.
        right: Whether each row (N,) was answered rightly; None if not recorded.
        draws: Metrics on bootstrap samples of the rows (S,), the same samples for every model of the run.
        by_token: Whether answers belong to tokens, which depend on each other within a row: accuracy is then no share
            of rows.
    """

    values: Mapping[str, float]
    rows: int
    right: np.ndarray | None = None
    draws: Mapping[str, np.ndarray] = field(default_factory=dict)
    by_token: bool = False

    def interval(self, metric: str) -> tuple[float, float] | None:
        """95 % interval over rows: Wilson's of an accuracy, the bootstrap's of other metrics; None if unknown."""
        if metric == "accuracy":
            return None if self.by_token else wilson(self.values[metric], self.rows)
        if metric not in self.draws:
            return None
        low, high = map(float, np.quantile(self.draws[metric], [LEVEL / 2, 1 - LEVEL / 2]))
        # Samples that are all equal say nothing about other rows; of a metric that is not defined on all, both are nan.
        return (low, high) if low < high else None

    def text(self, metric: str) -> str:
        """Value and interval: "86.6 % (84.2 to 88.7)"."""
        text, interval = metric_value(metric, self.values[metric]), self.interval(metric)
        text += "" if interval is None else f" ({metric_interval(metric, *interval)})"
        if metric == "log_likelihood" and "perplexity" in self.values:
            text += f", perplexity {metric_value('perplexity', self.values['perplexity'])}"
        return text

    def against(self, other: "Judged", metric: str) -> Difference | None:
        """This model's metric minus another's on the same rows; None if their answers were not recorded."""
        by_seed, rows = (self.values[metric] - other.values[metric],), self.rows
        if metric == "accuracy":
            if self.right is None or other.right is None:
                return None
            return Difference(by_seed, error_of_mean(self.right.astype(float) - other.right), rows)
        ours, theirs = self.draws.get(metric), other.draws.get(metric)
        if ours is None or theirs is None or ours.shape != theirs.shape:
            return None
        error = float(np.std(ours - theirs, ddof=1))
        return Difference(by_seed, error, rows) if error > ROUNDING else None

    def difference_text(self, other: "Judged", metric: str) -> str:
        """Difference to another model with its interval: "-2.3 points (-4.1 to -0.5)"."""
        text = metric_difference(metric, self.values[metric] - other.values[metric])
        difference = self.against(other, metric)
        return text + (f" ({metric_interval(metric, *difference.interval(), signed=True)})" if difference else "")


def judged(results: RunResults, which: str) -> Judged | None:
    """The quality of the delivered model, the baseline or the tuned dense model; None if unknown."""
    facts: Mapping[str, Any] = results.facts(PRUNED).get(TUNED) or {} if which == TUNED else results.facts(which)
    if not facts.get("test"):
        return None
    rows, right = results.task["rows"]["test"], None
    if facts.get("test_right") is not None:
        bits = np.frombuffer(bytes.fromhex(facts["test_right"]), dtype=np.uint8)
        right = np.unpackbits(bits, count=rows).astype(bool)
    draws = {metric: np.array(values) for metric, values in facts.get("test_draws", {}).items()}
    return Judged(facts["test"], rows, right, draws, _by_token(results))


def more_judged(results: RunResults, split: str) -> Judged:
    """The delivered model's quality on a further reported split."""
    rows, values = results.task["rows"][split], results.facts(PRUNED)["more_tests"][split]
    return Judged(values, rows, by_token=_by_token(results))


def _by_token(results: RunResults) -> bool:
    return results.task["problem_type"] in BY_TOKEN


def bits_of(right: np.ndarray) -> str:
    """Whether each row (N,) was answered rightly, as hexadecimal digits for JSON: eight rows a pair."""
    return np.packbits(right).tobytes().hex()
