"""Cutting a table in two: stratified, seeded, with rows of the same text on the same side."""

import random
from collections.abc import Hashable, Sequence
from typing import NamedTuple


class Cut(NamedTuple):
    """Row numbers of the two sides, each in ascending order."""

    rest: list[int]
    cut: list[int]


def cut_rows(keys: Sequence[Hashable], *, strata: Sequence[Hashable] | None, num_rows: int, seed: int) -> Cut:
    """Choose about `num_rows` rows to cut off.

    Every class gives its share, to within one row. Rows with equal keys go to the same side, so a class with many
    repeated texts may give fewer. No class gives its last text, so that a model can still learn it from the rest.

    Args:
        keys: Keys of the rows; rows with equal keys are the same input.
        strata: Class of every row, or None where rows have no class (regression, multi-label).
        num_rows: Rows to cut off.
        seed: Seed of the choice.

    Returns:
        The rest and the cut. The cut is empty if no row can be spared.
    """
    groups: dict[Hashable, list[int]] = {}
    for row, key in enumerate(keys):
        groups.setdefault(key, []).append(row)
    # A text with two different labels counts for the class of its first row.
    by_class: dict[Hashable, list[list[int]]] = {}
    for group in groups.values():
        by_class.setdefault(strata[group[0]] if strata is not None else None, []).append(group)
    sizes = {name: sum(map(len, members)) for name, members in by_class.items()}
    generator = random.Random(seed)
    cut: list[int] = []
    for name, quota in shares(sizes, num_rows).items():
        members = by_class[name]
        generator.shuffle(members)
        for group in members[1:]:
            if len(group) <= quota:
                cut += group
                quota -= len(group)
    chosen = set(cut)
    return Cut(rest=[row for row in range(len(keys)) if row not in chosen], cut=sorted(cut))


def shares(sizes: dict[Hashable, int], total: int) -> dict[Hashable, int]:
    """Divide `total` over classes in proportion to their sizes, largest remainders first.

    Worked example: {"a": 70, "b": 30} and 5 -> 3.5 and 1.5 -> {"a": 4, "b": 1}.
    """
    num_rows = sum(sizes.values())
    exact = {name: total * size / num_rows for name, size in sizes.items()}
    whole = {name: int(share) for name, share in exact.items()}
    remaining = total - sum(whole.values())
    for name in sorted(exact, key=lambda name: whole[name] - exact[name])[:remaining]:
        whole[name] += 1
    return whole
