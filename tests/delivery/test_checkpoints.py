"""Saved folders load with the same logits, or with an error that tells the cause."""

import copy
import json
from pathlib import Path

import pytest
import torch
import transformers
from peft import PeftModel
from tiny import language_model, largest_difference, logits, random_plan, stir, tiny_batch, tiny_model
from transformers import AutoTokenizer, pipeline

import prunelora as pl
from prunelora.delivery.processors import load_tokenizer
from prunelora.errors import CheckpointError
from prunelora.models.anatomy import dissect
from prunelora.models.families import FAMILIES
from prunelora.models.loading import load_pretrained
from prunelora.planning.plan import Plan


def pruned(family: str = "bert", **options):
    model = tiny_model(family, **options)
    return pl.prune_(model, random_plan(model))


@pytest.fixture
def folder(tmp_path):
    return pl.save(pruned(), tmp_path / "model")


def test_a_saved_model_loads_with_the_same_logits(family, tmp_path):
    model, batch = pruned(family), tiny_batch(family=family)
    pl.save(model, tmp_path / "model")
    again = pl.load(tmp_path / "model")
    assert torch.equal(logits(again, batch), logits(model, batch))
    assert again.prunelora_plan == model.prunelora_plan
    assert not again.training
    assert dissect(again).architecture.num_heads[1] == 0


def test_a_dense_checkpoint_loads_without_us_and_gives_the_same(family, tmp_path):
    model, batch = pruned(family), tiny_batch(family=family)
    folder = pl.save(model, tmp_path / "model", format="dense")
    auto = "AutoModelForImageClassification" if FAMILIES[family].images else "AutoModelForSequenceClassification"
    full = getattr(transformers, auto).from_pretrained(folder, dtype=torch.float64).eval()
    assert dissect(full).architecture == dissect(tiny_model(family)).architecture
    assert largest_difference(logits(full, batch), logits(model, batch)) < 1e-12
    assert not hasattr(full.config, "prunelora")
    again = pl.load(folder)
    assert again.prunelora_plan == model.prunelora_plan
    assert torch.equal(logits(again, batch), logits(model, batch))
    assert f"{auto}.from_pretrained(" in (folder / "README.md").read_text()


def test_an_adapter_cannot_be_saved_dense_and_formats_have_names(tmp_path):
    model = pruned()
    with pytest.raises(CheckpointError, match="Merge"):
        pl.save(pl.add_adapter(model, model.prunelora_plan), tmp_path / "adapter", format="dense")
    with pytest.raises(CheckpointError, match=r"format='zip'.*pruned, dense"):
        pl.save(pruned(), tmp_path / "model", format="zip")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_dtype_survives(dtype, tmp_path):
    pl.save(pruned(dtype=dtype), tmp_path / "model")
    assert {parameter.dtype for parameter in pl.load(tmp_path / "model").parameters()} == {dtype}


@pytest.mark.parametrize("form", ["pruned", "dense"])
def test_how_a_model_generates_survives(form, tmp_path):
    model = language_model("llama")
    model.generation_config.update(max_new_tokens=7, repetition_penalty=1.3, eos_token_id=5)
    folder = pl.save(pl.prune_(model, random_plan(model)), tmp_path / "model", format=form)
    kept = pl.load(folder).generation_config
    assert (kept.max_new_tokens, kept.repetition_penalty, kept.eos_token_id) == (7, 1.3, 5)
    (folder / "generation_config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"generation_config\.json"):
        pl.load(folder)


def test_a_model_that_was_never_cut_saves_and_loads(tmp_path):
    model, batch = tiny_model(), tiny_batch()
    pl.save(model, tmp_path / "model")
    assert torch.equal(logits(pl.load(tmp_path / "model"), batch), logits(model, batch))


def test_a_loaded_model_can_be_cut_again_and_saved_again(tmp_path):
    model = pruned()
    pl.save(model, tmp_path / "once")
    again = pl.load(tmp_path / "once")
    smaller = random_plan(again, seed=5)
    pl.save(pl.prune_(again, smaller), tmp_path / "twice")
    assert pl.load(tmp_path / "twice").prunelora_plan == smaller


def test_exactly_these_files_are_written(tmp_path, minilm_path):
    tokenizer = AutoTokenizer.from_pretrained(str(minilm_path))
    pl.save(pruned(), tmp_path / "model", tokenizer=tokenizer, facts={"test accuracy": "0.81"})
    assert {file.name for file in (tmp_path / "model").iterdir()} == {
        "config.json", "model.safetensors", "modeling_prunelora.py", "plan.json", "prunelora.json", "README.md",
        "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    card = (tmp_path / "model" / "README.md").read_text()
    assert "| test accuracy | 0.81 |" in card
    assert "pl.load(" in card
    assert str(pl.Plan.load(tmp_path / "model" / "plan.json")) in card
    assert list(tmp_path.iterdir()) == [tmp_path / "model"]  # No temporary folder is left.


@pytest.mark.parametrize("kind", ["classifier", "language model"])
def test_a_tokenizer_is_saved_with_the_side_that_the_model_is_used_with(kind, tmp_path, minilm_path):
    tokenizer = AutoTokenizer.from_pretrained(str(minilm_path), padding_side="left")
    model = tiny_model("gpt2") if kind == "classifier" else language_model("gpt2")
    pl.save(model, tmp_path / "model", tokenizer=tokenizer)
    saved = load_tokenizer(tmp_path / "model")
    assert saved.padding_side == ("right" if kind == "classifier" else "left")
    assert tokenizer.padding_side == "left"
    given = saved(["a film", "a long and winding film"], padding=True)
    assert given["attention_mask"][0][-1 if kind == "classifier" else 0] == 0


def test_it_works_inside_a_transformers_pipeline(tmp_path, minilm_path):
    model = load_pretrained(minilm_path, label_names=("bad", "good"), problem_type="single_label_classification")
    importance = pl.score(model, criterion="magnitude")
    pl.prune_(model, pl.make_plan(importance, keep_heads=0.5, keep_ffn=0.5))
    pl.save(model, tmp_path / "model", tokenizer=AutoTokenizer.from_pretrained(str(minilm_path)))
    classify = pipeline(
        "text-classification", model=pl.load(tmp_path / "model"), tokenizer=load_tokenizer(tmp_path / "model")
    )
    answer = classify("a gripping film")[0]
    given = load_tokenizer(tmp_path / "model")("a gripping film", return_tensors="pt")
    with torch.no_grad():
        chances = pl.load(tmp_path / "model")(**given).logits.softmax(-1)[0]
    assert answer["label"] == ("bad", "good")[int(chances.argmax())]
    assert answer["score"] == pytest.approx(float(chances.max()), rel=1e-4)


def test_saving_replaces_an_earlier_save_and_nothing_else(tmp_path):
    pl.save(pruned(), tmp_path / "model")
    other = tiny_model("distilbert")
    pl.save(other, tmp_path / "model")
    assert torch.equal(logits(pl.load(tmp_path / "model"), tiny_batch()), logits(other, tiny_batch()))
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    with pytest.raises(CheckpointError, match=r"prunelora\.save"):
        pl.save(other, precious)
    assert (precious / "thesis.txt").read_text() == "years of work"


def test_a_save_that_fails_leaves_the_old_folder_whole(tmp_path, monkeypatch):
    model = pruned()
    pl.save(model, tmp_path / "model")
    monkeypatch.setattr("prunelora.delivery.checkpoints.write_card", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        pl.save(tiny_model("electra"), tmp_path / "model")
    assert torch.equal(logits(pl.load(tmp_path / "model"), tiny_batch()), logits(model, tiny_batch()))
    assert list(tmp_path.iterdir()) == [tmp_path / "model"]


# Adapters -------------------------------------------------------------------------------------------------------------


def adapter_on_minilm(path, out, *, seed: int = 0):
    model = load_pretrained(path, label_names=("bad", "good"), problem_type="single_label_classification")
    plan = pl.make_plan(pl.score(model, criterion="random", seed=seed), keep_heads=0.5, keep_ffn=0.5)
    model.config.name_or_path = "minilm"
    peft_model = pl.add_adapter(pl.prune_(model, plan), plan)
    with torch.no_grad():
        for parameter in peft_model.parameters():
            if parameter.requires_grad:
                parameter += 0.01
    pl.save(peft_model, out)
    return peft_model.eval()


def test_an_adapter_alone_is_put_together_with_its_base_and_plan_again(tmp_path, minilm_path):
    peft_model = adapter_on_minilm(minilm_path, tmp_path / "adapter")
    batch = {"input_ids": torch.tensor([[101, 2307, 102]]), "attention_mask": torch.ones(1, 3, dtype=torch.long)}
    loaded = pl.load(tmp_path / "adapter")
    assert torch.equal(logits(loaded, batch), logits(peft_model, batch))
    assert loaded.config.id2label == {0: "bad", 1: "good"}
    size = sum(file.stat().st_size for file in (tmp_path / "adapter").iterdir())
    assert size < 2_000_000  # Against 90 MB of the model.


def test_a_pretrained_model_is_loaded_in_float32_whatever_its_checkpoint_holds(tmp_path):
    """In bfloat16 a step of training is rounded away."""
    tiny_model("llama", dtype=torch.bfloat16).save_pretrained(tmp_path)
    model = load_pretrained(tmp_path, label_names=("a", "b", "c"), problem_type="single_label_classification")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_a_task_head_that_was_not_trained_travels_with_the_adapter(tmp_path, minilm_path):
    model = load_pretrained(minilm_path, label_names=("a", "b"), problem_type="single_label_classification", seed=5)
    model.config.name_or_path = "minilm"
    plan = pl.make_plan(pl.score(model, criterion="random"), keep_heads=0.5)
    peft_model = pl.add_adapter(pl.prune_(model, plan), plan, train_head=False).eval()
    pl.save(peft_model, tmp_path / "adapter")
    batch = {"input_ids": torch.tensor([[101, 2307, 102]]), "attention_mask": torch.ones(1, 3, dtype=torch.long)}
    assert torch.equal(logits(pl.load(tmp_path / "adapter"), batch), logits(peft_model, batch))


def test_an_adapter_on_the_wrong_base_is_an_error(tmp_path):
    model = pruned()
    peft_model = pl.add_adapter(model, model.prunelora_plan)
    pl.save(peft_model, tmp_path / "adapter")
    wrong = tiny_model()
    pl.prune_(wrong, random_plan(wrong, seed=9))
    with pytest.raises(CheckpointError, match=peft_model.prunelora_plan.id):
        pl.load(tmp_path / "adapter", base=wrong)


def test_an_adapter_on_a_base_of_the_same_plan_with_other_weights_is_an_error(tmp_path):
    """Such as one that was repaired behind the cut, or tuned before it."""
    model = pruned()
    peft_model = pl.add_adapter(copy.deepcopy(model), model.prunelora_plan)
    pl.save(peft_model, tmp_path / "adapter")
    assert torch.equal(
        logits(pl.load(tmp_path / "adapter", base=copy.deepcopy(model)), tiny_batch()),
        logits(peft_model.eval(), tiny_batch()),
    )
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[0, 0] += 1e-3
    before = {name: (value.clone(), value.requires_grad) for name, value in model.named_parameters()}
    with pytest.raises(CheckpointError, match="other weights"):
        pl.load(tmp_path / "adapter", base=model)
    after = dict(model.named_parameters())
    assert after.keys() == before.keys()
    assert all(
        torch.equal(after[name], value) and after[name].requires_grad == free for name, (value, free) in before.items()
    )


def test_an_adapter_of_another_plan_than_the_cut_is_saved_with_its_own_ranks(tmp_path):
    """As where nothing was cut, or the same cut is adapted with other ranks."""
    model = tiny_model()
    peft_model = pl.add_adapter(copy.deepcopy(model), Plan.whole(dissect(model).lineage, rank=3, targets=("query",)))
    stir(peft_model)
    pl.save(peft_model, tmp_path / "adapter")
    loaded = pl.load(tmp_path / "adapter", base=copy.deepcopy(model))
    assert torch.equal(logits(loaded, tiny_batch()), logits(peft_model, tiny_batch()))
    pl.save(loaded, tmp_path / "again")
    again = pl.load(tmp_path / "again", base=copy.deepcopy(model))
    assert torch.equal(logits(again, tiny_batch()), logits(peft_model, tiny_batch()))


def test_weights_of_several_types_keep_them(tmp_path):
    model = pruned(dtype=torch.bfloat16)
    model.classifier.float()
    types = {name: value.dtype for name, value in model.named_parameters()}
    assert len(set(types.values())) == 2
    for form in ("pruned", "dense"):
        again = pl.load(pl.save(model, tmp_path / form, format=form))
        assert {name: value.dtype for name, value in again.named_parameters()} == types
        found = dict(again.named_parameters())
        assert all(torch.equal(found[name], value) for name, value in model.named_parameters())


def test_a_base_that_the_adapter_does_not_fit_is_left_as_it_was_found(tmp_path):
    model = pruned()
    pl.save(pl.add_adapter(copy.deepcopy(model), model.prunelora_plan), tmp_path / "adapter")
    other = pruned(num_labels=model.config.num_labels + 2)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors.*load\(folder, base=model\)"):
        pl.load(tmp_path / "adapter", base=other)
    dissect(other)
    after = other.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def adapter_of_a_folder(tmp_path):
    """On a model in a folder, as most are; its name is the folder's path."""
    tiny_model(dtype=torch.float32).save_pretrained(tmp_path / "home" / "ann" / "bert")
    model = load_pretrained(
        tmp_path / "home" / "ann" / "bert", label_names=("bad", "good"), problem_type="single_label_classification"
    )
    model.config.name_or_path = str(tmp_path / "home" / "ann" / "bert")
    peft_model = pl.add_adapter(pl.prune_(model, random_plan(model)), model.prunelora_plan)
    stir(peft_model)
    return peft_model.eval()


def test_nothing_saved_holds_a_path_of_the_machine_and_the_adapter_still_finds_its_base(tmp_path):
    peft_model = adapter_of_a_folder(tmp_path)
    wanted = logits(peft_model, tiny_batch())
    adapter = pl.save(peft_model, tmp_path / "adapter", with_base=False)
    small = pl.save(pl.merge(copy.deepcopy(peft_model)), tmp_path / "small")
    for file in (*adapter.rglob("*"), *small.rglob("*")):
        assert str(tmp_path).encode() not in file.read_bytes(), file
    assert json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"] == "bert"
    assert "from `bert`" in (small / "README.md").read_text()
    again = pl.load(adapter)
    assert largest_difference(logits(again, tiny_batch()), wanted) == 0
    # By it PEFT finds the base's configuration; a bare name would be looked up on the hub.
    assert Path(again.peft_config["default"].base_model_name_or_path).is_dir()
    (tmp_path / "home").rename(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match=r"home/ann/bert.*load\(folder, base=model\)"):
        pl.load(adapter)


@pytest.mark.parametrize("train_head", [True, False])
def test_an_adapter_saved_with_its_base_loads_with_peft_alone(train_head, tmp_path):
    model = pruned(dtype=torch.float32)
    peft_model = pl.add_adapter(model, model.prunelora_plan, train_head=train_head)
    stir(peft_model)
    wanted = logits(peft_model.eval(), tiny_batch())
    folder = pl.save(peft_model, tmp_path / "adapter", with_base=True)
    assert torch.equal(logits(peft_model, tiny_batch()), wanted)
    base = transformers.AutoModelForSequenceClassification.from_pretrained(folder / "base", trust_remote_code=True)
    assert torch.equal(logits(PeftModel.from_pretrained(base, folder).eval(), tiny_batch()), wanted)
    assert torch.equal(logits(pl.load(folder), tiny_batch()), wanted)
    assert "PeftModel.from_pretrained(base" in (folder / "README.md").read_text()
    with pytest.raises(CheckpointError, match="with_base=True"):
        pl.save(pruned(), tmp_path / "model", with_base=True)


# Errors ---------------------------------------------------------------------------------------------------------------


def test_a_truncated_file_is_an_error(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        pl.load(folder)


def test_an_edited_plan_is_an_error(folder):
    path = folder / "plan.json"
    content = json.loads(path.read_text())
    content["heads"][0] = content["heads"][0][:-1]
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"saved with plan \w+.*plan \w+"):
        pl.load(folder)


def test_a_plan_of_another_model_is_an_error(folder):
    other = tiny_model("distilbert")
    plan = Plan.whole(dissect(other).lineage)
    plan.save(folder / "plan.json")
    about = json.loads((folder / "prunelora.json").read_text())
    (folder / "prunelora.json").write_text(json.dumps(about | {"plan_id": plan.id}))
    with pytest.raises(CheckpointError, match=r"plan\.json"):
        pl.load(folder)


def test_weights_of_another_cut_are_an_error(folder, tmp_path):
    other = tiny_model()
    pl.prune_(other, random_plan(other, seed=8))
    pl.save(other, tmp_path / "other")
    (folder / "model.safetensors").write_bytes((tmp_path / "other" / "model.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match=r"model\.safetensors does not fit plan\.json"):
        pl.load(folder)


def test_a_missing_plan_is_an_error(folder):
    (folder / "plan.json").unlink()
    with pytest.raises(CheckpointError, match=r"no plan\.json"):
        pl.load(folder)


def test_a_folder_of_another_library_says_what_loads_it(tmp_path):
    tiny_model().save_pretrained(str(tmp_path))
    with pytest.raises(CheckpointError, match=r"plan\.json.*from_pretrained"):
        pl.load(tmp_path)


@pytest.mark.parametrize(
    ("files", "asked", "advice"),
    [
        (["recipe.yaml", "model/config.json"], ".", r"the folder of a run.*load\('{0}/model'\)"),
        # The plan of a run lies beside the models.
        (["recipe.yaml", "plan.json", "model/config.json"], ".", r"the folder of a run.*load\('{0}/model'\)"),
        (["recipe.yaml", "plan.json", "stages/score.json"], ".", r"without a model.*prunelora run --out {0}"),
        (["plan.json", "config.json", "model.safetensors"], ".", r"prunelora\.json is missing"),
        (["plan.json", "adapter_config.json", "adapter_model.safetensors"], ".", r"prunelora\.json is missing"),
        (["recipe.yaml", "stages/score.json"], ".", r"without a model.*prunelora run --out {0}"),
        (["recipe.yaml", "model/config.json", ".checkpoints/checkpoint-8/trainer_state.json"],
         ".checkpoints/checkpoint-8", r"a checkpoint of .*load\('{0}/model'\)"),
        (["recipe.yaml", "model/config.json", ".checkpoints/checkpoint-8/trainer_state.json"],
         ".checkpoints", r"a checkpoint of .*load\('{0}/model'\)"),
        (["adapter_config.json", "adapter_model.safetensors"], ".", r"peft\.PeftModel\.from_pretrained\(base, '{0}'\)"),
        (["recipe.yaml", "model.onnx", "model/config.json"], "model.onnx",
         r"InferenceSession\('{0}/model\.onnx'\); or load the model beside it: load\('{0}/model'\)"),
        (["model.onnx", "tokenizer.json"], ".", r"InferenceSession\('{0}/model\.onnx'\)\.$"),
        (["model.safetensors", "config.json"], "model.safetensors", r"a file\. Give its folder: load\('{0}'\)"),
        (["thesis.txt"], ".", r"holds thesis\.txt\. Give the folder that prunelora\.save wrote"),
    ],
)  # fmt: skip
def test_the_error_for_a_wrong_path_names_what_to_load(files, asked, advice, tmp_path):
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("{}")
    with pytest.raises(CheckpointError, match=advice.format(tmp_path)):
        pl.load(tmp_path / asked)


def test_a_pruned_model_is_no_model_to_start_from(folder):
    with pytest.raises(CheckpointError, match=r"prunelora\.load"):
        load_pretrained(folder, label_names=("a", "b"), problem_type="single_label_classification")


def test_a_missing_tokenizer_is_an_error(folder):
    with pytest.raises(CheckpointError, match="no tokenizer"):
        load_tokenizer(folder)


def test_a_pickle_is_never_loaded(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"not even a pickle")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
        pl.load(folder)
    (folder / "plan.json").unlink()
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
        load_pretrained(folder, label_names=("a", "b"), problem_type="single_label_classification")


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere"):
        pl.load(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="nowhere"):
        load_pretrained(tmp_path / "nowhere", label_names=("a",), problem_type="regression")


def test_an_encoder_with_weights_missing_is_an_error(tmp_path):
    from safetensors.torch import load_file, save_file

    tiny_model().save_pretrained(str(tmp_path))
    tensors = load_file(tmp_path / "model.safetensors")
    options = {"label_names": ("a", "b"), "problem_type": "single_label_classification"}
    save_file({k: v for k, v in tensors.items() if not k.startswith("classifier")}, tmp_path / "model.safetensors",
              metadata={"format": "pt"})  # fmt: skip
    assert load_pretrained(tmp_path, **options).num_labels == 2  # A head of three classes is replaced by one of two.
    gone = "bert.encoder.layer.1.output.dense.weight"
    save_file(
        {k: v for k, v in tensors.items() if k != gone}, tmp_path / "model.safetensors", metadata={"format": "pt"}
    )
    with pytest.raises(CheckpointError, match=r"bert\.encoder\.layer\.1"):
        load_pretrained(tmp_path, **options)


def test_a_hub_name_without_a_network_says_what_to_pass():
    with pytest.raises(CheckpointError, match="nobody/nothing"):
        load_pretrained("nobody/nothing", label_names=("a", "b"), problem_type="single_label_classification")
