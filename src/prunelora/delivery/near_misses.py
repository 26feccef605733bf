"""Folders and files that are not what `load` reads, and what to load in their place."""

from pathlib import Path

# Files by which other folders are known.
_OF_RUN, _OF_PEFT, _OF_CHECKPOINT = "recipe.yaml", "adapter_config.json", "trainer_state.json"
_CONFIG = "config.json"
_MODEL, _PLAN = "model", "plan.json"


def instead_of(path: Path) -> str:
    """Say what a path is that `save` did not write, and what to do, for an error message.

    Args:
        path: A file or a folder, which exists.
    """
    if path.suffix == ".onnx":
        return f"an exported model. Open it with onnxruntime.InferenceSession({str(path)!r}){_or_load(path.parent)}."
    if path.is_file():
        return f"a file. Give its folder: load({str(path.parent)!r})."
    names = {file.name for file in path.iterdir()}
    if _OF_RUN in names:
        if (path / _MODEL).is_dir():
            return f"the folder of a run. Load the model in it: load({str(path / _MODEL)!r})."
        return (
            f"the folder of a run that has no model yet: its stage 'merge' is not done. Go on with it: prunelora run "
            f"--out {path}."
        )
    checkpoints = sorted(name for name in names if name.startswith("checkpoint-"))
    if _OF_CHECKPOINT in names or checkpoints:
        run = next((folder for folder in path.resolve().parents if (folder / _OF_RUN).exists()), None)
        return (
            "a checkpoint of a training that is not finished, from which the same command goes on"
            f"{_or_load(run) if run is not None else ''}."
        )
    if _PLAN in names and names.intersection((_CONFIG, _OF_PEFT)):
        return "a part of a folder that prunelora.save wrote: prunelora.json is missing. Copy the whole folder again."
    if _OF_PEFT in names:
        return (
            "an adapter that prunelora.save did not write: there is no plan.json that says which heads and neurons its "
            f"base has. Put it on its base with peft.PeftModel.from_pretrained(base, {str(path)!r})."
        )
    exported = sorted(name for name in names if name.endswith(".onnx"))
    if exported and _CONFIG not in names:
        return instead_of(path / exported[0])
    if _CONFIG in names:
        return (
            "a folder with no plan.json there, so which heads and neurons the weights are is not known. A model that "
            f"prunelora has not cut loads with transformers' from_pretrained({str(path)!r}); one that it has cut must "
            "be saved with prunelora.save."
        )
    found = ", ".join(sorted(names)[:5]) or "nothing"
    return f"no folder of a model: it holds {found}. Give the folder that prunelora.save wrote."


def _or_load(folder: Path) -> str:
    if not (folder / _MODEL).is_dir():
        return ""
    return f"; or load the model beside it: load({str(folder / _MODEL)!r})"
