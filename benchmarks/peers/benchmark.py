"""The benchmark as a whole: its model, its tasks, its budget, and where everything lies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.peers.contenders import Contender
from prunelora.comparison.methods import load_methods
from prunelora.comparison.trials import Trial, trial_of
from prunelora.data.settings import DataSettings
from prunelora.recipe import Recipe


@dataclass(frozen=True)
class Benchmark:
    """What is run, and where it lies.

    Attributes:
        model: Pretrained model that all start from.
        tasks: Data by task.
        epochs: Passes over the training rows in all, by task; recipes that tune twice share them out.
        runs: Folder of the trainings.
        results: Folder of the results.
        rates: Learning rate by task and recipe, where one was chosen; else the recipe's own.
        donors: Folders of other comparisons by task: what trainings there have done is not done again.
        keep_macs: Budget of every cut, of the dense model's MACs.
        settings: Further settings, for every recipe that has them; in a test they make it small.
    """

    model: str
    tasks: Mapping[str, DataSettings]
    epochs: Mapping[str, float]
    runs: Path
    results: Path
    rates: Mapping[tuple[str, str], float] = field(default_factory=dict)
    donors: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    keep_macs: float = 0.5
    settings: Mapping[str, Any] = field(default_factory=dict)

    def cell(self, task: str, contender: Contender, seed: int) -> Trial:
        """A contender on a task with a seed, and its run folder."""
        changes: dict[str, Any] = {"epochs": self.epochs[task], **contender.settings}
        if contender.cut_by is not None:
            changes["plan.keep_macs"] = self.keep_macs
        base = Recipe(model=self.model, task=self.tasks[task])
        method = load_methods([contender.recipe], base=base, changes=changes)[0]
        own = {key: value for key, value in self.settings.items() if method.recipe.has_option(key)}
        if (task, contender.recipe) in self.rates:
            own["learning_rate"] = self.rates[task, contender.recipe]
        method = replace(method, name=contender.name, title=contender.title, recipe=method.recipe.with_options(own))
        return trial_of(method, method.learning_rate, seed, out=self.runs / task)

    def share_with(self, task: str) -> tuple[Path, ...]:
        """Folders of comparisons whose trainings may have done the first stages of one here."""
        return self.runs / task, *self.donors.get(task, ())

    def command(self, task: str, contender: str, seeds: str) -> str:
        """What makes a cell."""
        return f"python -m benchmarks.peers --tasks {task} --methods {contender} --seeds {seeds}"
