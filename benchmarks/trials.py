"""Trials of the studies, one training of a recipe on a task with a seed each, and their records."""

import functools
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks.tasks import FOUR, TASKS, data_of

if TYPE_CHECKING:
    from prunelora.comparison.trials import Trial
    from prunelora.data.task import TaskData
    from prunelora.run.recipe import Recipe

Record = dict[str, Any]
METRIC = "accuracy"


class Trials:
    """All records of a study, in files RESULTS/TASK.json.

    A record has the fields of the library's `TrialFacts` (metrics, seconds by stage, resolved recipe, machine), the
    sizes of the model, the memory of its training steps, and under "cut" the metrics on the validation rows before the
    last cut, after it and after repair.
    """

    results: ClassVar[Path]  # The folder of a study.

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or self.results
        paths = [path for task in FOUR if (path := self.folder / f"{task}.json").exists()]
        contents = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
        self.records: list[Record] = [record for content in contents for record in content["trials"]]

    def add(self, record: Record) -> None:
        """Write a record; it replaces that of the same trial."""
        from prunelora.storage import write_json

        self.records = [one for one in self.records if key_of(one) != key_of(record)] + [record]
        same_task = sorted((one for one in self.records if one["task"] == record["task"]), key=key_of)
        content = {"format": "prunelora-trials-1", "task": record["task"], "trials": same_task}
        write_json(self.folder / f"{record['task']}.json", content)

    def of(self, task: str, method: str) -> list[Record]:
        """Records of a method on a task, by seed and learning rate."""
        return sorted((one for one in self.records if (one["task"], one["method"]) == (task, method)), key=key_of)

    def find(self, task: str, method: str, seed: int, learning_rate: float) -> Record | None:
        key = (task, method, seed, learning_rate)
        return next((one for one in self.records if key_of(one) == key), None)


def key_of(record: Record) -> tuple[str, str, int, float]:
    return record["task"], record["method"], record["seed"], record["learning_rate"]


def accuracy(record: Record) -> float:
    """Accuracy on the validation rows, in points."""
    return 100 * record["validation"][METRIC]


def reported(record: Record) -> float:
    """Accuracy on the reported rows, in points."""
    return 100 * record["test"]["test"][METRIC]


def training_memory(record: Record) -> int:
    """Bytes of a training step in the fine-tuning that needs the most."""
    parts = ("weights", "gradients", "optimizer", "saved")
    return max(one.get("training") or sum(one[part] for part in parts) for one in record["memory"].values())


def means_by_task(values: Iterable[tuple[str, float]]) -> list[float]:
    """Mean of each task's values."""
    by_task: dict[str, list[float]] = {}
    for task, value in values:
        by_task.setdefault(task, []).append(value)
    return [statistics.fmean(one) for one in by_task.values()]


def machines(records: Iterable[Record]) -> str:
    return ", ".join(sorted({record["machine"]["cpu"] for record in records}))


# Training -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Method:
    """A recipe of a study with some of its settings changed.

    Attributes:
        name: Unique in the study.
        title: What it does, or the question that it answers.
        path: The recipe file.
        changes: Settings that differ from the file's, by "STAGE.SETTING".
    """

    name: str
    title: str
    path: Path
    changes: Mapping[str, Any] = field(default_factory=dict)

    options: ClassVar[Mapping[str, Any]] = {}  # Options of all methods of a study, by bare name.

    @functools.cached_property
    def resolved(self) -> "Recipe":
        from prunelora.run.recipe import load_recipe

        return load_recipe(self.path).with_settings(self.changes)

    @property
    def learning_rate(self) -> float:
        """Learning rate of its longest fine-tuning."""
        return self.resolved.tunings[self.resolved.main_tuning].learning_rate

    def for_task(self, task: str, learning_rate: float) -> "Recipe":
        """Its recipe as it is trained on a task."""
        epochs = sum(tuning.epochs for tuning in self.resolved.tunings.values())
        recipe = self.resolved.in_proportion("epochs", TASKS[task].epochs, of=epochs)
        return recipe.in_proportion("learning_rate", learning_rate, of=self.learning_rate).with_options(self.options)


def trial_for(
    method: Method, task: str, *, learning_rate: float, seed: int, runs: Path, base: "Recipe | None" = None
) -> "Trial":
    """A trial of a method, in a folder below runs/TASK; its recipe file is written to runs/recipes/TASK.

    Args:
        base: Gives model and data; MiniLM and the task of GLUE if not given.
    """
    from prunelora.comparison.methods import load_methods
    from prunelora.comparison.trials import Trial
    from prunelora.run.recipe import Recipe
    from prunelora.storage import write_text

    path = runs / "recipes" / task / f"{method.name}.yaml"
    write_text(path, f"# {method.title}\n{method.for_task(task, learning_rate).to_yaml()}")
    (loaded,) = load_methods([str(path)], base=base or Recipe(model="minilm", task=data_of(task)))
    return Trial(loaded, learning_rate, seed, runs / task)


def train(trial: "Trial", task: str, rows: "TaskData", *, runs: Path) -> Record:
    """Run a trial and return its record; stages that another trial on the task has finished are not repeated."""
    from prunelora.comparison.timing import MEMORY_TOKENS, measure_memory
    from prunelora.comparison.trials import run_trial
    from prunelora.delivery.checkpoints import load
    from prunelora.evaluation.counting import macs, parameters
    from prunelora.models.anatomy import dissect
    from prunelora.planning.costs import block_macs
    from prunelora.run.folder import RunFolder

    facts = run_trial(trial, rows, store=runs / "store", tell=print)
    model = load(trial.folder / "model")
    kept, whole = dissect(model).architecture, dissect(model).lineage.base
    folder = RunFolder(trial.folder)
    stages = [record for name in trial.recipe.names if (record := folder.record(name)) is not None]
    return {
        "task": task,
        **facts.model_dump(mode="json"),
        "data": rows.facts,
        "parameters": parameters(model).total,
        "macs": macs(model, tokens=MEMORY_TOKENS).total,
        "dense_macs": block_macs(whole, tokens=MEMORY_TOKENS).total,
        "heads": [kept.total_heads, whole.total_heads],
        "neurons": [kept.total_neurons, whole.total_neurons],
        "heads_by_layer": list(kept.num_heads),
        "neurons_by_layer": list(kept.num_neurons),
        "memory": {"most": measure_memory(trial, rows).model_dump(mode="json")},
        "cut": cut_of([(record.stage, record.facts) for record in stages]),
    }


def cut_of(stages: Sequence[tuple[str, Mapping[str, Any]]]) -> Record | None:
    """Metrics on the validation rows around the last cut, from names and facts of stages; None without a cut."""
    before, cut = None, None
    for name, facts in stages:
        kind = name.partition("-")[0]
        if kind == "prune":
            after, unrepaired = facts["validation"], facts.get("validation_before_repair")
            cut = {"before": before, "cut": unrepaired or after, "repaired": after if unrepaired else None}
            before = after
        elif kind in ("linear_probe", "merge"):
            before = facts["validation"]
    return cut
