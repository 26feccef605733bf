"""Stages that trials have in common are done once, and nobody can tell from the results."""

import json
import shutil

import pytest
import torch
from small_run import make_data, make_model

from prunelora.comparison import sharing
from prunelora.comparison.compare import compare
from prunelora.comparison.methods import load_methods
from prunelora.comparison.sharing import bring_over, run_folders
from prunelora.comparison.trials import run_trial, trial_of
from prunelora.data.load import load_task
from prunelora.data.settings import DataSettings
from prunelora.errors import CheckpointError, RecipeError
from prunelora.models.loading import fingerprint
from prunelora.models.problem_types import SINGLE_LABEL
from prunelora.planning.plan import Plan
from prunelora.run.execute import execute
from prunelora.run.folder import RunFolder
from prunelora.run.keys import digest, keys_of
from prunelora.run.recipe import Recipe, read_recipe

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


@pytest.fixture(scope="module")
def base(tmp_path_factory, minilm_path):
    folder = tmp_path_factory.mktemp("inputs")
    data = DataSettings(data=str(make_data(folder / "reviews.csv", rows=60)), max_length=16)
    return Recipe(model=str(make_model(folder / "model", minilm_path)), task=data)


@pytest.fixture(scope="module")
def task(base):
    return load_task(base.task)


def recipe_of(base, **changes) -> Recipe:
    content = base.model_dump(mode="json") | {"stages": STAGES}
    return read_recipe(content, source="test").with_settings(changes)


@pytest.fixture
def recipe(base):
    return recipe_of(base)


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory):
    """A whole run that others take from; no test changes it."""
    return execute(recipe_of(base), tmp_path_factory.mktemp("trained") / "run", progress=False).folder


@pytest.fixture
def donor(recipe, trained, task, tmp_path):
    """A run of its own with the first stages done, to be damaged."""
    bring_over(recipe, tmp_path / "donor", task, [trained])
    return tmp_path / "donor"


def test_what_two_runs_begin_with_is_not_done_again(recipe, trained, task, tmp_path):
    other = recipe.with_settings({"finetune.learning_rate": 5e-3})
    assert bring_over(other, tmp_path / "run", task, [trained]) == FIRST
    assert execute(other, tmp_path / "run", progress=False).ran == LAST


def test_a_setting_that_differs_is_done_and_all_behind_it(recipe, trained, task, tmp_path):
    other = recipe.with_settings({"plan.normalise": "none"})
    assert bring_over(other, tmp_path / "run", task, [trained]) == ("linear_probe", "score")
    assert execute(other, tmp_path / "run", progress=False).ran == ("plan", "prune", *LAST)
    seeded = recipe.with_settings({"seed": 1})
    assert bring_over(seeded, tmp_path / "seeded", task, [trained]) == ()


def test_work_is_not_repeated_for_a_setting_that_changes_its_costs_alone(recipe, trained, task, tmp_path):
    other = recipe.with_settings({"finetune.selective_recomputation": False})
    assert bring_over(other, tmp_path / "run", task, [trained]) == (*FIRST, *LAST)
    assert execute(other, tmp_path / "run", progress=False).ran == ()


def test_a_run_on_other_data_has_nothing_in_common(recipe, trained, tmp_path):
    shorter = recipe.with_settings({"task.max_length": 12})
    assert bring_over(shorter, tmp_path / "shorter", load_task(shorter.task), [trained]) == ()
    fewer = recipe.with_settings({"task.max_train_rows": 40})
    assert bring_over(fewer, tmp_path / "fewer", load_task(fewer.task), [trained]) == ()


def test_the_whole_of_it_is_taken_where_all_is_the_same(recipe, trained, task, tmp_path):
    assert bring_over(recipe, tmp_path / "run", task, [trained]) == (*FIRST, *LAST)
    assert execute(recipe, tmp_path / "run", progress=False).ran == ()
    # Copied, where weights are linked.
    assert Plan.load(tmp_path / "run" / "plan.json") == Plan.load(trained / "plan.json")


def test_results_are_those_without_sharing(recipe, trained, task, tmp_path):
    other = recipe.with_settings({"finetune.learning_rate": 5e-3})
    bring_over(other, tmp_path / "shared", task, [trained])
    shared = execute(other, tmp_path / "shared", progress=False)
    alone = execute(other, tmp_path / "alone", progress=False)
    assert len(alone.ran) == len(FIRST) + len(LAST)
    ours, theirs = shared.load().state_dict(), alone.load().state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert shared.results.facts("merge") == alone.results.facts("merge")
    assert shared.results.facts("prune")["validation"] == alone.results.facts("prune")["validation"]


def test_seconds_are_those_that_the_stage_took(recipe, trained, task, tmp_path):
    bring_over(recipe, tmp_path / "run", task, [trained])
    for stage in FIRST:
        record = RunFolder(tmp_path / "run").record(stage)
        assert record == RunFolder(trained).record(stage)
        assert record.seconds > 0


def test_a_donor_that_is_damaged_is_passed_over(recipe, donor, trained, task, tmp_path):
    (donor / "importance.safetensors").unlink()  # A link: its other names keep the content.
    assert bring_over(recipe, tmp_path / "missing", task, [donor]) == ("linear_probe",)
    (donor / "importance.safetensors").write_bytes((trained / "importance.safetensors").read_bytes()[:-8])
    assert bring_over(recipe, tmp_path / "short", task, [donor]) == ("linear_probe",)
    record = json.loads((donor / "stages" / "linear_probe.json").read_text())
    (donor / "stages" / "linear_probe.json").write_text(json.dumps(record | {"files": []}))
    assert bring_over(recipe, tmp_path / "files", task, [donor]) == ()
    (donor / "stages" / "linear_probe.json").write_text('{"stage": "warm')
    assert bring_over(recipe, tmp_path / "record", task, [donor]) == ()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter-1.txt").write_text("precious")
    nothing = [tmp_path / "thesis", tmp_path / "nowhere", tmp_path / "thesis" / "chapter-1.txt"]
    assert bring_over(recipe, tmp_path / "nothing", task, nothing) == ()
    assert bring_over(recipe, tmp_path / "next", task, [*nothing, donor, trained]) == (*FIRST, *LAST)


def test_a_model_without_its_weights_is_not_taken(recipe, trained, task, tmp_path):
    bring_over(recipe, tmp_path / "donor", task, [trained])
    (tmp_path / "donor" / "model" / "model.safetensors").unlink()
    assert bring_over(recipe, tmp_path / "run", task, [tmp_path / "donor"]) == (*FIRST, "finetune")


def test_a_plan_edited_by_hand_stays_where_it_was_edited(recipe, donor, trained, task, tmp_path):
    plan = Plan.load(donor / "plan.json")
    edited = plan.model_copy(update={"neurons": (plan.neurons[0][:8], *plan.neurons[1:])})
    assert edited.id != plan.id
    (donor / "plan.json").write_text(edited.to_json())  # In place, as an editor does it.
    assert bring_over(recipe, tmp_path / "run", task, [donor]) == ("linear_probe", "score")
    assert Plan.load(trained / "plan.json").id == plan.id


def test_an_edit_in_the_run_itself_is_kept_and_nothing_behind_it_taken(recipe, donor, trained, task):
    plan = Plan.load(donor / "plan.json")
    edited = plan.model_copy(update={"neurons": (plan.neurons[0][:8], *plan.neurons[1:])})
    (donor / "plan.json").write_text(edited.to_json())
    assert bring_over(recipe, donor, task, [trained]) == ()
    assert Plan.load(donor / "plan.json").id == edited.id


def test_a_donor_that_begins_anew_is_passed_over(recipe, donor, task, tmp_path):
    """Its old records are there still, while its files may be those of other settings already."""
    RunFolder(donor).write_recipe(recipe.with_settings({"score.rows": 8}))
    assert bring_over(recipe, tmp_path / "run", task, [donor]) == ("linear_probe",)


def test_a_stage_of_another_name_is_not_taken(recipe, trained, task, tmp_path):
    """Its files are called otherwise, though its key is the same."""
    stages = [*STAGES[:4], *STAGES[1:]]
    twice = read_recipe(recipe.model_dump(mode="json") | {"stages": stages}, source="test")
    assert twice.names[:2] == ["linear_probe", "score-1"]
    assert bring_over(twice, tmp_path / "run", task, [trained]) == ("linear_probe",)


@pytest.mark.parametrize("within_a_file", [False, True])
def test_what_was_stopped_leaves_no_half_of_a_stage(within_a_file, recipe, trained, task, tmp_path, monkeypatch):
    def stopped(_, record):
        raise KeyboardInterrupt

    def halfway(source, target):
        target.write_bytes(source.read_bytes()[:10])
        raise KeyboardInterrupt

    if within_a_file:
        monkeypatch.setattr(sharing, "_link_or_copy", halfway)
    else:
        monkeypatch.setattr(RunFolder, "finish", stopped)
    with pytest.raises(KeyboardInterrupt):
        bring_over(recipe, tmp_path / "run", task, [trained])
    monkeypatch.undo()
    assert RunFolder(tmp_path / "run").record("linear_probe") is None
    assert (tmp_path / "run" / "head.safetensors").exists() == (not within_a_file)
    assert [path.name for path in (tmp_path / "run").glob(".*.safetensors")] == []
    assert bring_over(recipe, tmp_path / "run", task, [trained]) == (*FIRST, *LAST)


def test_what_was_stopped_leaves_no_record_of_files_that_went(base, recipe, trained, task, tmp_path, monkeypatch):
    out = tmp_path / "run"
    execute(recipe_of(base, **{"linear_probe.steps": 1}), out, task=task, until="score", progress=False)

    def stopped(_, record):
        raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "finish", stopped)
    with pytest.raises(KeyboardInterrupt):
        bring_over(recipe, out, task, [trained])
    assert RunFolder(out).record("linear_probe") is None


def test_weights_are_linked_and_text_is_copied(recipe, trained, task, tmp_path):
    bring_over(recipe, tmp_path / "run", task, [trained])

    def same(name):
        return (trained / name).stat().st_ino == (tmp_path / "run" / name).stat().st_ino

    assert same("repaired.safetensors")
    assert same("model/model.safetensors")
    assert not same("plan.json")
    assert not same("model/config.json")


def test_without_hard_links_weights_are_copied(recipe, trained, task, tmp_path, monkeypatch):
    def refused(*_):
        raise OSError("no links here")

    monkeypatch.setattr("prunelora.comparison.sharing.os.link", refused)
    assert bring_over(recipe, tmp_path / "run", task, [trained]) == (*FIRST, *LAST)
    assert (tmp_path / "run" / "model" / "model.safetensors").read_bytes() == (
        trained / "model" / "model.safetensors"
    ).read_bytes()


def test_a_folder_in_use_and_a_model_that_is_not_there_are_errors(recipe, trained, task, tmp_path):
    with RunFolder(tmp_path / "run").locked(), pytest.raises(RecipeError, match="another prunelora process"):
        bring_over(recipe, tmp_path / "run", task, [trained])
    gone = recipe.with_settings({"model": str(tmp_path / "gone")})
    with pytest.raises(CheckpointError, match="does not exist"):
        bring_over(gone, tmp_path / "other", task, [trained])
    assert not (tmp_path / "other").exists()


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
    until = list(keys_of(recipe, fingerprint(base.model), task, lambda _: "", until="score"))
    assert until == keys[:2]


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
    trial = trial_of(load_methods(methods, base=base)[0], 1e-3, 0, out=tmp_path)
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


def test_other_comparisons_share_where_they_are_named(base, task, methods, tmp_path):
    plain, fast = (load_methods([path], base=base)[0] for path in methods)
    first = trial_of(plain, 1e-3, 0, out=tmp_path / "one")
    run_trial(first, task)
    second = trial_of(fast, 4e-3, 0, out=tmp_path / "two")
    told = []
    run_trial(second, task, share_with=(tmp_path / "two", tmp_path / "one"), tell=told.append)
    assert [line for line in told if "done before" in line] == [f"{name}: done before" for name in FIRST]
    assert run_folders([tmp_path / "one", tmp_path / "two"], 0) == [first.folder, second.folder]
    assert run_folders([tmp_path / "one"], 1) == []
