"""Numbers as text: tables, sentences and figures format every number with these functions.

scaled(109_482_240)                             -> "109.5 M"
percent(0.012)                                  -> "1.2 %"
with_quartiles(milliseconds, Spread(11, 10, 12)) -> "11.0 ms (10.0-12.0)", an en dash between
estimate("accuracy", 0.877, 0.004)              -> "87.7 ± 0.4"
"""

import math
from collections.abc import Callable, Iterable
from typing import TypeVar

from prunelora.evaluation.timing import Spread

NONE = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"

METRIC_TITLES = {
    "accuracy": "accuracy",
    "f1": "F1",
    "f1_macro": "F1, mean of classes",
    "f1_micro": "F1, all labels together",
    "matthews": "Matthews correlation",
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
    "mse": "mean squared error",
    "entity_f1": "entity F1",
    "entity_precision": "entity precision",
    "entity_recall": "entity recall",
    "log_likelihood": "log-likelihood of a token",
    "perplexity": "perplexity",
    "loss": "loss",
}
# Metrics that are shown in per cent; their differences are points.
SHARES = frozenset({"accuracy", "f1", "f1_macro", "f1_micro", "entity_f1", "entity_precision", "entity_recall"})

_T = TypeVar("_T")


# Counts, shares and times ---------------------------------------------------------------------------------------------


def decimal(value: float, digits: int, *, signed: bool = False) -> str:
    """A number with so many decimals and a typographic minus: -0.5 with U+2212; a rounded zero has no sign."""
    text = f"{value:{'+' if signed else ''},.{digits}f}"
    return text.replace("-", MINUS) if text.strip("+-0.,") else text.lstrip("+-")


def count(value: float) -> str:
    """A whole number to its last digit: "6,824"."""
    return f"{value:,.0f}"


def scaled(value: float, unit: str = "", *, like: float | None = None) -> str:
    """A count with a prefix: 109_482_240 -> "109.5 M"; with "B": "109.5 MB". Below 10,000 to the last digit.

    Args:
        value: The count.
        unit: Its unit.
        like: A larger count beside it, whose prefix and decimals it takes.
    """
    largest = max(value, like or 0)
    if largest < 10_000 and not unit:
        return count(value)
    for prefix, scale in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if largest >= scale:
            return f"{value / scale:,.{1 if largest >= 10 * scale else 2}f} {prefix}{unit}"
    return f"{count(value)} {unit}"


def scaled_alike(values: Iterable[float], unit: str = "") -> Callable[[float], str]:
    """`scaled` for all values of a column, with the prefix of the largest."""
    largest = max(values, default=0)
    return lambda value: scaled(value, unit, like=largest)


def percent(share: float) -> str:
    """A share with more decimals where it is small: "64 %", "1.2 %", "0.35 %"."""
    value = 100 * share
    return f"{value:.{0 if value >= 9.95 or not value else 1 if value >= 0.995 else 2}f} %"


def factor(value: float) -> str:
    """A factor of two digits: "1.8", "0.93", "12"."""
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}" if value >= 1.05 else f"{value:.2f}"


def duration(seconds: float) -> str:
    """Wall time: "0.4 s", "42 s", "3 min 07 s", "2 h 05 min"."""
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def milliseconds(value: float) -> str:
    """A time of three digits: "0.412 ms", "11.0 ms", "1,240 ms"."""
    digits = 2 - math.floor(math.log10(value)) if value > 0 else 0
    return f"{value:,.{min(3, max(0, digits))}f} ms"


def with_quartiles(show: Callable[[float], str], spread: Spread) -> str:
    """Median and quartiles, the unit once: "64 % (60-70)", with an en dash.

    Args:
        show: Formats each of the three numbers: `percent`, `milliseconds`, `factor`.
        spread: The numbers.
    """
    median, low, high = map(show, (spread.median, spread.q25, spread.q75))
    _, space, unit = median.rpartition(" ")
    ends = [end.removesuffix(f" {unit}") if space else end for end in (low, high)]
    return f"{median} ({ends[0]}\N{EN DASH}{ends[1]})"


def optional(value: _T | None, show: Callable[[_T], str]) -> str:
    """The value as text, or a dash for None."""
    return NONE if value is None else show(value)


# Metrics --------------------------------------------------------------------------------------------------------------


def metric_title(metric: str) -> str:
    """Name of a metric in a sentence."""
    return METRIC_TITLES.get(metric, metric)


def metric_heading(metric: str) -> str:
    """Heading of a column of `metric_number`: "accuracy, %"."""
    return f"{metric_title(metric)}{', %' if metric in SHARES else ''}"


def metric_number(metric: str, value: float, *, signed: bool = False) -> str:
    """A metric's value, or a difference of two, without its unit: 0.8765 -> "87.7"; a correlation "0.712"."""
    return decimal(100 * value, 1, signed=signed) if metric in SHARES else decimal(value, 3, signed=signed)


def metric_value(metric: str, value: float) -> str:
    """A metric's value with its unit: "86.6 %", "0.712"."""
    return metric_number(metric, value) + (" %" if metric in SHARES else "")


def metric_difference(metric: str, difference: float) -> str:
    """A difference with its sign and unit: "+0.5 points", "-0.012"."""
    return metric_number(metric, difference, signed=True) + (" points" if metric in SHARES else "")


def metric_interval(metric: str, low: float, high: float, *, signed: bool = False) -> str:
    """Both ends of an interval, without their unit: "84.2 to 88.7"; signed, of a difference: "+0.4 to +1.3"."""
    return f"{metric_number(metric, low, signed=signed)} to {metric_number(metric, high, signed=signed)}"


def estimate(metric: str, mean: float, deviation: float | None) -> str:
    """Mean and standard deviation over seeds: "87.7 ± 0.4"; of one seed "87.7 (1 seed)"."""
    spread = "(1 seed)" if deviation is None else f"\N{PLUS-MINUS SIGN} {metric_number(metric, deviation)}"
    return f"{metric_number(metric, mean)} {spread}"


def p_value(value: float) -> str:
    """A p value: "0.31", "0.021", "< 0.001"."""
    return "< 0.001" if value < 0.001 else f"{value:.{2 if value >= 0.0995 else 3}f}"


def learning_rate(value: float) -> str:
    """A learning rate in its shortest form: "0.001", "2e-5"."""
    return f"{value:g}".replace("e-0", "e-")
