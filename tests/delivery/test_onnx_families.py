"""Every family with ONNX support can be exported after pruning, with uneven and empty layers."""

import pytest
import torch
from tiny import random_plan, tiny_model

import prunelora as pl
from prunelora.models.families import FAMILIES

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

# The default tests export BERT, RoBERTa, DistilBERT, Llama and Phi-3 elsewhere. The export compares logits with torch.
QUICK = {"gpt2"}


@pytest.mark.parametrize(
    "name",
    [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
        for name in sorted(FAMILIES)
        if FAMILIES[name].onnx
    ],
)
def test_a_cut_model_gives_the_same_logits_in_onnx(name, tmp_path):
    model = tiny_model(name, dtype=torch.float32)
    assert pl.export(pl.prune_(model, random_plan(model)), tmp_path / "model.onnx").stat().st_size > 0
