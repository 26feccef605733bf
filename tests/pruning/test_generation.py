"""What generates text, after the cut: the cache of keys and values, and what is generated."""

import copy

import pytest
import torch
from tiny import LAYERS, PAD, VOCABULARY, language_model, largest_difference, random_plan

import prunelora as pl
from prunelora.models.anatomy import dissect
from prunelora.models.families import FAMILIES
from prunelora.planning.plan import Plan

GENERATING = sorted(name for name, row in FAMILIES.items() if row.generates)
PROMPT = torch.tensor([[5, 9, 11, 30], [7, 8, 21, 44]])
SHORT = torch.tensor([[21, 44]])


def continued(model, prompt: torch.Tensor = PROMPT, *, use_cache: bool) -> torch.Tensor:
    mask = (prompt != PAD).long()
    return model.generate(prompt, attention_mask=mask, max_new_tokens=8, do_sample=False, use_cache=use_cache)


def read(model) -> dict[str, torch.Tensor]:
    """What a language model is called with."""
    return {"input_ids": PROMPT} | ({"decoder_input_ids": PROMPT} if model.config.is_encoder_decoder else {})


def plans(model) -> dict[str, Plan]:
    """Uneven layers; and no heads in the first layers, which models ask how many tokens came before.

    The first layers of T5's encoder and decoder also have the table of the bias that all layers share.
    """
    anatomy = dissect(model)
    lineage = anatomy.lineage
    first = {block.prefix for block in anatomy.blocks if block.prefix.endswith(".0")}
    heads = tuple(() if block.prefix in first else lineage.heads[block.index] for block in anatomy.blocks)
    headless = Plan(base=lineage.base, heads=heads, neurons=lineage.neurons)
    return {"uneven": random_plan(model, empty=False), "with empty layers": random_plan(model), "headless": headless}


def test_what_generates_is_all_here():
    assert len(GENERATING) >= 10


@pytest.mark.parametrize("which", ["uneven", "with empty layers", "headless"])
@pytest.mark.parametrize("family", GENERATING)
def test_words_are_those_of_the_masked_model_with_and_without_a_cache(family, which):
    model = language_model(family)
    plan = plans(model)[which]
    with pl.masked(model, plan):
        expected = continued(model, use_cache=False)
    pruned = pl.prune_(copy.deepcopy(model), plan)
    assert torch.equal(continued(pruned, use_cache=False), expected)
    assert torch.equal(continued(pruned, use_cache=True), expected)
    assert not torch.equal(continued(model, use_cache=False), expected)


@pytest.mark.parametrize("which", ["uneven", "with empty layers", "headless"])
@pytest.mark.parametrize("family", GENERATING)
def test_words_read_in_two_parts_give_the_logits_of_all_at_once(family, which):
    model = language_model(family)
    pruned = pl.prune_(model, plans(model)[which])
    encoded = {"input_ids": PROMPT} if FAMILIES[family].encoder_decoder else {}
    name = "decoder_input_ids" if encoded else "input_ids"
    with torch.no_grad():
        whole = pruned(**encoded, **{name: PROMPT}).logits
        first = pruned(**encoded, **{name: PROMPT[:, :3]}, use_cache=True)
        second = pruned(**encoded, **{name: PROMPT[:, 3:]}, past_key_values=first.past_key_values)
    assert largest_difference(torch.cat([first.logits, second.logits], dim=1), whole) < 1e-9
    if encoded:
        caches = second.past_key_values
        lengths = [
            [one.keys.shape[-2] for one in each.layers]
            for each in (caches.self_attention_cache, caches.cross_attention_cache)
        ]
        assert lengths == [[4, 4], [4, 4]]


@pytest.mark.parametrize("which", ["uneven", "headless"])
@pytest.mark.parametrize("family", GENERATING)
def test_padding_is_left_out_with_a_cache_too(family, which):
    model = language_model(family)
    pruned = pl.prune_(model, plans(model)[which])
    alone = continued(pruned, SHORT, use_cache=False)
    # A decoder goes on from the right end; of what an encoder reads, the left end has the first position.
    padding = (0, 2) if FAMILIES[family].encoder_decoder else (2, 0)
    both = torch.cat([PROMPT[:1], torch.nn.functional.pad(SHORT, padding, value=PAD)])
    for use_cache in (False, True):
        assert torch.equal(continued(pruned, both, use_cache=use_cache)[1:, -8:], alone[:, -8:])


@pytest.mark.parametrize("family", GENERATING)
def test_the_cache_holds_what_is_left(family):
    model = language_model(family)
    plan = plans(model)["uneven"]
    cache = pl.prune_(model, plan)(**read(model), use_cache=True).past_key_values
    left = [len(ids) for ids in plan.heads]
    if FAMILIES[family].encoder_decoder:
        assert [layer.keys.shape[1] for layer in cache.self_attention_cache.layers] == left[LAYERS::2]
        assert [layer.keys.shape[1] for layer in cache.cross_attention_cache.layers] == left[LAYERS + 1 :: 2]
    else:
        assert [layer.keys.shape[1] for layer in cache.layers] == left


@pytest.mark.parametrize("family", GENERATING)
def test_language_models_are_scored_token_by_token_whatever_the_batch(family):
    model = language_model(family)
    rows = torch.randint(3, VOCABULARY, (4, 7), generator=torch.Generator().manual_seed(0))
    labels = rows.clone()
    labels[1, 4:] = -100
    whole = pl.score(model, [{"input_ids": rows, "labels": labels}])
    parts = pl.score(model, [{"input_ids": rows[i : i + 1], "labels": labels[i : i + 1]} for i in range(4)])
    for one, other in zip([*whole.heads, *whole.neurons], [*parts.heads, *parts.neurons], strict=True):
        torch.testing.assert_close(torch.tensor(one), torch.tensor(other), rtol=1e-4, atol=1e-7)
        assert (one > 0).all()


@pytest.mark.parametrize("family", GENERATING)
def test_a_language_model_is_adapted_merged_saved_and_loaded(family, tmp_path):
    model = language_model(family)
    plan = random_plan(model)
    adapted = pl.add_adapter(pl.prune_(model, plan), plan)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.05)
        expected = adapted(**read(model)).logits
    merged = pl.merge(adapted)
    pl.save(merged, tmp_path / "model")
    with torch.no_grad():
        assert largest_difference(merged(**read(model)).logits, expected) < 1e-9
        assert largest_difference(pl.load(tmp_path / "model")(**read(model)).logits, expected) < 1e-9
