"""The benchmark beside the peers: Torch-Pruning's cut, its methods, a small trial, and its page."""

import argparse
import copy
import importlib.util
import json

import pytest
import torch
from benchmark_records import trained_as
from small_run import make_data, make_model
from tiny import logits, split, tiny_batch, tiny_model

from benchmarks.harness import FOLDER, ROOT
from benchmarks.peers import benchmark, page
from benchmarks.peers.methods import CONTENDERS, RESULTS, SEEDS, TORCH_PRUNING, Peers, learning_rate
from benchmarks.tasks import FOUR, TASKS
from benchmarks.trials import train, trial_for
from prunelora.data.load import load_task
from prunelora.data.settings import DataSettings
from prunelora.errors import PlanError
from prunelora.evaluation.counting import macs
from prunelora.models.anatomy import dissect
from prunelora.planning.plan import Plan
from prunelora.pruning.surgery import prune_
from prunelora.run.recipe import Recipe

needs_torch_pruning = pytest.mark.skipif(
    importlib.util.find_spec("torch_pruning") is None, reason='pip install -c constraints.txt -e ".[bench]"'
)
WALKS = ("cut-first", "tune-first")


# The cut --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def dense():
    return tiny_model(dtype=torch.float32)


def cut(model, **options):
    from benchmarks.peers.torch_pruning_cut import cut_with_torch_pruning

    settings = {"keep_macs": 0.5, "tokens": 16, "round_to": 2} | options
    return cut_with_torch_pruning(model, split(tiny_batch(), 3), **settings)


@needs_torch_pruning
def test_a_cut_stays_within_its_budget_and_is_the_largest_that_was_tried(dense):
    small, found = cut(dense)
    whole = macs(dense, tokens=16).total
    assert found["macs"] == macs(small, tokens=16).total <= 0.5 * whole
    assert found["macs"] / whole == max(share for _, share in found["tried"] if share <= 0.5)


@needs_torch_pruning
def test_only_heads_and_neurons_are_cut(dense):
    before, after = dissect(dense).architecture, dissect(cut(dense)[0]).architecture
    assert (after.hidden_size, after.head_dim) == (before.hidden_size, before.head_dim)
    assert after.total_heads < before.total_heads
    assert after.total_neurons < before.total_neurons


@needs_torch_pruning
def test_the_model_before_the_cut_stays_as_it_was(dense):
    batch = tiny_batch()
    before = logits(dense, batch)
    cut(dense)
    assert torch.equal(logits(dense, batch), before)
    assert all(parameter.grad is None for parameter in dense.parameters())


@needs_torch_pruning
def test_a_cut_model_does_not_keep_the_plan_of_an_earlier_cut(dense):
    plan = Plan.whole(dissect(dense).lineage)
    prune_(dense, plan)
    assert not hasattr(cut(dense)[0], "prunelora_plan")
    assert dense.prunelora_plan == plan


@needs_torch_pruning
def test_gradients_are_of_all_batches(dense):
    from benchmarks.peers.torch_pruning_cut import gradients_of

    rows = split(tiny_batch(), 3)
    first, others, both = (gradients_of(dense, some) for some in (rows[:1], rows[1:], rows))
    name = "classifier.weight"
    torch.testing.assert_close(both[name], first[name] + others[name])


@needs_torch_pruning
def test_a_cut_as_a_plan_gives_the_same_logits(dense):
    from benchmarks.peers.torch_pruning_cut import as_plan

    small, found = cut(dense)
    plan = as_plan(dense, small, Plan.whole(dissect(dense).lineage, rank=3))
    assert list(map(len, plan.heads)) == found["heads"]
    assert list(map(len, plan.neurons)) == found["neurons"]
    assert plan.ranks == Plan.whole(dissect(dense).lineage, rank=3).ranks
    pruned = prune_(copy.deepcopy(dense), plan)
    torch.testing.assert_close(logits(pruned, tiny_batch()), logits(small, tiny_batch()))


@needs_torch_pruning
def test_a_budget_that_cannot_be_met_says_how_near_it_came(dense):
    with pytest.raises(PlanError, match=r"keep_macs=0\.01.*0\.\d+ of the MACs"):
        cut(dense, keep_macs=0.01)


# Methods --------------------------------------------------------------------------------------------------------------


def test_methods_of_a_recipe_differ_in_the_cut_alone():
    for walk in WALKS:
        own = CONTENDERS[walk].resolved
        for name in (f"{by}-{walk}" for by in ("random", "magnitude", "torch-pruning")):
            found = CONTENDERS[name]
            assert found.path == CONTENDERS[walk].path
            assert found.resolved != own
            stages = own.model_dump()["stages"], found.resolved.model_dump()["stages"]
            changed = {first["stage"] for first, second in zip(*stages, strict=True) if first != second}
            assert changed <= {"score", "plan", "prune"}
            assert ("prune" in changed) == (found.cut_by == TORCH_PRUNING)


def test_all_train_for_as_long_at_their_learning_rate():
    for name, contender in CONTENDERS.items():
        for task in FOUR:
            tunings = contender.for_task(task, learning_rate(name, task)).tunings.values()
            assert sum(one.epochs for one in tunings) == pytest.approx(TASKS[task].epochs)
            assert max(one.learning_rate for one in tunings) == learning_rate(name, task)


def test_full_and_lora_train_as_their_libraries_do_and_tune_first_takes_half_batches():
    recomputes = {
        name: all(one.selective_recomputation for one in found.resolved.tunings.values())
        for name, found in CONTENDERS.items()
    }
    assert [name for name, does in recomputes.items() if not does] == ["full", "lora"]
    for name, found in CONTENDERS.items():
        *before, last = found.resolved.tunings.values()
        halves = any(2 * one.batch_size == last.batch_size for one in before)
        assert halves == ("tune-first" in name or name == "cut-early")


def test_one_seed_of_all_comes_before_the_next_seed(monkeypatch):
    monkeypatch.setattr(benchmark, "Peers", lambda: argparse.Namespace(find=lambda *_: None))
    settings = argparse.Namespace(tasks=["rte", "mrpc"], methods=["lora"], seeds=[0, 1], again=False)
    titles = [piece.title for piece in benchmark.work(settings)]
    assert titles[:4] == ["rte, lora, seed 0", "mrpc, lora, seed 0", "rte, lora, seed 1", "mrpc, lora, seed 1"]


# A small trial --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def records(tmp_path_factory, minilm_path):
    """Records of cut-first and of Torch-Pruning's cut in it, on a tiny model."""
    pytest.importorskip("torch_pruning")
    folder = tmp_path_factory.mktemp("peers")
    data = DataSettings(data=str(make_data(folder / "reviews.csv")), max_length=32)
    rows = load_task(data)
    base = Recipe(model=str(make_model(folder / "model", minilm_path)), task=data)
    found = {}
    for name in ("cut-first", "torch-pruning-cut-first"):
        trial = trial_for(CONTENDERS[name], "rte", learning_rate=1e-3, seed=0, runs=folder / "runs", base=base)
        replaced = benchmark.replace_plan(trial, rows, folder / "runs") if name.startswith(TORCH_PRUNING) else None
        found[name] = train(trial, "rte", rows, runs=folder / "runs") | {"torch_pruning": replaced}
    return found


def test_both_cuts_meet_the_budget(records):
    for record in records.values():
        assert record["macs"] <= 0.5 * record["dense_macs"]
        assert set(record["seconds"]) >= {"score", "plan", "prune", "finetune", "merge"}
    assert records["cut-first"]["cut"]["repaired"] is not None
    assert records["torch-pruning-cut-first"]["cut"]["repaired"] is None


def test_the_trial_goes_on_with_the_units_that_torch_pruning_keeps(records):
    record = records["torch-pruning-cut-first"]
    assert record["heads_by_layer"] == record["torch_pruning"]["heads"]
    assert record["neurons_by_layer"] == record["torch_pruning"]["neurons"]
    assert record["macs"] == record["torch_pruning"]["macs"]


def test_the_same_is_trained_whoever_cut(records):
    ours, theirs = records.values()
    assert theirs["steps"] == ours["steps"]
    assert {kind for kind, count in theirs["trained"].items() if count} == {"lora", "norms", "head"}
    assert [theirs["trained"][kind] == ours["trained"][kind] for kind in ("norms", "head")] == [True, True]


def test_the_records_were_trained_as_the_methods_say(records):
    tuning = ("linear_probe", "finetune", "merge")  # Torch-Pruning's cut was a stage of its own.
    for record in Peers().records:
        contender = CONTENDERS[record["method"]]
        assert trained_as(contender, record, tuning if contender.cut_by == TORCH_PRUNING else ())
        assert record["learning_rate"] == learning_rate(contender.name, record["task"])
    for name, record in records.items():
        record = record | {"recipe": record["recipe"] | {"task": {"max_train_rows": None}}}
        assert trained_as(CONTENDERS[name], record)
        assert not trained_as(CONTENDERS["tune-first"], record)


# The page -------------------------------------------------------------------------------------------------------------


def test_all_records_of_the_study_are_there_and_the_page_is_written_from_them(monkeypatch):
    assert len(Peers().records) == len(FOUR) * len(CONTENDERS) * len(SEEDS)
    monkeypatch.setattr(page, "write_page", lambda name, texts: texts)
    (texts,) = page.write_peers()
    text = (FOLDER / "peers" / "RESULTS.md").read_text(encoding="utf-8")
    for name in ("quality", "costs", "tasks"):
        assert texts[name] in text, name
    assert f"{texts['recomputed']} of its memory with recomputation" in text


def test_the_tables_of_saving_and_of_head_counts_equal_their_results():
    text = (FOLDER / "peers" / "page.md").read_text(encoding="utf-8").replace("\\", "")
    kinds = {"prunelora": "cut by prunelora", TORCH_PRUNING: "cut by Torch-Pruning", None: "not cut"}
    worked = {}
    for record in Peers().records:
        for trial in record["saving"]:
            kind = kinds[CONTENDERS[record["method"]].cut_by]
            worked.setdefault((kind, trial["what"]), []).append(trial["works"])
    assert len(worked) == 19
    for (kind, way), works in worked.items():
        assert f"| {kind} | {way} | {sum(works)} of {len(works)} |" in text
    heads = json.loads((RESULTS / "head-counts.json").read_text(encoding="utf-8"))
    assert f"on {heads['rows']:,} training rows of {heads['task']}" in text
    for way in heads["ways"]:
        lists = (", ".join(map(str, way[key])) or "\N{EN DASH}" for key in ("heads", "by_its_books", "neurons"))
        share = "\N{EN DASH}" if way["share"] is None else f"{way['share']:.3f}"
        outcomes = "; ".join(f"{trial['what']}: {trial['outcome']}" for trial in way["trials"])
        row = " | ".join((f"{way['way']}, keep_macs={way['keep_macs']:g}", share, *lists, outcomes))
        assert f"| {row} |" in text


def test_an_unfinished_study_has_no_page(monkeypatch):
    peers = Peers()
    peers.records.remove(peers.find("rte", "full", 2, learning_rate("full", "rte")))
    monkeypatch.setattr(page, "Peers", lambda: peers)
    monkeypatch.setattr(page, "write_page", lambda *_: pytest.fail("a page was written"))
    assert page.write_peers() == []


def test_the_library_does_not_import_torch_pruning():
    sources = list((ROOT / "src").rglob("*.py"))
    assert len(sources) > 70
    assert not [path for path in sources if "torch_pruning" in path.read_text(encoding="utf-8")]


def test_the_results_page_has_the_means():
    rows = [line.strip("| ").split(" | ") for line in page.quality(Peers()).splitlines()]
    means = {row[0]: row[-1] for row in rows}
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert f"LoRA by PEFT: {means['lora']};" in text
    for prefix in ("", "magnitude-", "torch-pruning-", "random-"):
        assert f"| {means[prefix + 'tune-first']} | {means[prefix + 'cut-first']} |" in text
