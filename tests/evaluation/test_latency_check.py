"""The latency that a plan was asked for, measured again: at its size, in its engine, with its threads."""

import pytest
import torch
from tiny import tiny_model

import prunelora as pl
from prunelora.delivery import onnx
from prunelora.evaluation.latency_sweep import latency_at
from prunelora.models.anatomy import dissect
from prunelora.planning.latency_model import LatencySettings
from prunelora.planning.plan import Plan


@pytest.fixture
def models():
    """A dense model, and the same without heads."""
    base, model = (tiny_model("bert", num_hidden_layers=1).float() for _ in range(2))
    plan = Plan.whole(dissect(base).lineage)
    pl.prune_(model, plan.model_copy(update={"heads": ((),)}))
    return base, model


def test_both_models_run_at_the_size_and_with_the_threads_that_were_asked_for(models):
    base, model = models
    seen = []
    for one in models:
        one.register_forward_pre_hook(
            lambda module, _, inputs: seen.append((tuple(inputs["input_ids"].shape), torch.get_num_threads())),
            with_kwargs=True,
        )
    before, training = torch.get_num_threads(), base.train().training
    found = latency_at(model, base, LatencySettings(batch_size=3, tokens=7, threads=2), repeats=3, warmup=1)
    assert set(seen) == {((3, 7), 2)}
    assert len(seen) == 2 * (3 + 1)
    assert (torch.get_num_threads(), base.training) == (before, training)
    assert (found.engine, found.batch_size, found.tokens) == ("torch", 3, 7)
    assert found.ratio is not None


def test_onnxruntime_is_timed_where_it_was_asked_for(models, monkeypatch):
    base, model = models
    for name in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(name)
    run, original = [], onnx.run
    monkeypatch.setattr(onnx, "run", lambda opened, inputs: run.append((opened, inputs)) or original(opened, inputs))
    settings = LatencySettings(engine="onnxruntime", batch_size=2, tokens=5, threads=1)
    found = latency_at(model, base, settings, repeats=3, warmup=1)
    assert found.engine == "onnxruntime"
    timed = [opened for opened, inputs in run if tuple(inputs["input_ids"].shape) == (2, 5)]
    assert len(timed) == 2 * (3 + 1)
    assert {opened.get_session_options().intra_op_num_threads for opened in timed} == {1}
