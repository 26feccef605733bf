"""Spread over seeds, and paired tests against what can be worked out by hand or by scipy."""

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import matthews_corrcoef

from prunelora.comparison.statistics import figure, paired_test, right_answers


def logits_that_answer(answers: np.ndarray) -> np.ndarray:
    return np.eye(2)[answers]


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(np.argmax(logits, axis=-1) == labels))


def matthews(logits: np.ndarray, labels: np.ndarray) -> float:
    return float(matthews_corrcoef(labels, np.argmax(logits, axis=-1)))


@pytest.fixture
def rows():
    """200 rows; the first method is wrong on 30 of them, the second on 20 others and on 5 of the same."""
    labels = np.tile([0, 1], 100)
    first, second = labels.copy(), labels.copy()
    first[:30] = 1 - first[:30]
    second[25:50] = 1 - second[25:50]
    return labels, logits_that_answer(first), logits_that_answer(second)


def test_spread_is_the_sample_standard_deviation():
    found = figure([0.8, 0.9, 1.0])
    assert found.mean == pytest.approx(0.9)
    assert found.sd == pytest.approx(0.1)
    assert found.values == (0.8, 0.9, 1.0)


def test_one_seed_has_no_spread():
    assert figure([0.8]).sd is None


def test_difference_is_firsts_minus_seconds_seed_by_seed(rows):
    labels, first, second = rows
    test = paired_test([first, second], [second, second], labels, judge=accuracy, row_scores=right_answers)
    assert test.by_seed == pytest.approx((-0.025, 0.0))
    assert test.difference == pytest.approx(-0.0125)


def test_one_seed_of_accuracy_is_mcnemars_exact_test(rows):
    """Rows on which only one is right: 25 for the second method, 20 for the first."""
    labels, first, second = rows
    test = paired_test([first], [second], labels, judge=accuracy, row_scores=right_answers, draws=20_000)
    assert test.p_value == pytest.approx(binomtest(20, 45).pvalue, abs=0.015)


def test_a_clear_difference_is_found(rows):
    labels, _, second = rows
    wrong = logits_that_answer(np.where(np.arange(200) < 100, 1 - labels, labels))
    test = paired_test([wrong], [second], labels, judge=accuracy, row_scores=right_answers)
    assert test.p_value < 0.01
    assert test.high < 0


def test_a_method_does_not_differ_from_itself(rows):
    labels, first, _ = rows
    test = paired_test([first], [first], labels, judge=accuracy, row_scores=right_answers)
    assert test.p_value == 1
    assert (test.low, test.high) == (0, 0)


def test_the_quick_way_and_the_general_way_agree(rows):
    labels, first, second = rows
    quick = paired_test([first], [second], labels, judge=accuracy, row_scores=right_answers, draws=4000)
    general = paired_test([first], [second], labels, judge=accuracy, draws=4000)
    assert quick.p_value == pytest.approx(general.p_value, abs=0.04)
    assert (quick.low, quick.high) == pytest.approx((general.low, general.high), abs=0.012)


def test_metrics_that_are_no_mean_over_rows_are_tested_too(rows):
    labels, first, second = rows
    test = paired_test([first], [second], labels, judge=matthews, draws=500)
    assert test.by_seed[0] == pytest.approx(matthews(first, labels) - matthews(second, labels))
    assert test.low < test.difference < test.high
    assert test.p_value > 0.2


def test_false_alarms_are_as_rare_as_the_level_says():
    """Two coins of the same quality: p below 0.1 in about a tenth of the trials."""
    generator = np.random.default_rng(0)
    labels = np.zeros(80, dtype=int)
    below = 0
    for _ in range(200):
        one, two = (logits_that_answer((generator.random(80) < 0.3).astype(int)) for _ in range(2))
        below += paired_test([one], [two], labels, judge=accuracy, row_scores=right_answers, draws=200).p_value < 0.1
    assert 4 <= below <= 32
