"""Stages that trials have in common are run once, with the same results."""

import json
import shutil

import pytest
import torch
from small_run import make_data, make_model

from prunelora.comparison.compare import compare
from prunelora.comparison.methods import load_methods
from prunelora.comparison.trials import Trial, run_trial
from prunelora.data.load import load_task
from prunelora.data.settings import DataSettings
from prunelora.models.loading import fingerprint
from prunelora.models.problem_types import SINGLE_LABEL
from prunelora.planning.plan import Plan
from prunelora.run.execute import execute
from prunelora.run.folder import RunFolder
from prunelora.run.keys import digest, keys_of
from prunelora.run.recipe import Recipe, read_recipe
from prunelora.run.store import Store

STAGES = [
    {"stage": "linear_probe", "steps": 2, "rows": 16},
    {"stage": "score", "rows": 16},
    {"stage": "plan", "keep_macs": 0.5},
    {"stage": "prune", "repair_rows": 16},
    {"stage": "finetune", "epochs": 1, "batch_size": 32},
    {"stage": "merge"},
]
FIRST = ("linear_probe", "score", "plan", "prune")
LAST = ("finetune", "merge")


@pytest.fixture(autouse=True)
def without_figures(monkeypatch):
    """They take as long as the trainings."""
    monkeypatch.setattr("prunelora.comparison.page.draw_comparison", lambda _: {})


@pytest.fixture(scope="module")
def base(tmp_path_factory, minilm_path):
    folder = tmp_path_factory.mktemp("inputs")
    data = DataSettings(data=str(make_data(folder / "reviews.csv", rows=60)), max_length=16)
    return Recipe(model=str(make_model(folder / "model", minilm_path)), task=data)


@pytest.fixture(scope="module")
def task(base):
    return load_task(base.task)


def recipe_of(base, **changes) -> Recipe:
    content = base.model_dump(mode="json") | {"stages": STAGES, "options": {}}
    return read_recipe(content, source="test").with_settings(changes)


@pytest.fixture
def recipe(base):
    return recipe_of(base)


@pytest.fixture(scope="module")
def store(base, tmp_path_factory):
    """A store with all stages of a whole run, whose folder is beside it; no test changes them."""
    path = tmp_path_factory.mktemp("trained") / "store"
    execute(recipe_of(base), path.parent / "run", store=path, progress=False)
    return path


@pytest.fixture(scope="module")
def trained(store):
    return store.parent / "run"


@pytest.fixture
def copied(store, tmp_path):
    """A store to be damaged."""
    return shutil.copytree(store, tmp_path / "store")


def run_in(recipe, out, store, **options):
    return execute(recipe, out, store=store, progress=False, **options).ran


def entry(store, stage):
    (path,) = store.glob(f"*-{stage}")
    return path


def test_stages_that_two_runs_have_in_common_are_run_once(recipe, copied, tmp_path):
    other = recipe.with_settings({"finetune.learning_rate": 5e-3})
    assert run_in(other, tmp_path / "run", copied) == LAST
    assert run_in(other, tmp_path / "again", copied) == ()


def test_a_stage_with_another_setting_is_run_with_all_after_it(recipe, copied, tmp_path):
    other = recipe.with_settings({"plan.normalise": "none"})
    assert run_in(other, tmp_path / "run", copied) == ("plan", "prune", *LAST)
    seeded = recipe.with_settings({"seed": 1})
    assert run_in(seeded, tmp_path / "seeded", copied, until="score") == ("linear_probe", "score")
    shorter = recipe.with_settings({"task.max_length": 12})
    assert run_in(shorter, tmp_path / "shorter", copied, until="score") == ("linear_probe", "score")
    fewer = recipe.with_settings({"task.max_train_rows": 40})
    assert run_in(fewer, tmp_path / "fewer", copied, until="score") == ("linear_probe", "score")


def test_a_setting_that_changes_costs_alone_repeats_nothing(recipe, store, tmp_path):
    other = recipe.with_settings({"finetune.selective_recomputation": False})
    assert run_in(other, tmp_path / "run", store) == ()


def test_records_and_files_are_those_of_the_run_that_made_them(recipe, store, trained, tmp_path):
    assert run_in(recipe, tmp_path / "run", store) == ()
    for stage in recipe.names:
        record = RunFolder(tmp_path / "run").record(stage)
        assert record == RunFolder(trained).record(stage)
        assert record.seconds > 0
        for name in record.files:
            paths = sorted(path for path in (trained / name).rglob("*") if path.is_file()) or [trained / name]
            for path in paths:
                assert (tmp_path / "run" / path.relative_to(trained)).read_bytes() == path.read_bytes()


def test_results_are_those_without_a_store(recipe, copied, tmp_path):
    other = recipe.with_settings({"finetune.learning_rate": 5e-3})
    shared = execute(other, tmp_path / "shared", store=copied, progress=False)
    alone = execute(other, tmp_path / "alone", progress=False)
    assert (shared.ran, alone.ran) == (LAST, (*FIRST, *LAST))
    ours, theirs = shared.load().state_dict(), alone.load().state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert shared.results.facts("merge") == alone.results.facts("merge")
    assert shared.results.facts("prune")["validation"] == alone.results.facts("prune")["validation"]


def test_a_damaged_entry_is_run_again(recipe, copied, tmp_path):
    (entry(copied, "score") / "importance.safetensors").unlink()  # Other links keep the content.
    (entry(copied, "linear_probe") / "record.json").write_text('{"stage": "linear')
    assert run_in(recipe, tmp_path / "run", copied, until="plan") == ("linear_probe", "score")
    assert run_in(recipe, tmp_path / "again", copied, until="plan") == ()


def test_a_plan_edited_by_hand_stays_in_the_run_where_it_was_edited(recipe, copied, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    run_in(recipe, first, copied, until="plan")
    plan = Plan.load(first / "plan.json")
    edited = plan.model_copy(update={"neurons": (plan.neurons[0][:8], *plan.neurons[1:])})
    (first / "plan.json").write_text(edited.to_json())  # In place, as an editor does it.
    assert run_in(recipe, first, copied, until="prune") == ("prune",)
    assert Plan.load(first / "plan.json").id == edited.id != plan.id
    assert run_in(recipe, second, copied, until="prune") == ()
    assert Plan.load(second / "plan.json").id == plan.id


def test_a_stage_of_another_name_is_not_taken(recipe, copied, tmp_path):
    """Its files have other names, though its key is the same."""
    stages = [*STAGES[:4], *STAGES[1:]]
    twice = read_recipe(recipe.model_dump(mode="json") | {"stages": stages}, source="test")
    assert twice.names[:2] == ["linear_probe", "score-1"]
    assert run_in(twice, tmp_path / "run", copied, until="score-1") == ("score-1",)


def test_an_interrupted_copy_leaves_an_unfinished_stage(recipe, store, trained, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Store, "take", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_in(recipe, tmp_path / "run", store)
    monkeypatch.undo()
    assert RunFolder(tmp_path / "run").record("linear_probe") is None
    assert run_in(recipe, tmp_path / "run", store) == ()


def test_a_stage_that_vanishes_from_the_store_while_it_is_copied_is_run(recipe, copied, tmp_path, monkeypatch):
    take = Store.take

    def vanishing(store, record, folder):
        if record.stage == "score":
            shutil.rmtree(entry(copied, "score"))
        take(store, record, folder)

    monkeypatch.setattr(Store, "take", vanishing)
    assert run_in(recipe, tmp_path / "run", copied, until="plan") == ("score",)


def test_weights_are_linked_and_text_is_copied(recipe, store, trained, tmp_path):
    run_in(recipe, tmp_path / "run", store)

    def same(name):
        return (trained / name).stat().st_ino == (tmp_path / "run" / name).stat().st_ino

    assert same("repaired.safetensors")
    assert same("model/model.safetensors")
    assert not same("plan.json")
    assert not same("model/config.json")


def test_without_hard_links_weights_are_copied(recipe, store, trained, tmp_path, monkeypatch):
    def refused(*_):
        raise OSError("no links here")

    monkeypatch.setattr("prunelora.run.store.os.link", refused)
    assert run_in(recipe, tmp_path / "run", store) == ()
    file = "model/model.safetensors"
    assert (tmp_path / "run" / file).read_bytes() == (trained / file).read_bytes()


def test_a_run_does_not_need_a_store_that_can_be_written(recipe, tmp_path):
    (tmp_path / "store").write_text("a file")
    assert run_in(recipe, tmp_path / "run", tmp_path / "store", until="linear_probe") == ("linear_probe",)


def test_keys_are_those_of_the_records(base, recipe, trained, task):
    plans = []
    keys = list(
        keys_of(
            recipe,
            fingerprint(base.model),
            task,
            lambda name: plans.append(name) or Plan.load(trained / "plan.json").id,
        )
    )
    assert [(name, key) for name, _, key in keys] == [
        (name, RunFolder(trained).record(name).key) for name in recipe.names
    ]
    assert plans == ["plan"]


def test_keys_stay_what_they_were(recipe):
    """Work that is finished under them is weeks old in places."""

    class Rows:
        fingerprint, problem_type, label_names, metrics = "rows", SINGLE_LABEL, ("no", "yes"), ("accuracy",)

    # Written out: a setting that comes new, or another default, would orphan what is finished.
    score_settings = {"stage": "score", "criterion": "gradient", "rows": 16, "batch_size": 32}
    plan_settings = {
        "stage": "plan", "keep_heads": None, "keep_ffn": None, "keep_macs": 0.5, "keep_params": None,
        "max_latency_ms": None, "speedup": None, "count": "encoder", "tokens": 128, "latency_batch_size": 1,
        "latency_engine": "torch", "latency_threads": None, "balance": "cost", "normalise": "paper", "round_to": 8,
        "rank_high": 8, "rank_low": 4, "num_high": None, "block_importance": "raw", "rank_by": "heads",
        "targets": ["query", "key", "value", "output"],
    }  # fmt: skip
    prune_settings = {
        "stage": "prune", "repair": True, "repair_rows": 16, "repair_weights": "equal", "repair_batch_size": 32,
    }  # fmt: skip
    short = recipe.model_copy(update={"stages": recipe.stages[1:4]})
    keys = [key for *_, key in keys_of(short, "model", Rows, lambda _: "p")]
    first = {"model": "model", "data": "rows", "max_length": 16, "seed": 0}
    score = digest({"stage": score_settings, "version": 1, "after": digest(first)})
    plan = digest({"stage": plan_settings, "version": 1, "after": score})
    edited = digest({"plan": "p", "after": plan})
    assert keys == [score, plan, digest({"stage": prune_settings, "version": 1, "after": edited})]
    Rows.metrics = ("matthews",)  # The same rows, judged by something else, as CoLA's are.
    assert not {key for *_, key in keys_of(short, "model", Rows, lambda _: "p")} & set(keys)


def test_the_tokenizer_is_a_part_of_the_model(base, tmp_path):
    folder = shutil.copytree(base.model, tmp_path / "model")
    before = fingerprint(folder)
    (folder / "README.md").write_text("About it.")
    assert fingerprint(folder) == before
    with (folder / "tokenizer_config.json").open("a") as file:
        file.write(" ")
    assert fingerprint(folder) != before


# In a comparison ------------------------------------------------------------------------------------------------------


@pytest.fixture
def methods(tmp_path):
    """Two recipe files that differ in how the cut model is tuned."""
    paths = []
    for name, rate in (("plain", 1e-3), ("fast", 4e-3)):
        stages = [one | ({"learning_rate": rate} if one["stage"] == "finetune" else {}) for one in STAGES]
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps({"stages": stages}))
        paths.append(str(path))
    return paths


def inodes(out, name):
    return {path.stat().st_ino for path in out.rglob(name)}


def test_a_cell_whose_plan_was_edited_and_run_again_is_read_anew(base, task, methods, tmp_path):
    trial = Trial(load_methods(methods, base=base)[0], 1e-3, 0, tmp_path)
    before = run_trial(trial, task)
    assert run_trial(trial, task) == before
    path = trial.folder / "plan.json"
    plan = json.loads(path.read_text())
    plan["ranks"]["query"] = [1] * len(plan["ranks"]["query"])
    path.write_text(json.dumps(plan))
    execute(trial.recipe, trial.folder, task=task, progress=False)
    after = run_trial(trial, task)
    assert after.plan_id != before.plan_id
    assert after.trained != before.trained
    assert trial.facts() == after


def test_a_comparison_does_once_what_its_methods_begin_with(base, methods, tmp_path):
    results = compare(
        base=base, out=tmp_path / "out", methods=methods, seeds=(0, 1), factors=(1,), timing=False, progress=False
    )
    assert len(results.trials) == 4
    assert len(inodes(tmp_path / "out", "repaired.safetensors")) == 2  # One a seed.
    assert len({trial.seconds["score"] for trial in results.trials}) == 2
    assert len({trial.seconds["finetune"] for trial in results.trials}) == 4


def test_comparisons_share_a_store_that_both_name(base, task, methods, tmp_path):
    plain, fast = (load_methods([path], base=base)[0] for path in methods)
    run_trial(Trial(plain, 1e-3, 0, tmp_path / "one"), task, store=tmp_path / "store")
    told = []
    second = Trial(fast, 4e-3, 0, tmp_path / "two")
    run_trial(second, task, store=tmp_path / "store", tell=told.append)
    assert [line for line in told if "done before" in line] == [f"{name}: done before" for name in FIRST]
