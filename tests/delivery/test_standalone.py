"""A saved model loads with transformers alone, by the modelling file beside it."""

import json
import os
import subprocess
import textwrap
import venv
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny import language_model, largest_difference, logits, random_plan, tiny_batch, tiny_model

import prunelora as pl
from prunelora.delivery.processors import load_tokenizer
from prunelora.delivery.standalone import MODULE, auto_classes, own_auto_class
from prunelora.models.families import FAMILIES
from prunelora.models.loading import load_pretrained

WRITING = ("gpt2", "bart", "t5")
LOAD = """
    import sys
    from pathlib import Path

    import torch
    import transformers
    from safetensors.torch import load_file, save_file

    try:
        import prunelora
    except ImportError:
        pass
    else:
        raise SystemExit("prunelora is here")

    for auto, folder in (argument.split("=") for argument in sys.argv[1:]):
        auto, folder = getattr(transformers, auto), Path(folder)
        batch = load_file(folder / "batch.safetensors")
        model = auto.from_pretrained(folder, trust_remote_code=True, dtype=torch.float64).eval()
        base = transformers.AutoModel.from_pretrained(folder, trust_remote_code=True, dtype=torch.float64).eval()
        with torch.no_grad():
            found = {"logits": model(**batch).logits, "hidden": base(**batch).last_hidden_state}
        save_file(found, folder / "found.safetensors")
        model.save_pretrained(folder / "again")
        again = auto.from_pretrained(folder / "again", trust_remote_code=True, dtype=torch.float64).eval()
        with torch.no_grad():
            assert torch.equal(again(**batch).logits, found["logits"])
"""


def pruned(family: str):
    model = tiny_model(family)
    return pl.prune_(model, random_plan(model))


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory):
    """An interpreter that has what is installed here, but for prunelora: packages installed in place are not found."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=False)
    packages = Path(torch.__file__).parents[1]
    site = next((folder / "lib").glob("python*/site-packages"))
    (site / "others.pth").write_text(f"{packages}\n")
    python = folder / "bin" / "python"
    if subprocess.run([python, "-c", "import prunelora"], capture_output=True, env=clean(folder)).returncode == 0:
        pytest.skip("prunelora is installed among the packages, not in place: there is no interpreter without it")
    return python


def clean(home: Path) -> dict[str, str]:
    own = {"HF_HOME": str(home / "hf"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | own


def test_it_loads_with_the_same_logits_where_prunelora_is_not(bare_python, tmp_path):
    models = {name: pruned(name) for name in FAMILIES}
    batches = {name: tiny_batch(family=name) for name in FAMILIES}
    for name in WRITING:
        model = language_model(name)
        models[f"{name} that writes"] = pl.prune_(model, random_plan(model))
        batches[f"{name} that writes"] = batches[name]
    inputs = {name: {key: batch[key] for key in batch if key != "labels"} for name, batch in batches.items()}
    for name, model in models.items():
        if model.config.is_encoder_decoder:
            # T5's base model does not make them itself.
            inputs[name]["decoder_input_ids"] = inputs[name]["input_ids"].clone()
        save_file(inputs[name], pl.save(model, tmp_path / name) / "batch.safetensors")
    script = tmp_path / "load.py"
    script.write_text(textwrap.dedent(LOAD))
    folders = [f"{own_auto_class(model)}={tmp_path / name}" for name, model in models.items()]
    done = subprocess.run([bare_python, script, *folders], capture_output=True, text=True, env=clean(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    for name, model in models.items():
        found = load_file(tmp_path / name / "found.safetensors")
        assert largest_difference(found["logits"], logits(model, inputs[name])) < 1e-12, name
        if model.base_model is model:
            continue  # T5 that writes holds encoder and decoder itself.
        with torch.no_grad():
            hidden = model.base_model(**inputs[name]).last_hidden_state
        assert largest_difference(found["hidden"], hidden) < 1e-12, name


def test_every_class_that_is_named_is_in_the_modelling_file(family, tmp_path):
    model = pruned(family)
    folder = pl.save(model, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    source = (folder / f"{MODULE}.py").read_text()
    assert dict(auto_classes(model))[own_auto_class(model)] == type(model).__name__
    assert set(config["auto_map"]) == {"AutoConfig"} | set(dict(auto_classes(model)))
    for named in config["auto_map"].values():
        module, name = named.split(".")
        assert (module, f"class {name}(transformers.{name.removeprefix('Pruned')}):" in source) == (MODULE, True)
    compile(source, "modelling file", "exec")
    assert "import prunelora" not in source
    assert "from prunelora" not in source


def test_without_trust_the_file_is_not_run_and_nothing_wrong_is_loaded(tmp_path):
    folder = pl.save(pruned("bert"), tmp_path / "model")
    (folder / f"{MODULE}.py").write_text("raise SystemExit('was run')")
    with pytest.raises(ValueError, match="pass the argument `trust_remote_code=True`"):
        transformers.AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=False)


def _sentence_transformers(name: str):
    return lambda folder, **options: getattr(pytest.importorskip("sentence_transformers"), name)(
        str(folder), device="cpu", **options
    )


LOADERS = {
    "AutoModel": transformers.AutoModelForSequenceClassification.from_pretrained,
    "pipeline": lambda folder, **options: transformers.pipeline("text-classification", str(folder), **options),
    "SentenceTransformer": _sentence_transformers("SentenceTransformer"),
    "CrossEncoder": _sentence_transformers("CrossEncoder"),
}


@pytest.fixture(scope="module")
def minilm_folder(minilm_path, tmp_path_factory):
    model = load_pretrained(minilm_path, label_names=("bad", "good"), problem_type="single_label_classification")
    pl.prune_(model, pl.make_plan(pl.score(model, criterion="magnitude"), keep_heads=0.5, keep_ffn=0.5))
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(minilm_path))
    return pl.save(model, tmp_path_factory.mktemp("standalone") / "model", tokenizer=tokenizer)


@pytest.mark.parametrize("loader", LOADERS)
def test_others_say_in_a_sentence_that_trust_is_needed_and_load_with_it(loader, minilm_folder, capfd):
    with pytest.raises(ValueError, match="pass the argument `trust_remote_code=True`"):
        LOADERS[loader](minilm_folder)
    assert "MISMATCH" not in "".join(capfd.readouterr())
    model, text = LOADERS[loader](minilm_folder, trust_remote_code=True), "a gripping film"
    tokens = load_tokenizer(minilm_folder)(text, return_tensors="pt")
    small = pl.load(minilm_folder)
    with torch.no_grad():
        wanted, hidden = small(**tokens).logits[0], small.base_model(**tokens).last_hidden_state[0]
    if loader == "AutoModel":
        assert torch.equal(logits(model.eval(), tokens)[0], wanted)
    elif loader == "pipeline":
        assert model(text)[0]["score"] == pytest.approx(float(wanted.softmax(-1).max()), rel=1e-4)
    elif loader == "SentenceTransformer":
        assert largest_difference(torch.as_tensor(model.encode([text])[0]), hidden.mean(0)) < 1e-4
    else:
        pair = load_tokenizer(minilm_folder)(text, "a dull film", return_tensors="pt")
        assert largest_difference(torch.as_tensor(model.predict([(text, "a dull film")])), logits(small, pair)) < 1e-4


def test_a_folder_of_an_earlier_version_which_has_the_familys_own_type_loads(tmp_path):
    model = pruned("bert")
    folder = pl.save(model, tmp_path / "model")
    content = json.loads((folder / "config.json").read_text())
    assert content["model_type"] == "prunelora-bert"
    content["model_type"] = "bert"
    del content["auto_map"]["AutoConfig"]
    (folder / "config.json").write_text(json.dumps(content))
    assert torch.equal(logits(pl.load(folder), tiny_batch()), logits(model, tiny_batch()))


def test_our_tokenizer_is_loaded_without_a_question_about_the_modelling_file(minilm_folder, minilm_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda _: pytest.fail("asked"))
    stock, tokenizer = transformers.AutoTokenizer.from_pretrained(str(minilm_path)), load_tokenizer(minilm_folder)
    assert type(tokenizer) is type(stock)
    assert tokenizer("a gripping film").input_ids == stock("a gripping film").input_ids
    # transformers alone finds the same one, and runs nothing for it where that is declined.
    alone = transformers.AutoTokenizer.from_pretrained(minilm_folder, trust_remote_code=False)
    assert type(alone) is type(stock)


def test_what_the_file_built_is_told_to_be_loaded_by_us(tmp_path):
    model = pruned("bert")
    pl.save(model, tmp_path / "saved")
    model.config = transformers.AutoConfig.from_pretrained(tmp_path / "saved", trust_remote_code=True)
    with pytest.raises(pl.PruneLoraError, match=r"Load it with prunelora.load\(folder\)"):
        pl.score(model, [tiny_batch()])
    found = pl.score(pl.load(tmp_path / "saved"), [tiny_batch()])
    assert [len(scores) for scores in found.heads] == [len(heads) for heads in model.prunelora_plan.heads]


def test_loading_by_us_neither_needs_nor_runs_the_file(tmp_path):
    model = pruned("bert")
    folder = pl.save(model, tmp_path / "model")
    (folder / f"{MODULE}.py").write_text("raise SystemExit('was run')")
    again = pl.load(folder)
    assert torch.equal(logits(again, tiny_batch()), logits(model, tiny_batch()))
    assert not hasattr(again.config, "auto_map")
    assert not hasattr(again.config, "prunelora")
