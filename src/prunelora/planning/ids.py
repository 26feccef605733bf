"""Compact text for sorted ids: editable ranges, or a bitmap if ranges would be longer.

[0, 1, 2, 3, 8]      <->  "0-3,8"
many scattered ids   <->  "bits:9f3c..."     id i is bit 7 - i % 8 of byte i // 8
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from prunelora.errors import PlanError

_BITS = "bits:"


def write_ids(ids: Sequence[int], total: int) -> str:
    """Write sorted ids in 0..total-1 as ranges, or as a bitmap if that is shorter."""
    runs: list[list[int]] = []
    for number in ids:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    ranges = ",".join(f"{first}-{last}" if last > first else f"{first}" for first, last in runs)
    present = np.zeros(total, dtype=bool)
    present[list(ids)] = True
    bitmap = _BITS + np.packbits(present).tobytes().hex()
    return ranges if len(ranges) <= len(bitmap) else bitmap


def read_ids(text: str, total: int, place: str) -> tuple[int, ...]:
    """Read ids from the text of `write_ids`, or a hand-written one.

    Raises:
        PlanError: Naming `place`, if the text is not a list of ids, or they are unsorted, repeated or out of range.
    """
    if text.startswith(_BITS):
        try:
            data = bytes.fromhex(text[len(_BITS) :])
        except ValueError as error:
            raise PlanError(f"{place}: the bitmap is not hexadecimal ({error}).") from error
        bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8)).astype(bool)
        if len(data) != (total + 7) // 8 or bits[total:].any():
            raise PlanError(f"{place}: the bitmap holds {len(bits)} ids, expected {total} (and zeros after them).")
        return tuple(np.flatnonzero(bits).tolist())
    ids: list[int] = []
    for piece in filter(None, (part.strip() for part in text.split(","))):
        ends = [end.strip() for end in piece.split("-")]
        if len(ends) > 2 or not all(end.isdecimal() for end in ends):
            raise PlanError(f"{place}: {piece!r} is not an id or a range. Write ids like '0-3,8', or '' for none.")
        first, last = int(ends[0]), int(ends[-1])
        if last < first:
            raise PlanError(f"{place}: the range {piece!r} runs backwards. Write it as '{last}-{first}'.")
        # Before the range is expanded: a mistyped one may not fit into memory.
        check_ids([last], total, place)
        ids += range(first, last + 1)
    check_ids(ids, total, place)
    return tuple(ids)


def check_ids(ids: Sequence[int], total: int, place: str) -> None:
    """Check that ids are sorted, unique, and in 0..total-1.

    Raises:
        PlanError: Naming `place` and the first id that is wrong.
    """
    for first, second in pairwise(ids):
        if second <= first:
            raise PlanError(f"{place}: ids must be sorted and unique, found {first} before {second}.")
    outside = [number for number in ids if not 0 <= number < total]
    if outside:
        raise PlanError(f"{place}: id {outside[0]} is out of range, the base model has ids 0 to {total - 1}.")
