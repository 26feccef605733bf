import copy
import json

import numpy as np
import pytest
import torch
from tiny import tiny_model

import prunelora as pl
from prunelora.delivery import onnx as onnx_delivery
from prunelora.errors import MeasureError, UnsupportedModelError
from prunelora.evaluation import measurement
from prunelora.models.inputs import image_tokens
from prunelora.planning.plan import Plan

QUICK = {"warmup": 1, "repeats": 2, "training_batch_size": 2, "training_tokens": 8}


def halved(model):
    base = pl.make_plan(pl.score(model, criterion="random")).base
    plan = Plan(base=base, heads=((0,), (1,)), neurons=(tuple(range(12)),) * 2, ranks={}, provenance={})
    return pl.prune_(copy.deepcopy(model), plan)


def test_a_pruned_model_stands_beside_its_base(make_tiny):
    base = make_tiny()
    found = pl.measure(halved(base), base=base, sizes=[(1, 8), (3, 16)], **QUICK)
    assert found.model.parameters.blocks * 2 == found.base.parameters.blocks
    assert found.model.macs * 2 == found.base.macs
    assert 0 < found.model.saved_for_backward_bytes < found.base.saved_for_backward_bytes
    assert [(one.engine, one.batch_size, one.tokens) for one in found.latencies] == [("torch", 1, 8), ("torch", 3, 16)]
    for one in found.latencies:
        shares = np.array(one.model.rounds_ms) / np.array(one.base.rounds_ms)
        assert one.ratio.median == pytest.approx(float(np.median(shares)))
    assert found.machine["threads"] == torch.get_num_threads()
    written = json.loads(json.dumps(found.to_dict()))
    assert set(written) == {"model", "base", "latencies", "settings", "machine"}
    assert set(written["latencies"][0]["model"]) == {"median_ms", "q25_ms", "q75_ms", "repeats"}
    table = str(found)
    assert "torch, 3 x 16 tokens" in table
    assert f"{found.base.parameters.total:,}" in table
    assert "0.500" in table


def test_without_a_base_there_are_no_ratios(make_tiny):
    found = pl.measure(make_tiny("roberta"), sizes=[(1, 32)], **QUICK)
    assert found.base is None
    assert found.to_dict()["base"] is None
    assert found.latencies[0].ratio is None
    assert "torch, 1 x 32 tokens" in str(found)


def test_both_engines_run_in_one_interleaved_run_on_the_same_tokens(make_tiny, monkeypatch):
    seen = []

    def run(opened, inputs):
        seen.append((opened, inputs["input_ids"].clone()))

    runs = []
    real = measurement.interleaved

    def spy(calls, **options):
        runs.append(list(calls))
        return real(calls, **options)

    monkeypatch.setattr(onnx_delivery, "session", lambda path, threads: (path, threads))
    monkeypatch.setattr(onnx_delivery, "run", run)
    monkeypatch.setattr(measurement, "interleaved", spy)
    model = make_tiny()
    torch_ids = []
    model.register_forward_pre_hook(
        lambda _module, _args, inputs: torch_ids.append(inputs["input_ids"].clone()), with_kwargs=True
    )
    options = QUICK | {"training_batch_size": 0}
    found = pl.measure(model, base=make_tiny(), onnx="m", base_onnx="b", sizes=[(2, 8)], seed=5, **options)
    assert runs == [["torch model", "torch base", "onnxruntime model", "onnxruntime base"]]
    assert {opened for opened, _ in seen} == {("m", torch.get_num_threads()), ("b", torch.get_num_threads())}
    assert all(torch.equal(ids, torch_ids[0]) for _, ids in seen)
    assert [one.engine for one in found.latencies] == ["torch", "onnxruntime"]
    assert found.model.saved_for_backward_bytes is None
    assert "saved for backward" not in str(found)


def test_the_models_are_left_as_found(make_tiny):
    model, base = make_tiny().train(), make_tiny().eval()
    model.classifier.requires_grad_(False)
    state = torch.get_rng_state()
    pl.measure(model, base=base, sizes=[(1, 4)], **QUICK)
    assert model.training
    assert not base.training
    assert not model.classifier.weight.requires_grad
    assert model.bert.pooler.dense.weight.requires_grad
    assert model.config.problem_type is None
    assert torch.equal(torch.get_rng_state(), state)


def test_memory_of_a_training_step_does_not_depend_on_what_is_frozen_now(make_tiny):
    free, frozen = make_tiny(), make_tiny().requires_grad_(False)
    found = pl.measure(frozen, base=free, sizes=[], **QUICK)
    assert found.model.saved_for_backward_bytes == found.base.saved_for_backward_bytes > 0


@pytest.mark.parametrize("kind", ["regression", "multi_label_classification", "single_label_classification"])
def test_every_kind_of_task_has_its_training_step(make_tiny, kind):
    model = make_tiny(num_labels=1 if kind == "regression" else 3, problem_type=kind)
    found = pl.measure(model, sizes=[], **QUICK)
    assert found.model.saved_for_backward_bytes > 0


def test_sizes_are_held_to_the_positions_the_model_has(make_tiny):
    for family in ("bert", "roberta"):
        with pytest.raises(UnsupportedModelError, match="33 tokens, and the model has positions for 32"):
            pl.measure(make_tiny(family), sizes=[(1, 33)])
    found = pl.measure(make_tiny(), **QUICK | {"repeats": 1, "training_tokens": 128})
    assert [(one.batch_size, one.tokens) for one in found.latencies] == [(1, 32), (32, 32)]
    assert found.settings["training_tokens"] == 32


@pytest.mark.parametrize(
    "options",
    [
        {"repeats": 0}, {"warmup": -1}, {"repeats": 2.5}, {"sizes": [(0, 8)]}, {"sizes": [(1, 0)]},
        {"sizes": [(1, -4)]}, {"sizes": [(2.9, 8)]}, {"training_batch_size": -1},
    ],
)  # fmt: skip
def test_what_cannot_be_timed_is_said(make_tiny, options):
    with pytest.raises(MeasureError, match="expected a whole number, at least"):
        pl.measure(make_tiny(), **QUICK | {"sizes": [(1, 8)]} | options)


def test_images_are_measured_as_what_they_are():
    model = tiny_model("vit", dtype=torch.float32)
    tokens = image_tokens(model)
    with pytest.raises(UnsupportedModelError, match=rf"128 tokens.* {tokens}\."):
        pl.measure(model, sizes=[(1, 128)], **QUICK)
    found = pl.measure(model, sizes=[(1, tokens)], **QUICK)
    assert [one.tokens for one in found.latencies] == [tokens]
    assert found.settings["training_tokens"] == tokens
