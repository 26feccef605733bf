"""Decoders after the cut: the cache of keys and values, and what is generated."""

import copy

import pytest
import torch
from tiny import LAYERS, VOCABULARY, largest_difference, random_plan, tiny_config
from transformers import AutoModelForCausalLM

import prunelora as pl
from prunelora.models.anatomy import dissect
from prunelora.models.families import FAMILIES
from prunelora.planning.plan import Plan

DECODERS = sorted(name for name, row in FAMILIES.items() if row.decoder)
PROMPT = torch.tensor([[5, 9, 11, 30], [7, 8, 21, 44]])


def language_model(family: str, seed: int = 0):
    """A random one whose words depend on every head and neuron."""
    model = AutoModelForCausalLM.from_config(tiny_config(family), dtype=torch.float64).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            shift = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
            parameter.copy_(shift + 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    model.generation_config.eos_token_id = None  # Every example is as long as was asked.
    return model


def continued(model, *, use_cache: bool) -> torch.Tensor:
    mask = torch.ones_like(PROMPT)
    return model.generate(PROMPT, attention_mask=mask, max_new_tokens=8, do_sample=False, use_cache=use_cache)


def plans(model) -> dict[str, Plan]:
    """Uneven layers; and the first layer without heads, which models ask how many tokens came before."""
    lineage = dissect(model).lineage
    headless = Plan(base=lineage.base, heads=((), *lineage.heads[1:]), neurons=lineage.neurons)
    return {"uneven": random_plan(model, empty=False), "with empty layers": random_plan(model), "headless": headless}


def test_the_decoders_are_all_here():
    assert len(DECODERS) >= 7


@pytest.mark.parametrize("which", ["uneven", "with empty layers", "headless"])
@pytest.mark.parametrize("family", DECODERS)
def test_words_are_those_of_the_masked_model_with_and_without_a_cache(family, which):
    model = language_model(family)
    plan = plans(model)[which]
    with pl.masked(model, plan):
        expected = continued(model, use_cache=False)
    pruned = pl.prune_(copy.deepcopy(model), plan)
    assert torch.equal(continued(pruned, use_cache=False), expected)
    assert torch.equal(continued(pruned, use_cache=True), expected)
    assert not torch.equal(continued(model, use_cache=False), expected)


@pytest.mark.parametrize("family", DECODERS)
def test_the_cache_holds_what_is_left(family):
    model = language_model(family)
    plan = plans(model)["uneven"]
    cache = pl.prune_(model, plan)(PROMPT, use_cache=True).past_key_values
    heads = [cache.layers[layer].keys.shape[1] for layer in range(LAYERS)]
    assert heads == [len(ids) for ids in plan.heads]


@pytest.mark.parametrize("family", DECODERS)
def test_language_models_are_scored_token_by_token_whatever_the_batch(family):
    model = language_model(family)
    rows = torch.randint(3, VOCABULARY, (4, 7), generator=torch.Generator().manual_seed(0))
    labels = rows.clone()
    labels[1, 4:] = -100
    whole = pl.score(model, [{"input_ids": rows, "labels": labels}])
    parts = pl.score(model, [{"input_ids": rows[i : i + 1], "labels": labels[i : i + 1]} for i in range(4)])
    for one, other in zip([*whole.heads, *whole.ffn], [*parts.heads, *parts.ffn], strict=True):
        torch.testing.assert_close(torch.tensor(one), torch.tensor(other), rtol=1e-4, atol=1e-7)
        assert one.min() > 0


@pytest.mark.parametrize("family", DECODERS)
def test_a_language_model_is_adapted_merged_saved_and_loaded(family, tmp_path):
    model = language_model(family)
    plan = random_plan(model)
    adapted = pl.add_adapter(pl.prune_(model, plan), plan)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.05)
        expected = adapted(input_ids=PROMPT).logits
    merged = pl.merge(adapted)
    pl.save(merged, tmp_path / "model")
    with torch.no_grad():
        assert largest_difference(merged(input_ids=PROMPT).logits, expected) < 1e-9
        assert largest_difference(pl.load(tmp_path / "model")(input_ids=PROMPT).logits, expected) < 1e-9
