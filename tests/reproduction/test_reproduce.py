"""Running a reproduction with a made-up `compare`: what it is asked for, and what is read back."""

import json

import pytest
from reproduction.made_up_reproduction import METHODS, write_all, write_task

from prunelora.comparison.methods import load_methods
from prunelora.errors import CheckpointError, RecipeError
from prunelora.planning.selection import count_to_keep
from prunelora.reproduction.paper import TASKS
from prunelora.reproduction.presets import KEEP_HEADS, PRESETS
from prunelora.reproduction.reproduce import reproduce
from prunelora.reproduction.results import TaskSettings, read
from prunelora.run.recipe import Recipe
from prunelora.stages.finetune import FineTuneStage
from prunelora.stages.plan import PlanStage


class FakeCompare:
    """Notes what it was asked for and leaves a finished comparison."""

    def __init__(self):
        self.asked = {}

    def __call__(self, *, base, out, **options):
        self.asked[base.task.task] = {"base": base, "out": out, **options}
        return write_task(out.parent, base.task.task, model=base.model, seeds=options["seeds"])


COMPARE = "prunelora.reproduction.reproduce.compare"


@pytest.fixture
def compare(monkeypatch):
    compare = FakeCompare()
    monkeypatch.setattr(COMPARE, compare)
    return compare


def fitted(preset, **changes):
    chosen = PRESETS[preset]
    methods = load_methods(chosen.methods, base=Recipe(), changes=chosen.changes | changes)
    return {method.name: method.recipe for method in methods}


def stage_of(recipe, kind):
    return next(stage for stage in recipe.stages if isinstance(stage, kind))


@pytest.mark.parametrize("preset", PRESETS)
def test_every_task_is_compared_under_the_presets_settings(tmp_path, compare, preset):
    reproduce(out=tmp_path, preset=preset, seeds=(3, 4), max_train_rows={"sst2": 12_000})
    assert tuple(compare.asked) == TASKS
    for task, asked in compare.asked.items():
        assert asked["methods"] == PRESETS[preset].methods
        assert asked["factors"] == PRESETS[preset].factors
        assert asked["changes"] == PRESETS[preset].changes
        assert asked["seeds"] == (3, 4)
        assert asked["out"] == tmp_path / task
        assert asked["base"].task.max_train_rows == (12_000 if task == "sst2" else None)


def test_the_papers_preset_gives_every_method_the_papers_settings():
    recipes = fitted("paper", train_head=False)
    assert tuple(recipes) == METHODS
    for recipe in recipes.values():
        tuning = stage_of(recipe, FineTuneStage)
        found = (tuning.learning_rate, tuning.epochs, tuning.weight_decay, tuning.batch_size, tuning.train_head)
        assert found == (2e-5, 30, 0.01, 32, False)
        # A task head that is not trained must not be trained by a warm-up either.
        assert "linear_probe" not in recipe.names
    assert stage_of(recipes["lora"], FineTuneStage).lora_rank == 4
    assert stage_of(recipes["full"], FineTuneStage).trainable == "all"
    assert PRESETS["paper"].factors == (1.0,)


def test_the_best_preset_is_the_packaged_recipes_and_tries_two_learning_rates():
    packaged = {method.name: method.recipe for method in load_methods(METHODS, base=Recipe())}
    assert fitted("best") == packaged
    assert PRESETS["best"].factors == (1.0, 3.0)


@pytest.mark.parametrize("preset", PRESETS)
def test_heads_are_cut_in_the_papers_proportion(preset):
    keep = stage_of(fitted(preset)["prune-lora"], PlanStage).keep_heads
    assert keep == KEEP_HEADS
    assert [count_to_keep(keep, total, "keep_heads") for total in (144, 72)] == [100, 50]


def test_epochs_and_task_head_can_be_changed(tmp_path, compare):
    reproduce(out=tmp_path, tasks=("rte", "wnli"), epochs={"rte": 5}, train_head=False)
    assert compare.asked["rte"]["changes"] == {"train_head": False, "epochs": 5}
    assert compare.asked["wnli"]["changes"] == {"train_head": False}
    reproduce(out=tmp_path / "second", tasks=("rte",), epochs=2)
    assert compare.asked["rte"]["changes"] == {"epochs": 2}


def test_tasks_that_were_not_run_are_missing_and_earlier_ones_are_kept(tmp_path, compare):
    first = reproduce(out=tmp_path, tasks=("rte",))
    assert first.missing == ("mnli", "mrpc", "qnli", "sst2", "wnli")
    second = reproduce(out=tmp_path, tasks=("wnli",))
    assert list(second.comparisons) == ["rte", "wnli"]
    assert list(second.settings) == list(TASKS)


def test_the_page_is_read_again_without_running_anything(tmp_path, compare):
    reproduction = reproduce(out=tmp_path, preset="paper", train_head=False, notes={"qnli": "half"})
    again = read(tmp_path)
    settings = dict.fromkeys(TASKS, TaskSettings("paper", False)) | {"qnli": TaskSettings("paper", False, "half")}
    assert again.settings == reproduction.settings == settings
    assert again.seeds == (0, 1, 2)
    _, plan = again.scores["mnli"]
    assert sum(map(len, plan.heads)) == 50


def test_what_is_said_of_a_task_is_that_of_the_call_that_ran_it(tmp_path, compare):
    reproduce(out=tmp_path, tasks=("rte", "qnli"), preset="paper", train_head=False, notes={"qnli": "half"})
    second = reproduce(out=tmp_path, tasks=("wnli",), notes={"wnli": "all"})
    assert [second.settings[task] for task in second.comparisons] == [
        TaskSettings("paper", False, "half"), TaskSettings("paper", False), TaskSettings("best", True, "all"),
    ]  # fmt: skip
    assert read(tmp_path).settings == second.settings


def test_a_call_that_changes_nothing_of_a_task_changes_nothing_of_what_is_said_of_it(tmp_path, compare, monkeypatch):
    reproduction = reproduce(out=tmp_path, tasks=("rte",))

    def failing(**_):
        raise CheckpointError("some/model: not to be had")

    monkeypatch.setattr(COMPARE, failing)
    with pytest.raises(CheckpointError):
        reproduce(out=tmp_path, tasks=("rte",), model="some/model", preset="paper")
    assert read(tmp_path).settings == reproduction.settings


def test_a_note_given_when_reading_takes_the_place_of_that_tasks_alone(tmp_path):
    write_all(tmp_path, tasks=("rte", "wnli"), notes={"rte": "old", "wnli": "stays"})
    reproduction = read(tmp_path, notes={"rte": "new"})
    assert [reproduction.settings[task].note for task in reproduction.comparisons] == ["new", "stays"]
    with pytest.raises(RecipeError, match="notes: 'imdb' is none of the paper's tasks"):
        read(tmp_path, notes={"imdb": "x"})


def test_scores_are_those_of_the_first_seed_and_the_chosen_learning_rate(tmp_path):
    write_all(tmp_path, tasks=("rte",))
    trials = tmp_path / "rte" / "trials" / "prune-lora"
    assert list(read(tmp_path).scores) == ["rte"]
    (trials / "lr-0.001").rename(trials / "lr-0.003")
    assert not read(tmp_path).scores


def test_a_reproduction_of_an_earlier_version_is_read(tmp_path):
    """The settings of a task had a command."""
    write_all(tmp_path, tasks=("rte",), notes={"rte": "old"})
    content = json.loads((tmp_path / "reproduce.json").read_text(encoding="utf-8"))
    content["tasks"]["rte"]["command"] = "prunelora reproduce"
    (tmp_path / "reproduce.json").write_text(json.dumps(content), encoding="utf-8")
    assert read(tmp_path).settings["rte"] == TaskSettings("best", True, "old")


def test_an_unreachable_model_is_passed_on_unchanged(tmp_path, monkeypatch):
    def failing(**_):
        raise CheckpointError("some/model: not a folder here, and not to be had")

    monkeypatch.setattr(COMPARE, failing)
    with pytest.raises(CheckpointError, match=r"^some/model: not a folder here, and not to be had$"):
        reproduce(out=tmp_path, model="some/model")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": ("cola",)}, "tasks: 'cola' is none of the paper's tasks. Use one of: mnli"),
        ({"tasks": ()}, "no task was named"),
        ({"notes": {"imdb": "x"}}, "notes: 'imdb'"),
        ({"max_train_rows": {"sst": 5}}, "max_train_rows: 'sst'"),
        ({"epochs": {"all": 5}}, "epochs: 'all'"),
        ({"preset": "bset"}, "Did you mean 'best'"),
        ({"preset": "fast"}, "preset='fast': no preset of this name. Use one of: paper, best"),
    ],
)
def test_options_that_mean_nothing_are_errors_before_any_work(tmp_path, compare, options, message):
    with pytest.raises(RecipeError, match=message):
        reproduce(out=tmp_path / "out", **options)
    assert not compare.asked
    assert not (tmp_path / "out").exists()


def test_a_folder_without_comparisons_is_an_error(tmp_path):
    with pytest.raises(RecipeError, match=r"comparison\.json"):
        read(tmp_path)


def test_comparisons_of_different_models_do_not_share_a_page(tmp_path):
    write_task(tmp_path, "rte")
    write_task(tmp_path, "wnli", model="bert-base-uncased")
    with pytest.raises(RecipeError, match="of different models: bert-base-uncased, minilm"):
        read(tmp_path)


@pytest.mark.parametrize("content", ["{", json.dumps({"format": "other"}), "[]"])
def test_settings_that_are_not_ours_are_an_error(tmp_path, content):
    write_task(tmp_path, "rte")
    (tmp_path / "reproduce.json").write_text(content, encoding="utf-8")
    with pytest.raises(RecipeError, match=r"reproduce\.json"):
        read(tmp_path)
