import copy
import logging
import warnings

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    RobertaConfig,
)

import prunelora as pl
from prunelora.delivery import onnx as delivery
from prunelora.errors import ExportError, MissingExtraError, UnsupportedModelError
from prunelora.planning.plan import Plan

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
onnx_graph = pytest.importorskip("prunelora.delivery.onnx_graph")

SIZES = {"num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 20, "vocab_size": 50}
CONFIGS = {
    "bert": BertConfig(hidden_size=16, max_position_embeddings=32, **SIZES),
    "roberta": RobertaConfig(hidden_size=16, max_position_embeddings=34, **SIZES),
    "electra": ElectraConfig(hidden_size=16, embedding_size=12, max_position_embeddings=32, **SIZES),
    "distilbert": DistilBertConfig(
        dim=16, n_heads=2, n_layers=2, hidden_dim=20, vocab_size=50, max_position_embeddings=32
    ),
}
INPUTS = {
    "bert": ["input_ids", "attention_mask", "token_type_ids"],
    "roberta": ["input_ids", "attention_mask"],
    "electra": ["input_ids", "attention_mask", "token_type_ids"],
    "distilbert": ["input_ids", "attention_mask"],
}


def tiny(family, *, empty_layers=False, layers=None):
    torch.manual_seed(0)
    config = copy.deepcopy(CONFIGS[family])
    config.num_hidden_layers = layers or config.num_hidden_layers
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation="sdpa")
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    if empty_layers:
        whole = pl.make_plan(pl.score(model, criterion="random"))
        plan = Plan(base=whole.base, heads=((), (1,)), neurons=((2, 3, 5), ()), ranks={}, provenance={})
        pl.prune_(model, plan)
    return model


def logits(model, **inputs):
    with torch.no_grad():
        return model.eval()(**inputs).logits.numpy()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A dense BERT and its file; exporting takes seconds, so tests share it."""
    model = tiny("bert", layers=1).train()
    return model, pl.export(model, tmp_path_factory.mktemp("onnx") / "folder" / "model.onnx")


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=pytest.mark.slow) if name == "electra" else name for name in CONFIGS]
)
def test_a_model_with_empty_layers_gives_the_same_logits_in_onnxruntime(family, tmp_path):
    model = tiny(family, empty_layers=True)
    path = pl.export(model, tmp_path / "model.onnx")
    opened = delivery.session(path, threads=1)
    assert [one.name for one in opened.get_inputs()] == INPUTS[family]
    assert [one.name for one in opened.get_outputs()] == ["logits"]
    for shape in ((1, 3), (5, 11), (2, 30)):
        ids = torch.randint(3, 50, shape)
        mask = torch.ones_like(ids)
        mask[-1, shape[1] // 2 + 1 :] = 0
        inputs = {"input_ids": ids, "attention_mask": mask}
        if "token_type_ids" in INPUTS[family]:
            inputs["token_type_ids"] = torch.randint(0, 2, shape)
        np.testing.assert_allclose(delivery.run(opened, inputs), logits(model, **inputs), atol=1e-5)


def test_batch_and_sequence_are_left_open_in_one_single_file(exported):
    _, path = exported
    opened = delivery.session(path)
    assert all([isinstance(size, str) for size in one.shape] == [True, True] for one in opened.get_inputs())
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]


def test_the_model_is_left_as_it_was_found(exported):
    model, _ = exported
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert model.config._attn_implementation == "sdpa"


def test_the_exporter_is_silent_and_writes_the_operator_set_that_was_asked(tmp_path, capfd):
    disabled = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path = pl.export(tiny("distilbert", layers=1), tmp_path / "model.onnx", opset=18)
    assert capfd.readouterr() == ("", "")
    assert logging.root.manager.disable == disabled
    assert [entry.version for entry in onnx.load(path).opset_import if not entry.domain] == [18]


def test_an_export_that_computes_something_else_is_an_error_and_leaves_no_file(exported, tmp_path, monkeypatch):
    _, path = exported
    right = path.read_bytes()

    def write_right_file(_model, _inputs, target, _opset):
        target.write_bytes(right)

    monkeypatch.setattr(onnx_graph, "write_graph", write_right_file)
    other = tiny("bert", layers=1)
    with torch.no_grad():
        other.classifier.bias += 0.5
    with pytest.raises(ExportError, match=r"0\.5 .*\(1, 1\).* tolerance=0\.001"):
        pl.export(other, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []
    assert pl.export(other, tmp_path / "model.onnx", tolerance=0.51).exists()


def test_a_real_batch_is_compared_too(exported, tmp_path, monkeypatch):
    model, path = exported
    right = path.read_bytes()
    monkeypatch.setattr(onnx_graph, "write_graph", lambda _model, _inputs, target, _opset: target.write_bytes(right))
    compared = []
    real_run = delivery.run
    monkeypatch.setattr(delivery, "run", lambda opened, inputs: compared.append(inputs) or real_run(opened, inputs))
    batch = {"input_ids": torch.full((7, 4), 9), "labels": torch.zeros(7, dtype=torch.long)}
    pl.export(model, tmp_path / "model.onnx", batch=batch)
    shapes = [tuple(inputs["input_ids"].shape) for inputs in compared]
    assert shapes[-1] == (7, 4)
    compared.clear()
    pl.export(model, tmp_path / "model.onnx", batch={"input_ids": np.full((6, 3), 9)})
    assert tuple(compared[-1]["input_ids"].shape) == (6, 3)
    compared.clear()
    pl.export(model, tmp_path / "model.onnx", batches=[batch, {name: value[:2] for name, value in batch.items()}])
    assert [tuple(inputs["input_ids"].shape) for inputs in compared[-2:]] == [(7, 4), (2, 4)]
    assert delivery.compared(tmp_path / "model.onnx")["compared_rows"] == 9
    assert len({examples for examples, _ in shapes}) > 2
    assert len({tokens for _, tokens in shapes}) > 2
    assert any((inputs["attention_mask"] == 0).any() for inputs in compared)
    with pytest.raises(ExportError, match="input_ids"):
        pl.export(model, tmp_path / "model.onnx", batch={"labels": torch.zeros(1)})


@pytest.mark.parametrize("opset", [11, pytest.param(99, marks=pytest.mark.slow)])
def test_an_operator_set_that_the_exporter_does_not_write_is_an_error_and_leaves_no_file(opset, tmp_path):
    with pytest.raises(ExportError, match=rf"opset={opset}.*Use opset=\d\d"):
        pl.export(tiny("distilbert", layers=1), tmp_path / "model.onnx", opset=opset)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_export_keeps_the_file_of_an_earlier_one(exported, tmp_path, monkeypatch):
    model, _ = exported
    path = tmp_path / "model.onnx"
    path.write_text("an earlier export")

    def fail(*_args, **_options):
        raise RuntimeError("no such operator\nmore")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(ExportError, match="no such operator"):
        pl.export(model, path)
    assert path.read_text() == "an earlier export"
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    assert model.config._attn_implementation == "sdpa"


def test_weights_too_large_for_one_file_go_beside_it(exported, tmp_path, monkeypatch):
    model, _ = exported
    monkeypatch.setattr(onnx_graph, "LARGEST_SINGLE_FILE_BYTES", 100)
    path = pl.export(model, tmp_path / "model.onnx")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    inputs = {"input_ids": torch.randint(3, 50, (2, 6)), "attention_mask": torch.ones(2, 6, dtype=torch.long)}
    inputs["token_type_ids"] = torch.zeros_like(inputs["input_ids"])
    found = delivery.run(delivery.session(path), inputs)
    np.testing.assert_allclose(found, logits(tiny("bert", layers=1), **inputs), atol=1e-5)


def test_missing_packages_are_named_by_their_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r'pip install "prunelora\[onnx\]"'):
        pl.export(tiny("bert"), tmp_path / "model.onnx")


def test_what_cannot_be_exported_is_said_before_any_work(tmp_path):
    with pytest.raises(ExportError, match="bfloat16"):
        pl.export(tiny("bert").bfloat16(), tmp_path / "model.onnx")
    with pytest.raises(ExportError, match="folder"):
        pl.export(tiny("bert"), tmp_path)
    with pytest.raises(ExportError, match="BertModel"):
        pl.export(tiny("bert").bert, tmp_path / "model.onnx")
    with pytest.raises(UnsupportedModelError):
        pl.export(torch.nn.Linear(2, 2), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_model_is_an_export_error(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_text("not a model")
    with pytest.raises(ExportError, match=r"model\.onnx"):
        delivery.session(path)
