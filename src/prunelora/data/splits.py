"""Cutting a table in two: stratified, seeded, and never through rows with the same text."""

import random
from collections.abc import Hashable, Sequence
from typing import NamedTuple


class Cut(NamedTuple):
    """Row numbers of the two sides, each in ascending order."""

    rest: list[int]
    cut: list[int]


def cut_rows(keys: Sequence[Hashable], *, strata: Sequence[Hashable] | None, num_rows: int, seed: int) -> Cut:
    """Choose about `num_rows` rows to cut off.

    Every class gives its share, to within one row. Rows with equal keys go to the same side together, so a class with
    many repeated texts may give fewer; and no class gives its last text, so that the rest can still learn it.

    Args:
        keys: What makes two rows the same input.
        strata: Class of every row, or None where rows have no class (regression, multi-label).
        num_rows: Rows to cut off.
        seed: Seed of the choice.

    Returns:
        The rest and the cut. The cut is empty where no row can be spared.
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
    taken: list[int] = []
    for name, quota in shares(sizes, num_rows).items():
        members = by_class[name]
        generator.shuffle(members)
        for group in members[1:]:
            if len(group) <= quota:
                taken += group
                quota -= len(group)
    chosen = set(taken)
    return Cut(rest=[row for row in range(len(keys)) if row not in chosen], cut=sorted(taken))


def shares(sizes: dict[Hashable, int], total: int) -> dict[Hashable, int]:
    """Divide `total` over classes in proportion to their sizes, largest remainders first.

    Worked example: {"a": 70, "b": 30} and 5 -> 3.5 and 1.5 -> {"a": 4, "b": 1}.
    """
    everything = sum(sizes.values())
    exact = {name: total * size / everything for name, size in sizes.items()}
    whole = {name: int(share) for name, share in exact.items()}
    left = total - sum(whole.values())
    for name in sorted(exact, key=lambda name: whole[name] - exact[name])[:left]:
        whole[name] += 1
    return whole
