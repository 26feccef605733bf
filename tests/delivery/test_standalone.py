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
from prunelora.delivery.standalone import MODULE, auto_classes, own_auto_class
from prunelora.models.families import FAMILIES

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
    assert set(config["auto_map"]) == set(dict(auto_classes(model)))
    for named in config["auto_map"].values():
        module, name = named.split(".")
        assert (module, f"class {name}(transformers.{name.removeprefix('Pruned')}):" in source) == (MODULE, True)
    compile(source, "modelling file", "exec")
    assert "import prunelora" not in source
    assert "from prunelora" not in source


def test_without_trust_the_file_is_not_run_and_nothing_wrong_is_loaded(tmp_path):
    folder = pl.save(pruned("bert"), tmp_path / "model")
    (folder / f"{MODULE}.py").write_text("raise SystemExit('was run')")
    with pytest.raises(RuntimeError, match="mismatched"):
        transformers.AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=False)


def test_what_the_file_built_is_told_to_be_loaded_by_us(tmp_path):
    model = pruned("bert")
    pl.save(model, tmp_path / "saved")
    model.config = transformers.AutoConfig.from_pretrained(tmp_path / "saved")
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
