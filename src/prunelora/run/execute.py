"""Execution of a recipe in a run folder, stage after stage; finished stages are not repeated.

    data -> fine-tune -> merge -> score -> plan -> prune -> fine-tune -> merge -> export -> measure -> report

is the default recipe. `compress` runs a recipe from options in one call; `execute` runs a recipe in a run folder, and
resumes a run that was stopped there.
"""

import contextlib
import gc
import itertools
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunelora.data.embedded import model_source
from prunelora.errors import PlanError, RecipeError, at_stage
from prunelora.progress import bars
from prunelora.run.check import check_inputs, check_model, check_packages, notes, read_task
from prunelora.run.folder import RECIPE, RunFolder
from prunelora.run.keys import keys_of
from prunelora.run.recipe import RENAMED, Recipe
from prunelora.stages.base import Record, Stage, stage_file
from prunelora.stages.kinds import ARTEFACTS
from prunelora.storage import locked

if TYPE_CHECKING:
    from prunelora.data.task import TaskData
    from prunelora.report.results import RunResults
    from prunelora.stages.context import Run

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """The outcome of a run.

    Attributes:
        folder: The run folder.
        results: All results, as plain data.
        ran: Names of the stages that ran this time; the others were finished before.
        notes: Notes on the data and the run.
        paths: Files in the folder: "recipe", and of the finished stages "plan", "adapter" or "tuned", "model",
            "export", "report", "metrics" and so on.
    """

    folder: Path
    results: "RunResults"
    ran: tuple[str, ...]
    notes: tuple[str, ...] = ()
    paths: Mapping[str, Path] = field(default_factory=dict)

    @property
    def summary(self) -> list[str]:
        """A few lines on the results and the next steps."""
        from prunelora.report.summary import summarise

        return summarise(self.results)

    def to_dict(self) -> dict[str, Any]:
        """The summary and the paths as JSON-able data."""
        from prunelora.report.summary import warnings

        results = self.results
        return {
            "folder": str(self.folder),
            "model": results.model,
            "data": results.data,
            "task": dict(results.task),
            "seed": results.seed,
            "ran": list(self.ran),
            "stages": dict(results.stages),
            "summary": self.summary,
            "warnings": warnings(results),
            "notes": list(self.notes),
            "paths": {name: str(path) for name, path in self.paths.items()},
        }

    def load(self) -> Any:
        """The small model, in eval mode."""
        from prunelora.delivery.checkpoints import load

        return load(self.folder / "model")


def compress(
    *,
    model: str | None = None,
    data: Any = None,
    task: str | None = None,
    out: Path | str,
    recipe: Recipe | None = None,
    baseline: bool = False,
    export: bool = True,
    tell: Tell | None = None,
    progress: bool = True,
    **options: Any,
) -> Outcome:
    """Fine-tune a model for a task, and make it smaller and faster.

    Args:
        model: Pretrained model: a folder, a hub name, or "minilm", the embedded one. The recipe's if not given.
        data: Task data: a file, a folder, a hub name, or "rotten-tomatoes", the embedded example; or rows: a pandas
            DataFrame, a `datasets.Dataset`, or a dict of these by split. The recipe's if neither it nor `task` is
            given.
        task: A task of GLUE by name, in place of `data`; with data_dir="..." from files.
        out: Run folder. A run that was stopped there is resumed; a stage that is finished under the same settings is
            not repeated.
        recipe: The stages and their settings; the packaged tune-first if not given.
        baseline: Also fine-tune the dense model with plain LoRA, to see what pruning cost.
        export: Write model.onnx, if the recipe has a stage for it; needs the extra "onnx".
        tell: Called with a line for every stage.
        progress: Show progress bars.
        **options: Settings by their bare names, such as keep_heads=0.5, epochs=3, learning_rate=1e-3, text="review".

    Returns:
        Outcome; `outcome.load()` is the model.

    Raises:
        PruneLoraError: Of the kind that fits: data, model, options, folder.
    """
    recipe = recipe or Recipe()
    given = {name: value for name, value in (("model", model), ("data", data), ("task", task)) if value is not None}
    recipe = recipe.with_options(given | options)
    recipe = recipe.with_baseline() if baseline else recipe
    return execute(recipe if export else recipe.without_export(), out, tell=tell, progress=progress)


def execute(
    recipe: Recipe,
    out: Path | str,
    *,
    until: str | None = None,
    task: "TaskData | None" = None,
    store: Path | None = None,
    tell: Tell | None = None,
    progress: bool = True,
) -> Outcome:
    """Run a recipe in a folder, stage by stage; stages that are finished under the same settings are not repeated.

    Args:
        recipe: The stages and their settings.
        out: Run folder.
        until: Name of the last stage to run; all if not given.
        task: The result of `load_task(recipe.task)`, if the caller has it; read if not given.
        store: Folder of finished stages that several run folders share; see `prunelora.run.store`.
        tell: Called with a line for every stage.
        progress: Show progress bars.

    Raises:
        PruneLoraError: Of the kind that fits. The results of earlier stages stay.
    """
    try:
        with bars(progress):
            return _execute(recipe, RunFolder(out, store), until, task, tell or (lambda _: None), progress)
    finally:
        # A Trainer, its model and its optimiser refer to each other in cycles, which Python collects late: many runs in
        # one process, as in a comparison, would fill the memory.
        gc.collect()


def _execute(
    recipe: Recipe, folder: RunFolder, until: str | None, task: "TaskData | None", tell: Tell, progress: bool
) -> Outcome:
    names = _names_until(recipe, until)
    folder.check_writable()
    check_inputs(recipe, data=task is None)
    check_packages(recipe, names)
    source = model_source(recipe.model)
    task = read_task(recipe, task)

    from prunelora.delivery.processors import load_processor
    from prunelora.models.loading import fingerprint
    from prunelora.stages.context import Run

    # Before the folder is made: a mistyped model leaves no folder.
    identity, processor = fingerprint(source), load_processor(source, task)
    ran: list[str] = []
    # A refused setting, such as a budget that cannot be met, must not become the folder's.
    with locked(folder.path), folder.kept_recipe(lambda: not ran):
        folder.sweep_records()
        folder.write_recipe(recipe)
        noted: list[str] = []

        def note(line: str) -> None:
            noted.append(line)
            tell(line)

        for line in notes(recipe, task):
            note(line)
        run = Run(recipe, folder.path, task, processor, progress=progress, tell=tell)
        # What brings the model to its present state; it waits until a stage runs.
        pending = [_Restoration(partial(_start, run, names, note), model_only=True)]
        keys = keys_of(recipe, identity, task, partial(_plan_id, folder, note))
        for name, stage, key in itertools.islice(keys, len(names)):
            folder.take_shared(name, key)
            record = folder.record(name)
            if record is not None and folder.is_done(name, key):
                if stage.restores_whole_model:
                    pending = [restoration for restoration in pending if not restoration.model_only]
                pending.append(_Restoration(partial(stage.restore, run, name), stage.restores_model_only))
                tell(f"{name}: done before")
            else:
                if record is not None and record.version != stage.version:
                    tell(f"{name}: was finished by another version of prunelora; it is repeated")
                while pending:
                    pending.pop(0).restore()
                tell(f"{name} ...")
                record = _run_stage(run, folder, stage, name, key)
                tell(f"{name}: {record.seconds:.1f} s")
                ran.append(name)
            run.done[name] = record
        if leftovers := folder.leftovers([*run.done.values(), *_still_done(folder, keys)]):
            note(
                f"note: not of this recipe, or older than the last changes: {', '.join(leftovers)}. A run of all "
                "stages renews those of the recipe"
            )
        _read_for_report(run)
        return Outcome(folder.path, run.results(), tuple(ran), tuple(noted), _paths(run))


@dataclass(frozen=True)
class _Restoration:
    """Restores the state after a finished stage; `model_only` if that is the model alone."""

    restore: Callable[[], None]
    model_only: bool


def _names_until(recipe: Recipe, until: str | None) -> list[str]:
    """Names of the stages that are to be run."""
    names = recipe.names
    if until is None:
        return names
    kind, dash, number = until.partition("-")
    until = RENAMED.get(kind, kind) + dash + number
    if until not in names:
        raise RecipeError(f"The recipe has no stage {until!r}. It has: {', '.join(names)}.")
    return names[: names.index(until) + 1]


def _start(run: "Run", names: list[str], tell: Tell) -> None:
    """Load the pretrained model, and check that it can go through the stages."""
    run.model = run.pretrained()
    for note in check_model(run, names):
        tell(note)


def _run_stage(run: "Run", folder: RunFolder, stage: Stage, name: str, key: str) -> Record:
    """Run a stage and write its record."""
    unfinished = [run.path(name, file) for file in stage.unfinished]
    with at_stage(name), folder.working(name, key, unfinished):
        facts = stage.run(run, name)
    files = tuple(file for file in (stage_file(name, plain) for plain in stage.files()) if (run.folder / file).exists())
    record = Record(name, key, folder.spent(name, key), files, facts, stage.version)
    folder.finish(record)
    # Only now: until the record is written, a repeated stage resumes from them.
    for path in unfinished:
        shutil.rmtree(path, ignore_errors=True)
    return record


def _still_done(folder: RunFolder, keys: Iterator[tuple[str, Stage, str]]) -> Iterator[Record]:
    """Records of the next stages, up to the first that is not up to date."""
    with contextlib.suppress(PlanError):  # A later plan that was edited and cannot be read.
        for name, _, key in keys:
            record = folder.record(name)
            if record is None or not folder.is_done(name, key):
                return
            yield record


def _plan_id(folder: RunFolder, tell: Tell, name: str) -> str:
    """The id of the plan in the folder, which may have been edited by hand."""
    from prunelora.planning.plan import Plan

    path = folder.file(stage_file(name, "plan.json"))
    plan, record = Plan.load(path), folder.record(name)
    if record is not None and record.facts["plan_id"] != plan.id:
        tell(f"{name}: {path.name} was edited by hand (plan {plan.id}); it is used as it is")
    return plan.id


def _read_for_report(run: "Run") -> None:
    """Load scores and plan, if no stage had them restored."""
    for name in (*run.done_of("score")[-1:], *run.done_of("plan")[-1:]):
        run.recipe.by_name[name].restore(run, name)


def _paths(run: "Run") -> dict[str, Path]:
    """Paths of the files of the finished stages, by their names; of each kind of stage the last one's."""
    files = {file for record in run.done.values() for file in record.files}
    paths = {name: run.folder / file for file, name in ARTEFACTS.items() if file in files}
    return {"recipe": run.folder / RECIPE, **paths}
