"""A model's quality on the reported rows with its interval, and its difference to another model's."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
        draws: Metrics on bootstrap samples of the rows, the same samples for every model of the run.
        by_token: Whether answers belong to tokens, which depend on each other within a row: accuracy is then no share
            of rows.
    """

    values: Mapping[str, float]
    rows: int
    right: np.ndarray | None = None
    draws: Mapping[str, Sequence[float]] | None = None
    by_token: bool = False

    def interval(self, metric: str) -> tuple[float, float] | None:
        """95 % interval over rows: Wilson's of an accuracy, the bootstrap's of other metrics; None if unknown."""
        if metric == "accuracy":
            return None if self.by_token else wilson(self.values[metric], self.rows)
        draws = (self.draws or {}).get(metric, ())
        # Samples that are all equal say nothing about other rows.
        if len(set(draws)) < 2 or not all(map(math.isfinite, draws)):
            return None
        low, high = np.quantile(draws, [LEVEL / 2, 1 - LEVEL / 2])
        return float(low), float(high)

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
        ours, theirs = ((model.draws or {}).get(metric, ()) for model in (self, other))
        if len(ours) < 2 or len(ours) != len(theirs) or not all(map(math.isfinite, (*ours, *theirs))):
            return None
        error = statistics.stdev(a - b for a, b in zip(ours, theirs, strict=True))
        return Difference(by_seed, error, rows) if error > ROUNDING else None

    def difference_text(self, other: "Judged", metric: str) -> str:
        """Difference to another model with its interval: "-2.3 points (-4.1 to -0.5)"."""
        text = metric_difference(metric, self.values[metric] - other.values[metric])
        difference = self.against(other, metric)
        return (
            text if difference is None else f"{text} ({metric_interval(metric, *difference.interval(), signed=True)})"
        )


def judged(results: RunResults, which: str) -> Judged | None:
    """The quality of the delivered model, the baseline or the tuned dense model; None if unknown."""
    facts: Mapping[str, Any] = results.facts(PRUNED).get(TUNED) or {} if which == TUNED else results.facts(which)
    if not facts.get("test"):
        return None
    count, bits = results.task["rows"]["test"], facts.get("test_right")
    right = None if bits is None else np.unpackbits(np.frombuffer(bytes.fromhex(bits), dtype=np.uint8), count=count)
    right = None if right is None else right.astype(bool)
    return Judged(facts["test"], count, right, facts.get("test_draws"), _by_token(results))


def more_judged(results: RunResults, split: str) -> Judged:
    """The delivered model's quality on a further reported split."""
    rows, values = results.task["rows"][split], results.facts(PRUNED)["more_tests"][split]
    return Judged(values, rows, by_token=_by_token(results))


def _by_token(results: RunResults) -> bool:
    return results.task["problem_type"] in BY_TOKEN


def bits_of(right: np.ndarray) -> str:
    """Whether each row (N,) was answered rightly, as hexadecimal digits for JSON: eight rows a pair."""
    return np.packbits(right).tobytes().hex()
