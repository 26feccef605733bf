"""What all of it is for, on a real model and real reviews: what stays is worth more than what is left by chance."""

import math

import pytest

from prunelora.data.embedded import embedded_data_path, embedded_model_path
from prunelora.errors import MissingExtraError
from prunelora.run.execute import execute
from prunelora.run.recipe import Recipe
from prunelora.stages.evaluate import EvaluateStage


def _packages_are_there() -> bool:
    try:
        embedded_data_path()
        embedded_model_path()
    except MissingExtraError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.skipif(not _packages_are_there(), reason="the extra 'demo' is not installed")
def test_a_fifth_of_the_macs_beats_the_most_frequent_class_and_a_fifth_at_random(tmp_path):
    recipe = Recipe().with_options({"data": "rotten-tomatoes", "max_train_rows": 3000, "epochs": 1, "keep_macs": 0.2})
    until_merged = recipe.stages[: len(recipe.names) - recipe.names[::-1].index("merge")]
    recipe = recipe.model_copy(update={"stages": (*until_merged, EvaluateStage())})
    accuracy = {}
    for criterion in ("obs", "random"):
        # In one folder: the dense model is tuned once.
        outcome = execute(recipe.with_options({"criterion": criterion}), tmp_path, progress=False)
        assert ("finetune-1" in outcome.ran) == (criterion == "obs")
        accuracy[criterion] = outcome.results.facts("evaluate")["quality"]["test"]["accuracy"]
    rate, rows = outcome.results.task["majority_rate"], outcome.results.task["rows"]["test"]
    standard_error = math.sqrt(accuracy["obs"] * (1 - accuracy["obs"]) / rows)
    assert accuracy["obs"] > rate + 4 * standard_error
    assert accuracy["obs"] > accuracy["random"] + 2 * standard_error
