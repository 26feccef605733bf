import dataclasses
import json
import math
from functools import partial

import numpy as np
import pytest
import torch
from small_run import make_data, make_model
from tiny import HEADS, LAYERS, NEURONS, VOCABULARY, tiny_batch, tiny_config, tiny_model
from transformers import AutoConfig, AutoModelForSequenceClassification

from prunelora.data.settings import DataSettings
from prunelora.errors import PlanError, UnsupportedModelError
from prunelora.evaluation import feasibility
from prunelora.evaluation.feasibility import check
from prunelora.evaluation.memory import training_memory
from prunelora.evaluation.outlook import early_plan, outlook
from prunelora.evaluation.training_cost import Training
from prunelora.evaluation.training_step import random_batch, training_step
from prunelora.finetuning.adapter import add_adapter
from prunelora.finetuning.settings import FineTuneSettings
from prunelora.importance.score import score
from prunelora.models.anatomy import dissect
from prunelora.planning.cost_tables import macs_table, parameters_table
from prunelora.planning.costs import block_parameters
from prunelora.planning.latency_model import LatencySettings
from prunelora.planning.make_plan import make_plan
from prunelora.planning.plan import Plan
from prunelora.pruning.surgery import prune_
from prunelora.report.check_tables import check_tables

TOKENS = 16


def size_of(model) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def ready(model, plan):
    if plan is None:
        plan = Plan.whole(dissect(model).lineage, rank=8)
        prune_(model, plan)
    return add_adapter(model, plan)


def way(**settings) -> Training:
    return Training(FineTuneSettings(**({"batch_size": 4} | settings)), ready)


@pytest.fixture
def folder(tmp_path):
    """A model of which only the configuration exists."""
    tiny_config("bert").save_pretrained(tmp_path / "config")
    return str(tmp_path / "config")


def shown(found) -> str:
    parts = check_tables(found)
    return "\n".join(part if isinstance(part, str) else f"{part.title}\n{part.to_markdown()}" for part in parts)


# Arithmetic -----------------------------------------------------------------------------------------------------------


def test_parameters_of_an_outlook_are_those_of_models_cut_so(family):
    model = tiny_model(family)
    whole, total = dissect(model).architecture, size_of(model)
    plan = early_plan(whole, num_parameters=total, keep_macs=0.6, tokens=TOKENS)
    found = outlook(parameters_table(whole, fixed=total - block_parameters(whole)), plan.architecture)
    none, lineage = ((),) * whole.num_layers, dissect(model).lineage
    assert found.dense == total
    assert found.left == size_of(prune_(tiny_model(family), plan)) < total
    # Norms of queries and keys are shared by a layer's heads: they go with the last one, and are counted as staying.
    shared = sum(p.numel() for name, p in model.named_parameters() if "q_norm" in name or "k_norm" in name)
    headless = Plan(base=whole, heads=none, neurons=lineage.neurons)
    assert found.no_heads == size_of(prune_(tiny_model(family), headless)) + shared
    assert found.nothing == size_of(prune_(tiny_model(family), Plan(base=whole, heads=none, neurons=none))) + shared


def test_speeds_are_what_costs_come_to_and_no_cost_has_no_bound():
    whole = dissect(tiny_model()).architecture
    half = dataclasses.replace(whole, num_heads=(2,) * LAYERS, num_neurons=(10,) * LAYERS)
    found = outlook(macs_table(whole, tokens=TOKENS), half).to_dict()
    assert found["share_left"] == 0.5
    assert found["times_as_fast"]["left"] == 2
    assert found["times_as_fast"]["nothing"] is None
    heads = 4 * 24 * 6 + 2 * TOKENS * 6
    assert found["times_as_fast"]["no_heads"] == pytest.approx(1 + HEADS * heads / (NEURONS * 2 * 24))


def test_what_goes_as_one_is_named_heads_or_groups(tmp_path):
    for family, unit in (("bert", "head"), ("llama", "group")):
        tiny_config(family).save_pretrained(tmp_path / family)
        text = shown(check(str(tmp_path / family), keep_macs=0.5, tokens=TOKENS))
        assert f"all {unit}s cut" in text
        with pytest.raises(PlanError, match=rf"\(a (key/value )?{unit}, or 8 neurons"):
            check(str(tmp_path / family), keep_macs=1e-6, tokens=TOKENS)


@pytest.mark.parametrize("budget", [{"keep_macs": 0.5}, {"keep_params": 0.3}, {"keep_heads": 0.5, "keep_ffn": 0.5}])
def test_an_early_plan_prefers_no_layer(budget):
    whole = dataclasses.replace(dissect(tiny_model()).architecture, num_heads=(12,) * 6, num_neurons=(64,) * 6)
    left = early_plan(whole, num_parameters=10**6, tokens=TOKENS, **budget).architecture
    share = next(iter(budget.values()))
    assert np.ptp(left.num_heads) <= 1
    assert np.ptp(left.num_neurons) <= 8
    assert left.total_heads / whole.total_heads == pytest.approx(share, abs=0.06)
    assert left.total_neurons / whole.total_neurons == pytest.approx(share, abs=0.06)


@pytest.mark.parametrize(
    ("budget", "cost"),
    [
        ({"keep_macs": 0.6}, lambda found: found.macs.share(found.macs.left)),
        ({"keep_params": 0.6}, lambda found: found.block_parameters.share(found.block_parameters.left)),
        ({"keep_params": 0.8, "count": "all"}, lambda found: found.parameters.share(found.parameters.left)),
        ({"speedup": 1 / 0.7}, lambda found: found.latency.share(found.latency.left)),
        ({"max_latency_ms": 6.0}, lambda found: found.latency.left),
    ],
)
def test_every_budget_is_held_and_used(folder, latency_asked, budget, cost):
    name, value = next(iter(budget.items()))
    limit = 0.7 if name == "speedup" else value
    found = check(folder, tokens=TOKENS, round_to=1, **budget)
    assert 0.95 * limit < cost(found) <= limit * (1 + 1e-9)
    assert found.budget == {name: value}
    assert f"{name}={value} can be met: about {found.left.total_heads} of 12 heads" in shown(found)


def test_without_a_budget_everything_stays(folder):
    found = check(folder)
    assert found.left == found.architecture
    assert "no budget: 12 of 12 heads, 60 of 60 neurons" in shown(found)


# What is not measured, and what is told before ------------------------------------------------------------------------


def test_an_infeasible_budget_is_the_error_of_make_plan_before_anything_is_measured(folder, monkeypatch):
    monkeypatch.setattr(feasibility, "_random_model", lambda *_: pytest.fail("a model was built"))
    model = AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(folder))
    real = score(model, [tiny_batch()])
    budget = {"keep_params": 0.01, "count": "all"}
    with pytest.raises(PlanError) as expected:
        make_plan(real, **budget)
    with pytest.raises(PlanError) as raised:
        check(folder, tokens=TOKENS, latency=LatencySettings(tokens=TOKENS), training=way(), **budget)
    assert "Use keep_params >= " in str(raised.value)
    assert str(raised.value) == str(expected.value)


def test_an_infeasible_time_says_the_nearest_feasible_one(folder, latency_asked):
    with pytest.raises(PlanError, match=r"max_latency_ms=1 cannot be met.*Use max_latency_ms >= 2\."):
        check(folder, tokens=TOKENS, max_latency_ms=1)


def test_latency_is_measured_where_it_is_asked_for_or_the_budget_is_in_time(folder, latency_asked):
    assert check(folder, tokens=TOKENS, keep_macs=0.5).latency is None
    assert latency_asked == []
    found = check(folder, tokens=TOKENS, speedup=1.5)
    assert latency_asked == [LatencySettings(tokens=TOKENS)]
    assert found.latency.unit == "ms"
    asked = LatencySettings(tokens=8, batch_size=2)
    found = check(folder, tokens=TOKENS, keep_macs=0.5, latency=asked)
    assert latency_asked[1:] == [asked]
    assert found.latency.no_heads == pytest.approx(2 + NEURONS / 10)
    assert found.latency.nothing == pytest.approx(2)
    assert "2 x 8" in shown(found)


def test_a_time_for_inputs_longer_than_the_model_can_read_is_refused(folder, latency_asked):
    with pytest.raises(UnsupportedModelError, match="tokens=128, and the model has positions for 40"):
        check(folder, tokens=128, speedup=1.5)
    assert latency_asked == []


def test_what_no_budget_needs_is_measured_for_inputs_that_the_model_can_read(folder, latency_asked):
    found = check(folder, tokens=128, keep_macs=0.5, training=way(), latency=LatencySettings(tokens=128))
    assert [asked.tokens for asked in latency_asked] == [40]
    assert found.training.memory_tokens == 40


def test_no_random_number_of_the_caller_is_used(folder):
    before = torch.get_rng_state()
    check(folder, tokens=TOKENS, keep_macs=0.5, training=way())
    assert torch.equal(torch.get_rng_state(), before)


# Training -------------------------------------------------------------------------------------------------------------


def test_training_memory_is_that_of_models_as_they_are_trained(folder):
    found = check(folder, tokens=TOKENS, keep_macs=0.5, training=way())
    plan = early_plan(found.architecture, num_parameters=int(found.parameters.dense), keep_macs=0.5, tokens=TOKENS)
    dense = partial(AutoModelForSequenceClassification.from_config, AutoConfig.from_pretrained(folder))
    models = {"full": dense(), "lora": ready(dense(), None), "prune-lora": ready(prune_(dense(), plan), plan)}
    for name, model in models.items():
        batch = random_batch(model, rows=4, tokens=TOKENS)
        assert batch["input_ids"].shape == (4, TOKENS)
        assert found.training.ways[name].memory == training_memory(model, batch, recompute=True), name
    full, lora, cut = (found.training.ways[name].memory.total for name in ("full", "lora", "prune-lora"))
    assert cut < lora < full


def test_what_is_recomputed_does_not_count_in_training_memory(folder):
    found = {
        on: check(folder, tokens=TOKENS, keep_macs=0.5, training=way(selective_recomputation=on)).training.ways
        for on in (True, False)
    }
    for name, cost in found[True].items():
        assert cost.memory.saved_bytes < found[False][name].memory.saved_bytes, name
        assert cost.memory.weights_bytes == found[False][name].memory.weights_bytes, name


def test_layers_that_are_computed_again_do_not_count_in_training_memory(folder):
    kept, again = (
        check(folder, tokens=TOKENS, keep_macs=0.5, training=way(gradient_checkpointing=on)).training.ways
        for on in (False, True)
    )
    for name, cost in again.items():
        assert cost.memory.saved_bytes < 0.8 * kept[name].memory.saved_bytes, name
        assert cost.memory.weights_bytes == kept[name].memory.weights_bytes, name


def test_what_bfloat16_keeps_is_counted_and_timed_as_it_is_trained(folder):
    wide, narrow = (
        check(folder, tokens=TOKENS, keep_macs=0.5, training=way(precision=precision)).training.ways
        for precision in ("float32", "bfloat16")
    )
    for name, cost in narrow.items():
        assert cost.memory.saved_bytes < wide[name].memory.saved_bytes, name
        assert cost.memory.weights_bytes == wide[name].memory.weights_bytes, name
    kinds = []
    model = tiny_model(dtype=torch.float32)
    model.bert.encoder.layer[0].output.dense.register_forward_hook(lambda *found: kinds.append(found[-1].dtype))
    for precision in ("float32", "bfloat16"):
        training_step(model, [tiny_batch(size=2)], FineTuneSettings(precision=precision))()
    assert kinds == [torch.float32, torch.bfloat16]


@pytest.mark.parametrize("adapter", [True, False])
def test_a_step_computes_layers_again_where_asked_and_leaves_the_model_as_it_was(adapter):
    model = tiny_model(dtype=torch.float32)
    act = model.bert.encoder.layer[0].intermediate.intermediate_act_fn
    trained = ready(model, None) if adapter else model
    passes = []
    act.register_forward_pre_hook(lambda *_: passes.append(torch.is_grad_enabled()))
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    for again in (True, False):
        passes.clear()
        training_step(trained, [tiny_batch(size=2)], FineTuneSettings(gradient_checkpointing=again))()
        assert len(passes) == (2 if again else 1)
        assert not any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
        assert not model.get_input_embeddings()._forward_hooks
    moved = {name for name, value in trained.state_dict().items() if not torch.equal(value, before[name])}
    assert any("layer.0" in name for name in moved)


def test_layers_that_cannot_be_computed_again_are_an_error_that_says_so():
    step = training_step(tiny_model("albert"), [tiny_batch()], FineTuneSettings(gradient_checkpointing=True))
    with pytest.raises(UnsupportedModelError, match="AlbertForSequenceClassification"):
        step()


def test_a_decoder_without_padding_is_checked_as_it_would_be_trained(tmp_path, latency_asked):
    tiny_config("gpt2", pad_token_id=None).save_pretrained(tmp_path)
    found = check(
        str(tmp_path), tokens=TOKENS, keep_macs=0.5, latency=LatencySettings(tokens=8, batch_size=2), training=way()
    )
    assert found.training.ways["prune-lora"].memory.total > 0


def test_where_all_weights_are_trained_no_column_is_called_lora(folder):
    everything = Training(FineTuneSettings(batch_size=4), lambda model, _: model.requires_grad_(True))
    found = check(folder, tokens=TOKENS, keep_macs=0.5, training=everything)
    assert list(found.training.ways) == ["full", "prune-full"]
    assert "all after cut" in shown(found)
    assert "LoRA" not in shown(found)
    first = dataclasses.replace(way(), before=everything)
    table = list(check_tables(check(folder, tokens=TOKENS, keep_macs=0.5, training=first)))[3]
    rows = {row[0]: row[1:] for row in table.rows}
    assert table.columns[1:] == ("full fine-tuning", "dense LoRA", "before the cut", "LoRA after cut")
    memory = rows[f"memory at {TOKENS} tokens"]
    assert memory[2] == memory[0] != memory[1], "before the cut all weights are trained"
    assert rows["rows a step"] == ("4",) * 4


def test_dropout_of_the_settings_counts_in_training_memory(folder):
    with_dropout, without = (
        check(folder, tokens=TOKENS, keep_macs=0.5, training=way(dropout=p)).training.ways["lora"].memory.saved_bytes
        for p in (0.1, 0.0)
    )
    assert without < with_dropout


def test_an_epoch_takes_its_steps_at_the_median_length(tmp_path, minilm_path):
    model, data = make_model(tmp_path / "model", minilm_path), make_data(tmp_path / "data.csv")
    found = check(str(model), data=DataSettings(data=str(data)), tokens=32, keep_macs=0.5, training=way(batch_size=7))
    training = found.training
    assert training.memory_tokens == 32
    assert training.step_tokens == found.data["median_tokens"] < 20
    rows = found.data["rows"]["train"]
    ms = training.ways["lora"].step.median_ms
    assert training.epoch_minutes("lora") == pytest.approx(math.ceil(rows / 7) * ms / 1000 / 60)
    assert f"an epoch of {rows} rows" in shown(found)
    assert "median length" in shown(found)
    json.dumps(found.to_dict(), allow_nan=False)


def test_without_data_there_is_no_epoch(folder):
    found = check(folder, tokens=TOKENS, keep_macs=0.5, training=way())
    assert found.training.step_tokens == TOKENS
    assert found.training.epoch_minutes("full") is None
    assert "random weights" in shown(found)
    assert "an epoch" not in shown(found)


@pytest.mark.parametrize("recompute", [True, False])
def test_a_training_step_trains_what_is_trained_and_takes_the_next_batch(recompute):
    model = tiny_model(dtype=torch.float32)
    model.bert.requires_grad_(False)
    seen = []
    model.register_forward_pre_hook(lambda _, __, inputs: seen.append(inputs["input_ids"].shape), with_kwargs=True)
    batches = [tiny_batch(size=2), tiny_batch(size=3)]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    step = training_step(model, batches, FineTuneSettings(selective_recomputation=recompute))
    for _ in range(3):
        step()
    assert [shape[0] for shape in seen] == [2, 3, 2]
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"classifier.weight", "classifier.bias"}
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.training


@pytest.mark.parametrize("problem_type", ["single_label_classification", "multi_label_classification", "regression"])
def test_random_rows_have_labels_of_the_task_and_fit_the_model(problem_type):
    labels = 1 if problem_type == "regression" else 3
    model = tiny_model(dtype=torch.float32, num_labels=labels, problem_type=problem_type)
    batch = random_batch(model, rows=2, tokens=100)
    assert batch["input_ids"].shape == (2, 40)
    assert batch["input_ids"].max() < VOCABULARY
    assert torch.isfinite(model(**batch).loss)
