"""Runs on tasks in which tokens, and not rows, have labels: tags of words, and going on with a text."""

import json
import random

import pytest
import torch
from safetensors.numpy import save_file
from small_run import BAD, FILLER, GOOD, copy_dense_exports, make_data, make_model
from tiny import largest_difference, logits, stir, tiny_config
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

import prunelora as pl
from prunelora.delivery.processors import load_tokenizer
from prunelora.errors import UnsupportedModelError
from prunelora.models.families import FAMILIES
from prunelora.models.loading import load_pretrained, task_class
from prunelora.models.problem_types import CAUSAL_LM, SINGLE_LABEL, TOKENS, problem_type_of
from prunelora.run.check import check_run
from prunelora.run.execute import execute
from prunelora.run.recipe import load_recipe
from prunelora.stages.linear_probe import LinearProbeStage

SMALL = {
    "linear_probe.rows": 32,
    "linear_probe.steps": 8,
    "score.rows": 32,
    "prune.repair_rows": 64,
    "finetune.epochs": 6,
    "finetune.learning_rate": 1e-2,
    "measure.repeats": 3,
}


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Names are capital letters' words: easy to tag."""
    rng = random.Random(0)
    path = tmp_path_factory.mktemp("data") / "people.jsonl"
    rows = []
    for _ in range(200):
        words, tags = [], []
        for _ in range(rng.randint(3, 6)):
            if rng.random() < 0.3:
                words += rng.choice([["ada", "lovelace"], ["alan", "turing"]])
                tags += ["B-PER", "I-PER"]
            else:
                words.append(rng.choice(FILLER))
                tags.append("O")
        rows.append(json.dumps({"tokens": words, "tags": tags}))
    path.write_text("\n".join(rows))
    return path


@pytest.fixture(scope="module")
def encoder(tmp_path_factory, minilm_path):
    return make_model(tmp_path_factory.mktemp("encoder") / "model", minilm_path)


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    """A tiny Llama with the words of `make_data`: logits of few words make its steps fast."""
    folder = tmp_path_factory.mktemp("decoder") / "model"
    words = ["[PAD]", "[UNK]", "[END]", *FILLER, *GOOD, *BAD]
    words_only = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    words_only.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words_only, pad_token="[PAD]", unk_token="[UNK]", eos_token="[END]"
    )
    torch.manual_seed(0)
    config = tiny_config("llama")
    config.vocab_size, config.eos_token_id, config.pad_token_id = len(tokenizer), tokenizer.eos_token_id, 0
    AutoModelForCausalLM.from_config(config).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


def run(model, data, out, until=None, **settings):
    recipe = load_recipe("cut-first")
    recipe = recipe.model_copy(update={"stages": (LinearProbeStage(), *recipe.stages)})
    inputs = {"model": str(model), "task.data": str(data)}
    return execute(recipe.with_settings(SMALL | inputs | settings), out, until=until, progress=False)


def test_words_are_tagged_by_a_model_of_half_the_size(encoder, people, tmp_path, monkeypatch):
    copy_dense_exports(monkeypatch)
    outcome = run(encoder, people, tmp_path / "run")
    measured = outcome.results.facts("measure")
    assert measured["test"]["entity_f1"] > 0.8
    assert measured["test"]["accuracy"] > measured["majority_rate"]
    costs = measured["measurement"]
    assert costs["model"]["macs"] < 0.51 * costs["base"]["macs"]
    assert 0 < costs["model"]["saved_for_backward_bytes"] < costs["base"]["saved_for_backward_bytes"]
    model = outcome.load()
    assert problem_type_of(model) == TOKENS
    assert outcome.results.facts("linear_probe")["loss"] > 0
    assert outcome.results.facts("export")["bytes"] > 0
    assert "entity F1" in (tmp_path / "run" / "report.md").read_text()
    tokenizer = load_tokenizer(tmp_path / "run" / "model", words=True)
    words = ["the", "film", "of", "ada", "lovelace"]
    encoded = tokenizer(words, is_split_into_words=True, return_tensors="pt")
    with torch.no_grad():
        answers = model(**encoded).logits.argmax(-1)[0].tolist()
    first = [encoded.word_ids().index(word) for word in range(len(words))]
    assert [model.config.id2label[answers[place]] for place in first] == ["O", "O", "O", "B-PER", "I-PER"]


def test_a_decoder_goes_on_with_texts_after_half_of_it_is_cut(decoder, tmp_path):
    data = make_data(tmp_path / "texts.csv")
    # The stages after the merge do not depend on the task.
    settings = {
        "task.task_type": CAUSAL_LM,
        "task.text": "review",
        "finetune.epochs": 20,
        "finetune.learning_rate": 5e-2,
    }
    outcome = run(decoder, data, tmp_path / "run", until="merge", **settings)
    before = outcome.results.facts("prune")["validation"]["log_likelihood"]
    after = outcome.results.facts("merge")["validation"]
    assert after["log_likelihood"] > before + 0.1
    assert after["perplexity"] == pytest.approx(torch.tensor(-after["log_likelihood"]).exp().item(), rel=1e-4)
    assert "loss" not in outcome.results.facts("linear_probe")
    model = outcome.load()
    assert problem_type_of(model) == CAUSAL_LM
    tokenizer = load_tokenizer(tmp_path / "run" / "model")
    given = tokenizer("the film", return_tensors="pt", return_token_type_ids=False)
    said = model.generate(**given, max_new_tokens=4, do_sample=False)
    assert said.shape[1] > given["input_ids"].shape[1]


@pytest.mark.parametrize("kind", [TOKENS, CAUSAL_LM])
def test_an_adapter_finds_its_model_again(kind, encoder, decoder, tmp_path):
    source, names = (encoder, ("A", "B", "C")) if kind == TOKENS else (decoder, ())
    model = load_pretrained(source, label_names=names, problem_type=kind)
    model.config.name_or_path = str(source)
    plan = pl.make_plan(pl.score(model, criterion="magnitude"), keep_macs=0.5)
    tuned = pl.add_adapter(pl.prune_(model, plan), plan)
    stir(tuned)
    tuned.eval()
    batch = {"input_ids": torch.randint(3, 20, (2, 7)), "attention_mask": torch.ones(2, 7, dtype=torch.long)}
    pl.save(tuned, tmp_path / "adapter")
    assert largest_difference(logits(tuned, batch), logits(pl.load(tmp_path / "adapter"), batch)) < 1e-5


@pytest.mark.parametrize("name", FAMILIES)
def test_a_familys_tasks_are_those_that_it_can_be_loaded_for(name):
    tasks = FAMILIES[name].tasks
    assert (TOKENS in tasks) == (name not in {"vit", "deit", "dinov2", "bart", "mbart", "t5"})
    assert (CAUSAL_LM in tasks) == (name in {"gpt2", "llama", "mistral", "qwen2", "qwen3", "gemma", "phi3"})
    config = tiny_config(name)
    for problem_type, head in ((TOKENS, TOKENS), (CAUSAL_LM, CAUSAL_LM), (SINGLE_LABEL, None)):
        if head in FAMILIES[name].tasks or head is None:
            model = task_class(config, problem_type, name).from_config(config)
            assert problem_type_of(model) == problem_type
        else:
            with pytest.raises(UnsupportedModelError, match="has no head for"):
                task_class(config, problem_type, name)


@pytest.mark.parametrize(("kind", "family"), [(CAUSAL_LM, "bert"), (TOKENS, "vit"), (CAUSAL_LM, "vit")])
def test_a_family_without_such_a_head_is_an_error(kind, family, tmp_path):
    tiny_config(family).save_pretrained(tmp_path / "model")
    save_file({}, tmp_path / "model" / "model.safetensors")
    with pytest.raises(UnsupportedModelError, match="has no head for"):
        load_pretrained(tmp_path / "model", label_names=("a", "b"), problem_type=kind)


def test_check_looks_at_tags_and_texts(encoder, decoder, people, tmp_path, prunelora):
    code, out, err = prunelora(
        "check", "--model", str(encoder), "--data", str(people), "--no-latency", "--no-training", "--json"
    )
    assert code == 0, err
    found = json.loads(out)
    assert found["data"]["problem_type"] == TOKENS
    assert 0 < found["data"]["majority_rate"] < 1
    texts = make_data(tmp_path / "texts.csv")
    code, out, err = prunelora(
        "check", "--model", str(decoder), "--data", str(texts), "--task-type", CAUSAL_LM,
        "--no-latency", "--no-training", "--json",
    )  # fmt: skip
    assert code == 0, err
    found = json.loads(out)
    assert (found["data"]["problem_type"], found["data"]["majority_rate"]) == (CAUSAL_LM, None)


@pytest.mark.parametrize("kind", ["tags", "text"])
def test_check_foresees_every_stage_of_a_run_on_tokens(kind, people, encoder, decoder, tmp_path):
    inputs = {"model": str(encoder), "task.data": str(people)}
    if kind == "text":
        inputs = {"model": str(decoder), "task.data": str(make_data(tmp_path / "d.csv")), "task.task_type": "causal_lm"}
    recipe = load_recipe("cut-early").without_export().with_settings(inputs | {"plan.tokens": 8})
    outlook = check_run(recipe, latency=False)
    assert [stage.stage for stage in outlook.run.stages] == recipe.names
    assert all(stage.seconds >= 0 for stage in outlook.run.stages)
    assert outlook.run.memory_bytes > 0
    assert outlook.to_dict()["training"]["ways"].keys() == {"full", "lora", "before-the-cut", "prune-lora"}
