"""Surgery: the pruned model computes the function of the masked model, with the plan's parameter counts."""

import copy

import pytest
import torch
from tiny import HEAD_DIM, HIDDEN, LAYERS, largest_difference, logits, random_plan, split, tiny_batch, tiny_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertModel
from transformers.pytorch_utils import Conv1D

import prunelora as pl
from prunelora.errors import PlanError, UnsupportedModelError
from prunelora.models.anatomy import dissect
from prunelora.models.empty import BiasOnly, NoHeads, NoNeurons
from prunelora.models.lineage import Lineage
from prunelora.planning.costs import head_parameters, neuron_parameters
from prunelora.planning.plan import Plan

WITHOUT_BIAS = ("nomic_bert", "modernbert", "llama", "mistral", "qwen2", "qwen3", "gemma", "phi3", "t5")
TOLERANCE = 1e-12


def count(model) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("seed", [0, 1])
def test_masked_equals_pruned(family, attention, seed):
    model, batch = tiny_model(family, attention=attention), tiny_batch(family=family)
    plan = random_plan(model, seed=seed)
    with pl.masked(model, plan):
        expected = logits(model, batch)
    assert largest_difference(expected, logits(model, batch)) > 1e-3  # The plan does change the function.
    pruned = pl.prune_(model, plan)
    assert pruned is model
    assert largest_difference(logits(pruned, batch), expected) < TOLERANCE


def test_masks_use_none_of_the_surgery():
    import ast
    import inspect

    from prunelora.pruning import masks

    tree = list(ast.walk(ast.parse(inspect.getsource(masks))))
    names = {alias.name for node in tree if isinstance(node, ast.Import) for alias in node.names}
    names |= {
        f"{node.module}.{alias.name}" for node in tree if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert names
    assert not [name for name in names if name.startswith(("prunelora.pruning.surgery", "prunelora.models.empty"))]


def test_keeping_everything_changes_nothing(family):
    model, batch = tiny_model(family), tiny_batch(family=family)
    before, weights = logits(model, batch), copy.deepcopy(model.state_dict())
    pl.prune_(model, Plan.whole(dissect(model).lineage))
    assert torch.equal(logits(model, batch), before)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_pruning_twice_equals_the_composed_plan(family):
    model, batch = tiny_model(family), tiny_batch(family=family)
    first = random_plan(model, seed=3)
    once = pl.prune_(copy.deepcopy(model), first)
    second = random_plan(once, seed=4)  # In base coordinates, as every plan made from a pruned model's scores.
    twice = pl.prune_(once, second)
    direct = pl.prune_(model, first.then(second))
    assert largest_difference(logits(twice, batch), logits(direct, batch)) == 0
    assert twice.prunelora_plan == direct.prunelora_plan


def test_parameters_after_the_cut_equal_the_plans_arithmetic(family):
    model = tiny_model(family)
    plan, before = random_plan(model), count(model)
    base, kept = plan.base, plan.architecture
    cut = (base.total_heads - kept.total_heads) * head_parameters(base)
    cut += (base.total_neurons - kept.total_neurons) * neuron_parameters(base)
    # Norms of queries and keys are shared by a layer's heads and are removed with the last head.
    shared = sum(p.numel() for name, p in model.named_parameters() if "q_norm" in name or "k_norm" in name) // LAYERS
    cut += shared * sum(count == 0 for count in kept.num_heads)
    assert before - count(pl.prune_(model, plan)) == cut > 0
    assert dissect(model).architecture == kept


def test_shapes_biases_and_head_counts_after_the_cut():
    model = tiny_model("bert")
    plan = Plan.whole(dissect(model).lineage).model_copy(update={"heads": ((0, 3), (1,), (0, 1, 2, 3))})
    query = model.bert.encoder.layer[0].attention.self.query
    rows = torch.cat([query.weight[:HEAD_DIM], query.weight[3 * HEAD_DIM :]]).clone()
    bias = torch.cat([query.bias[:HEAD_DIM], query.bias[3 * HEAD_DIM :]]).clone()
    pl.prune_(model, plan)
    attention = model.bert.encoder.layer[0].attention
    assert attention.self.query.weight.shape == (2 * HEAD_DIM, HIDDEN)
    assert (attention.self.query.out_features, attention.output.dense.in_features) == (12, 12)
    assert (attention.self.num_attention_heads, attention.self.all_head_size) == (2, 12)
    assert torch.equal(attention.self.query.weight, rows)
    assert torch.equal(attention.self.query.bias, bias)
    assert attention.output.dense.weight.shape == (HIDDEN, 2 * HEAD_DIM)
    assert attention.output.dense.bias.shape == (HIDDEN,)


def test_a_layer_with_nothing_left_is_the_biases_alone(family, attention):
    model, batch = tiny_model(family, attention=attention), tiny_batch(family=family)
    plan = Plan.whole(dissect(model).lineage)
    nothing = ((),) * plan.base.num_layers
    plan = plan.model_copy(update={"heads": nothing, "neurons": nothing})
    with pl.masked(model, plan):
        expected = logits(model, batch)
    pl.prune_(model, plan)
    block = dissect(model).blocks[0]
    assert isinstance(block.part("attention"), NoHeads)
    assert isinstance(block.part("up"), NoNeurons)
    assert isinstance(block.part("down"), BiasOnly)
    assert largest_difference(logits(model, batch), expected) < TOLERANCE
    model(**batch).loss.backward()
    # A decoder without cross-attention heads gives no gradient to its encoder.
    bias = dissect(model).blocks[-1].part("down").bias
    assert (bias is None) == (family in WITHOUT_BIAS)
    assert bias is None or bias.grad is not None


def test_backward_through_a_pruned_model_gives_the_masked_models_gradients(family):
    model, batch = tiny_model(family), tiny_batch(family=family)
    plan = random_plan(model)
    with pl.masked(model, plan):
        model(**batch).loss.backward()
    kept = plan.heads[0]
    rows = [head * HEAD_DIM + i for head in kept for i in range(HEAD_DIM)]
    expected = gradient_of_values(model)[rows]
    pruned = pl.prune_(tiny_model(family), plan)
    pruned(**batch).loss.backward()
    assert largest_difference(gradient_of_values(pruned), expected) < TOLERANCE


def gradient_of_values(model) -> torch.Tensor:
    """Gradient of the first block's value projection (out, in)."""
    matrix = dissect(model).blocks[0].matrix("value")
    gradient = matrix.module.weight.grad
    oriented = gradient.T if isinstance(matrix.module, Conv1D) else gradient
    return oriented[matrix.start : matrix.start + matrix.out_features].clone()


def test_dtype_and_frozen_weights_stay_as_they_were():
    model = tiny_model(dtype=torch.bfloat16)
    model.bert.encoder.layer[0].attention.self.query.weight.requires_grad_(False)
    pl.prune_(model, random_plan(model))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    query = model.bert.encoder.layer[0].attention.self.query
    assert (query.weight.requires_grad, query.bias.requires_grad) == (False, True)


def test_masks_are_gone_after_the_block_even_when_it_fails():
    model, batch = tiny_model(), tiny_batch()
    before = logits(model, batch)

    def fail() -> None:
        with pl.masked(model, random_plan(model)):
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert torch.equal(logits(model, batch), before)


def test_a_plan_for_another_model_leaves_the_model_untouched():
    model, batch = tiny_model(), tiny_batch()
    before = logits(model, batch)
    other = random_plan(tiny_model("distilbert"))
    with pytest.raises(PlanError, match="distilbert, 3 layers"):
        pl.prune_(model, other)
    assert torch.equal(logits(model, batch), before)


def test_a_plan_that_keeps_what_is_gone_is_an_error():
    model = tiny_model()
    whole = Plan.whole(dissect(model).lineage)
    pl.prune_(model, random_plan(model))
    with pytest.raises(PlanError, match=r"heads\[1\]"):
        pl.prune_(model, whole)


def test_layers_that_are_not_plain_linear_are_an_error():
    model = tiny_model()
    model.bert.encoder.layer[1].output.dense = torch.nn.Identity()
    with pytest.raises(UnsupportedModelError, match=r"layer\.1\.output\.dense.*Identity"):
        pl.score(model, criterion="magnitude")


def test_decoders_are_an_error():
    config = BertConfig(hidden_size=24, num_attention_heads=4, num_hidden_layers=2, vocab_size=50, is_decoder=True)
    with pytest.raises(UnsupportedModelError, match="decoder"):
        pl.score(BertModel(config), criterion="magnitude")


def test_the_papers_parameters_of_bert_base():
    """109.48 M before; 43 heads cut and 270,336 of LoRA (unpruned sizes) added: 101.29 M."""
    with torch.device("meta"):
        model = BertModel(BertConfig())
    assert count(model) == 109_482_240
    plan = Plan.whole(Lineage.whole(dissect(model).architecture))
    heads = tuple(tuple(range(12 if layer else 12 - 7)) if layer < 9 else () for layer in range(12))
    assert sum(map(len, heads)) == 144 - 43
    pl.prune_(model, plan.model_copy(update={"heads": heads}))
    assert count(model) + 221_184 + 49_152 == 101_290_176


# The real MiniLM, in float32 ------------------------------------------------------------------------------------------


def real_batch(path) -> dict[str, torch.Tensor]:
    tokenizer = AutoTokenizer.from_pretrained(str(path))
    texts = ["a gripping, funny and moving film", "dull", "the plot never quite comes together , but who cares ?"]
    return dict(tokenizer(texts, padding=True, return_tensors="pt")) | {"labels": torch.tensor([1, 0, 1])}


def test_masked_equals_pruned_on_the_real_minilm(minilm_path):
    model = AutoModelForSequenceClassification.from_pretrained(str(minilm_path)).eval()
    batch = real_batch(minilm_path)
    importance = pl.score(model, split(batch, 2))
    plan = pl.make_plan(importance, keep_heads=0.3, keep_ffn=0.3)
    whole = logits(pl.prune_(copy.deepcopy(model), Plan.whole(importance.lineage)), batch)
    assert torch.equal(whole, logits(model, batch))
    with pl.masked(model, plan):
        expected = logits(model, batch)
    once = pl.prune_(copy.deepcopy(model), pl.make_plan(importance, keep_heads=0.6, keep_ffn=0.6))
    assert largest_difference(logits(pl.prune_(once, plan), batch), expected) < 1e-5
    assert largest_difference(logits(pl.prune_(model, plan), batch), expected) < 1e-5
    assert largest_difference(expected, whole) > 1e-3
