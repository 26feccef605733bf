"""Checks before any work, for `execute` and for `prunelora check`; and a forecast of the run."""

import dataclasses
import inspect
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from prunelora.data.embedded import model_source
from prunelora.data.sources import check_named
from prunelora.models.source import check_reads, check_source
from prunelora.run.recipe import Recipe
from prunelora.stages.finetune import FineTuneStage
from prunelora.stages.plan import PlanStage

if TYPE_CHECKING:
    from prunelora.data.task import TaskData
    from prunelora.evaluation.feasibility import Feasibility
    from prunelora.evaluation.outlook import RunOutlook
    from prunelora.evaluation.training_cost import Training
    from prunelora.planning.plan import Plan
    from prunelora.stages.context import Run

Tell = Callable[[str], None]

# Measured in docs/ablation.md.
PAIRS = (
    "note: these are pairs of texts. A pretrained model may not have learnt yet to compare two texts, and scores "
    "before any tuning do not keep the heads that would learn it. Where much is cut, the recipe tune-first, which "
    "tunes before the cut, gives better models of pairs"
)


def check_inputs(recipe: Recipe, *, data: bool = True) -> None:
    """Check, without importing torch, the order of the stages, and that model and data exist.

    Raises:
        CheckpointError: If the model's folder does not exist, or has no weights in safetensors.
        DataError: If the data is a path that does not exist or has an unknown suffix.
        RecipeError: If a stage lacks another before it.
    """
    recipe.check()
    check_source(model_source(recipe.model))
    if data:
        check_named(recipe.task)


def check_packages(recipe: Recipe, names: Collection[str]) -> None:
    """Check that the packages that the stages need are installed.

    Args:
        recipe: The stages.
        names: Names of the stages that are to be run.

    Raises:
        MissingExtraError: If a package is missing; the message names the extra.
    """
    for name, stage in recipe.by_name.items():
        if name in names:
            stage.check_packages()


def read_task(recipe: Recipe, task: "TaskData | None" = None) -> "TaskData":
    """Read the recipe's data, and check that its metrics are installed and that the model reads such rows.

    Args:
        recipe: Names model and data.
        task: Its data, where the caller has read it already.

    Raises:
        DataError: As the loading functions raise it.
        MissingExtraError: If the task's metrics need a package that is missing.
        UnsupportedModelError: If the model reads images and the rows are texts, or the reverse.
    """
    from prunelora.data.load import load_task

    task = task or load_task(recipe.task)

    from prunelora.data import metrics

    metrics.require_packages(task.problem_type, task.label_names)
    check_reads(model_source(recipe.model), images=task.of_images)
    return task


def notes(recipe: Recipe, task: "TaskData") -> Iterator[str]:
    """Lines to print before the first stage: how the data was read, and warnings on the choice of recipe."""
    yield from task.notes
    if recipe.cuts_untuned and task.is_pair:
        yield PAIRS


def check_model(run: "Run", names: Collection[str]) -> list[str]:
    """Check the rows of every split and the stages against the model, whose weights may be random.

    Args:
        run: With the dense model.
        names: Names of the stages that are to be run.

    Returns:
        Notes to print: how much of the rows is truncated, and whether the tokenizer may be another model's.

    Raises:
        PlanError: If the first plan's budget cannot be met.
        UnsupportedModelError: If the model cannot read a row, or cannot be repaired where that is asked for.
        DataError: If the tokenizer has no padding token.
        ExportError: If the model cannot be exported where that is asked for.
    """
    found = run.check_rows()
    stages = [stage for name, stage in run.recipe.by_name.items() if name in names]
    for number, stage in enumerate(stages):
        stage.check(run, stages[:number])
    return [f"note: {note}" for note in found]


def check_run(
    recipe: Recipe, *, data: bool = True, latency: bool = True, training: bool = True, tell: Tell | None = None
) -> "Feasibility":
    """Raise the errors that `execute` would raise before any work, and predict sizes, speed and time of the run.

    Args:
        recipe: As it would be run.
        data: Read the recipe's data; without it nothing is predicted about rows, nor about the stages that read them.
        latency: Predict latency where the budget does not need it.
        training: Count and time training steps, and with data all stages.
        tell: Called with a line for every event, and with the notes of a run.

    Raises:
        PruneLoraError: As `execute` raises it before its first stage.
    """
    tell = tell or (lambda _: None)
    names = recipe.names
    check_inputs(recipe, data=data)
    check_packages(recipe, names)
    task = read_task(recipe) if data else None

    from prunelora.delivery.processors import load_processor
    from prunelora.evaluation.feasibility import check
    from prunelora.planning.make_plan import make_plan
    from prunelora.stages.context import Run, pretrained

    run = None
    with tempfile.TemporaryDirectory() as nowhere:
        if task is not None:
            for note in notes(recipe, task):
                tell(note)
            processor = load_processor(model_source(recipe.model), task)
            run = Run(recipe, Path(nowhere), task, processor)
            run.model = pretrained(recipe, task, processor, weights=False)
            for note in check_model(run, names):
                tell(note)
        plan = next((stage for stage in reversed(recipe.stages) if isinstance(stage, PlanStage)), None)
        known = inspect.signature(make_plan).parameters
        planning = {} if plan is None else {name: value for name, value in plan.model_dump().items() if name in known}
        timed = plan is not None and (latency or plan.needs_latency)
        found = check(
            recipe.model,
            data=recipe.task if data else None,
            rows=task,
            cut=run.truncation.get("train") if run is not None else None,
            latency=plan.latency_settings() if plan is not None and timed else None,
            remeasure=plan is not None and plan.remeasure,
            training=_training(recipe, plan) if training else None,
            tell=tell,
            **planning,
        )
        if run is None or not training:
            return found
        tell("timing pieces of every stage ...")
        return dataclasses.replace(found, run=forecast(run, found.plan if plan is not None else None, names))


def forecast(run: "Run", plan: "Plan | None", names: Collection[str]) -> "RunOutlook":
    """Predict seconds and memory of every stage of a run.

    Nothing is trained: pieces of the stages' work are timed, a few seconds each.

    Args:
        run: With the dense model, whose weights may be random; it is not changed.
        plan: The run's last plan; the scores that it is made from may be made up.
        names: Names of the stages.
    """
    import torch

    from prunelora.evaluation.measurement import synchronise
    from prunelora.evaluation.outlook import RunOutlook, StageOutlook
    from prunelora.evaluation.work import Work
    from prunelora.models.device import device_of

    started = time.perf_counter()
    run = dataclasses.replace(run, plan=plan)
    with tempfile.TemporaryDirectory() as scratch, torch.random.fork_rng():
        work = Work(run.model, plan, run.task, run.processor, run.recipe.task.max_length, Path(scratch))
        predicted = {}
        for name, stage in run.recipe.by_name.items():
            if name in names:
                predicted[name] = stage.forecast(work, run, name)
                if stage.stage == "prune":
                    work.present = "cut"
        work.pieces.measure(synchronise(device_of(run.model)))
        stages = tuple(StageOutlook(name, seconds(), work.memory.get(name)) for name, seconds in predicted.items())
    return RunOutlook(stages, work.pieces.noise(), time.perf_counter() - started)


def _training(recipe: Recipe, plan: PlanStage | None) -> "Training | None":
    """How the recipe trains: the dense model before the cut, and the cut model."""
    if plan is None or not recipe.tunings:
        return None
    *tunings, final = recipe.tunings.values()
    # Plain LoRA beside the cut model has the plan's high rank; a fine-tuning before the plan has its own.
    final = final.model_copy(update={"lora_targets": plan.targets, "lora_rank": plan.rank_high})
    *before, last = [_way(tuning) for tuning in (*tunings, final)]
    return dataclasses.replace(last, before=before[0] if before else None)


def _way(tuning: FineTuneStage) -> "Training":
    from prunelora.evaluation.training_cost import Training
    from prunelora.stages.training import ready_to_train

    return Training(tuning, partial(ready_to_train, settings=tuning, seed=0))
