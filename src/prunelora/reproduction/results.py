"""Results of a reproduction, task by task, as its folder holds them."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ValidationError
from pydantic.dataclasses import dataclass as validated_dataclass

from prunelora.comparison.results import ComparisonResults, load_comparison, trial_folder
from prunelora.data.embedded import EMBEDDED_MODEL
from prunelora.errors import PruneLoraError, RecipeError, one_of, option
from prunelora.importance.importance import Importance
from prunelora.planning.plan import Plan
from prunelora.reproduction import paper
from prunelora.reproduction.counts import Counts, counts_of
from prunelora.settings import complaint
from prunelora.storage import write_json

SETTINGS: Final = "reproduce.json"
COMPARISON: Final = "comparison.json"


@validated_dataclass(frozen=True)
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


class _SettingsFile(BaseModel):
    """Content of reproduce.json; settings that only earlier versions had are left out."""

    format: Literal["prunelora-reproduce-2"]
    tasks: dict[str, TaskSettings]


@dataclass(frozen=True)
class Reproduction:
    """The paper's numbers and ours.

    Attributes:
        settings: Of each of the paper's tasks, in its order.
        comparisons: Of the tasks that were run, in the paper's order.
        scores: Of the same tasks, the scores of Prune-LoRA's first seed and the plan made from them, if they were kept.
        own_counts: Parameter counts of the trained model; None if its configuration is not available.
    """

    settings: Mapping[str, TaskSettings]
    comparisons: Mapping[str, ComparisonResults]
    scores: Mapping[str, tuple[Importance, Plan]]
    own_counts: Counts | None

    @property
    def model(self) -> str:
        """Name or path of the trained model."""
        return next(comparison.model for comparison in self.comparisons.values())

    @property
    def is_papers_model(self) -> bool:
        """Whether the trained model is the paper's."""
        return Path(self.model).name == paper.MODEL

    @property
    def label(self) -> str:
        """Name of the trained model on the page."""
        return "MiniLM, embedded" if self.model == EMBEDDED_MODEL else Path(self.model).name

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of all tasks."""
        return tuple(dict.fromkeys(seed for comparison in self.comparisons.values() for seed in comparison.seeds))

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the tasks that were not run."""
        return tuple(task for task in paper.TASKS if task not in self.comparisons)

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of all methods that were run."""
        facts = (method for comparison in self.comparisons.values() for method in comparison.methods)
        return tuple(dict.fromkeys(method.name for method in facts))


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
    settings = dict.fromkeys(paper.TASKS, TaskSettings()) | _read_settings(out)
    settings |= {task: replace(settings[task], note=note) for task, note in (notes or {}).items()}
    paths = {task: path for task in paper.TASKS if (path := out / task / COMPARISON).exists()}
    comparisons = {task: load_comparison(path) for task, path in paths.items()}
    models = sorted({comparison.model for comparison in comparisons.values()})
    if not models:
        raise RecipeError(
            f"{out}: no finished comparison there. Expected {COMPARISON} in folders named {', '.join(paper.TASKS)}. "
            "Run prunelora reproduce first."
        )
    if len(models) > 1:
        raise RecipeError(
            f"{out}: the comparisons are of different models: {', '.join(models)}. Give each model its own folder."
        )
    scores = {task: _scores(out / task, comparison) for task, comparison in comparisons.items()}
    kept = {task: of_task for task, of_task in scores.items() if of_task is not None}
    return Reproduction(settings, comparisons, kept, counts_of(models[0]))


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
    previous, results = _read_settings(out), _content(out / task / COMPARISON)
    _write_settings(out, previous | {task: settings})
    try:
        yield
    except BaseException:
        if results is not None and _content(out / task / COMPARISON) == results:
            _write_settings(out, previous)
        raise


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _write_settings(out: Path, tasks: dict[str, TaskSettings]) -> None:
    write_json(out / SETTINGS, _SettingsFile(format="prunelora-reproduce-2", tasks=tasks).model_dump())


def _read_settings(out: Path) -> dict[str, TaskSettings]:
    path = out / SETTINGS
    try:
        return _SettingsFile.model_validate_json(path.read_bytes()).tasks if path.exists() else {}
    except ValidationError as error:
        raise RecipeError(
            f"{path}: {complaint(error)} Remove the file: the comparisons stay; their presets and notes are lost."
        ) from error


def _scores(folder: Path, comparison: ComparisonResults) -> tuple[Importance, Plan] | None:
    """Scores and plan of Prune-LoRA's first seed; None if the trials were not kept beside the results."""
    method = comparison.method("prune-lora")
    if method is None:
        return None
    trial = folder / trial_folder(method.name, method.learning_rate, method.seeds[0])
    try:
        return Importance.load(trial / "importance.safetensors"), Plan.load(trial / "plan.json")
    except PruneLoraError:
        return None
