"""Methods at several budgets: where their learning rates are tried, and which of them are tested against each other."""

from collections.abc import Sequence

from prunelora.comparison.methods import Method

# Learning rates are tried at the budget nearest to this one, which is far from both ends of most curves.
TRIED_NEAR = 0.5


def tried_on(methods: Sequence[Method]) -> dict[str, Method]:
    """By the name of every method, the method on which its learning rate is tried: itself, or its base at one budget.

    This is the budget nearest to a half of those at which something is cut; of two equally near the larger.
    """
    tried = {}
    for method in methods:
        points = [other for other in methods if method.base is not None and other.base == method.base] or [method]
        tried[method.name] = min(points, key=_distance_from_a_half)
    return tried


def to_be_paired(methods: Sequence[Method]) -> list[tuple[Method, Method]]:
    """Pairs of methods to be tested, the later method first: without several budgets all pairs.

    A method at a budget is tested against every method without one, against others at the same budget, and against
    itself at its largest budget. All pairs of 6 budgets of 3 methods would be 190 tests, of which ten would be
    significant by chance.
    """
    return [
        (later, earlier)
        for place, earlier in enumerate(methods)
        for later in methods[place + 1 :]
        if earlier.base is None
        or later.base is None
        or earlier.keep_macs == later.keep_macs
        or (earlier.base == later.base and earlier is _largest(methods, earlier.base))
    ]


def _largest(methods: Sequence[Method], base: str) -> Method:
    return max((method for method in methods if method.base == base), key=lambda method: method.keep_macs or 0)


def _distance_from_a_half(method: Method) -> tuple[bool, float, float]:
    budget = method.keep_macs or 1.0
    # 0.8 - 0.5 and 0.5 - 0.2 differ in the last digit.
    return budget == 1, round(abs(budget - TRIED_NEAR), 9), -budget
