"""What a reproduction found, task by task, as it is kept in its folder."""

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
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

_WITHOUT = "Remove it: the comparisons stay, and the names of their presets, the commands and the notes are lost."


@dataclass(frozen=True)
class TaskSettings:
    """What a task's comparison itself does not say of how it was run.

    Attributes:
        preset: Name of the settings; empty where the comparison was made by hand.
        train_head: Whether the task head was trained.
        note: What is special about its files; empty if nothing is.
        command: What ran it; empty where that is not known.
    """

    preset: str = ""
    train_head: bool = True
    note: str = ""
    command: str = ""


@dataclass(frozen=True)
class TaskOutcome:
    """One task.

    Attributes:
        task: Its name.
        settings: How it was run, and what is special about its files.
        comparison: What the methods reached; None if it was not run.
        importance: Scores of the first seed; None if they are not at hand.
        plan: What was cut by them.
    """

    task: str
    settings: TaskSettings = field(default_factory=TaskSettings)
    comparison: ComparisonResults | None = None
    importance: Importance | None = None
    plan: Plan | None = None

    @property
    def note(self) -> str:
        """What is special about its files; empty if nothing is."""
        return self.settings.note

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
        seeds: Of the runs.
        tasks: In the paper's order, those that were not run too. Earlier calls may have run some under other settings.
        papers_counts: Parameters of the paper's model.
        own_counts: Parameters of the model that was trained; None where its configuration is not at hand.
        command: What makes the page again: a line for every call that ran some of the tasks.
    """

    model: str
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
    def presets(self) -> dict[tuple[str, bool], tuple[str, ...]]:
        """Names of the tasks that were run, by preset and by whether the task head was trained."""
        chosen = dict.fromkeys((one.settings.preset, one.settings.train_head) for one in self.done)
        return {
            (preset, head): tuple(
                one.task for one in self.done if (one.settings.preset, one.settings.train_head) == (preset, head)
            )
            for preset, head in chosen
        }

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
        RecipeError: If there is no finished comparison, one cannot be read, they are of different models, or a note is
            on none of the paper's tasks.
    """
    out = Path(out)
    check_tasks("notes", notes or {})
    settings = {task: TaskSettings() for task in paper.TASKS} | _settings(out)
    settings |= {task: replace(settings[task], note=note) for task, note in (notes or {}).items()}
    tasks = tuple(_task(out / task, task, settings[task]) for task in paper.TASKS)
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
        seeds=tuple(dict.fromkeys(seed for one in found for seed in one.seeds)),
        tasks=tasks,
        papers_counts=bert_base_counts(),
        own_counts=counts_of(models[0]),
        command=command or _commands(tasks) or f"prunelora reproduce --out {out}",
    )


def check_tasks(option_name: str, names: Iterable[str]) -> None:
    """Refuse names that are none of the paper's tasks.

    Raises:
        RecipeError: Naming the option that they were given with.
    """
    unknown = [name for name in names if name not in paper.TASKS]
    if unknown:
        raise RecipeError(
            f"{option(option_name)}: {unknown[0]!r} is none of the paper's tasks.{one_of(unknown[0], paper.TASKS)}"
        )


@contextlib.contextmanager
def settings_kept(out: Path, task: str, settings: TaskSettings) -> Iterator[None]:
    """Keep how a task is run, beside what earlier calls kept of it and of others, while the block runs it.

    From the start, since one that is stopped leaves an early look. A block that fails with the task's results as they
    were leaves what is said of them as it was, too.
    """
    before, results = _settings(out), _content(out / task / COMPARISON)
    _write_settings(out, before | {task: settings})
    try:
        yield
    except BaseException:
        if results is not None and _content(out / task / COMPARISON) == results:
            _write_settings(out, before)
        raise


def _write_settings(out: Path, settings: Mapping[str, TaskSettings]) -> None:
    tasks = {task: asdict(one) for task, one in settings.items()}
    write_json(out / SETTINGS, {"format": FORMAT, "tasks": tasks})


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _commands(tasks: Iterable[TaskOutcome]) -> str:
    """Of the tasks that were run, each once."""
    return "\n".join(dict.fromkeys(one.settings.command for one in tasks if one.comparison and one.settings.command))


def _settings(out: Path) -> dict[str, TaskSettings]:
    """What earlier calls kept, by task; empty where there were none."""
    path = out / SETTINGS
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path}: cannot be read ({error}). {_WITHOUT}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise RecipeError(f"{path}: is not what prunelora reproduce writes, expected the format {FORMAT!r}. {_WITHOUT}")
    return {task: TaskSettings(**one) for task, one in content["tasks"].items()}


def _task(folder: Path, task: str, settings: TaskSettings) -> TaskOutcome:
    path = folder / COMPARISON
    if not path.exists():
        return TaskOutcome(task, settings)
    comparison = load_comparison(path)
    importance, plan = _scores(folder, comparison)
    return TaskOutcome(task, settings, comparison, importance, plan)


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
