"""The packaged recipes, and a person's own."""

import pytest

from prunelora.comparison.methods import LEFT_OUT, METHODS, load_methods
from prunelora.comparison.trials import Trial, portable
from prunelora.data.settings import DataSettings
from prunelora.errors import PlanError, RecipeError
from prunelora.run.recipe import DEFAULT, Recipe

BASE = Recipe(model="a-model", task=DataSettings(data="a-file.csv"), seed=7)

TUNE_FIRST = """\
# Tune, cut, tune again.
format: prunelora-recipe-1
stages:
- stage: finetune
  learning_rate: 0.002
- stage: merge
- stage: score
- stage: plan
- stage: prune
- stage: finetune
  learning_rate: 0.001
- stage: merge
- stage: measure
- stage: report
"""


def method(name: str, **changes):
    return load_methods([name], base=BASE, changes=changes)[0]


def stage(method, kind: str):
    return next(one for one in method.recipe.stages if one.stage == kind)


def test_every_packaged_method_loads_and_says_what_it_is():
    methods = load_methods(METHODS, base=BASE)
    assert [one.name for one in methods] == list(METHODS)
    assert len({one.title for one in methods}) == len(METHODS) == 6


def test_what_a_run_does_is_among_the_methods():
    assert method(DEFAULT).name in METHODS
    stages = [one for one in Recipe().stages if one.stage not in LEFT_OUT]
    assert list(method(DEFAULT).recipe.stages[:-1]) == stages


@pytest.mark.parametrize("name", METHODS)
def test_a_method_gets_the_comparisons_model_and_task(name):
    recipe = method(name).recipe
    assert (recipe.model, recipe.task.data) == ("a-model", "a-file.csv")
    assert recipe.names[-2:] == ["merge", "evaluate"]


def test_the_controls_differ_from_prune_lora_in_what_is_scored_alone():
    ours = method("prune-lora").recipe
    for name, criterion in (("random-prune-lora", "random"), ("magnitude-prune-lora", "magnitude")):
        control = method(name).recipe
        assert stage(method(name), "score").criterion == criterion
        assert control.with_settings({"score.criterion": "gradient"}) == ours


def test_lora_adapts_what_prune_lora_adapts():
    assert method("lora").tuning.lora_targets == stage(method("prune-lora"), "plan").targets
    assert method("lora").tuning.lora_rank == stage(method("prune-lora"), "plan").rank_high


def test_full_trains_every_weight():
    assert method("full").tuning.trainable == "all"


def test_all_methods_of_one_fine_tuning_train_alike_but_for_the_learning_rate():
    def training(name: str) -> dict:
        settings = method(name).tuning.model_dump(exclude={"trainable", "learning_rate"})
        return settings

    once = [name for name in METHODS if len(method(name).recipe.tunings) == 1]
    assert once == [name for name in METHODS if name != DEFAULT]
    assert all(training(name) == training("full") for name in once)


def test_all_methods_train_for_as_long():
    epochs = {name: sum(one.epochs for one in method(name).recipe.tunings.values()) for name in METHODS}
    assert epochs == dict.fromkeys(METHODS, pytest.approx(3))


def test_settings_reach_every_method_that_has_them():
    methods = load_methods(["full", "prune-lora"], base=BASE, changes={"epochs": 5, "keep_heads": 3})
    assert [one.tuning.epochs for one in methods] == [5, 5]
    assert stage(methods[1], "plan").keep_heads == 3


@pytest.mark.parametrize("key", ["lora_rank", "finetune.lora_rank"])
def test_ranks_of_a_fine_tuning_reach_those_that_have_no_plan_before_it(key):
    lora, pruned, first = load_methods(["lora", "prune-lora", "tune-first"], base=BASE, changes={key: 3})
    ranks = [[one.lora_rank for one in method.recipe.tunings.values()] for method in (lora, pruned, first)]
    assert ranks[0] == [3]
    assert ranks[1] == [8]
    assert ranks[2] == ([3, 8] if key == "lora_rank" else [8, 8])


def test_two_budgets_of_a_method_are_an_error_however_each_is_named():
    with pytest.raises(PlanError, match=r"keep_macs=0.5, speedup=2.0: two budgets"):
        load_methods(["prune-lora"], base=BASE, changes={"keep_macs": 0.5, "plan.speedup": 2})


def test_a_setting_that_no_method_has_is_an_error():
    with pytest.raises(RecipeError, match=r"keep_heads: none of the methods full, lora has"):
        load_methods(["full", "lora"], base=BASE, changes={"keep_heads": 3})


@pytest.mark.parametrize(
    ("key", "option"),
    [
        ("model", "model"), ("seed", "seeds"), ("data", "data"), ("text", "text"),
        ("max_train_rows", "max_train_rows"), ("task.max_train_rows", "max_train_rows"),
    ],
)  # fmt: skip
def test_a_setting_of_the_whole_comparison_is_an_error_that_names_its_option(key, option):
    with pytest.raises(RecipeError, match=rf"^{key}: .* the same for all methods.* Give it as {option}\.$"):
        load_methods(["lora", "prune-lora"], base=BASE, changes={key: 5})


@pytest.mark.parametrize("key", ["measure.repeats", "repeats", "export.tolerance", "baseline.rank"])
def test_a_setting_of_a_stage_that_is_left_out_is_an_error(tmp_path, key):
    stages = "".join(f"- stage: {name}\n" for name in ("baseline", "export", "measure"))
    (tmp_path / "own.yaml").write_text(TUNE_FIRST.replace("- stage: measure\n", stages))
    with pytest.raises(RecipeError, match=rf"^{key}: .*none of the methods own has such a setting"):
        load_methods([str(tmp_path / "own.yaml")], base=BASE, changes={key: 5})


def test_a_recipe_file_is_a_method(tmp_path):
    (tmp_path / "tune-first.yaml").write_text(TUNE_FIRST)
    own = method(str(tmp_path / "tune-first.yaml"))
    assert (own.name, own.title) == ("tune-first", "Tune, cut, tune again.")
    assert own.recipe.names == [
        "finetune-1",
        "merge-1",
        "score",
        "plan",
        "prune",
        "finetune",
        "merge",
        "evaluate",
    ]


def test_every_fine_tuning_of_a_recipe_gets_its_share_of_a_learning_rate(tmp_path):
    (tmp_path / "tune-first.yaml").write_text(TUNE_FIRST)
    own = method(str(tmp_path / "tune-first.yaml"))
    assert own.learning_rates([1, 3]) == (0.001, 0.003)
    tripled = own.with_learning_rate(0.003)
    assert [one.learning_rate for one in tripled.stages if one.stage == "finetune"] == [0.006, 0.003]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("format: prunelora-recipe-1\nstages:\n- stage: score\n", "no stage 'finetune'"),
        ("format: prunelora-recipe-1\nstages:\n- stage: finetune\n", "last stage before measuring must be 'merge'"),
    ],
)
def test_a_recipe_that_cannot_be_compared_is_an_error(tmp_path, content, complaint):
    (tmp_path / "mine.yaml").write_text(content)
    with pytest.raises(RecipeError, match=complaint):
        method(str(tmp_path / "mine.yaml"))


def test_a_mistyped_method_names_the_one_that_is_meant():
    with pytest.raises(RecipeError, match=r"prune-lroa: no method of this name\. Did you mean 'prune-lora'\?"):
        load_methods(["prune-lroa"], base=BASE)


def test_unknown_methods_are_named(tmp_path):
    with pytest.raises(RecipeError, match=r"prunelora: no method of this name.* Use some of: .*full, lora, "):
        method("prunelora")


def test_two_methods_need_two_names(tmp_path):
    (tmp_path / "lora.yaml").write_text(TUNE_FIRST)
    with pytest.raises(RecipeError, match="'lora'"):
        load_methods(["lora", str(tmp_path / "lora.yaml")], base=BASE)


def test_a_cells_recipe_holds_its_rate_and_seed_and_no_path_of_the_data(tmp_path):
    base = Recipe(model="a-model", task=DataSettings(task="sst2", data_dir="/some/where"))
    trial = Trial(load_methods(["lora"], base=base)[0], 0.003, 2, tmp_path)
    assert trial.folder == tmp_path / "trials" / "lora" / "lr-0.003" / "seed-2"
    assert (trial.recipe.seed, trial.recipe.stages[0].learning_rate) == (2, 0.003)
    assert "/some/where" not in str(portable(trial.recipe))
