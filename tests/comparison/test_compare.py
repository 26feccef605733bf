"""A small comparison from end to end: what is trained, what is chosen, what is not repeated, what is refused."""

import json
from multiprocessing import active_children, get_context

import pytest
from comparison.made_up_comparison import make_comparison
from comparison.made_up_workers import MadeUpTrial, start_and_die, work
from filelock import FileLock
from small_run import make_data, make_model

from prunelora.comparison import compare as module
from prunelora.comparison.compare import compare, planned_trials
from prunelora.comparison.methods import load_methods
from prunelora.comparison.results import load_comparison, trial_folder
from prunelora.comparison.timing import TimingSettings
from prunelora.comparison.trials import Trial
from prunelora.data.settings import DataSettings
from prunelora.errors import DivergenceError, MissingExtraError, RecipeError
from prunelora.run.recipe import Recipe
from prunelora.storage import locked

METHODS = ("full", "lora", "prune-lora")
TIMING = TimingSettings(step_batches=2, step_rounds=3, forward_rounds=3, warmup=1)
TUNING = {"epochs": 1, "finetune.batch_size": 16}
CHANGES = TUNING | {"keep_heads": 8, "linear_probe.steps": 4, "rows": 32}


@pytest.fixture(scope="module")
def base(tmp_path_factory, minilm_path):
    folder = tmp_path_factory.mktemp("inputs")
    data = DataSettings(data=str(make_data(folder / "reviews.csv")), max_length=32)
    return Recipe(model=str(make_model(folder / "model", minilm_path)), task=data)


@pytest.fixture(autouse=True)
def without_figures(monkeypatch):
    """Only the comparisons that tests share draw them, which takes as long as their trainings."""
    monkeypatch.setattr("prunelora.comparison.page.draw_comparison", lambda _: {})


def run(base, out, **options):
    defaults = {"methods": METHODS, "seeds": (0, 1), "factors": (1, 10), "changes": CHANGES, "timing": False}
    told: list[str] = []
    results = compare(base=base, out=out, progress=False, tell=told.append, **(defaults | options))
    return results, told


@pytest.fixture(scope="module")
def finished(base, tmp_path_factory):
    """One comparison with timing, looked at by several tests, and its folder."""
    out = tmp_path_factory.mktemp("finished") / "out"
    return run(base, out, timing=True, timing_settings=TIMING)[0], out


def test_every_method_has_its_trials_and_its_seeds(finished):
    results, _ = finished
    for name in METHODS:
        trained = [(trial.learning_rate, trial.seed) for trial in results.trials if trial.method == name]
        method = results.method(name)
        first, second = (float(rate) for rate in method.tried)
        assert sorted(trained) == sorted([(first, 0), (second, 0), (method.learning_rate, 1)])
        assert second == pytest.approx(10 * first)


def test_the_learning_rate_is_the_best_on_validation_rows(finished):
    results, _ = finished
    for method in results.methods:
        trials = [trial for trial in results.trials if trial.method == method.name and trial.seed == 0]
        best = max(trials, key=lambda trial: (trial.validation["accuracy"], -trial.validation["loss"]))
        assert method.learning_rate == best.learning_rate


def test_the_reported_rows_have_no_part_in_the_choice(base, tmp_path, monkeypatch):
    """Validation says one thing, the reported rows the other: validation decides."""
    original = module.run_trial

    def judged(trial, *args, **options):
        facts = original(trial, *args, **options)
        high = trial.learning_rate > 0.002
        validation = {"accuracy": 0.6 if high else 0.7, "loss": 0.5}
        test = {"test": facts.test["test"] | {"accuracy": 0.9 if high else 0.2}}
        return facts.model_copy(update={"validation": validation, "test": test})

    monkeypatch.setattr(module, "run_trial", judged)
    results, _ = run(base, tmp_path / "out", methods=["lora"], changes=TUNING, seeds=(0,))
    assert results.method("lora").learning_rate == 0.001


def test_of_equally_good_learning_rates_the_one_with_less_loss_is_taken(base, tmp_path, monkeypatch):
    original = module.run_trial

    def judged(trial, *args, **options):
        facts = original(trial, *args, **options)
        loss = 0.4 if trial.learning_rate > 0.002 else 0.5
        return facts.model_copy(update={"validation": {"accuracy": 0.7, "loss": loss}})

    monkeypatch.setattr(module, "run_trial", judged)
    results, _ = run(base, tmp_path / "out", methods=["lora"], changes=TUNING, seeds=(0,))
    assert results.method("lora").learning_rate == 0.01


def test_what_is_finished_is_not_repeated_and_what_is_missing_is_done(finished, base, tmp_path, monkeypatch):
    results, out = finished
    executed = []
    original = module.run_trial
    monkeypatch.setattr(module, "run_trial", lambda trial, *a, **o: executed.append(trial) or original(trial, *a, **o))
    before = {path: path.stat().st_mtime_ns for path in out.rglob("trial.json")}
    again, told = run(base, out, seeds=(0, 1, 2))
    new = {path for path in out.rglob("trial.json") if path not in before}
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert {path.parent.name for path in new} == {"seed-2"}
    assert len(new) == len(METHODS)
    assert len(again.trials) == len(results.trials) + len(METHODS)
    assert told[-1].startswith("trial 12 of 12: prune-lora")


def test_a_comparison_that_is_stopped_leaves_an_early_look(base, tmp_path, monkeypatch):
    original = module.run_trial
    (tmp_path / "out" / "trials").mkdir(parents=True)
    (tmp_path / "out" / ".comparison.json.prunelora-abcd_123.json").write_text("{")  # Of a killed comparison.

    def stop_at(seed):
        def stopped(trial, *args, **options):
            if trial.seed == seed:
                raise KeyboardInterrupt
            return original(trial, *args, **options)

        monkeypatch.setattr(module, "run_trial", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(base, tmp_path / "out", **options)
        return load_comparison(tmp_path / "out" / "comparison.json")

    options = {"methods": ["lora"], "changes": TUNING, "factors": (1,), "seeds": (0, 1, 2)}
    early = stop_at(1)
    assert early.seeds == (0,)
    assert early.missing == ("lora, learning rate 0.001, seed 1", "lora, learning rate 0.001, seed 2")
    stop_at(2)
    later = stop_at(2)
    assert (later.seeds, later.missing) == ((0, 1), ("lora, learning rate 0.001, seed 2",))
    assert later.trials[0] == early.trials[0]
    monkeypatch.setattr(module, "run_trial", original)
    results, _ = run(base, tmp_path / "out", **options)
    assert (results.seeds, results.missing) == ((0, 1, 2), ())
    assert results.trials[0] == early.trials[0]
    assert [path.name for path in (tmp_path / "out").glob(".*")] == [".lock"]


def test_a_timing_is_kept_where_the_models_are_the_same(finished, base):
    results, out = finished
    again, _ = run(base, out)
    assert [one.step_to_full for one in again.methods] == [one.step_to_full for one in results.methods]
    assert again.timing is not None


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({"recipe": {"seed": 7, "stages": [{"stage": "finetune", "selective_recomputation": True}]}}, True),
        ({"recipe": {"seed": 0, "stages": [{"stage": "finetune", "selective_recomputation": False}]}}, False),
        ({"plan_id": "fedcba9876543210"}, False),
        ({"model": "another"}, False),
        ({"task": make_comparison().task | {"fingerprint": "other rows"}}, False),
    ],
)
def test_a_timing_is_kept_of_the_same_model_recipes_and_plans_alone(tmp_path, change, kept):
    recipe = {"seed": 0, "stages": [{"stage": "finetune", "selective_recomputation": True}]}
    before, now = make_comparison(), make_comparison(timed=False)
    before, now = (
        one.model_copy(update={"trials": tuple(trial.model_copy(update={"recipe": recipe}) for trial in one.trials)})
        for one in (before, now)
    )
    before.save(tmp_path / module.RESULTS)
    if {"model", "task"} & change.keys():
        now = now.model_copy(update=change)
    else:
        now = now.model_copy(update={"trials": tuple(trial.model_copy(update=change) for trial in now.trials)})
    found = module._with_old_times(now, tmp_path)
    assert found.timing == (before.timing if kept else None)
    assert [one.step_ms for one in found.methods] == [one.step_ms if kept else None for one in before.methods]


def test_what_is_counted_is_the_models_own(finished):
    results, _ = finished
    full, lora, pruned = (results.method(name) for name in METHODS)
    assert full.trained == full.parameters == lora.parameters
    assert pruned.heads == (8, 12)
    assert lora.heads == (12, 12)
    # A head has 4 x 6 x 24 weights and 3 x 6 biases.
    assert lora.parameters - pruned.parameters == 4 * (4 * 6 * 24 + 3 * 6)
    assert pruned.trained < lora.trained < full.trained
    assert pruned.memory.training < lora.memory.training < full.memory.training
    assert pruned.memory.inference < lora.memory.inference == full.memory.inference
    assert full.memory.optimizer == 8 * full.trained
    assert pruned.disk_bytes < lora.disk_bytes
    assert pruned.macs < lora.macs == full.macs
    assert full.step_to_full.median == 1
    assert [(one.batch_size, one.tokens) for one in pruned.latencies] == [(1, 32)]


def test_sizes_are_those_that_were_taken_and_not_those_asked_for(finished):
    """The model has positions for 64 tokens, and a step 16 rows."""
    results, _ = finished
    assert {(one.memory.step_rows, one.memory.tokens, one.macs_tokens) for one in results.methods} == {(16, 64, 128)}
    assert results.timing["step_rows"] == 16
    assert results.method("lora").step_to_lora.median == 1
    assert {one.memory.inference_rows for one in results.methods} == {32}


def test_a_model_that_is_tuned_before_the_cut_needs_the_dense_models_memory_once(base, tmp_path):
    changes = TUNING | {"finetune-1.batch_size": 16, "rows": 32, "lora_targets": "query,key,value,output,up,down"}
    dense, pruned = run(
        base, tmp_path / "whole", methods=["lora", "tune-first"], changes=changes, seeds=(0,), factors=(1,)
    )[0].methods
    assert pruned.heads[0] < dense.heads[0]
    assert pruned.memory.training == dense.memory.training
    assert pruned.memory.inference < dense.memory.inference
    halves = changes | {"finetune-1.batch_size": 2, "finetune-1.accumulation_steps": 8}
    small = run(base, tmp_path / "halves", methods=["tune-first"], changes=halves, seeds=(0,), factors=(1,))[0].methods[
        0
    ]
    assert small.memory.saved < pruned.memory.saved


def test_pairs_are_of_the_answers_on_the_reported_rows(finished):
    results, _ = finished
    assert [(pair.first, pair.second) for pair in results.pairs] == [
        ("lora", "full"), ("prune-lora", "full"), ("prune-lora", "lora"),
    ]  # fmt: skip
    for pair in results.pairs:
        first, second = (results.method(name).quality["test"]["accuracy"] for name in (pair.first, pair.second))
        assert pair.difference == pytest.approx(first.mean - second.mean)
        assert pair.by_seed == pytest.approx([a - b for a, b in zip(first.values, second.values, strict=True)])
        assert pair.rows == 12


def test_results_are_on_disk_and_read_back_the_same(finished):
    _, out = finished
    stored = load_comparison(out / "comparison.json")
    assert stored.model_dump(mode="json") == json.loads((out / "comparison.json").read_text())
    assert {"report.html", "report.md", "comparison.csv"} <= {path.name for path in out.iterdir()}


def test_a_file_that_is_no_comparison_is_an_error(tmp_path):
    (tmp_path / "comparison.json").write_text('{"format": "prunelora-comparison-0"}')
    with pytest.raises(RecipeError, match=r"comparison\.json"):
        load_comparison(tmp_path / "comparison.json")


def test_cells_trained_under_other_settings_count_as_not_done(finished, base):
    _, out = finished
    method = load_methods(["lora"], base=base, changes=TUNING)[0]
    assert Trial(method, 0.001, 0, out).facts() is not None
    other = load_methods(["lora"], base=base, changes=TUNING | {"epochs": 2})[0]
    assert Trial(other, 0.001, 0, out).facts() is None


def test_planned_trials_are_those_that_are_trained(base, finished, tmp_path):
    results, out = finished
    methods, options = load_methods(METHODS, base=base, changes=CHANGES), {"seeds": (0, 1), "factors": (1, 10)}
    planned = planned_trials(methods, out=tmp_path / "new", **options)
    assert len(planned) == len(results.trials)
    assert not any("done" in line for line in planned)
    assert sum("done" in line for line in planned_trials(methods, out=out, **options)) == 2 * len(METHODS)


@pytest.fixture(scope="module")
def at_budgets(base, tmp_path_factory):
    """One comparison at two budgets, what was told, and its options."""
    out = tmp_path_factory.mktemp("budgets") / "out"
    changes = TUNING | {"linear_probe.steps": 4, "rows": 32}
    options = {"methods": ["prune-lora"], "changes": changes, "keep_macs": (0.5, 1), "out": out}
    return *run(base, timing=True, timing_settings=TIMING, seeds=(0,), **options), options


def test_the_learning_rate_is_tried_at_one_budget_and_used_for_all(at_budgets):
    results, told, _ = at_budgets
    whole, half = results.methods
    assert [one.name for one in results.methods] == ["prune-lora@1", "prune-lora@0.5"]
    assert whole.learning_rate == half.learning_rate
    assert (whole.tried_on, half.tried_on) == ("prune-lora@0.5", None)
    trained = [(trial.method, trial.learning_rate, trial.seed) for trial in results.trials]
    first, second = (float(rate) for rate in half.tried)
    assert trained == [
        ("prune-lora@0.5", first, 0), ("prune-lora@0.5", second, 0), ("prune-lora@1", half.learning_rate, 0),
    ]  # fmt: skip
    assert told[-2].startswith("trial 3 of 3: prune-lora@1")


def test_every_budget_is_kept_and_timed(at_budgets):
    results, _, _ = at_budgets
    whole, half = results.methods
    assert (whole.keep_macs, half.keep_macs) == (1, 0.5)
    assert (whole.heads, whole.neurons) == ((12, 12), (96, 96))
    assert half.macs <= 0.5 * whole.macs
    assert [len(one.latencies) for one in results.methods] == [1, 1]
    assert [(pair.first, pair.second) for pair in results.pairs] == [("prune-lora@0.5", "prune-lora@1")]


def test_the_recipe_file_of_a_point_is_its_command(at_budgets, prunelora, tmp_path):
    results, _, options = at_budgets
    for method in results.methods:
        file = f"{trial_folder(method.name, method.learning_rate, 0)}/recipe.yaml"
        assert file in (options["out"] / "report.html").read_text()
        recipe = str(options["out"] / file)
        code, printed, err = prunelora("run", "--recipe", recipe, "--out", str(tmp_path), "--dry-run", "--json")
        assert code == 0, err
        stages = {stage["stage"]: stage["settings"] for stage in json.loads(printed)["stages"]}
        assert stages["plan"]["keep_macs"] == method.keep_macs
        assert stages["finetune"]["learning_rate"] == method.learning_rate


def test_a_dry_run_at_budgets_has_a_line_for_every_training(base, at_budgets, tmp_path):
    results, _, options = at_budgets
    methods = load_methods(
        base=base, names=options["methods"], changes=options["changes"], keep_macs=options["keep_macs"]
    )
    new = {"out": tmp_path / "new", "factors": (1, 10)}
    assert len(planned_trials(methods, seeds=(0,), **new)) == len(results.trials)
    several = planned_trials(methods, seeds=(0, 1), **new)
    assert several[:2] == [f"prune-lora@1, the learning rate of prune-lora@0.5, seed {seed}" for seed in (0, 1)]
    assert len(several) == 2 + (2 + 1)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"keep_macs": (2,), "changes": TUNING}, r"keep_macs=\[2\]"),
        ({"seeds": ()}, r"seeds=\[\]"),
        ({"seeds": (1, 1)}, r"seeds=\[1, 1\]"),
        ({"factors": (0,)}, r"factors=\[0\]"),
        ({"jobs": 0}, "jobs=0"),
        ({"methods": ()}, "No methods"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_any_work(base, tmp_path, options, complaint):
    with pytest.raises(RecipeError, match=complaint):
        run(base, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_else_in_it_is_left_as_it_is(base, tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(RecipeError, match="holds no comparison"):
        run(base, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def training_at_once(count, *, tell=lambda _: None, jobs=2):
    return module._Training(task=None, store=None, jobs=jobs, progress=False, tell=tell, total=count)


def test_two_comparisons_in_one_folder_are_refused(base, tmp_path):
    (tmp_path / "trials").mkdir()
    with locked(tmp_path), pytest.raises(RecipeError, match="another prunelora process"):
        run(base, tmp_path)


@pytest.mark.parametrize(
    ("first", "error"), [("fails", MissingExtraError), ("ends", KeyboardInterrupt)], ids=["failure", "ctrl-c"]
)
def test_what_ends_trainings_at_once_stops_those_that_run_and_those_that_wait(tmp_path, monkeypatch, first, error):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "run_trial_in_worker", work)
    trials = [MadeUpTrial(name, tmp_path) for name in (first, "runs", "waits", "waits too", "waits as well")]
    before = set(active_children())
    with pytest.raises(error):
        training_at_once(len(trials), tell=interrupted).run(trials)
    assert set(active_children()) <= before
    assert {path.name for path in tmp_path.iterdir()} <= {"ends"}


def test_a_learning_rate_that_diverges_is_shown_and_not_chosen(base, tmp_path):
    results, told = run(base, tmp_path / "out", methods=["lora"], changes=TUNING, factors=(1e33, 1), seeds=(0, 1))
    lora = results.method("lora")
    assert lora.learning_rate == 0.001
    assert lora.tried["1e+30"] is None
    assert [(trial.learning_rate, trial.seed) for trial in results.trials] == [(0.001, 0), (0.001, 1)]
    assert any("learning rate 1e+30, seed 0: diverged" in line for line in told)
    assert "diverged" in (tmp_path / "out" / "report.md").read_text()
    assert load_comparison(tmp_path / "out" / "comparison.json").method("lora").tried == lora.tried


def test_where_every_learning_rate_diverges_trainings_of_other_methods_stay(base, tmp_path, monkeypatch):
    original = module.run_trial

    def diverging(trial, *args, **options):
        if trial.method.name == "full":
            raise DivergenceError("In step 3 the training loss is nan.")
        return original(trial, *args, **options)

    monkeypatch.setattr(module, "run_trial", diverging)
    with pytest.raises(DivergenceError, match=r"^full: .*lower factors"):
        run(base, tmp_path / "out", methods=["full", "lora"], changes=TUNING, factors=(1,), seeds=(0,))
    assert [path.parent.parent.parent.name for path in tmp_path.rglob("trial.json")] == ["lora"]


def test_another_seed_that_diverges_is_an_error_that_names_it(base, tmp_path, monkeypatch):
    original = module.run_trial

    def diverging(trial, *args, **options):
        if trial.seed == 1:
            raise DivergenceError("In step 3 the training loss is nan.")
        return original(trial, *args, **options)

    monkeypatch.setattr(module, "run_trial", diverging)
    with pytest.raises(DivergenceError, match=r"^lora, learning rate 0\.001, seed 1: In step 3 .*lower factors"):
        run(base, tmp_path / "out", methods=["lora"], changes=TUNING, factors=(1,), seeds=(0, 1))
    assert load_comparison(tmp_path / "out" / "comparison.json").seeds == (0,)


def test_of_trainings_at_once_one_that_diverges_does_not_end_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "run_trial_in_worker", work)
    told = []
    training = training_at_once(2, tell=told.append)
    training.run([MadeUpTrial(name, tmp_path) for name in ("diverges", "ends")], may_diverge=True)
    assert ([*training.finished], training.ended) == ([("ends", 0.1, 0)], 2)
    assert any("diverges: diverged, and is not chosen" in line for line in told)


def test_workers_end_with_a_comparison_that_is_killed(tmp_path):
    killed = get_context("spawn").Process(target=start_and_die, args=(tmp_path,))
    killed.start()
    killed.join()
    with FileLock(tmp_path / ".lock", timeout=20):
        assert (tmp_path / "begun").exists()


def test_a_timing_that_fails_loses_nothing_of_the_trainings(base, tmp_path, monkeypatch):
    def failing(*_, **__):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(module, "time_methods", failing)
    with pytest.raises(RuntimeError, match="out of memory"):
        run(base, tmp_path / "out", methods=["lora"], changes=TUNING, factors=(1,), timing=True)
    results = load_comparison(tmp_path / "out" / "comparison.json")
    assert (results.seeds, results.missing, results.timing) == ((0, 1), (), None)
    assert "not done" not in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.slow
def test_two_processes_find_what_one_finds(base, finished, tmp_path):
    results, _ = finished
    again, _ = run(base, tmp_path / "out", jobs=2)
    assert [trial.test for trial in again.trials] != []
    assert {(c.method, c.learning_rate, c.seed) for c in again.trials} == {
        (c.method, c.learning_rate, c.seed) for c in results.trials
    }
    quality = {m.name: m.quality["test"]["accuracy"].values for m in results.methods}
    assert {m.name: m.quality["test"]["accuracy"].values for m in again.methods} == quality
