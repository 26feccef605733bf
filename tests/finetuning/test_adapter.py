"""The adapter: the plan's ranks and nothing else, stock PEFT, and no trace after the merge."""

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from tiny import HIDDEN, largest_difference, logits, random_plan, tiny_batch, tiny_model

import prunelora as pl
from prunelora.errors import AdapterError
from prunelora.finetuning.adapter import audit, trainable_parameters
from prunelora.models.anatomy import dissect
from prunelora.models.matrices import widths
from prunelora.planning.plan import Plan


def adapted(family: str = "bert", *, seed: int = 0, **options):
    model = tiny_model(family)
    plan = random_plan(model, seed=seed)
    return pl.add_adapter(pl.prune_(model, plan), plan, **options), plan


def trained(peft_model, seed: int = 1):
    """As after training: everything trainable has moved."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in peft_model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return peft_model.eval()


def ranks_of(peft_model) -> dict[str, int]:
    return {
        name: module.r["default"]
        for name, module in peft_model.get_base_model().named_modules()
        if isinstance(module, LoraLayer)
    }


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_ranks_after_injection_equal_the_plans(family, seed):
    peft_model, plan = adapted(family, seed=seed)
    expected: dict[str, int] = {}
    for block in dissect(peft_model.get_base_model(), adapted=True).blocks:
        for name in ("query", "key", "value", "output"):
            # Projections of one fused layer are adapted together, by the highest of their ranks.
            place, rank = block.full_name(name), plan.rank(name, block.index)
            if rank:
                expected[place] = max(rank, expected.get(place, 0))
    assert ranks_of(peft_model) == expected
    assert len(set(expected.values())) > 1
    for name, module in peft_model.get_base_model().named_modules():
        if isinstance(module, LoraLayer):
            assert module.scaling["default"] == 2.0, name


def test_ranks_of_layer_1_do_not_reach_layer_11():
    """Patterns are anchored: in a model of 12 layers "layer.1." also ends the name of layer 11's parent path."""
    from transformers import AutoModelForSequenceClassification, BertConfig

    config = BertConfig(hidden_size=24, num_attention_heads=4, num_hidden_layers=12, intermediate_size=8, vocab_size=20)
    model = AutoModelForSequenceClassification.from_config(config)
    ranks = tuple(range(1, 13))
    plan = Plan.whole(dissect(model).lineage).model_copy(update={"ranks": {"query": ranks, "down": ranks}})
    found = ranks_of(pl.add_adapter(pl.prune_(model, plan), plan))
    assert [found[f"bert.encoder.layer.{layer}.attention.self.query"] for layer in range(12)] == list(ranks)
    assert [found[f"bert.encoder.layer.{layer}.output.dense"] for layer in range(12)] == list(ranks)


def test_a_fresh_adapter_changes_nothing(family):
    model, batch = tiny_model(family), tiny_batch(family=family)
    plan = random_plan(model)
    before = logits(pl.prune_(model, plan), batch)
    assert torch.equal(logits(pl.add_adapter(model, plan).eval(), batch), before)


def test_trainable_are_lora_norms_and_head_only(family):
    peft_model, plan = adapted(family)
    kinds = trainable_parameters(peft_model)
    norms = dissect(peft_model.get_base_model(), adapted=True).norm_names()
    assert kinds["norms"] == sum(
        sum(p.numel() for p in peft_model.get_base_model().get_submodule(name).original_module.parameters())
        for name in norms
    )
    lora = sum(
        module.r["default"] * sum(widths(module.base_layer))
        for module in peft_model.get_base_model().modules()
        if isinstance(module, LoraLayer)
    )
    assert kinds["lora"] == lora
    if family == "bert":
        heads = plan.architecture.num_heads
        by_hand = sum(plan.rank(name, n) * (HIDDEN + heads[n] * 6) for name in plan.ranks for n in range(3))
        assert lora == by_hand
    assert kinds["head"] > 0
    assert kinds["other"] == 0
    assert sum(kinds.values()) == sum(p.numel() for p in peft_model.parameters() if p.requires_grad)


def norms_of(model) -> set[str]:
    """By what they are: modules of a norm's class with weights, outside the task head."""
    heads = tuple(f"{name}." for name in dissect(model).task_head_names())
    return {
        name
        for name, module in model.named_modules()
        if "Norm" in type(module).__name__
        and any(True for _ in module.parameters())
        and not f"{name}.".startswith(heads or ("-",))
    }


def test_every_norm_of_a_family_is_known(family):
    model = tiny_model(family)
    assert set(dissect(model).norm_names()) == norms_of(model)
    pl.prune_(model, random_plan(model))
    assert set(dissect(model).norm_names()) == norms_of(model)


def test_norms_that_only_some_models_of_a_family_have_are_known():
    model = tiny_model("deberta-v2", conv_kernel_size=3, conv_act="gelu", norm_rel_ebd="layer_norm")
    names = set(dissect(model).norm_names())
    assert names == norms_of(model)
    assert {"deberta.encoder.LayerNorm", "deberta.encoder.conv.LayerNorm"} < names


def test_bert_base_has_the_papers_25_layer_norms():
    from transformers import AutoModelForSequenceClassification, BertConfig

    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(BertConfig())
    names = dissect(model).norm_names()
    assert len(names) == 25
    assert sum(p.numel() for name in names for p in model.get_submodule(name).parameters()) == 38_400


def test_norms_and_head_can_be_left_frozen():
    peft_model, _ = adapted(train_norms=False, train_head=False)
    kinds = trainable_parameters(peft_model)
    assert (kinds["norms"], kinds["head"]) == (0, 0)
    assert kinds["lora"] > 0


def test_merged_equals_unmerged_and_leaves_no_trace(family):
    peft_model, plan = adapted(family)
    batch = tiny_batch(family=family)
    expected = logits(trained(peft_model), batch)
    merged = pl.merge(peft_model)
    assert largest_difference(logits(merged, batch), expected) < 1e-12
    assert not any(type(module).__module__.startswith("peft") for module in merged.modules())
    assert not hasattr(merged, "peft_config")
    assert not any("lora" in name or "modules_to_save" in name for name in merged.state_dict())
    assert all(parameter.requires_grad for parameter in merged.parameters())
    assert set(merged.state_dict()) == set(pl.prune_(tiny_model(family), plan).state_dict())
    pl.score(merged, [batch])  # It is a plain model again for everything else.


def test_the_adapter_folder_is_a_stock_peft_folder(family, tmp_path):
    peft_model, plan = adapted(family)
    batch = tiny_batch(family=family)
    expected = logits(trained(peft_model), batch)
    pl.save(peft_model, tmp_path / "adapter")
    base = pl.prune_(tiny_model(family), plan)
    loaded = PeftModel.from_pretrained(base, str(tmp_path / "adapter")).eval()
    assert largest_difference(logits(loaded, batch), expected) == 0
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA"


def test_layers_without_heads_get_no_lora_and_break_nothing(family):
    peft_model, plan = adapted(family)
    assert plan.heads[1] == ()
    block = dissect(peft_model.get_base_model(), adapted=True).blocks[1]
    assert not {block.full_name(name) for name in ("query", "key", "value", "output")} & ranks_of(peft_model).keys()
    peft_model.train()
    peft_model(**tiny_batch(family=family)).loss.backward()


def test_the_audit_finds_a_wrong_rank():
    peft_model, plan = adapted()
    first = plan.model_copy(update={"ranks": plan.ranks | {"key": tuple(rank + 1 for rank in plan.ranks["key"])}})
    with pytest.raises(AdapterError, match=r"attention\.self\.key: its rank is \d in the plan and \d"):
        audit(peft_model, first)
    more = plan.model_copy(update={"ranks": plan.ranks | {"up": (2, 2, 2)}})
    with pytest.raises(AdapterError, match=r"intermediate\.dense: its rank is 2 in the plan and 0"):
        audit(peft_model, more)


def test_the_audit_finds_an_adapter_that_the_plan_does_not_know():
    model = tiny_model()
    plan = Plan.whole(dissect(model).lineage, rank=2, targets=("query",))
    peft_model = get_peft_model(model, LoraConfig(r=2, target_modules=["query", "value"]))
    with pytest.raises(AdapterError, match="0 in the plan and 2"):
        audit(peft_model, plan)


def test_a_model_that_was_not_pruned_by_the_plan_is_an_error():
    model = tiny_model()
    with pytest.raises(AdapterError, match=r"prune_\(model, plan\)"):
        pl.add_adapter(model, random_plan(model))


def test_a_plan_without_ranks_is_an_error():
    model = tiny_model()
    with pytest.raises(AdapterError, match="rank above 0"):
        pl.add_adapter(model, Plan.whole(dissect(model).lineage))


def test_merging_what_has_no_adapter_is_an_error():
    with pytest.raises(AdapterError, match="BertForSequenceClassification"):
        pl.merge(tiny_model())


def test_scoring_with_an_adapter_in_place_is_an_error():
    from prunelora.errors import UnsupportedModelError

    peft_model, _ = adapted()
    with pytest.raises(UnsupportedModelError, match="adapter"):
        pl.score(peft_model, [tiny_batch()])


def test_initialisation_follows_the_seed_and_leaves_the_random_state():
    def first_weights(seed: int) -> torch.Tensor:
        model = tiny_model()
        plan = random_plan(model)
        pl.prune_(model, plan)
        state = torch.get_rng_state()
        peft_model = pl.add_adapter(model, plan, seed=seed)
        assert torch.equal(torch.get_rng_state(), state)
        return next(value for name, value in peft_model.named_parameters() if "lora_A" in name)

    assert torch.equal(first_weights(0), first_weights(0))
    assert not torch.equal(first_weights(0), first_weights(7))
