"""Incomplete, damaged or unsuitable model folders are refused before any weight is loaded."""

import json
import shutil

import pytest
import torch
from transformers import AutoModel, BertConfig, BertModel

import prunelora as pl
from prunelora.delivery.processors import load_tokenizer
from prunelora.errors import CheckpointError
from prunelora.models.loading import load_pretrained
from prunelora.models.source import check_source

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 6123456\n"
SIZES = {
    "hidden_size": 24, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 32, "vocab_size": 50,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    BertModel(BertConfig(**SIZES)).save_pretrained(str(tmp_path / "model"))
    return tmp_path / "model"


@pytest.fixture
def shards(tmp_path):
    BertModel(BertConfig(**SIZES)).save_pretrained(str(tmp_path / "shards"), max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("model-*.safetensors"))) > 1
    return tmp_path / "shards"


def load(folder):
    return load_pretrained(folder, label_names=("a", "b"), problem_type="single_label_classification")


def configure(folder, **changed):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_a_pointer_of_git_lfs_is_named(folder, file):
    (folder / file).write_text(POINTER)
    with pytest.raises(CheckpointError, match=rf"{file} .*git lfs pull"):
        check_source(folder)


def test_a_pointer_in_place_of_one_of_several_files_is_named(shards):
    last = sorted(shards.glob("model-*.safetensors"))[-1]
    last.write_text(POINTER)
    with pytest.raises(CheckpointError, match=rf"{last.name} .*git lfs pull"):
        check_source(shards)


def test_a_pointer_in_place_of_weights_that_are_not_read_does_not_matter(folder):
    alone = load(folder).state_dict()
    (folder / "consolidated.safetensors").write_text(POINTER)
    beside = load(folder).state_dict()
    assert alone.keys() == beside.keys()
    assert all(torch.equal(weight, beside[name]) for name, weight in alone.items())


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_weights_that_were_cut_off_are_an_error(folder, share):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        check_source(folder)


def test_weights_in_several_files_are_loaded_and_a_missing_one_is_named(shards):
    load(shards)
    last = sorted(shards.glob("model-*.safetensors"))[-1]
    last.unlink()
    with pytest.raises(CheckpointError, match=rf"1 are missing, first {last.name}"):
        check_source(shards)
    (shards / "model.safetensors.index.json").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors\.index\.json"):
        check_source(shards)


@pytest.mark.parametrize("content", ["{", "[1]", "\xff"])
def test_a_configuration_that_is_no_configuration_is_an_error(folder, content):
    (folder / "config.json").write_text(content, encoding="latin-1")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load(folder)


@pytest.mark.parametrize("value", [{"hidden_size": "24"}, {"model_type": "nothing"}, {"hidden_size": 25}])
def test_a_configuration_with_a_wrong_value_is_an_error(folder, value):
    configure(folder, **value)
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load(folder)


@pytest.mark.parametrize(
    "quantised",
    [
        {"quant_method": "bitsandbytes", "load_in_4bit": True}, {"quant_method": "gptq", "bits": 4},
        {"quant_method": "awq", "bits": 4}, {"quant_method": "fp8"}, {"quant_method": "of another day"}, {"bits": 4},
    ],
)  # fmt: skip
def test_quantised_weights_are_an_error_whether_their_package_is_installed_or_not(folder, quantised):
    configure(folder, quantization_config=quantised)
    with pytest.raises(CheckpointError, match="quantization_config"):
        load(folder)


def test_an_attention_that_is_not_installed_is_an_error_whose_advice_works(folder):
    configure(folder, attn_implementation="flash_attention_2")
    with pytest.raises(CheckpointError, match="attn_implementation='flash_attention_2'"):
        load(folder)
    content = json.loads((folder / "config.json").read_text())
    del content["attn_implementation"]
    (folder / "config.json").write_text(json.dumps(content))
    load(folder)


@pytest.mark.parametrize("size", [48, 64])
def test_an_embedding_of_another_size_than_the_configurations_is_an_error_whose_advice_works(folder, size):
    configure(folder, vocab_size=size)
    with pytest.raises(CheckpointError, match=rf"50 tokens in the weights and vocab_size={size}.*Set vocab_size=50"):
        load(folder)
    configure(folder, vocab_size=50)
    load(folder)


def test_padding_beyond_the_vocabulary_is_an_error(folder):
    configure(folder, pad_token_id=50)
    with pytest.raises(CheckpointError, match=r"pad_token_id=50 .*vocab_size=50"):
        load(folder)


def test_layers_that_the_configuration_does_not_have_are_an_error(folder):
    configure(folder, num_hidden_layers=1)
    with pytest.raises(CheckpointError, match=r"2 layers, and config\.json says 1"):
        load(folder)


def test_an_adapter_of_peft_is_no_model(tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "some/base"}')
    with pytest.raises(CheckpointError, match="some/base"):
        check_source(tmp_path)


def test_a_pruned_model_and_the_folder_of_a_run_are_no_dense_model(folder, tmp_path):
    model = load(folder)
    pl.prune_(model, pl.make_plan(pl.score(model, criterion="magnitude"), keep_heads=0.5))
    pl.save(model, tmp_path / "run" / "model")
    with pytest.raises(CheckpointError, match=r"prunelora\.load"):
        load(tmp_path / "run" / "model")
    (tmp_path / "run" / "recipe.yaml").write_text("format: prunelora-recipe-1")
    with pytest.raises(CheckpointError, match="folder of a run"):
        check_source(tmp_path / "run")


def test_a_model_in_a_folder_further_down_is_pointed_out(folder):
    with pytest.raises(CheckpointError, match=f"Did you mean {folder}"):
        check_source(folder.parent)


@pytest.mark.parametrize("file", ["pytorch_model.bin", "tf_model.h5", "model.gguf", "model.fp16.safetensors"])
def test_weights_of_another_kind_are_an_error_that_names_them(folder, file):
    (folder / "model.safetensors").rename(folder / file)
    with pytest.raises(CheckpointError, match=f"expected model.safetensors, found .*{file}"):
        check_source(folder)


def test_the_advice_for_a_pickle_works(folder):
    model = AutoModel.from_pretrained(str(folder))
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"model\.save_pretrained"):
        load(folder)
    AutoModel.from_pretrained(str(folder)).save_pretrained(str(folder))
    load(folder)


@pytest.mark.parametrize("content", [POINTER, "{}", '{"model": {', ""])
def test_a_tokenizer_that_is_damaged_is_an_error(tmp_path, minilm_path, content):
    shutil.copytree(minilm_path, tmp_path / "model")
    (tmp_path / "model" / "tokenizer.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"git-lfs|tokenizer"):
        load_tokenizer(tmp_path / "model")


def test_a_tokenizer_without_its_vocabulary_is_an_error(tmp_path, minilm_path):
    """It would be loaded, and know no word."""
    shutil.copytree(minilm_path, tmp_path / "model")
    for file in ("tokenizer.json", "vocab.txt"):
        (tmp_path / "model" / file).unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json, vocab\.txt"):
        load_tokenizer(tmp_path / "model")
