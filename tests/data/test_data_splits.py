"""Laws of cutting rows off a table."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from prunelora.data.splits import cut_rows, shares

few = settings(max_examples=60, deadline=None)
labels = st.lists(st.sampled_from("abc"), min_size=2, max_size=80)
fractions = st.floats(0.05, 0.6)
seeds = st.integers(0, 5)


@few
@given(labels, fractions, seeds)
def test_the_two_sides_are_disjoint_and_cover_all_rows(classes, fraction, seed):
    cut = cut_rows(range(len(classes)), strata=classes, num_rows=round(fraction * len(classes)), seed=seed)
    assert sorted([*cut.rest, *cut.cut]) == list(range(len(classes)))
    assert cut.rest == sorted(cut.rest)
    assert cut.cut == sorted(cut.cut)


@few
@given(labels, fractions, seeds)
def test_the_same_seed_gives_the_same_cut(classes, fraction, seed):
    first, second = (cut_rows(range(len(classes)), strata=classes, num_rows=10, seed=seed) for _ in range(2))
    assert first == second


def test_another_seed_gives_another_cut():
    cuts = {tuple(cut_rows(range(100), strata=None, num_rows=20, seed=seed).cut) for seed in range(5)}
    assert len(cuts) == 5


@few
@given(labels, fractions, seeds)
def test_every_class_gives_its_share_within_one_row_and_keeps_one(classes, fraction, seed):
    num_rows = round(fraction * len(classes))
    cut = cut_rows(range(len(classes)), strata=classes, num_rows=num_rows, seed=seed)
    given_rows = Counter(classes[row] for row in cut.cut)
    for name, size in Counter(classes).items():
        share = num_rows * size / len(classes)
        assert share - 1 < given_rows[name] < share + 1
        assert given_rows[name] < size


@few
@given(st.lists(st.tuples(st.integers(0, 15), st.sampled_from("ab")), min_size=2, max_size=80), fractions, seeds)
def test_rows_with_the_same_text_stay_together(rows, fraction, seed):
    texts, classes = [text for text, _ in rows], [name for _, name in rows]
    cut = cut_rows(texts, strata=classes, num_rows=round(fraction * len(rows)), seed=seed)
    assert {texts[row] for row in cut.rest}.isdisjoint(texts[row] for row in cut.cut)
    assert len(cut.cut) <= round(fraction * len(rows))


@few
@given(st.lists(st.integers(1, 1000), min_size=1, max_size=8), fractions)
def test_shares_add_up_and_are_within_one_of_exact(sizes, fraction):
    total = round(fraction * sum(sizes))
    divided = shares(dict(enumerate(sizes)), total)
    assert sum(divided.values()) == total
    assert all(abs(divided[n] - total * size / sum(sizes)) < 1 for n, size in enumerate(sizes))


def test_shares_of_the_worked_example():
    assert shares({"a": 70, "b": 30}, 5) == {"a": 4, "b": 1}
