"""Whether a record of a study was trained as a method of the study says."""

import yaml

from benchmarks.tasks import TASKS


def trained_as(method, record, kinds=()):
    """Whether a record has all settings that the method's recipe file or its changes state, on the record's task.

    Defaults of the library, which later versions may change, are not compared.

    Args:
        kinds: Kinds of stages to compare; all if empty.
    """
    if record["recipe"]["task"]["max_train_rows"] != TASKS[record["task"]].max_train_rows:
        return False
    recipe = method.for_task(record["task"], record["learning_rate"])
    written = yaml.safe_load(method.path.read_text(encoding="utf-8"))["stages"]
    stated = [
        {key: stage[key] for key in (*own, *(key for key in stage if f"{name}.{key}" in method.changes))}
        for name, own, stage in zip(recipe.names, written, recipe.model_dump(mode="json")["stages"], strict=True)
    ]
    recorded = [stage for stage in record["recipe"]["stages"] if stage["stage"] != "evaluate"]
    if kinds:
        stated, recorded = ([one for one in some if one["stage"] in kinds] for some in (stated, recorded))
    return len(stated) == len(recorded) and all(
        found.get(key) == value for own, found in zip(stated, recorded, strict=True) for key, value in own.items()
    )
