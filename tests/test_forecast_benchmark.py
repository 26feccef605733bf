"""The benchmark of predicted against real seconds: its arithmetic, on made-up rounds."""

import pytest

from benchmarks.forecast import lines, predicted, ratios


def a_round(before, after, real):
    predictions = [
        {"seconds_of_check": 9, "stages": [{"stage": name, "seconds": seconds} for name, seconds in one.items()]}
        for one in (before, after)
    ]
    return {"recipe": "cut-first", "predictions": predictions, "real": real}


def test_a_stage_is_held_to_the_mean_of_both_predictions_where_it_is_more_than_a_twentieth():
    one = a_round({"score": 8, "plan": 9}, {"score": 12, "plan": 9}, {"score": 20, "plan": 1})
    assert predicted(one) == {"score": 10, "plan": 9}
    assert ratios(one) == {"all": pytest.approx(19 / 21), "score": 0.5}


def test_ratios_of_rounds_are_told_with_the_smallest_and_the_largest():
    rounds = [a_round({"score": n}, {"score": n}, {"score": 10}) for n in (8, 10, 14)]
    assert any(line.split()[-4:] == ["1.00", "(0.80", "to", "1.40)"] and "score" in line for line in lines(rounds))
