"""The benchmark beside the peers: a small one from end to end, and what its page says of it."""

import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_run import make_data, make_model
from tiny import logits, split, tiny_batch, tiny_model

from benchmarks.peers import __main__ as runner
from benchmarks.peers import page
from benchmarks.peers.benchmark import Benchmark
from benchmarks.peers.contenders import CONTENDERS, RANKINGS, TORCH_PRUNING
from benchmarks.peers.facts import cell_file, timing_file
from benchmarks.peers.present import have_cell
from benchmarks.peers.walks import as_recipe
from prunelora.comparison.timing import TimingSettings
from prunelora.data.load import load_task
from prunelora.data.settings import DataSettings
from prunelora.errors import PlanError
from prunelora.evaluation.counting import macs
from prunelora.models.anatomy import dissect
from prunelora.planning.plan import Plan
from prunelora.pruning.surgery import prune_

needs_torch_pruning = pytest.mark.skipif(
    importlib.util.find_spec("torch_pruning") is None,
    reason='Torch-Pruning is not installed: pip install "prunelora[bench]"',
)
ROOT = Path(__file__).resolve().parent.parent
RUN = ("lora", "cut-first", "torch-pruning-cut-first", "tune-first", "torch-pruning-tune-first")
PEERS = tuple(name for name in RUN if CONTENDERS[name].cut_by == TORCH_PRUNING)
SMALL = {"steps": 4, "rows": 32, "repair_rows": 32, "batch_size": 16}
TIMING = TimingSettings(step_batches=1, step_rounds=2, forward_rounds=2, warmup=1)


def small_benchmark(folder, model):
    data = DataSettings(data=str(folder / "reviews.csv"), max_length=32)
    return Benchmark(
        model=str(model),
        tasks={"reviews": data},
        epochs={"reviews": 1.5},
        runs=folder / "runs",
        results=folder / "results",
        settings=SMALL,
    )


def asked(*methods, seeds="0", more=()):
    arguments = runner.parsed(["--methods", ",".join(methods), "--seeds", seeds, *more])
    arguments.tasks = ["reviews"]
    return arguments


@pytest.fixture(scope="module")
def finished(tmp_path_factory, minilm_path):
    """A benchmark of five methods on one seed, with head counts and timing."""
    pytest.importorskip("torch_pruning", reason='Torch-Pruning is not installed: pip install "prunelora[bench]"')
    from benchmarks.peers.head_counts import run_head_counts
    from benchmarks.peers.timing import time_contenders

    folder = tmp_path_factory.mktemp("peers")
    make_data(folder / "reviews.csv")
    benchmark = small_benchmark(folder, make_model(folder / "model", minilm_path))
    task = load_task(benchmark.tasks["reviews"])
    run_head_counts(benchmark, "reviews", task, budgets=(0.5, 0.1))
    runner.run(benchmark, asked(*RUN))
    time_contenders(benchmark, "reviews", 0, task, settings=TIMING)
    return benchmark


def cell(benchmark, name):
    found = have_cell(benchmark, "reviews", CONTENDERS[name], 0)
    assert found is not None
    return found


def trial(found, what):
    return next(one for one in found.saving if one.what.startswith(what))


# The cut --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def dense():
    return tiny_model(dtype=torch.float32)


def cut(model, **options):
    from benchmarks.peers.torch_pruning_cut import cut_with_torch_pruning

    settings = {"keep_macs": 0.5, "tokens": 16, "round_to": 2} | options
    return cut_with_torch_pruning(model, split(tiny_batch(), 3), **settings)


@needs_torch_pruning
@pytest.mark.parametrize("ranking", RANKINGS)
def test_a_cut_stays_within_its_budget_and_is_the_largest_that_was_tried(dense, ranking):
    found = cut(dense, ranking=ranking)
    whole = macs(dense, tokens=16).total
    assert found.macs == macs(found.model, tokens=16).total <= 0.5 * whole
    assert found.macs / whole == max(share for _, share in found.tried if share <= 0.5)


@needs_torch_pruning
def test_only_heads_and_neurons_are_cut(dense):
    before, after = dissect(dense).architecture, dissect(cut(dense).model).architecture
    assert after.hidden_size == before.hidden_size
    assert after.head_dim == before.head_dim
    assert after.total_heads < before.total_heads
    assert after.total_neurons < before.total_neurons


@needs_torch_pruning
def test_the_model_that_is_cut_from_stays_as_it_was(dense):
    batch = tiny_batch()
    before = logits(dense, batch)
    cut(dense)
    assert torch.equal(logits(dense, batch), before)
    assert all(parameter.grad is None for parameter in dense.parameters())


@needs_torch_pruning
def test_a_cut_model_does_not_pass_for_the_one_before(dense):
    plan = Plan.whole(dissect(dense).lineage)
    prune_(dense, plan)
    assert not hasattr(cut(dense).model, "prunelora_plan")
    assert dense.prunelora_plan == plan


@needs_torch_pruning
def test_gradients_are_of_all_batches(dense):
    from benchmarks.peers.torch_pruning_cut import gradients_of

    rows = split(tiny_batch(), 3)
    first, others, both = (gradients_of(dense, some) for some in (rows[:1], rows[1:], rows))
    name = "classifier.weight"
    torch.testing.assert_close(both[name], first[name] + others[name])


@needs_torch_pruning
def test_a_history_replayed_gives_the_same_layers(dense):
    from benchmarks.peers.torch_pruning_cut import replay_

    found = cut(dense)
    again = replay_(tiny_model(dtype=torch.float32), found.history, tiny_batch())
    assert dissect(again).architecture == dissect(found.model).architecture
    assert torch.equal(logits(again, tiny_batch()), logits(found.model, tiny_batch()))


@needs_torch_pruning
def test_a_budget_that_cannot_be_met_says_what_was_reached(dense):
    with pytest.raises(PlanError, match=r"keep_macs=0\.01: Torch-Pruning left 0\.\d+ of the MACs at least"):
        cut(dense, keep_macs=0.01)


# The walks ------------------------------------------------------------------------------------------------------------


def test_another_cut_takes_the_place_of_the_recipes_own(tmp_path):
    cell = small_benchmark(tmp_path, "minilm").cell("reviews", CONTENDERS["torch-pruning-tune-first"], 0)
    stages = as_recipe(cell.recipe)["stages"]
    kinds = [stage["stage"] for stage in stages]
    assert kinds == ["finetune", "merge", "torch-pruning", "finetune", "merge", "evaluate"]
    assert stages[2]["rows"] == SMALL["rows"]
    assert stages[2]["keep_macs"] == 0.5


def test_variants_differ_from_their_recipe_in_the_cut_alone(tmp_path):
    benchmark = small_benchmark(tmp_path, "minilm")
    recipes = {name: benchmark.cell("reviews", one, 0).recipe for name, one in CONTENDERS.items()}
    for walk in ("cut-first", "tune-first"):
        assert recipes[f"torch-pruning-{walk}"] == recipes[walk]
        for criterion in ("random", "magnitude"):
            found = recipes[f"{criterion}-{walk}"]
            assert found != recipes[walk]
            stages = {stage.stage: stage for stage in recipes[walk].stages}
            own = {"score.criterion": stages["score"].criterion, "plan.balance": stages["plan"].balance}
            assert found.with_settings(own) == recipes[walk]


def test_all_train_for_as_long(tmp_path):
    benchmark = small_benchmark(tmp_path, "minilm")
    for contender in CONTENDERS.values():
        stages = benchmark.cell("reviews", contender, 0).recipe.stages
        assert sum(stage.epochs for stage in stages if stage.stage == "finetune") == pytest.approx(1.5)


def test_learning_rates_that_were_chosen_are_used_and_scaled_in_proportion(tmp_path):
    benchmark = small_benchmark(tmp_path, "minilm")
    chosen = replace(benchmark, rates={("reviews", "tune-first"): 5e-4})
    for contender in CONTENDERS.values():
        before, after = (one.cell("reviews", contender, 0).recipe for one in (benchmark, chosen))
        own, given = ([one.learning_rate for one in recipe.tunings.values()] for recipe in (before, after))
        assert (max(given) == 5e-4) == (contender.recipe == "tune-first")
        assert [one / max(given) for one in given] == pytest.approx([one / max(own) for one in own])
        assert (before == after) == (contender.recipe != "tune-first")


def test_every_cut_is_within_the_budget(finished):
    for name in RUN[1:]:
        found = cell(finished, name)
        assert found.macs <= 0.5 * found.dense_macs
        assert found.after_cut is not None
        assert set(found.facts.seconds) >= {"score", "plan", "prune", "finetune", "merge"}
    assert cell(finished, "lora").macs == cell(finished, "lora").dense_macs


def test_the_same_is_trained_whoever_cut(finished):
    for walk in ("cut-first", "tune-first"):
        ours, theirs = cell(finished, walk).facts, cell(finished, f"torch-pruning-{walk}").facts
        assert theirs.steps == ours.steps
        assert {kind for kind, count in theirs.trained.items() if count} == {"lora", "norms", "head"}
        for kind in ("norms", "head"):
            assert theirs.trained[kind] == ours.trained[kind]


def test_a_start_that_two_share_is_trained_once(finished):
    ours, theirs = cell(finished, "tune-first"), cell(finished, "torch-pruning-tune-first")
    for stage in ("finetune-1", "merge-1"):
        assert theirs.facts.seconds[stage] == ours.facts.seconds[stage]


def test_memory_is_that_of_the_fine_tuning_that_takes_most(finished):
    found = cell(finished, "torch-pruning-tune-first")
    assert set(found.memory) == {"finetune-1", "finetune"}
    before, after = found.memory["finetune-1"], found.memory["finetune"]
    # Half as many rows a step: less is saved, though nothing is cut yet.
    assert before.saved < after.saved
    assert before.weights > after.weights
    assert found.most_memory == max(before.training, after.training)


def test_what_can_be_saved_and_loaded_is_tried(finished):
    for name in RUN:
        ours = name not in PEERS
        found = cell(finished, name)
        assert trial(found, "prunelora.save").works is ours
        assert trial(found, "the same with weights_only=False").works
        assert not trial(found, "torch.save of the module, torch.load").works
        assert trial(found, "save_pretrained").works is (name == "lora")
    for name in PEERS:
        assert "RuntimeError" in trial(cell(finished, name), "save_pretrained").outcome
        assert trial(cell(finished, name), "Torch-Pruning's history").works


def test_head_counts_are_tried_in_every_way(finished):
    content = json.loads((finished.results / "head-counts.json").read_text(encoding="utf-8"))
    assert len(content["ways"]) == 2 * (len(RANKINGS) + 1)
    assert all(way["trials"] for way in content["ways"])
    by_torch_pruning = [way for way in content["ways"] if way["way"] != "prunelora"]
    assert all(way["trials"][0]["works"] is (way["keep_macs"] == 0.5) for way in by_torch_pruning)


def test_what_is_finished_is_not_run_again(finished, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("was run again")

    monkeypatch.setattr("benchmarks.peers.cells.run_trial", refuse)
    monkeypatch.setattr("benchmarks.peers.cells.walk", refuse)
    monkeypatch.setattr("benchmarks.peers.head_counts.try_head_counts", refuse)
    runner.run(finished, asked(*RUN))
    with pytest.raises(AssertionError, match="was run again"):
        runner.run(finished, asked("lora", seeds="1"))


def test_a_result_of_another_recipe_does_not_count(finished):
    longer = Benchmark(**(vars(finished) | {"epochs": {"reviews": 4}}))
    assert have_cell(longer, "reviews", CONTENDERS["lora"], 0) is None


# The page -------------------------------------------------------------------------------------------------------------


def test_the_page_is_made_from_the_results_alone_and_says_what_is_missing(finished, tmp_path):
    shutil.copytree(finished.results, tmp_path / "results")
    benchmark = Benchmark(**(vars(finished) | {"results": tmp_path / "results", "runs": tmp_path / "nothing"}))
    text = page.write_page(benchmark, seeds=(0, 1), notes={"reviews": "made-up rows"}).read_text(encoding="utf-8")
    text = text.replace("\\", "")
    assert "5 of 22 trainings" in text
    assert "17 of 22 trainings are missing: 17 of reviews" in text.replace("\n", " ")
    assert text.count("| random-cut-first | missing |") == 3  # quality, costs, and the task's own table
    assert "--methods torch-pruning-cut-first --seeds 0,1  # missing: seed 1" in text
    assert "reviews: 5 of 11 methods were timed" in text.lower()
    assert "RuntimeError" in text
    assert "made-up rows" in text


def test_a_mean_over_tasks_needs_all_of_them(finished):
    def mean(seeds):
        rows = page.quality_table(page.read(finished, seeds=seeds, notes={})).rows
        return {row[0]: row[-1] for row in rows}["lora"]

    assert mean((0,)) != page.NONE
    assert mean((0, 1)) == page.NONE


def test_times_of_other_models_are_not_shown(finished, tmp_path):
    shutil.copytree(finished.results, tmp_path / "results")
    benchmark = Benchmark(**(vars(finished) | {"results": tmp_path / "results"}))
    assert "reviews" in page.read(benchmark, seeds=(0,), notes={}).timings
    cell_file(benchmark.results, "reviews", "lora", 0).unlink()
    assert not page.read(benchmark, seeds=(0,), notes={}).timings


def test_what_came_since_the_timing_is_timed_anew_where_the_trainings_are(finished, tmp_path, capsys):
    shutil.copytree(finished.results, tmp_path / "results")
    elsewhere = Benchmark(**(vars(finished) | {"results": tmp_path / "results", "runs": tmp_path / "nothing"}))
    path = timing_file(elsewhere.results, "reviews")
    earlier = json.loads(path.read_text(encoding="utf-8"))
    for content in (earlier["models"], earlier["contenders"]):
        del content["cut-first"]
    path.write_text(json.dumps(earlier), encoding="utf-8")
    assert "reviews" in page.read(elsewhere, seeds=(0,), notes={}).timings
    runner.run(elsewhere, asked("lora", more=["--timing"]))
    assert "not timed, as trainings are not here: lora, cut-first, torch-pruning-cut-first" in capsys.readouterr().out
    assert json.loads(path.read_text(encoding="utf-8")) == earlier


def test_another_seed_leaves_the_times_of_the_first_alone(finished, tmp_path, monkeypatch):
    shutil.copytree(finished.results, tmp_path / "results")
    benchmark = Benchmark(**(vars(finished) | {"results": tmp_path / "results"}))
    path = timing_file(benchmark.results, "reviews")
    before = path.read_bytes()
    monkeypatch.setattr("benchmarks.peers.cells.run_contender", lambda *_, **__: None)
    runner.run(benchmark, asked(*RUN, seeds="1", more=["--timing"]))
    assert path.read_bytes() == before


def test_a_page_of_nothing_says_that_all_is_missing(tmp_path):
    found = page.page_of(page.read(small_benchmark(tmp_path, "minilm"), seeds=(0,), notes={}))
    assert any("11 of 11 trainings are missing" in line for line in found.warnings)


def test_the_page_says_who_trains_with_what_saves_memory_beside_the_cut(tmp_path):
    benchmark = small_benchmark(tmp_path, "minilm")
    recomputes, halves = set(), set()
    for name, contender in CONTENDERS.items():
        *before, last = benchmark.cell("reviews", contender, 0).recipe.tunings.values()
        recomputes |= {name} if all(one.selective_recomputation for one in (*before, last)) else set()
        halves |= {name} if any(2 * one.batch_size == last.batch_size for one in before) else set()
    assert set(CONTENDERS) - recomputes == {"full", "lora"}
    assert halves == {name for name in CONTENDERS if "tune-first" in name or name == "cut-early"}
    sections = page.page_of(page.read(benchmark, seeds=(0,), notes={})).sections
    said = next(one for one in sections if one.title == "What it takes").text[-1]
    assert "Full and lora keep what autograd keeps" in said
    assert "69 % of its memory with recomputation alone, and 41 % with half batches too" in said


# The command ----------------------------------------------------------------------------------------------------------


def test_one_seed_of_all_comes_before_the_next_seed_of_any():
    order = list(runner.schedule(["rte", "mrpc"], ["lora"], [0, 1]))
    assert order == [(0, "rte", "lora"), (0, "mrpc", "lora"), (1, "rte", "lora"), (1, "mrpc", "lora")]


def test_unknown_methods_are_refused(capsys):
    with pytest.raises(SystemExit):
        runner.parsed(["--methods", "lora,laura"])
    assert "'laura' is not one of full, lora" in capsys.readouterr().err


def test_the_library_knows_nothing_of_torch_pruning():
    sources = list((ROOT / "src").rglob("*.py"))
    assert len(sources) > 70
    assert not [path for path in sources if "torch_pruning" in path.read_text(encoding="utf-8")]


def test_the_results_page_has_the_means_of_the_committed_page():
    lines = (runner.ROOT / "benchmarks" / "peers" / "RESULTS.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines if line.startswith("| ")]
    heading = next(place for place, row in enumerate(rows) if row[-1] == "mean")
    means = {row[0]: row[-1] for row in rows[heading + 2 : heading + 3 + len(CONTENDERS)]}
    assert means.keys() >= CONTENDERS.keys()
    text = (runner.ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert f"LoRA by PEFT: {means['lora']};" in text
    for title, prefix in (
        ("prunelora's choice, repaired", ""),
        ("the smallest weights, repaired", "magnitude-"),
        ("Torch-Pruning, Taylor importance", "torch-pruning-"),
        ("at random, repaired", "random-"),
    ):
        assert f"| {title} | {means[prefix + 'tune-first']} | {means[prefix + 'cut-first']} |" in text
