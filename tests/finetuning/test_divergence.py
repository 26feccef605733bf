"""What is not finite stops a training, is never the best, and is never merged or saved."""

import math

import pytest
import torch
from safetensors.torch import load_file
from small_training import STEPS_AN_EPOCH, adapted, make_tokenizer, rows, tune, weights
from tiny import random_plan, tiny_batch, tiny_config, tiny_model
from transformers import AutoModelForTokenClassification

import prunelora as pl
from prunelora.errors import DataError, DivergenceError, ScoreError
from prunelora.finetuning import callbacks, training
from prunelora.importance.linear_probe import train_linear_probe_


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.mark.parametrize("clipping", [1.0, 0.0])
@pytest.mark.parametrize("kind", ["adapter", "all weights"])
def test_a_learning_rate_that_is_too_high_is_an_error(kind, clipping, tokenizer, tmp_path):
    model = adapted() if kind == "adapter" else tiny_model(dtype=torch.float32, num_labels=2)
    with pytest.raises(DivergenceError, match=r"step \d+ .*a lower learning_rate than 1e\+30"):
        tune(model, tmp_path, tokenizer, learning_rate=1e30, max_grad_norm=clipping, epochs=8)


def poison(model, at_step, monkeypatch, value=math.nan):
    """A weight becomes `value` before a step of the next training."""
    clock = callbacks.StepClock

    class Poisoning(clock):
        def on_step_begin(self, args, state, control, **kwargs):
            super().on_step_begin()
            if state.global_step + 1 == at_step:
                with torch.no_grad():
                    next(one for one in model.parameters() if one.requires_grad).fill_(value)

    monkeypatch.setattr(training, "StepClock", Poisoning)


@pytest.mark.parametrize("distillation", [0.0, 0.5])
def test_the_last_finite_checkpoint_is_kept_and_gone_on_from(distillation, tokenizer, tmp_path, monkeypatch):
    train = rows()
    if distillation:
        train = train.add_column("teacher_logits", torch.zeros(24, 2).tolist())
    options = {"train": train, "distillation": distillation, "epochs": 3}
    model, at_step = adapted(), STEPS_AN_EPOCH + 2
    with monkeypatch.context() as patch:
        poison(model, at_step, patch)
        with pytest.raises(DivergenceError, match=f"In step {at_step} .*checkpoint-3"):
            tune(model, tmp_path / "here", tokenizer, **options)
    assert sorted(one.name for one in (tmp_path / "here").glob("checkpoint-*")) == ["checkpoint-3"]
    saved = load_file(tmp_path / "here" / "checkpoint-3" / "adapter_model.safetensors")
    assert all(bool(one.isfinite().all()) for one in saved.values())
    left = weights(model)
    assert bool(left.isfinite().all())
    again = tune(model, tmp_path / "lower", tokenizer, **options, learning_rate=1e-3)  # From these weights.
    assert again.steps == 3 * STEPS_AN_EPOCH
    resumed, whole = adapted(), adapted()
    tune(resumed, tmp_path / "here", tokenizer, **options)
    tune(whole, tmp_path / "whole", tokenizer, **options)
    assert torch.allclose(weights(resumed), weights(whole), atol=1e-6)


def test_no_checkpoint_of_a_model_that_is_not_finite_is_written(tokenizer, tmp_path, monkeypatch):
    """A step whose gradient is finite and whose weights are not, just before an evaluation."""
    model, clock = adapted(), callbacks.StepClock

    class Poisoning(clock):
        def on_step_end(self, args, state, control, **kwargs):
            super().on_step_end(args, state, control, **kwargs)
            with torch.no_grad():
                next(one for one in model.parameters() if one.requires_grad).fill_(math.inf)

    monkeypatch.setattr(training, "StepClock", Poisoning)
    with pytest.raises(DivergenceError, match=r"After step 1 the loss on the validation rows is nan\. No checkpoint"):
        tune(model, tmp_path, tokenizer, epochs=1, evaluations_per_epoch=3)
    assert not list(tmp_path.glob("checkpoint-*"))


def test_a_metric_that_is_not_a_number_is_never_the_best(tokenizer, tmp_path, monkeypatch):
    found = iter([math.nan, 0.4, 0.3])
    monkeypatch.setattr(training, "metrics", lambda *_: {"accuracy": next(found)})
    assert tune(adapted(), tmp_path / "trained", tokenizer).best_step == 2 * STEPS_AN_EPOCH
    found = iter([0.1, math.nan, math.nan, math.nan])
    assert tune(adapted(), tmp_path / "start", tokenizer, keep_start=True).best_step == 0


def test_a_model_that_is_not_finite_is_not_merged_or_saved(tmp_path):
    model = adapted()
    with torch.no_grad():
        next(one for one in model.parameters() if one.requires_grad)[0] = math.nan
    for use in (lambda: pl.merge(model), lambda: pl.save(model, tmp_path / "adapter")):
        with pytest.raises(DivergenceError, match="not finite"):
            use()
    plain = tiny_model()
    with torch.no_grad():
        plain.classifier.bias[1] = math.inf
    with pytest.raises(DivergenceError, match=r"1 of 3 numbers in classifier\.bias"):
        pl.save(plain, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_a_product_that_overflows_is_not_merged():
    model = adapted()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.fill_(1e30)
    with pytest.raises(DivergenceError):
        pl.merge(model)


def test_a_warm_up_that_diverges_is_an_error_and_leaves_the_head_as_it_was():
    model = tiny_model(dtype=torch.float32)
    before = [one.detach().clone() for one in model.parameters()]
    with pytest.raises(DivergenceError, match="lower learning_rate"):
        train_linear_probe_(model, [tiny_batch()], steps=50, learning_rate=1e36)
    assert all(map(torch.equal, before, model.parameters()))


def test_repair_towards_what_is_not_finite_is_an_error():
    model, batch = tiny_model(), tiny_batch()
    plan = random_plan(model)
    with torch.no_grad():
        model.bert.encoder.layer[1].output.dense.bias[0] = math.inf
    with pytest.raises(DivergenceError):
        pl.prune_(model, plan, repair_with=[batch])


def test_rows_without_any_label_are_an_error(tokenizer):
    data = rows(4).remove_columns("labels").add_column("labels", [[-100] * 5] * 4)
    model = AutoModelForTokenClassification.from_config(tiny_config("bert"))
    with pytest.raises(DataError, match="train: no token of its 4 rows has a label"):
        pl.finetune(model, data, data, tokenizer=tokenizer)


@pytest.mark.parametrize("steps", [-1, 2.5, True, "3"])
def test_numbers_of_warm_up_steps_are_whole(steps):
    with pytest.raises(ScoreError, match="probe_steps"):
        pl.score(tiny_model(), [tiny_batch()], probe_steps=steps)
