"""An exported model equals the model on rows of the task and at lengths that were not traced."""

import contextlib
import shutil

import pytest
import torch
from tiny import random_plan, tiny_batch, tiny_model

import prunelora as pl
from prunelora.delivery import onnx as delivery
from prunelora.delivery.export_inputs import MOST_TOKENS, random_examples
from prunelora.errors import ExportError, UnsupportedModelError

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
onnx_graph = pytest.importorskip("prunelora.delivery.onnx_graph")

SWITCH = 30  # Tokens, more than in the short examples; longer inputs have other rotary frequencies.
DYNAMIC = {
    "max_position_embeddings": SWITCH,
    "rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 100.0},
}
LONG = {
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 40,
    "original_max_position_embeddings": SWITCH,
    "rope_parameters": {
        "rope_type": "longrope",
        "rope_theta": 100.0,
        "original_max_position_embeddings": SWITCH,
        "short_factor": [1.0, 1.0, 1.0],
        "long_factor": [1.0, 2.0, 8.0],
    },
}
ONE_LAYER = {"num_hidden_layers": 1}  # An export of all layers takes twice as long.


def compared_shapes(model) -> set[tuple[int, ...]]:
    return {example.shape for example in random_examples(model)}


@pytest.mark.parametrize(("family", "changed"), [("llama", DYNAMIC), ("phi3", LONG | ONE_LAYER)])
def test_rotary_embeddings_that_change_with_the_length_do_so_in_the_exported_model(family, changed, tmp_path):
    model = tiny_model(family, dtype=torch.float32, **changed)
    before = {name: value.clone() for name, value in model.named_buffers()}
    path = pl.export(pl.prune_(model, random_plan(model, empty=family == "llama")), tmp_path / "model.onnx")
    after = dict(model.named_buffers())
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert {SWITCH, SWITCH + 1} <= set(delivery.compared(path)["compared_tokens"])
    opened = delivery.session(path, threads=1)
    # Long and short inputs in turn: the graph must not have state that torch keeps between calls.
    for shape in ((2, SWITCH), (1, 3 * SWITCH), (2, SWITCH + 3), (1, 5)):
        inputs = {"input_ids": torch.randint(3, 50, shape), "attention_mask": torch.ones(shape, dtype=torch.long)}
        fresh = tiny_model(family, dtype=torch.float32, **changed)
        pl.prune_(fresh, model.prunelora_plan)
        with torch.no_grad():
            wanted = fresh(**inputs).logits
        assert float((torch.from_numpy(delivery.run(opened, inputs)) - wanted).abs().max()) < 1e-4, shape


def test_what_differs_at_a_length_that_was_not_traced_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_graph, "rotary_by_length", lambda _: contextlib.nullcontext())
    with pytest.raises(ExportError, match=r"\(2, 31\)"):
        pl.export(tiny_model("phi3", dtype=torch.float32, **LONG | ONE_LAYER), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_inputs_that_the_model_reads_and_the_exported_one_does_not_are_refused(tmp_path, monkeypatch):
    model, write_graph = tiny_model("gpt2", dtype=torch.float32, n_layer=1), onnx_graph.write_graph
    traced = tmp_path / "traced.onnx"

    def write_once(model, inputs, target, opset):  # Tracing takes seconds.
        if not traced.exists():
            write_graph(model, inputs, traced, opset)
        shutil.copy(traced, target)

    monkeypatch.setattr(onnx_graph, "write_graph", write_once)
    batch = tiny_batch()
    backwards = torch.arange(batch["input_ids"].shape[1]).flip(0).expand_as(batch["input_ids"])
    with pytest.raises(ExportError, match=r"rows of the task.*position_ids"):
        pl.export(model, tmp_path / "model.onnx", batch=batch | {"position_ids": backwards})
    # A GPT-2 looks token types up among its words, and its own tokenizer makes none.
    with pytest.raises(UnsupportedModelError, match="token_type_ids"):
        pl.export(model, tmp_path / "model.onnx", batch=batch | {"token_type_ids": torch.ones_like(backwards)})
    assert list(tmp_path.iterdir()) == [traced]


@pytest.mark.parametrize(
    ("family", "changed", "lengths"),
    [
        ("bert", {"max_position_embeddings": 40}, {1, 2, 5, 40}),
        ("roberta", {"max_position_embeddings": 40}, {1, 38}),  # Two positions are padding's.
        ("bert", {"max_position_embeddings": 10}, {1, 5, 10}),
        ("mistral", {"sliding_window": 12, "max_position_embeddings": 100}, {12, 13, 100}),
        ("modernbert", {"local_attention": 20, "max_position_embeddings": 100}, {10, 11, 20, 21, 100}),
        ("deberta-v2", {"position_buckets": 8, "max_position_embeddings": 60}, {8, 9, 60}),
        ("t5", {"relative_attention_max_distance": 6}, {6, 7, 512}),
        ("llama", DYNAMIC, {SWITCH, SWITCH + 1}),
        ("phi3", LONG, {SWITCH, SWITCH + 1, 40}),
    ],
)
def test_lengths_compared_are_one_token_the_longest_and_both_sides_of_a_change(family, changed, lengths):
    model = tiny_model(family, dtype=torch.float32, **changed)
    found = {shape[1] for shape in compared_shapes(model)}
    assert lengths <= found
    table = changed.get("max_position_embeddings", 512)
    assert family == "llama" or max(found) <= table


@pytest.mark.parametrize(("family", "on_the_left"), [("bert", False), ("llama", True), ("t5", True)])
def test_one_row_and_several_are_compared_padded_where_the_head_does_not_read(family, on_the_left):
    examples = list(random_examples(tiny_model(family, dtype=torch.float32)))
    assert {example.shape[0] for example in examples} >= {1, 2, 4}
    masks = [example.inputs["attention_mask"] for example in examples]
    assert any((mask[:, -1] == 0).any() for mask in masks)
    assert any((mask[:, 0] == 0).any() for mask in masks) == on_the_left
    assert all((mask.sum(1) > 0).all() for mask in masks)


def test_the_cost_of_comparing_is_bounded_for_models_that_read_very_long_inputs():
    shapes = compared_shapes(tiny_model("llama", dtype=torch.float32, max_position_embeddings=100_000))
    assert max(tokens for _, tokens in shapes) == MOST_TOKENS
    wide = tiny_model("llama", dtype=torch.float32, max_position_embeddings=100_000, num_attention_heads=24)
    rows, tokens = max(compared_shapes(wide), key=lambda shape: shape[1])
    assert rows == 1
    assert 2**29 < 24 * tokens**2 * 4 <= 2**30


@pytest.mark.parametrize(
    "family",
    ["bert", *(pytest.param(one, marks=pytest.mark.slow) for one in ("distilbert", "roberta", "deberta-v2",
                                                                     "modernbert", "vit", "llama", "t5"))],
)  # fmt: skip
def test_an_exported_model_can_be_quantised_by_onnxruntime_with_its_defaults(family, tmp_path):
    from onnxruntime.quantization import QuantType, quant_pre_process, quantize_dynamic

    model = tiny_model(family, dtype=torch.float32)
    path = pl.export(pl.prune_(model, random_plan(model)), tmp_path / "model.onnx")
    assert str(tmp_path.parent).encode() not in path.read_bytes()
    assert b"/site-packages/" not in path.read_bytes()
    quant_pre_process(str(path), str(tmp_path / "inferred.onnx"))
    for kind in (QuantType.QInt8, QuantType.QUInt8):
        small = tmp_path / f"{kind.name}.onnx"
        quantize_dynamic(str(path), str(small), weight_type=kind)
        opened, whole = delivery.session(small, threads=1), delivery.session(path, threads=1)
        for size, tokens in ((1, 3), (5, 11)):
            batch = tiny_batch(size, tokens, family=family)
            inputs = {name: value.float() if value.is_floating_point() else value for name, value in batch.items()}
            inputs["token_type_ids"] = torch.zeros_like(batch["labels"][:, None].expand(size, tokens)).contiguous()
            exact, rough = delivery.run(whole, inputs), delivery.run(opened, inputs)
            assert exact.shape == rough.shape
            assert torch.isfinite(torch.from_numpy(rough)).all()
