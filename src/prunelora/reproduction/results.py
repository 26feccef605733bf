"""Results of a reproduction, task by task, as its folder holds them."""

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Final

from prunelora.comparison.results import ComparisonResults, MethodFacts, load_comparison
from prunelora.data.embedded import EMBEDDED_MODEL
from prunelora.errors import PruneLoraError, RecipeError, one_of, option
from prunelora.importance.importance import Importance
from prunelora.planning.plan import Plan
from prunelora.reproduction import paper
from prunelora.reproduction.counts import Counts, bert_base_counts, counts_of
from prunelora.storage import write_json

FORMAT: Final = "prunelora-reproduce-2"
SETTINGS: Final = "reproduce.json"
COMPARISON: Final = "comparison.json"


@dataclass(frozen=True)
class TaskSettings:
    """Settings of a task that its comparison does not record.

    Attributes:
        preset: Name of the preset; empty if the comparison was made without `reproduce`.
        train_head: Whether the task head was trained.
        note: What differs from GLUE's official files; empty if nothing does.
    """

    preset: str = ""
    train_head: bool = True
    note: str = ""


@dataclass(frozen=True)
class TaskOutcome:
    """Results of one task.

    Attributes:
        comparison: Results of the methods; None if the task was not run.
        importance: Scores of Prune-LoRA's first seed; None if they were not kept.
        plan: The plan made from them.
    """

    task: str
    settings: TaskSettings = field(default_factory=TaskSettings)
    comparison: ComparisonResults | None = None
    importance: Importance | None = None
    plan: Plan | None = None

    @property
    def note(self) -> str:
        """What differs from GLUE's official files; empty if nothing does."""
        return self.settings.note

    @property
    def split(self) -> str:
        """The reported rows that the paper's numbers are compared with: the first split, for MNLI the matched one."""
        return self.comparison.splits[0] if self.comparison is not None else "test"

    def method(self, name: str) -> MethodFacts | None:
        """Returns a method's results; None if the method or the task was not run."""
        return self.comparison.method(name) if self.comparison is not None else None

    def accuracy(self, method: str) -> float | None:
        """Returns a method's mean accuracy on `split`."""
        facts = self.method(method)
        quality = facts.quality.get(self.split, {}).get("accuracy") if facts is not None else None
        return quality.mean if quality is not None else None

    def majority_rate(self, split: str | None = None) -> float | None:
        """Returns the accuracy of always answering the most frequent class of the training rows."""
        if self.comparison is None:
            return None
        rate = self.comparison.task["majority_rate"].get(split or self.split)
        return None if rate is None else float(rate)


@dataclass(frozen=True)
class Reproduction:
    """The paper's numbers and ours.

    Attributes:
        model: Name or path of the trained model.
        seeds: Of the runs.
        tasks: In the paper's order, with those that were not run.
        papers_counts: Parameter counts of the paper's model.
        own_counts: Parameter counts of the trained model; None if its configuration is not available.
    """

    model: str
    seeds: tuple[int, ...]
    tasks: tuple[TaskOutcome, ...]
    papers_counts: Counts
    own_counts: Counts | None

    @property
    def is_papers_model(self) -> bool:
        """Whether the trained model is the paper's."""
        return Path(self.model).name == paper.MODEL

    @property
    def label(self) -> str:
        """Name of the trained model on the page."""
        return "MiniLM, embedded" if self.model == EMBEDDED_MODEL else Path(self.model).name

    @property
    def done(self) -> tuple[TaskOutcome, ...]:
        """Tasks that were run."""
        return tuple(task for task in self.tasks if task.comparison is not None)

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the tasks that were not run."""
        return tuple(task.task for task in self.tasks if task.comparison is None)

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of all methods that were run; the paper's if there are none."""
        facts = (method for task in self.tasks if task.comparison for method in task.comparison.methods)
        return tuple(dict.fromkeys(method.name for method in facts)) or paper.METHODS


def read(out: Path | str, *, notes: Mapping[str, str] | None = None) -> Reproduction:
    """Read finished comparisons from `out`/TASK, without training.

    Args:
        out: Folder of a reproduction, or any folder with comparisons in folders named after the tasks.
        notes: What differs from GLUE's official files, by task; replaces the stored note.

    Raises:
        RecipeError: If there is no finished comparison, a file cannot be read, the comparisons are of different models,
            or a note names none of the paper's tasks.
    """
    out = Path(out)
    check_tasks("notes", notes or {})
    settings = {task: TaskSettings() for task in paper.TASKS} | _settings(out)
    settings |= {task: replace(settings[task], note=note) for task, note in (notes or {}).items()}
    tasks = tuple(_task(out / task, task, settings[task]) for task in paper.TASKS)
    comparisons = [task.comparison for task in tasks if task.comparison is not None]
    if not comparisons:
        raise RecipeError(
            f"{out}: no finished comparison there. Expected {COMPARISON} in folders named {', '.join(paper.TASKS)}. "
            "Run prunelora reproduce first."
        )
    models = sorted({comparison.model for comparison in comparisons})
    if len(models) > 1:
        raise RecipeError(
            f"{out}: the comparisons are of different models: {', '.join(models)}. Give each model its own folder."
        )
    return Reproduction(
        model=models[0],
        seeds=tuple(dict.fromkeys(seed for comparison in comparisons for seed in comparison.seeds)),
        tasks=tasks,
        papers_counts=bert_base_counts(),
        own_counts=counts_of(models[0]),
    )


def check_tasks(option_name: str, names: Iterable[str]) -> None:
    """Raises RecipeError, with the option's name, if a name is none of the paper's tasks."""
    unknown = [name for name in names if name not in paper.TASKS]
    if unknown:
        raise RecipeError(
            f"{option(option_name)}: {unknown[0]!r} is none of the paper's tasks.{one_of(unknown[0], paper.TASKS)}"
        )


@contextlib.contextmanager
def settings_kept(out: Path, task: str, settings: TaskSettings) -> Iterator[None]:
    """Store the settings of a task while the block runs it.

    They are stored first, since a stopped task leaves partial results. If the block fails and the results have not
    changed, the previous settings are restored.
    """
    previous, results = _settings(out), _content(out / task / COMPARISON)
    _write_settings(out, previous | {task: settings})
    try:
        yield
    except BaseException:
        if results is not None and _content(out / task / COMPARISON) == results:
            _write_settings(out, previous)
        raise


def _write_settings(out: Path, settings: Mapping[str, TaskSettings]) -> None:
    tasks = {task: asdict(task_settings) for task, task_settings in settings.items()}
    write_json(out / SETTINGS, {"format": FORMAT, "tasks": tasks})


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _settings(out: Path) -> dict[str, TaskSettings]:
    path = out / SETTINGS
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"expected the format {FORMAT!r}, found {content['format']!r}")
        known = {entry.name for entry in fields(TaskSettings)}  # Earlier versions stored a command too.
        return {
            task: TaskSettings(**{name: value for name, value in stored.items() if name in known})
            for task, stored in content["tasks"].items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise RecipeError(
            f"{path}: cannot be read ({error}). Remove it: the comparisons stay; their presets and notes are lost."
        ) from error


def _task(folder: Path, task: str, settings: TaskSettings) -> TaskOutcome:
    if not (folder / COMPARISON).exists():
        return TaskOutcome(task, settings)
    comparison = load_comparison(folder / COMPARISON)
    return TaskOutcome(task, settings, comparison, *_scores(folder, comparison))


def _scores(folder: Path, comparison: ComparisonResults) -> tuple[Importance | None, Plan | None]:
    """Scores and plan of Prune-LoRA's first seed; None if the trials were not kept beside the results."""
    method = comparison.method("prune-lora")
    if method is None:
        return None, None
    for trials in ("trials", "cells"):  # Earlier versions called trials cells.
        trial = folder / trials / method.name / f"lr-{method.learning_rate:g}" / f"seed-{method.seeds[0]}"
        with contextlib.suppress(PruneLoraError):
            return Importance.load(trial / "importance.safetensors"), Plan.load(trial / "plan.json")
    return None, None
