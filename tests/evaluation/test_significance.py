"""Differences over seeds and rows, and intervals of proportions: against simulations, scipy and hand counts."""

import numpy as np
import pytest
from scipy.stats import binomtest, ttest_1samp, ttest_rel
from sklearn.metrics import matthews_corrcoef

from prunelora.evaluation.significance import (
    LEVEL,
    Difference,
    compare_answers,
    error_of_mean,
    holm,
    right_answers,
    wilson,
)

ROWS = 400


def logits_that_answer(answers: np.ndarray) -> np.ndarray:
    return np.eye(2)[answers]


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(np.argmax(logits, axis=-1) == labels))


def matthews(logits: np.ndarray, labels: np.ndarray) -> float:
    return float(matthews_corrcoef(labels, np.argmax(logits, axis=-1)))


def trainings(generator, seeds, *, spread=0.0, shared=0.0, rows_differ=0.0, ahead=0.0):
    """Answers of two methods, one array a seed: 1 is right. Three quarters of the rows are easy for both.

    Args:
        generator: Of everything that is drawn.
        seeds: Trainings of each method.
        spread: Standard deviation of a training's accuracy about its method's.
        shared: The same of what trainings of both methods with one seed have in common.
        rows_differ: Standard deviation of how much easier a row is for the first method than for the second.
        ahead: How much better the first method is on the mean.
    """
    easy = np.where(generator.random(ROWS) < 0.75, 0.97, 0.55)
    row = generator.normal(0, rows_differ, ROWS) / 2
    common = generator.normal(0, shared, seeds)
    methods = []
    for side, lead in ((1, ahead), (-1, 0.0)):
        chances = [easy + side * row + lead + common[seed] + generator.normal(0, spread) for seed in range(seeds)]
        methods.append([(generator.random(ROWS) < np.clip(one, 0, 1)).astype(float) for one in chances])
    return methods


def rejected(first, second):
    """Whether two methods are told apart by which rows (N,) each training got right."""
    difference = Difference(
        tuple(float(np.mean(a - b)) for a, b in zip(first, second, strict=True)),
        error_of_mean(np.mean(np.asarray(first) - np.asarray(second), axis=0)),
        ROWS,
    )
    low, high = difference.interval()
    return low > 0 or high < 0


def rate(seeds, *, trials=400, seed=0, relabelled=False, **drawn):
    generator = np.random.default_rng(seed)
    found = 0
    for _ in range(trials):
        first, second = trainings(generator, seeds, **drawn)
        if relabelled:
            second = [second[place] for place in generator.permutation(seeds)]
        found += rejected(first, second)
    return found / trials


# Of 400 trials at a rate of 5 %, 8.3 % or more are found in one of 1,000 simulations.
AT_MOST = 0.083


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("spread", [0.0, 0.005, 0.01, 0.02, 0.1])
def test_methods_that_are_alike_are_told_apart_no_more_often_than_the_level_says(seeds, spread):
    assert rate(seeds, spread=spread) <= AT_MOST


@pytest.mark.parametrize("spread", [0.0, 0.02])
def test_the_level_holds_where_rows_differ_between_the_methods(spread):
    assert rate(3, spread=spread, rows_differ=0.4) <= AT_MOST


@pytest.mark.parametrize("relabelled", [False, True])
def test_relabelling_seeds_leaves_the_false_positive_rate_at_its_level(relabelled):
    """With what seeds share across methods, pairing them matters; whichever way they are paired, the level holds."""
    assert rate(3, spread=0.01, shared=0.02, relabelled=relabelled) <= AT_MOST


def test_rows_alone_would_find_differences_that_are_not_there():
    """What the test before this one did: the simulation shows the fault that the seeds' part is there for."""
    generator = np.random.default_rng(0)
    found = 0
    for _ in range(200):
        first, second = trainings(generator, 3, spread=0.03)
        found += ttest_1samp(np.mean(np.asarray(first) - np.asarray(second), axis=0), 0).pvalue < LEVEL
    assert found / 200 > 0.2


@pytest.mark.parametrize(("seeds", "ahead", "at_least"), [(3, 0.1, 0.7), (5, 0.07, 0.8)])
def test_a_difference_that_is_there_is_found(seeds, ahead, at_least):
    assert rate(seeds, spread=0.01, ahead=-ahead, trials=200) >= at_least


def test_with_no_spread_of_rows_it_is_students_test_over_seeds():
    by_seed = (0.01, 0.03, 0.02)
    difference = Difference(by_seed, 1e-9, 100)
    expected = ttest_1samp(by_seed, 0)
    assert difference.p_value == pytest.approx(expected.pvalue)
    assert difference.interval() == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_of_one_seed_it_is_the_paired_t_test_over_rows():
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 2, 300)
    first, second = (np.where(generator.random(300) < share, labels, 1 - labels) for share in (0.85, 0.8))
    difference = compare_answers(
        [logits_that_answer(first)], [logits_that_answer(second)], labels, judge=accuracy, row_scores=right_answers
    )
    expected = ttest_rel((first == labels).astype(float), (second == labels).astype(float))
    assert difference.seed_error is None
    assert difference.p_value == pytest.approx(expected.pvalue)
    assert difference.interval() == pytest.approx(tuple(expected.confidence_interval(0.95)))


@pytest.mark.parametrize("by_seed", [(0.01, 0.03, 0.02), (0.02,), (-0.4, -0.401, -0.399)])
def test_the_p_value_is_the_level_at_which_the_interval_ends_at_0(by_seed):
    difference = Difference(by_seed, 0.008, 100)
    low, high = difference.interval(difference.p_value)
    assert min(abs(low), abs(high)) == pytest.approx(0, abs=1e-6)


def test_both_parts_widen_the_interval():
    widths = [
        high - low
        for low, high in (
            Difference(by_seed, error, 200).interval()
            for by_seed, error in (((0.01, 0.02), 0.0), ((0.01, 0.02), 0.01), ((0.0, 0.03), 0.01))
        )
    ]
    assert widths == sorted(widths)
    assert len(set(widths)) == 3


def test_a_method_does_not_differ_from_itself():
    labels = np.tile([0, 1], 50)
    answers = logits_that_answer(labels)
    test = compare_answers([answers] * 3, [answers] * 3, labels, judge=accuracy, row_scores=right_answers)
    assert test.p_value == 1
    # Of 100 rows none was answered otherwise: so many of all rows are at most, by scipy's exact interval.
    most = binomtest(0, 100).proportion_ci(0.95).high
    assert test.interval() == pytest.approx((-most, most))


def test_rows_that_all_differ_alike_are_a_sign_test():
    """Nothing varies, so no t test can be made: of the ways to swap 5 rows' answers, 2 in 32 differ as much."""
    labels = np.zeros(5, dtype=int)
    test = compare_answers(
        [logits_that_answer(labels)], [logits_that_answer(1 - labels)], labels, judge=accuracy, row_scores=right_answers
    )
    assert test.mean == 1
    assert test.p_value == pytest.approx(2 / 32)
    low, _ = Difference((1.0,), 0.0, 6).interval(2 / 64)
    assert low == pytest.approx(0)


@pytest.mark.parametrize("by_seed", [(0.5,), (1.0, 1.0, 1.0), (1.0, 0.9, 1.0, 0.9, 1.0)])
def test_one_row_tells_no_methods_apart(by_seed):
    difference = Difference(by_seed, 0.0, 1)
    low, high = difference.interval()
    assert difference.p_value > 0.5
    assert low < 0 < high


def test_samples_of_rows_without_a_metric_are_left_out():
    """Of the samples of three rows, those without the row that has a label have no mean."""
    labels = np.asarray([1.0, np.nan, np.nan])

    def mean_of_labelled(answers, wanted):
        kept = answers[~np.isnan(wanted)]
        return float(kept.mean()) if len(kept) else float("nan")

    first, second = np.asarray([0.9, 0.0, 0.0]), np.asarray([0.4, 0.0, 0.0])
    difference = compare_answers([first], [second], labels, judge=mean_of_labelled, draws=50)
    assert np.isfinite(difference.row_error)
    assert difference.mean == pytest.approx(0.5)
    assert difference.p_value > LEVEL


def test_the_quick_way_and_the_bootstrap_agree():
    generator = np.random.default_rng(2)
    labels = generator.integers(0, 2, 300)
    seeds = [
        [logits_that_answer(np.where(generator.random(300) < 0.8, labels, 1 - labels)) for _ in range(3)]
        for _ in range(2)
    ]
    quick = compare_answers(*seeds, labels, judge=accuracy, row_scores=right_answers)
    general = compare_answers(*seeds, labels, judge=accuracy, draws=1000)
    assert general.by_seed == quick.by_seed
    assert general.row_error == pytest.approx(quick.row_error, rel=0.1)


def test_metrics_that_are_no_mean_over_rows_are_tested_too():
    generator = np.random.default_rng(3)
    labels = generator.integers(0, 2, 200)
    first, second = (
        [logits_that_answer(np.where(generator.random(200) < share, labels, 1 - labels)) for _ in range(3)]
        for share in (0.95, 0.6)
    )
    test = compare_answers(first, second, labels, judge=matthews, draws=50)
    assert test.by_seed[0] == pytest.approx(matthews(first[0], labels) - matthews(second[0], labels))
    assert test.p_value < 0.01


def test_holm_is_what_its_definition_says():
    """0.01 x 4, 0.02 x 3, then 0.03 x 2 and 0.04 x 1, neither below those before it."""
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.04]) == [0.04]
    assert holm([]) == []


def test_a_proportion_at_the_edge_has_an_interval():
    """Wilson's: (p + z^2 / 2n +- z sqrt(p q / n + z^2 / 4n^2)) / (1 + z^2 / n); of 8 of 8 rows 1 / (1 + z^2 / 8)."""
    z = 1.959964
    low, high = wilson(1.0, 8)
    assert (low, high) == (pytest.approx(1 / (1 + z**2 / 8), abs=1e-5), 1.0)
    assert wilson(0.0, 8) == pytest.approx((1 - high, 1 - low))
    p, n = 0.8, 100
    centre, reach = p + z**2 / (2 * n), z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    assert wilson(p, n) == pytest.approx([(centre + sign * reach) / (1 + z**2 / n) for sign in (-1, 1)], abs=1e-5)
