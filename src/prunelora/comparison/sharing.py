"""Stages that several trainings begin with are done once: what another run folder has finished is brought over.

A stage's key says exactly what its result depends on, so a stage of the same name with the same key is the same work:
eight ways to tune a cut model need one scoring and one repair.
"""

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from prunelora.data.embedded import model_source
from prunelora.data.task import TaskData
from prunelora.errors import PruneLoraError
from prunelora.models.loading import fingerprint
from prunelora.models.source import check_source
from prunelora.planning.plan import Plan
from prunelora.run.folder import RunFolder
from prunelora.run.keys import keys_of
from prunelora.run.recipe import Recipe
from prunelora.stages.base import Stage, deciding, stage_file
from prunelora.storage import replacing_file, replacing_folder

WEIGHTS = ".safetensors"


def run_folders(comparisons: Iterable[Path], seed: int) -> list[Path]:
    """Run folders of all trials of some comparisons with one seed: those of another have nothing in common."""
    return [folder for out in comparisons for folder in sorted(out.glob(f"trials/*/*/seed-{seed}"))]


def bring_over(recipe: Recipe, out: Path, task: TaskData, donors: Sequence[Path]) -> tuple[str, ...]:
    """Fill a run folder with what others have finished of the recipe's first stages, so that `execute` finds them done.

    Records come with the seconds that the stages took where they were done. A donor that is damaged, has other work
    under the name, or whose plan was edited by hand, is passed over: an edit is meant for the run it was made in.
    Weights are hard links where the file system has them, since nothing writes into them; text, which people edit, is
    copied.

    Args:
        recipe: What is to be run.
        out: Its run folder.
        task: What `load_task(recipe.task)` gave.
        donors: Run folders, in the order in which they are asked.

    Returns:
        Names of the stages that were brought over.

    Raises:
        RecipeError: If `out` is no folder for a run, or another process works there.
        CheckpointError: If the model is not there.
    """
    source = model_source(recipe.model)
    check_source(source)
    folder = RunFolder(out)
    others = [donor for donor in donors if donor.resolve() != folder.path.resolve()]
    brought = []

    def plan_id(stage: str) -> str:
        return Plan.load(folder.file(stage_file(stage, "plan.json"))).id

    with folder.locked():
        folder.write_recipe(recipe)  # First: a folder with files and no recipe would be refused.
        for name, settings, key in keys_of(recipe, fingerprint(source), task, plan_id):
            if folder.is_done(name, key):
                continue
            if not any(_bring(donor, folder, recipe, name, settings, key) for donor in others):
                break
            brought.append(name)
    return tuple(brought)


def _bring(donor: Path, folder: RunFolder, recipe: Recipe, name: str, settings: Stage, key: str) -> bool:
    """Bring one stage over; False where the donor does not have it, or not whole."""
    try:
        other = RunFolder(donor)
        record = other.record(name)
        if record is None or record.key != key or not isinstance(record.facts, dict):
            return False
        files = tuple(stage_file(name, file) for file in settings.files())
        if record.files != files or not all(_is_whole(other.file(file)) for file in files):
            return False
        if settings.stage == "plan" and Plan.load(other.file(files[0])).id != record.facts.get("plan_id"):
            return False
        folder.forget(name)  # Its record vouches for files that are about to go.
        for file in files:
            _take(other.file(file), folder.file(file))
        if not _begins_alike(other.recipe(), recipe, name):
            return False
    except (PruneLoraError, OSError):
        return False
    folder.finish(record)
    return True


def _begins_alike(other: Recipe, recipe: Recipe, name: str) -> bool:
    """Whether a donor's recipe, up to a stage, is still the one its record was made under.

    A run that begins anew under other settings writes its recipe first, and leaves old records until each stage is done
    again; its files may be new already. Asked after they were taken, this says that they were not.
    """
    count = recipe.names.index(name) + 1

    def beginning(one: Recipe) -> tuple[Any, ...]:
        return one.seed, one.names[:count], [deciding(stage) for stage in one.stages[:count]]

    return beginning(other) == beginning(recipe)


def _is_whole(path: Path) -> bool:
    """Whether a file, or a model's folder, is there, and its weights are as long as they say they are."""
    weights = sorted(path.rglob(f"*{WEIGHTS}")) if path.is_dir() else [path] if path.suffix == WEIGHTS else []
    if path.is_dir() and not weights:
        return False
    try:
        for file in weights:
            with safe_open(file, framework="numpy"):
                pass
    except SafetensorError:
        return False
    return path.exists()


def _take(source: Path, target: Path) -> None:
    if not source.is_dir():
        with replacing_file(target) as temporary:
            _link_or_copy(source, temporary)
        return
    with replacing_folder(target) as temporary:
        for file in sorted(source.rglob("*")):
            place = temporary / file.relative_to(source)
            if file.is_dir():
                place.mkdir()
            else:
                _link_or_copy(file, place)


def _link_or_copy(source: Path, target: Path) -> None:
    if source.suffix == WEIGHTS:
        target.unlink(missing_ok=True)
        try:
            os.link(source, target)
            return
        except OSError:  # Another file system, or one without hard links.
            pass
    shutil.copyfile(source, target)
