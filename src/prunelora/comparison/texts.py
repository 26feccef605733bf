"""A comparison's numbers for people: metrics, differences, shares and learning rates as text."""

from prunelora.comparison.results import Estimate, PairFacts, Share
from prunelora.report.reading import SHARES, metric_title

NONE = "\N{EN DASH}"

# What a constant answer gets 0 of, whatever the classes are.
UNCORRELATED = frozenset({"matthews", "pearson", "spearman"})
# GLUE gives its correlations times 100 too.
_POINTS = SHARES | UNCORRELATED

Size = tuple[int, int]


def size_text(size: Size) -> str:
    """For people: "batch 32, 128 tokens"."""
    return f"batch {size[0]}, {size[1]} tokens"


def points_of(metric: str) -> int:
    """What values of a metric are multiplied by when shown: 100, or 1 for errors."""
    return 100 if metric in _POINTS else 1


def number_text(metric: str, value: float) -> str:
    """A metric's value without its unit: 0.8765 -> "87.7"; a squared error "0.712"."""
    text = f"{100 * value:.1f}" if metric in _POINTS else f"{value:.3f}"
    # What is rounded to 0 has no sign.
    return text.replace("-", "\N{MINUS SIGN}" if text.strip("-0.") else "")


def quality_text(metric: str, figure: Estimate | None) -> str:
    """Mean and standard deviation over seeds: "87.7 ± 0.4"; of one seed: "87.7 (1 seed)"."""
    if figure is None:
        return NONE
    mean = number_text(metric, figure.mean)
    spread = f"\N{PLUS-MINUS SIGN} {number_text(metric, figure.sd)}" if figure.sd is not None else "(1 seed)"
    return f"{mean} {spread}"


def quality_said(metric: str, figure: Estimate) -> str:
    """The same in a sentence, with its unit: "87.7 ± 0.4 %", "87.7 % (1 seed)"."""
    if figure.sd is None:
        return f"{with_unit(metric, number_text(metric, figure.mean))} (1 seed)"
    return with_unit(metric, quality_text(metric, figure))


def with_unit(metric: str, text: str) -> str:
    """A value from `number_text` in a sentence: "87.7 %"; correlations times 100 have none."""
    return f"{text} %" if metric in SHARES else text


def signed(metric: str, difference: float) -> str:
    """A difference, in points where the metric is shown times 100: "+0.5", "0.0"."""
    text = number_text(metric, difference)
    return f"+{text}" if difference > 0 and text.strip("0.") else text


def interval_text(pair: PairFacts) -> str:
    """Both ends of the interval: "+0.4 to +1.3"."""
    return f"{signed(pair.metric, pair.low)} to {signed(pair.metric, pair.high)}"


def p_text(p_value: float) -> str:
    """A p value for people: "0.31", "0.021", "< 0.001"."""
    return "< 0.001" if p_value < 0.001 else f"{p_value:.2f}" if p_value >= 0.0995 else f"{p_value:.3f}"


def told_apart_text(pair: PairFacts) -> str:
    """Whether a difference is more than noise, for a table's cell; of one seed: more than the rows' noise."""
    if not pair.told_apart:
        return "no"
    return "of rows alone" if pair.rows_alone else "yes"


def p_said(p_value: float) -> str:
    """The same behind "p" in a sentence: "= 0.31", "< 0.001"."""
    text = p_text(p_value)
    return text if text.startswith("<") else f"= {text}"


def share_text(share: float) -> str:
    """A share for people, with decimals where it is small: "64 %", "1.2 %"."""
    per_cent = 100 * share
    return f"{per_cent:.{0 if per_cent >= 9.95 else 1 if per_cent >= 0.995 else 2}f} %"


def with_quartiles(share: Share) -> str:
    """Median of a ratio, and its quartiles in parentheses."""
    low, high = (f"{100 * end:.0f}" for end in (share.q25, share.q75))
    return f"{share_text(share.median)} ({low}\N{EN DASH}{high})"


def learning_rate_text(rate: float) -> str:
    """The shortest way to write it: "0.001", "2e-5"."""
    return f"{rate:g}".replace("e-0", "e-")


def metric_unit(metric: str) -> str:
    """Heading of a metric, with its unit: "accuracy, %", "Matthews correlation × 100"."""  # noqa: RUF002
    if metric in SHARES:
        return f"{metric_title(metric)}, %"
    return f"{metric_title(metric)}{' × 100' if metric in _POINTS else ''}"  # noqa: RUF001
