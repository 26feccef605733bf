"""Recipes: one readable file, an order that makes sense, settings checked where they are typed."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from prunelora.errors import PlanError, PruneLoraError, RecipeError
from prunelora.finetuning.settings import FineTuneSettings
from prunelora.run.options import differences
from prunelora.run.recipe import Recipe, load_recipe, packaged_recipes, read_recipe
from prunelora.stages.kinds import BY_KIND
from prunelora.stages.plan import BUDGETS

FOLDER = Path(__file__).parent
TUNE_FIRST = (
    "linear_probe", "score", "plan", "finetune", "merge", "score", "plan", "prune", "finetune", "merge", "measure",
)  # fmt: skip


def stages_of(recipe):
    """By name."""
    return dict(zip(recipe.names, recipe.stages, strict=True))


def test_the_resolved_recipe_round_trips(tmp_path):
    recipe = Recipe(seed=3).with_settings({"plan.keep_heads": "0.25", "task.data": "reviews.csv"}).with_baseline()
    recipe.save(tmp_path / "recipe.yaml")
    assert load_recipe(tmp_path / "recipe.yaml") == recipe


def test_stages_can_be_repeated_and_the_last_has_the_plain_name():
    recipe = read_recipe({"stages": [{"stage": kind} for kind in TUNE_FIRST]}, source="test")
    assert recipe.names == [
        "linear_probe", "score-1", "plan-1", "finetune-1", "merge-1",
        "score", "plan", "prune", "finetune", "merge", "measure",
    ]  # fmt: skip


def test_the_ways_to_walk_are_packaged_and_the_default_tunes_first():
    assert Recipe().names[:7] == ["finetune-1", "merge-1", "score", "plan", "prune", "finetune", "merge"]
    paper = load_recipe("cut-first").names
    assert paper[:5] == ["score", "plan", "prune", "finetune", "merge"]
    assert Recipe().names[7:] == paper[5:]
    early = load_recipe("cut-early")
    assert early.names == Recipe().names
    for recipe in (Recipe(), early):
        before, after = (stages_of(recipe)[name] for name in ("finetune-1", "finetune"))
        # The same rows an update, whatever a step holds.
        assert before.batch_size * before.accumulation_steps == after.batch_size * after.accumulation_steps
    assert [early.tunings[early.main_tuning], Recipe().tunings[Recipe().main_tuning]] == [
        stages_of(early)["finetune"],
        stages_of(Recipe())["finetune-1"],
    ]


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([], "no stages"),
        (["plan"], "Stage 'plan' needs 'score' before it"),
        (["score", "prune"], "Stage 'prune' needs 'plan' before it"),
        (["score", "plan", "merge"], "Stage 'merge' needs 'finetune' before it"),
        (["report"], "Stage 'report' needs 'measure' before it"),
        *(
            ([*before, kind], f"Stage '{kind}' needs a model without an adapter: put 'merge' before it")
            for kind, before in {
                "linear_probe": ["finetune"],
                "score": ["finetune"],
                "finetune": ["finetune"],
                "export": ["finetune"],
                "measure": ["finetune"],
                "prune": ["score", "plan", "finetune"],
            }.items()
        ),
    ],
)
def test_an_order_that_cannot_work_is_an_error(stages, message):
    with pytest.raises(RecipeError, match=message):
        read_recipe({"stages": [{"stage": kind} for kind in stages]}, source="test")


TUNE, CUT = ["finetune", "merge"], ["score", "plan", "prune"]


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([*CUT, "plan", "prune"], "Stage 'plan': the 'score' .*Put 'score' between 'prune-1' and 'plan'"),
        ([*CUT, "prune"], "Stage 'prune': the 'plan' .*Put 'plan' between 'prune-1' and 'prune'"),
        (["score", *TUNE, "plan", "prune"], "Put 'score' between 'finetune' and 'plan'"),
        (["score", "linear_probe", "plan"], "Put 'score' between 'linear_probe' and 'plan'"),
        (["score", "plan", *TUNE, "prune"], "Put 'plan' between 'finetune' and 'prune'"),
        ([*TUNE, *CUT, *TUNE, "plan", "prune"], "Put 'score' between 'finetune' and 'plan'"),
        ([*TUNE, "export", *TUNE], "Stage 'export' is not of the final model: 'finetune' changes it afterwards"),
        ([*TUNE, "export", *CUT, "measure"], "Stage 'export' is not of the final model: 'prune' changes it"),
        ([*TUNE, "measure", *CUT, "report"], "Stage 'measure' is not of the final model: 'prune' changes it"),
    ],
)
def test_what_was_made_of_a_model_that_was_changed_since_is_stale(stages, message):
    with pytest.raises(RecipeError, match=message):
        read_recipe({"stages": [{"stage": kind} for kind in stages]}, source="test")


@pytest.mark.parametrize(
    "stages",
    [
        [*CUT, *CUT],  # In rounds.
        ["score", "plan", *TUNE, *CUT, *TUNE, "export", "measure", "report"],  # The first plan gives ranks alone.
        ["score", "plan", "plan", "prune"],
        [*TUNE, "export", *CUT, *TUNE, "evaluate", "export", "measure", "report"],
    ],
)
def test_what_is_made_again_after_a_change_is_not_stale(stages):
    assert len(read_recipe({"stages": [{"stage": kind} for kind in stages]}, source="test").stages) == len(stages)


@pytest.mark.parametrize("name", packaged_recipes())
def test_no_packaged_recipe_is_stale(name):
    load_recipe(name).check()


def test_numbers_of_numpy_are_settings_and_truth_values_are_none():
    options = {"keep_heads": np.int64(4), "keep_ffn": np.float32(0.7), "rows": np.int32(64), "epochs": np.float64(2)}
    recipe = Recipe().with_options(options | {"seed": np.int64(3)})
    plan = recipe.by_name["plan"]
    assert (plan.keep_heads, type(plan.keep_heads), plan.keep_ffn) == (4, int, 0.7)
    assert (recipe.by_name["score"].rows, recipe.seed) == (64, 3)
    for option in ("keep_heads", "keep_macs", "rows", "epochs"):
        with pytest.raises(RecipeError, match=f"{option}=True: no finite number"):
            Recipe().with_options({option: True})
    assert not Recipe().with_options({"repair": False}).by_name["prune"].repair


def test_full_fine_tuning_needs_no_plan():
    recipe = read_recipe({"stages": [{"stage": "finetune", "trainable": "all"}, {"stage": "merge"}]}, source="test")
    assert recipe.names == ["finetune", "merge"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"plan.keep_head": "3"}, "plan.keep_head: no such setting. Did you mean 'keep_heads'"),
        ({"cut.keep_heads": "3"}, "the recipe has no stage 'cut'. It has: finetune-1"),
        ({"finetune.epochs": "none"}, "finetune.epochs"),
        ({"finetune.epochs": "0"}, "greater than 0"),
        ({"plan.targets": "query,gate"}, "targets"),
        ({"plan.keep_heads": "half"}, "keep_heads"),
        ({"stages": "x"}, "no such setting"),
        ({"merge.anything": "1"}, "merge has: none"),
    ],
)
def test_a_setting_that_is_not_one_is_an_error(changes, message):
    with pytest.raises(RecipeError, match=message):
        Recipe().with_settings(changes)


@pytest.mark.parametrize(("typed", "read"), [("1", 1), ("1.0", 1.0), ("0.5", 0.5), ("100", 100)])
def test_a_typed_count_is_not_a_fraction(typed, read):
    stage = stages_of(Recipe().with_settings({"plan.keep_heads": typed}))["plan"]
    assert stage.keep_heads == read
    assert type(stage.keep_heads) is type(read)


def test_typed_values_are_read_as_their_kind():
    recipe = Recipe().with_settings(
        {"finetune.learning_rate": "1e-3", "plan.targets": "query,up", "task.text": "1", "finetune.patience": "2"}
    )
    stages = stages_of(recipe)
    assert stages["finetune"].learning_rate == 1e-3
    assert stages["plan"].targets == ("query", "up")
    assert recipe.task.text == "1"
    assert stages["finetune"].patience == 2


def test_unknown_keys_and_unreadable_files_are_errors(tmp_path):
    with pytest.raises(RecipeError, match="unknown key 'modle'"):
        read_recipe({"modle": "x"}, source="test")
    path = tmp_path / "recipe.yaml"
    path.write_text("stages: [")
    with pytest.raises(RecipeError, match="cannot be read as a recipe"):
        load_recipe(path)
    path.write_text("seed: -1")
    with pytest.raises(RecipeError, match="seed"):
        load_recipe(path)


def test_bare_names_find_their_stage():
    recipe = Recipe()
    assert recipe.key_of("keep_heads") == "plan.keep_heads"
    assert recipe.key_of("batch_size") == "finetune.batch_size"
    assert recipe.key_of("rows") == "score.rows"
    assert recipe.key_of("text") == "task.text"
    assert recipe.key_of("model") == "model"
    with pytest.raises(RecipeError, match="no stage of the recipe has such a setting"):
        recipe.key_of("sparsity")


@pytest.mark.parametrize(
    ("recipe", "options", "settings", "balance", "normalise"),
    [
        ("tune-first", {}, {}, "none", "none"),
        ("tune-first", {"criterion": "obs"}, {}, "none", "none"),
        ("tune-first", {"criterion": "random"}, {}, "cost", "none"),
        ("tune-first", {}, {"score.criterion": "gradient"}, "cost", "none"),
        ("tune-first", {"criterion": "random", "balance": "none"}, {}, "none", "none"),
        ("tune-first", {"criterion": "random"}, {"plan.balance": "none"}, "none", "none"),
        ("cut-first", {"criterion": "obs"}, {}, "none", "none"),
        ("cut-first", {"criterion": "fisher"}, {}, "cost", "none"),
        ("prune-lora", {"criterion": "fisher"}, {}, "cost", "paper"),
    ],
)
def test_heads_and_neurons_are_compared_as_another_criterion_wants_it(recipe, options, settings, balance, normalise):
    plan = stages_of(load_recipe(recipe).with_options(options, settings))["plan"]
    assert (plan.balance, plan.normalise) == (balance, normalise)


def test_ranks_of_its_own_are_for_a_fine_tuning_before_the_plan():
    recipe = Recipe().with_options({"lora_rank": 4})
    assert [one.lora_rank for one in recipe.tunings.values()] == [4, 8]
    with pytest.raises(RecipeError, match=r"finetune.lora_rank: .* plan.rank_high and"):
        Recipe().with_options({}, {"finetune.lora_rank": 4})
    with pytest.raises(RecipeError, match=r"lora_targets: .* plan.targets"):
        load_recipe("cut-first").with_options({"lora_targets": "query"})


def test_a_plan_without_a_budget_says_the_one_it_takes():
    stage = read_recipe({"stages": [{"stage": "score"}, {"stage": "plan"}]}, source="test").stages[1]
    assert (stage.keep_macs, stage.keep_heads, stage.keep_ffn) == (0.5, None, None)


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ({"plan.keep_heads": "6"}, {"keep_heads": 6}),
        ({"plan.keep_heads": "6", "plan.keep_ffn": "0.5"}, {"keep_heads": 6, "keep_ffn": 0.5}),
        ({"plan.speedup": "2"}, {"speedup": 2.0}),
        ({"plan.keep_params": 0.4}, {"keep_params": 0.4}),
    ],
)
def test_a_budget_takes_the_place_of_one_of_another_kind(changes, left):
    stage = stages_of(Recipe().with_settings(changes))["plan"]
    assert {name: getattr(stage, name) for name in BUDGETS if getattr(stage, name) is not None} == left


def test_two_budgets_at_once_are_an_error():
    with pytest.raises(PlanError, match=r"keep_macs=0.4, speedup=2.0: two budgets"):
        Recipe().with_settings({"plan.keep_macs": 0.4, "plan.speedup": 2})


def test_two_budgets_are_an_error_where_one_is_an_option_and_one_a_setting():
    with pytest.raises(PlanError, match=r"keep_macs=0.4, speedup=2.0: two budgets"):
        Recipe().with_options({"keep_macs": 0.4}, {"plan.speedup": 2})
    changed = Recipe().with_options({"keep_macs": 0.4}, {"plan.keep_macs": 0.3, "plan.rank_high": 16})
    assert (stages_of(changed)["plan"].keep_macs, stages_of(changed)["plan"].rank_high) == (0.3, 16)


def tune_twice(*, declared: bool = True) -> Recipe:
    kinds = [
        {"stage": "finetune", "epochs": 2, "learning_rate": 1e-3},
        {"stage": "merge"},
        {"stage": "finetune", "epochs": 1, "learning_rate": 5e-4},
        {"stage": "merge"},
    ]
    options = {
        "epochs": {"finetune-1": 2 / 3, "finetune": 1 / 3},
        "learning_rate": {"finetune-1": 1, "finetune": 0.5},
        "batch_size": {"finetune-1": 0.5, "finetune": 1},
    }
    return read_recipe({"stages": kinds} | ({"options": options} if declared else {}), source="test")


@pytest.mark.parametrize(("asked", "rows"), [(8, (4, 8)), ("64", (32, 64)), (3, (2, 3)), (1, (1, 1))])
def test_rows_a_step_are_scaled_to_whole_rows(asked, rows):
    """The dense model in smaller steps, whose gradients are averaged: it takes more memory a row."""
    recipe = tune_twice()
    first, _, last, _ = recipe.with_options({"batch_size": asked}).stages
    assert (first.batch_size, last.batch_size) == rows
    with pytest.raises(RecipeError, match="batch_size=0: "):
        recipe.with_options({"batch_size": 0})


def test_options_of_fine_tuning_are_divided_as_the_recipe_declares():
    recipe = tune_twice().with_options({"epochs": "6", "learning_rate": 1e-3, "batch_size": 8, "seed": 3})
    first, last = recipe.stages[0], recipe.stages[2]
    assert (first.epochs, last.epochs) == (4.0, 2.0)
    assert (first.learning_rate, last.learning_rate) == (1e-3, 5e-4)
    assert (first.batch_size, last.batch_size) == (4, 8)
    assert recipe.seed == 3
    with pytest.raises(RecipeError, match="epochs"):
        tune_twice().with_options({"epochs": "many"})


def test_the_main_fine_tuning_is_the_longest_and_the_last_of_equals():
    recipe = tune_twice()
    assert list(recipe.tunings) == ["finetune-1", "finetune"]
    assert recipe.main_tuning == "finetune-1"
    assert recipe.with_settings({"finetune.epochs": 2}).main_tuning == "finetune"


def test_an_option_that_the_recipe_does_not_declare_is_every_fine_tunings():
    recipe = tune_twice(declared=False).with_options({"epochs": "6", "learning_rate": 1e-4, "batch_size": 8})
    assert [(one.epochs, one.learning_rate, one.batch_size) for one in recipe.tunings.values()] == [(6, 1e-4, 8)] * 2


def test_a_setting_of_all_fine_tunings_is_scaled_in_proportion():
    recipe = tune_twice(declared=False).in_proportion("learning_rate", 4e-3, of=1e-3)
    assert [one.learning_rate for one in recipe.tunings.values()] == [4e-3, 2e-3]


@pytest.mark.parametrize("row", json.loads((FOLDER / "options_of_recipes.json").read_text()))
def test_options_change_what_they_changed_in_version_0_2(row):
    """The expected changes were computed by version 0.2, from the proportions of each recipe's settings.

    `cut-first` has changed since.
    """
    recipe = load_recipe(FOLDER / "cut-first-of-0.2.yaml" if row["recipe"] == "cut-first" else row["recipe"])
    if isinstance(row["result"], str):
        with pytest.raises(PruneLoraError) as refused:
            recipe.with_options(row["options"], row["settings"])
        assert type(refused.value).__name__ == row["result"]
    else:
        changed = recipe.with_options(row["options"], row["settings"])
        assert {key: new for key, _, new in differences(recipe, changed)} == row["result"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": {"finetune-2": 1}}, r"options.epochs: the recipe has no stage 'finetune-2'. Did you mean"),
        ({"rows": {"finetune": 1}}, "options.rows: the stage 'finetune' has no such setting"),
        ({"epochs": {"finetune": "half"}}, "half"),
        ({"epochs": {"finetune": 0}}, r"options\.epochs\.finetune=0: .* greater than 0"),
        ({"epochs": {"finetune": True}}, r"options\.epochs\.finetune=True: no finite number"),
        ({"epochs": {"finetune": "nan"}}, r"options\.epochs\.finetune='nan': no plain decimal number"),
        ({"epochs": {}}, r"options\.epochs=\{\}: .* at least 1 item"),
    ],
)
def test_options_that_name_no_setting_are_refused(options, message):
    with pytest.raises(RecipeError, match=message):
        read_recipe({"stages": [{"stage": "finetune"}, {"stage": "merge"}], "options": options}, source="test")


def test_without_export_its_options_go_too():
    stages = [{"stage": kind} for kind in ("finetune", "merge", "export")]
    options = {"tolerance": {"export": 2}, "epochs": {"finetune": 1}}
    recipe = read_recipe({"stages": stages, "options": options}, source="test").without_export()
    recipe.check()
    assert (recipe.names, recipe.options) == (["finetune", "merge"], {"epochs": {"finetune": 1}})


def test_the_resolved_recipe_keeps_its_options(tmp_path):
    Recipe().save(tmp_path / "recipe.yaml")
    assert load_recipe(tmp_path / "recipe.yaml").options == load_recipe("tune-first").options != {}


@pytest.mark.parametrize("name", sorted(packaged_recipes()))
def test_packaged_recipes_can_be_run_by_their_names(name):
    recipe = load_recipe(name)
    assert recipe.names[-1] in ("merge", "report")
    assert read_recipe(recipe.model_dump(mode="json"), source=name) == recipe


def test_the_default_recipe_is_a_packaged_one():
    assert Recipe().stages == load_recipe("tune-first").stages
    with pytest.raises(
        RecipeError,
        match=r"tune-last: no file, and no packaged recipe. Did you mean 'tune-first'\? Use one of: cut-early",
    ):
        load_recipe("tune-last")


def test_every_setting_is_described():
    fields = [field for kind in [*BY_KIND.values(), FineTuneSettings, Recipe] for field in kind.model_fields.items()]
    undescribed = [
        name for name, field in fields if name not in ("stage", "format", "stages", "task") and not field.description
    ]
    assert len(fields) > 40
    assert undescribed == []


@pytest.mark.parametrize(("key", "value"), [("plan.targets", "[query"), ("finetune.patience", "@x")])
def test_what_cannot_be_read_as_a_value_is_an_error_that_names_the_setting(key, value):
    with pytest.raises(RecipeError, match=rf"{re.escape(f'{key}={value!r}')}: not a value"):
        Recipe().with_settings({key: value})


@pytest.mark.parametrize(
    ("key", "typed", "read"),
    [
        ("score.rows", "0100", 100),
        ("score.rows", "+64", 64),
        ("score.rows", "1e3", 1000),
        ("finetune.learning_rate", ".5", 0.5),
        ("finetune.learning_rate", "1e-3", 1e-3),
        ("finetune.learning_rate", "5.", 5.0),
        ("task.max_train_rows", "0090", 90),
        ("plan.keep_ffn", "0100", 100),
        ("finetune.patience", "null", None),
        ("finetune.patience", "~", None),
        ("task.text", "no", "no"),
        ("task.label", "2020-01-01", "2020-01-01"),
        ("task.text", "null", "null"),
        ("task.encoding", "437", "437"),
        ("finetune.train_norms", "false", False),
        ("finetune.train_norms", "no", False),
    ],
)
def test_what_is_typed_means_what_it_shows(key, typed, read, tmp_path):
    recipe = Recipe().with_settings({key: typed})
    stage, _, name = key.partition(".")
    owner = recipe.task if stage == "task" else recipe.by_name[stage]
    assert getattr(owner, name) == read
    recipe.save(tmp_path / "recipe.yaml")
    assert load_recipe(tmp_path / "recipe.yaml") == recipe


NO_NUMBERS = (
    "1:30", "1_0", "1_000", "0x10", "0o10", "0b1", "yes", "true", "on", "2020-01-01", "nan", ".inf", "1e999", "\uff11",
    "", " ",
)  # fmt: skip


@pytest.mark.parametrize("typed", NO_NUMBERS)
@pytest.mark.parametrize("key", ["score.rows", "task.max_train_rows", "finetune.epochs", "plan.keep_heads", "seed"])
def test_what_shows_no_number_is_an_error_in_a_numbers_place(key, typed):
    with pytest.raises(RecipeError, match=re.escape(key.rpartition(".")[2])):
        Recipe().with_settings({key: typed})


@pytest.mark.parametrize("option", ["epochs", "batch_size", "learning_rate"])
def test_a_number_that_is_shared_out_is_no_less_plain(option):
    with pytest.raises(RecipeError, match=option):
        tune_twice().with_options({option: "1_0"})


@pytest.mark.parametrize(("typed", "read"), [(np.int64(4), 4), (np.float32(0.5), 0.5), (np.float64(1.0), 1.0), (1, 1)])
def test_numbers_of_numpy_are_numbers(typed, read):
    stage = Recipe().with_options({"keep_heads": typed}).by_name["plan"]
    assert (stage.keep_heads, type(stage.keep_heads)) == (read, type(read))


def test_recipe_files_are_read_as_they_stand(tmp_path):
    path = tmp_path / "recipe.yaml"
    start = "task: {data: 2020-01-01, text: no, label: 'yes', max_length: 0100}\nstages:\n- stage: finetune\n"
    path.write_text("\ufeff" + start + "  learning_rate: 1e-3\n  epochs: 08\n  dropout: ~\n", encoding="utf-8")
    recipe = load_recipe(path)
    assert (recipe.task.data, recipe.task.text, recipe.task.label) == ("2020-01-01", "no", "yes")
    assert recipe.task.max_length == 100
    tuning = recipe.by_name["finetune"]
    assert (tuning.learning_rate, tuning.epochs, tuning.dropout) == (1e-3, 8.0, None)
    for line in ("epochs: 1_0", "epochs: 1:30", "batch_size: yes", "batch_size: '1_0'", "epochs: 1\n  epochs: 2"):
        path.write_text(start + f"  {line}\n")
        with pytest.raises(RecipeError, match=line.partition(":")[0]):
            load_recipe(path)


def test_stages_of_a_recipe_file_may_take_settings_from_each_other(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "task: {data: a.csv}\nstages:\n- &first {stage: finetune, epochs: 2, batch_size: 8}\n- stage: merge\n"
        "- {<<: *first, epochs: 5}\n"
    )
    first, second = load_recipe(path).tunings.values()
    assert (first.epochs, second.epochs, first.batch_size, second.batch_size) == (2, 5, 8, 8)


@pytest.mark.parametrize("seed", [2**32, -1])
def test_a_seed_that_numpy_cannot_take_is_refused_before_any_work(seed):
    assert Recipe().with_settings({"seed": 2**32 - 1}).seed == 2**32 - 1
    with pytest.raises(RecipeError, match=f"seed={seed}: "):
        Recipe().with_settings({"seed": seed})


@pytest.mark.parametrize(
    "word", ["1e3", "08", "1_0", "1:30", "yes", "no", "null", "~", "0x1", "1.", "=", "2020-01-01", "a: b", ""]
)
def test_every_name_of_a_column_round_trips(word, tmp_path):
    recipe = Recipe().with_settings({"task.text": word})
    recipe.save(tmp_path / "recipe.yaml")
    assert load_recipe(tmp_path / "recipe.yaml").task.text == word


def test_a_recipe_with_the_names_of_version_0_2_is_read_as_one_of_today(tmp_path):
    recipe = load_recipe("prune-lora").with_settings({"score.criterion": "obs", "plan.normalise": "none"})
    old = recipe.to_yaml().replace("linear_probe", "warmup").replace("criterion: obs", "criterion: surgeon")
    (tmp_path / "old.yaml").write_text("trust_remote_code: false\n" + old)
    assert "stage: warmup" in old
    assert "criterion: surgeon" in old
    assert load_recipe(tmp_path / "old.yaml") == recipe
    (tmp_path / "trusting.yaml").write_text("trust_remote_code: true\n" + old)
    with pytest.raises(RecipeError, match="trust_remote_code"):
        load_recipe(tmp_path / "trusting.yaml")
