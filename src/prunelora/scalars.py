"""Numbers as people have them, numpy's among them, as Python's own."""

import numbers
from typing import Any


def plain(value: Any) -> Any:
    """A whole number as int and any other as float; what is no number, truth values among it, as it is.

    A float32 is the number that was typed, 0.7, and not the nearest float64, 0.699999988.
    """
    if type(value) in (bool, int, float):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        try:
            return float(str(value))
        except ValueError:  # A fraction is written as 7/10.
            return float(value)
    return value
