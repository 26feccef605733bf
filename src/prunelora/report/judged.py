"""A model's quality on the reported rows with the interval that they allow, and how it stands against another's."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prunelora.evaluation.significance import LEVEL, ROUNDING, Difference, error_of_mean, wilson
from prunelora.models.problem_types import BY_TOKEN
from prunelora.report.reading import SHARES, metric_text, rows_tested
from prunelora.report.results import RunResults

# Whose quality a run may hold, and where: the delivered model's; the baseline's; that of the model that was merged
# before anything was cut.
PRUNED, BASELINE, TUNED = "measure", "baseline", "tuned_dense"


@dataclass(frozen=True)
class Judged:
    """One model on the reported rows.

    Attributes:
        values: Metrics by name.
        rows: Their number; 0 if it is not known.
        right: Which rows (N,) were answered rightly; None where that was not written down.
        draws: Values of metrics on bootstrap samples of the rows, the same samples for every model of the run.
        by_token: Whether tokens have the answers, which hang together within a row: accuracy is then no share of rows.
    """

    values: Mapping[str, float]
    rows: int
    right: np.ndarray | None = None
    draws: Mapping[str, Sequence[float]] | None = None
    by_token: bool = False

    def interval(self, metric: str) -> tuple[float, float] | None:
        """95 % interval: of an accuracy Wilson's, of other metrics the bootstrap's; None where neither is known."""
        if metric == "accuracy":
            return wilson(self.values[metric], self.rows) if self.rows and not self.by_token else None
        draws = (self.draws or {}).get(metric, ())
        # Samples that all give the same say nothing of other rows.
        if len(set(draws)) < 2 or not all(map(math.isfinite, draws)):
            return None
        low, high = np.quantile(draws, [LEVEL / 2, 1 - LEVEL / 2])
        return float(low), float(high)

    def text(self, metric: str) -> str:
        """For a table: "86.6 % (84.2 to 88.7)"."""
        return self._with(metric, "")

    def said(self, metric: str) -> str:
        """For a sentence: "86.6 % (95 % interval 84.2 to 88.7)"."""
        return self._with(metric, "95 % interval ")

    def _with(self, metric: str, what: str) -> str:
        text, interval = metric_text(metric, self.values[metric]), self.interval(metric)
        text += "" if interval is None else f" ({what}{ends_text(metric, interval)})"
        if metric == "log_likelihood" and "perplexity" in self.values:
            text += f", perplexity {metric_text('perplexity', self.values['perplexity'])}"
        return text

    def against(self, other: "Judged", metric: str) -> Difference | None:
        """This model's metric minus another's on the same rows; None where their answers were not written down."""
        by_seed, rows = (self.values[metric] - other.values[metric],), self.rows
        if not rows:
            return None
        if metric == "accuracy":
            if self.right is None or other.right is None:
                return None
            return Difference(by_seed, error_of_mean(self.right.astype(float) - other.right), rows)
        own, others = ((one.draws or {}).get(metric, ()) for one in (self, other))
        if len(own) < 2 or len(own) != len(others) or not all(map(math.isfinite, (*own, *others))):
            return None
        error = statistics.stdev(a - b for a, b in zip(own, others, strict=True))
        # As of `interval`: samples that all give the same say nothing of other rows.
        return Difference(by_seed, error, rows) if error > ROUNDING else None


def judged(results: RunResults, which: str) -> Judged | None:
    """The quality of the delivered model, of the baseline or of the tuned dense model; None if it is not known."""
    facts: Mapping[str, Any] = results.facts(PRUNED).get(TUNED) or {} if which == TUNED else results.facts(which)
    if not facts.get("test"):
        return None
    count, bits = rows_tested(results), facts.get("test_right")
    right = None if bits is None else np.unpackbits(np.frombuffer(bytes.fromhex(bits), dtype=np.uint8), count=count)
    right = None if right is None else right.astype(bool)
    return Judged(facts["test"], count, right, facts.get("test_draws"), _by_token(results))


def more_judged(results: RunResults, split: str) -> Judged:
    """The delivered model's quality on a further reported split."""
    rows = int(results.task["rows"][split])
    return Judged(results.facts(PRUNED)["more_tests"][split], rows, by_token=_by_token(results))


def _by_token(results: RunResults) -> bool:
    return results.task.get("problem_type") in BY_TOKEN


def bits_of(right: np.ndarray) -> str:
    """Which rows (N,) were answered rightly, as a stage writes it down: hexadecimal digits, eight rows a pair."""
    return np.packbits(right).tobytes().hex()


def ends_text(metric: str, ends: tuple[float, float]) -> str:
    """Both ends of an interval, without their unit: "84.2 to 88.7"; of differences with their sign."""
    scale, digits = (100, 1) if metric in SHARES else (1, 3)
    signed = "+" if ends[0] < 0 else ""
    return " to ".join(f"{scale * end:{signed}.{digits}f}" for end in ends).replace("-", "\N{MINUS SIGN}")
