"""Runs: a recipe's stages, one after the other, each done once.

    data -> fine-tune -> merge -> score -> plan -> prune -> fine-tune -> merge -> export -> measure -> report

That is the default recipe. `compress` runs a recipe from options in one call; `execute` runs one in a run folder, and
goes on where an earlier run stopped.
"""

import dataclasses
import functools
import gc
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prunelora.data import metrics
from prunelora.data.embedded import model_source
from prunelora.data.task import TaskData
from prunelora.delivery.checkpoints import load
from prunelora.delivery.processors import load_processor
from prunelora.errors import RecipeError, at_stage
from prunelora.models.loading import fingerprint
from prunelora.planning.plan import Plan
from prunelora.preflight import check_model, check_packages, notes, read_task
from prunelora.progress import bars
from prunelora.recipe import RENAMED, Recipe, digest
from prunelora.report.results import RunResults
from prunelora.report.summary import summarise, warnings
from prunelora.runfolder import RECIPE, Record, RunFolder
from prunelora.running import Run
from prunelora.stage_settings import deciding
from prunelora.stages import WORK
from prunelora.version import __version__

Tell = Callable[[str], None]

# What stages leave in the run folder, by the names under which a script finds it.
_ARTEFACTS = {
    "importance.safetensors": "importance",
    "plan.json": "plan",
    "adapter": "adapter",
    "tuned": "tuned",
    "model": "model",
    "model.onnx": "export",
    "metrics.json": "metrics",
    "report.html": "report",
    "report.md": "report_markdown",
    "figures": "figures",
}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a run gave.

    Attributes:
        folder: The run folder.
        results: Everything that was found, as plain data.
        ran: Names of the stages that ran this time; the others were done before.
        notes: What was told of the data and the run on the way.
        paths: What is in the folder: "recipe", and of the stages that are done "plan", "adapter" or "tuned", "model",
            "export", "report", "metrics" and so on.
    """

    folder: Path
    results: RunResults
    ran: tuple[str, ...]
    notes: tuple[str, ...] = ()
    paths: Mapping[str, Path] = dataclasses.field(default_factory=dict)

    @property
    def summary(self) -> list[str]:
        """A few lines that a person can act on."""
        return summarise(self.results)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: everything that the summary says, and what a script needs to go on."""
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
        return load(self.folder / "model")


@dataclasses.dataclass(frozen=True)
class _Restoring:
    """Bringing back what a finished stage left, and whether that is the model alone."""

    work: Callable[[], None]
    model_only: bool


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
        out: Run folder. A run that was stopped there goes on; a stage that is done under the same settings is not
            repeated.
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
    task: TaskData | None = None,
    tell: Tell | None = None,
    progress: bool = True,
) -> Outcome:
    """Run a recipe in a folder, stage by stage; what is done under the same settings is not done again.

    Args:
        recipe: What to do.
        out: Run folder.
        until: Name of the last stage to run; all if not given.
        task: What `load_task(recipe.task)` gave, where the caller has it already; read if not given.
        tell: Called with a line for every stage.
        progress: Show progress bars.

    Raises:
        PruneLoraError: Of the kind that fits. What earlier stages left stays.
    """
    try:
        with bars(progress):
            return _execute(recipe, RunFolder(out), until, task, tell or (lambda _: None), progress)
    finally:
        # A Trainer, its model and its optimiser refer to each other in circles, which Python is slow to find: run after
        # run, as in a comparison, they would fill the memory.
        gc.collect()


def _execute(
    recipe: Recipe, folder: RunFolder, until: str | None, task: TaskData | None, tell: Tell, progress: bool
) -> Outcome:
    names = recipe.names
    until = RENAMED.get(until, until)
    if until is not None and until not in names:
        raise RecipeError(f"The recipe has no stage {until!r}. It has: {', '.join(names)}.")
    wanted = names if until is None else names[: names.index(until) + 1]
    check_packages(recipe, wanted)
    source = model_source(recipe.model)
    task = read_task(recipe, task)
    told: list[str] = []

    def note(line: str) -> None:
        told.append(line)
        tell(line)

    # Before the folder is begun: a mistyped model leaves nothing.
    identity, processor = fingerprint(source), load_processor(source, task)
    with folder.locked():
        folder.write_recipe(recipe)
        for line in notes(recipe, task):
            note(line)
        run = Run(recipe, folder, task, processor, progress=progress, tell=tell)
        ran: list[str] = []
        pending = [_Restoring(functools.partial(_begin, run, wanted, note), model_only=True)]
        plan_id = functools.partial(_plan_id, run, note)
        for name, settings, key in keys_of(recipe, identity, task, plan_id, until=until):
            work = WORK[settings.stage]
            if folder.is_done(name, key):
                # Restoring is put off until a later stage has something to do, and what it replaces is left out.
                if work.whole_model:
                    pending = [one for one in pending if not one.model_only]
                pending.append(_Restoring(functools.partial(work.restore, run, name, settings), work.model_only))
                tell(f"{name}: done before")
            else:
                while pending:
                    pending.pop(0).work()
                tell(f"{name} ...")
                unfinished = [run.path(name, one) for one in work.unfinished]
                with at_stage(name), folder.working(name, key, unfinished):
                    facts = work.run(run, name, settings)
                record = Record(name, key, folder.spent(name, key), _files(run, name, work.files(settings)), facts)
                folder.finish(record)
                # Only now: until then a repeat goes on from them.
                for path in unfinished:
                    shutil.rmtree(path, ignore_errors=True)
                ran.append(name)
                tell(f"{name}: {record.seconds:.1f} s")
            run.done.append(name)
        _read_for_report(run)
        return Outcome(folder.path, run.results(), tuple(ran), tuple(told), _paths(run))


def _begin(run: Run, names: Sequence[str], tell: Tell) -> None:
    """From the pretrained model; what can be known of the rows and the stages to come is, before the first."""
    run.model = run.pretrained()
    for note in check_model(run, names):
        tell(note)


def keys_of(
    recipe: Recipe, source: str, task: TaskData, plan_id: Callable[[str], str], *, until: str | None = None
) -> Iterator[tuple[str, Any, str]]:
    """Name, settings and key of one stage after the other; a key says exactly what a stage's result depends on.

    It is a hash of the stage's settings, those that decide, and of the key before it; the first one's is of model,
    data, seed and version.
    A plan may be edited by hand, so what comes after it depends on the plan, not on how it was made: `plan_id` is asked
    for it when the next key is wanted, and must find the plan made by then.

    Args:
        recipe: The stages.
        source: Fingerprint of the pretrained model.
        task: Its rows and labels.
        plan_id: Gives the id of the plan that a stage, by its name, has left.
        until: Name of the last stage; all if not given.
    """
    start = {
        "model": source,
        "data": task.fingerprint,
        "max_length": recipe.task.max_length,
        "seed": recipe.seed,
        "prunelora": __version__,
    }
    if task.metrics[0] != metrics.default_metrics(task.problem_type, task.label_names)[0]:
        start["chosen_by"] = task.metrics[0]  # The same rows as a task of their own may be judged by something else.
    key = digest(start)
    for name, settings in recipe.by_name.items():
        key = digest({"stage": deciding(settings), "after": key})
        yield name, settings, key
        if settings.stage == "plan":
            key = digest({"plan": plan_id(name), "after": key})
        if name == until:
            return


def _paths(run: Run) -> dict[str, Path]:
    """What the stages that are done have left, by what it is: of a kind of stage, the last one's."""
    files = [file for name in run.done if (record := run.folder.record(name)) is not None for file in record.files]
    left = {name: run.folder.file(file) for file, name in _ARTEFACTS.items() if file in files}
    return {"recipe": run.folder.file(RECIPE), **left}


def _files(run: Run, name: str, files: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(run.path(name, file).name for file in files)


def _plan_id(run: Run, tell: Tell, name: str) -> str:
    """Id of the plan as it is in the folder, where a person may have edited it."""
    path = run.path(name, "plan.json")
    plan, record = Plan.load(path), run.folder.record(name)
    if record is not None and record.facts["plan_id"] != plan.id:
        tell(f"{name}: {path.name} was edited by hand (plan {plan.id}); it is used as it is")
    return plan.id


def _read_for_report(run: Run) -> None:
    """Scores and plan, where nothing had to be restored."""
    for name, settings in run.recipe.by_name.items():
        if settings.stage in ("score", "plan") and name in run.done:
            WORK[settings.stage].restore(run, name, settings)
