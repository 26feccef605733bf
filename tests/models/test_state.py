"""No public function changes the state of the caller's global random generators."""

import random

import numpy as np
import pytest
import torch
from small_training import adapted, make_tokenizer, rows, tune
from tiny import random_plan, tiny_batch, tiny_model

import prunelora as pl
from prunelora.data.tokens import batches
from prunelora.evaluation.quality import evaluate
from prunelora.importance.criteria import CRITERIA
from prunelora.importance.linear_probe import train_linear_probe_
from prunelora.models.state import random_state_kept
from prunelora.pruning.repair import check_repairable


def drawn() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def seeded() -> None:
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)


def _score(tmp_path):
    for criterion in CRITERIA:
        pl.score(tiny_model(), [tiny_batch()], criterion=criterion, probe_steps=2)


def _prune(tmp_path):
    model = tiny_model()
    check_repairable(model)
    plan = random_plan(model)
    pl.prune_(model, plan, repair_with=[tiny_batch()])
    with pl.masked(tiny_model(), plan) as masked:
        masked(**tiny_batch())


def _plan(tmp_path):
    pl.make_plan(pl.score(tiny_model(), [tiny_batch()]), keep_heads=0.5, keep_ffn=0.5)


def _adapt_and_merge(tmp_path):
    model = tiny_model()
    plan = random_plan(model)
    pl.merge(pl.add_adapter(pl.prune_(model, plan), plan))


def _save_and_load(tmp_path):
    model = tiny_model()
    plan = random_plan(model)
    pl.save(pl.prune_(model, plan), tmp_path / "model")
    pl.load(tmp_path / "model")


def _finetune(tmp_path):
    tune(adapted(), tmp_path / "checkpoints", make_tokenizer(), epochs=1, keep_start=True, dropout=0.1)


def _judge(tmp_path):
    model = tiny_model(dtype=torch.float32, num_labels=2)
    evaluate(model, rows(), make_tokenizer(), problem_type="single_label_classification")
    batches(rows(), make_tokenizer(), batch_size=4)


def _linear_probe(tmp_path):
    train_linear_probe_(tiny_model(), [tiny_batch()], steps=2)


def _measure(tmp_path):
    pl.measure(tiny_model(dtype=torch.float32), sizes=((1, 8),), repeats=1, warmup=0)


def _export(tmp_path):
    pytest.importorskip("onnxruntime")
    pl.export(tiny_model(dtype=torch.float32, num_hidden_layers=1), tmp_path / "model.onnx")


@pytest.mark.parametrize(
    "door",
    [_score, _plan, _prune, _adapt_and_merge, _save_and_load, _finetune, _judge, _linear_probe, _measure, _export],
    ids=lambda door: door.__name__.lstrip("_"),
)
def test_no_door_moves_the_global_random_generators(door, tmp_path, monkeypatch):
    tiny_model()  # Imports may draw random numbers.
    seeded()
    wanted = drawn()

    def kept(call):
        """Building the model for a call must not draw from the global generators."""

        def wrapped(*args, **options):
            with random_state_kept():
                return call(*args, **options)

        return wrapped

    for wrapped in (tiny_model, adapted):
        monkeypatch.setitem(globals(), wrapped.__name__, kept(wrapped))
    seeded()
    door(tmp_path)
    assert drawn() == wanted


def test_all_global_generators_are_put_back():
    seeded()
    wanted = drawn()
    seeded()
    with random_state_kept():
        drawn()
    assert drawn() == wanted
