"""What a reproduction found, task by task, as it is kept in its folder."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from prunelora.comparison.results import ComparisonResults, MethodFacts, load_comparison
from prunelora.data.embedded import EMBEDDED_MODEL
from prunelora.errors import PruneLoraError, RecipeError
from prunelora.importance.importance import Importance
from prunelora.planning.plan import Plan
from prunelora.reproduction import paper
from prunelora.reproduction.counts import Counts, bert_base_counts, counts_of
from prunelora.storage import write_json

FORMAT: Final = "prunelora-reproduce-1"
SETTINGS: Final = "reproduce.json"
COMPARISON: Final = "comparison.json"


@dataclass(frozen=True)
class TaskOutcome:
    """One task.

    Attributes:
        task: Its name.
        note: What is special about its files; empty if nothing is.
        comparison: What the methods reached; None if it was not run.
        importance: Scores of the first seed; None if they are not at hand.
        plan: What was cut by them.
    """

    task: str
    note: str = ""
    comparison: ComparisonResults | None = None
    importance: Importance | None = None
    plan: Plan | None = None

    def method(self, name: str) -> MethodFacts | None:
        """A method's facts; None if it, or the whole task, was not run."""
        return self.comparison.method(name) if self.comparison is not None else None

    @property
    def split(self) -> str:
        """The reported rows that stand beside the paper's: the first split, which is MNLI's matched one."""
        return self.comparison.splits[0] if self.comparison is not None else "test"

    def accuracy(self, method: str) -> float | None:
        """A method's mean accuracy on `split`."""
        facts = self.method(method)
        figure = facts.quality.get(self.split, {}).get("accuracy") if facts is not None else None
        return figure.mean if figure is not None else None

    @property
    def majority_rate(self) -> float | None:
        """What always answering the most frequent class of the training rows gets on `split`."""
        return self.comparison.task["majority_rate"].get(self.split) if self.comparison is not None else None


@dataclass(frozen=True)
class Reproduction:
    """The paper's numbers and ours.

    Attributes:
        model: Name or path of the model that was trained.
        preset: Name of the settings; empty where the comparisons were made by hand.
        train_head: Whether the task head was trained.
        seeds: Of the runs.
        tasks: In the paper's order, those that were not run too.
        papers_counts: Parameters of the paper's model.
        own_counts: Parameters of the model that was trained; None where its configuration is not at hand.
        command: What makes the page again.
    """

    model: str
    preset: str
    train_head: bool
    seeds: tuple[int, ...]
    tasks: tuple[TaskOutcome, ...]
    papers_counts: Counts
    own_counts: Counts | None
    command: str

    @property
    def is_papers_model(self) -> bool:
        """Whether the model that was trained is the paper's."""
        return Path(self.model).name == paper.MODEL

    @property
    def label(self) -> str:
        """The model that was trained, as every table and figure names it."""
        return "MiniLM, embedded" if self.model == EMBEDDED_MODEL else Path(self.model).name

    @property
    def done(self) -> tuple[TaskOutcome, ...]:
        """Tasks that were run."""
        return tuple(one for one in self.tasks if one.comparison is not None)

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the tasks that were not run."""
        return tuple(one.task for one in self.tasks if one.comparison is None)

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of all methods that were run."""
        return tuple(
            dict.fromkeys(method.name for one in self.tasks if one.comparison for method in one.comparison.methods)
        )


def read(out: Path | str, *, notes: Mapping[str, str] | None = None, command: str | None = None) -> Reproduction:
    """Read finished comparisons, one a task, from `out`/TASK; nothing is run.

    Args:
        out: Folder of a reproduction; or any folder with comparisons in folders of the tasks' names.
        notes: What is special about a task's files, by task, in place of what was noted when they were run.
        command: What makes the page again, in place of what was noted.

    Raises:
        RecipeError: If there is no finished comparison, one cannot be read, or they are of different models.
    """
    out = Path(out)
    settings = _settings(out)
    said = {**settings.get("notes", {}), **(notes or {})}
    tasks = tuple(_task(out / task, task, said.get(task, "")) for task in paper.TASKS)
    found = [one.comparison for one in tasks if one.comparison is not None]
    if not found:
        raise RecipeError(
            f"{out}: no finished comparison there. Expected {COMPARISON} in folders called {', '.join(paper.TASKS)}. "
            "Run prunelora reproduce first."
        )
    models = sorted({one.model for one in found})
    if len(models) > 1:
        raise RecipeError(
            f"{out}: the comparisons are of different models: {', '.join(models)}. One page is about one model: "
            "give each its own folder."
        )
    return Reproduction(
        model=models[0],
        preset=str(settings.get("preset", "")),
        train_head=bool(settings.get("train_head", True)),
        seeds=tuple(dict.fromkeys(seed for one in found for seed in one.seeds)),
        tasks=tasks,
        papers_counts=bert_base_counts(),
        own_counts=counts_of(models[0]),
        command=command or str(settings.get("command", "")) or f"prunelora reproduce --out {out}",
    )


def write_settings(out: Path, *, preset: str, train_head: bool, notes: Mapping[str, str], command: str) -> None:
    """Keep what the comparisons themselves do not say."""
    write_json(
        out / SETTINGS,
        {"format": FORMAT, "preset": preset, "train_head": train_head, "notes": dict(notes), "command": command},
    )


def _settings(out: Path) -> dict[str, Any]:
    path = out / SETTINGS
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path}: cannot be read ({error}). Remove it, or run prunelora reproduce again.") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise RecipeError(f"{path}: is not what prunelora reproduce writes, expected the format {FORMAT!r}.")
    return content


def _task(folder: Path, task: str, note: str) -> TaskOutcome:
    path = folder / COMPARISON
    if not path.exists():
        return TaskOutcome(task, note)
    comparison = load_comparison(path)
    importance, plan = _scores(folder, comparison)
    return TaskOutcome(task, note, comparison, importance, plan)


def _scores(folder: Path, comparison: ComparisonResults) -> tuple[Importance | None, Plan | None]:
    """Scores and plan of Prune-LoRA's first seed; none where the cells were not kept beside the results."""
    method = comparison.method("prune-lora")
    if method is None:
        return None, None
    cell = folder / "cells" / method.name / f"lr-{method.learning_rate:g}" / f"seed-{method.seeds[0]}"
    try:
        return Importance.load(cell / "importance.safetensors"), Plan.load(cell / "plan.json")
    except PruneLoraError:
        return None, None
