"""Messages for paths that `load` cannot read: what is there, and what to load instead."""

from pathlib import Path

# Files that identify other folders.
_OF_RUN, _OF_PEFT, _OF_CHECKPOINT = "recipe.yaml", "adapter_config.json", "trainer_state.json"
_CONFIG = "config.json"
_MODEL, _PLAN = "model", "plan.json"


def describe(path: Path) -> str:
    """Describe a path that `save` did not write, and what to load instead.

    Args:
        path: An existing file or folder.
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
            f"the folder of a run without a model: its stage 'merge' is not finished. Continue it: prunelora run --out "
            f"{path}."
        )
    checkpoints = sorted(name for name in names if name.startswith("checkpoint-"))
    if _OF_CHECKPOINT in names or checkpoints:
        run = next((folder for folder in path.resolve().parents if (folder / _OF_RUN).exists()), None)
        return (
            "a checkpoint of an unfinished training, which the same command continues"
            f"{_or_load(run) if run is not None else ''}."
        )
    if _PLAN in names and names.intersection((_CONFIG, _OF_PEFT)):
        return "an incomplete folder of prunelora.save: prunelora.json is missing. Copy the whole folder again."
    if _OF_PEFT in names:
        return (
            "an adapter that prunelora.save did not write: there is no plan.json with the heads and neurons of its "
            f"base. Load it with peft.PeftModel.from_pretrained(base, {str(path)!r})."
        )
    exported = sorted(name for name in names if name.endswith(".onnx"))
    if exported and _CONFIG not in names:
        return describe(path / exported[0])
    if _CONFIG in names:
        return (
            "a folder without plan.json, which lists the heads and neurons of a pruned model. A model that is not "
            f"pruned loads with transformers' from_pretrained({str(path)!r}); save a pruned model with prunelora.save."
        )
    content = ", ".join(sorted(names)[:5]) or "nothing"
    return f"no folder of a model: it holds {content}. Give the folder that prunelora.save wrote."


def _or_load(folder: Path) -> str:
    if not (folder / _MODEL).is_dir():
        return ""
    return f"; or load the model beside it: load({str(folder / _MODEL)!r})"
