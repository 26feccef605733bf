"""What a run would give and take, before it is begun: the early checks of `run`, and what they let be reckoned."""

import dataclasses
import inspect
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from prunelora.data.embedded import model_source
from prunelora.delivery.processors import load_processor
from prunelora.evaluation.feasibility import Feasibility
from prunelora.evaluation.feasibility import check as check_budget
from prunelora.evaluation.training_cost import Training
from prunelora.forecast import forecast
from prunelora.judging import latency_settings
from prunelora.planning.make_plan import make_plan
from prunelora.preflight import check_model, check_packages, notes, read_task
from prunelora.recipe import Recipe
from prunelora.runfolder import RunFolder
from prunelora.running import Run, pretrained, ready_to_train
from prunelora.stage_settings import FineTuneStage, PlanStage

Tell = Callable[[str], None]


def check_run(
    recipe: Recipe, *, data: bool = True, latency: bool = True, training: bool = True, tell: Tell | None = None
) -> Feasibility:
    """Refuse what `execute` would refuse before any work, and tell what the run gives and takes.

    Args:
        recipe: As it would be run.
        data: Read the recipe's data; without it nothing is told of rows, nor of the stages that read them.
        latency: Predict latency where the budget does not need it.
        training: Count and time training steps, and with data all stages.
        tell: Called with a line on what is done, and with the notes that a run gives.

    Raises:
        PruneLoraError: As `execute` raises it before its first stage.
    """
    tell = tell or (lambda _: None)
    names = recipe.names
    check_packages(recipe, names)
    task = read_task(recipe) if data else None
    run = None
    with tempfile.TemporaryDirectory() as nowhere:
        if task is not None:
            for note in notes(recipe, task):
                tell(note)
            processor = load_processor(model_source(recipe.model), task)
            run = Run(recipe, RunFolder(Path(nowhere)), task, processor)
            run.model = pretrained(recipe, task, processor, weights=False)
            for note in check_model(run, names):
                tell(note)
        plan = next((stage for stage in reversed(recipe.stages) if isinstance(stage, PlanStage)), None)
        known = inspect.signature(make_plan).parameters
        planning = {} if plan is None else {name: value for name, value in plan.model_dump().items() if name in known}
        measured = None
        if plan is not None and (latency or plan.needs_latency):
            measured = latency_settings(plan)
        found = check_budget(
            recipe.model,
            data=recipe.task if data else None,
            rows=task,
            cut=run.truncation.get("train") if run is not None else None,
            latency=measured,
            remeasure=plan is not None and plan.remeasure,
            training=_training(recipe, plan) if training else None,
            tell=tell,
            **planning,
        )
        if run is None or not training:
            return found
        tell("timing pieces of every stage ...")
        cut = found.plan if plan is not None else None
        return dataclasses.replace(found, run=forecast(run, cut, names))


def _training(recipe: Recipe, plan: PlanStage | None) -> Training | None:
    """How the recipe trains: the dense model before a cut, and what the cut leaves."""
    if plan is None or not recipe.tunings:
        return None
    *tunings, final = recipe.tunings.values()
    # Plain LoRA beside what is cut is of the plan's high rank; what is tuned before there is a plan is as it says.
    final = final.model_copy(update={"lora_targets": plan.targets, "lora_rank": plan.rank_high})
    *before, last = [_way(one) for one in (*tunings, final)]
    return dataclasses.replace(last, before=before[0] if before else None)


def _way(tuning: FineTuneStage) -> Training:
    return Training(tuning, partial(ready_to_train, settings=tuning, seed=0))
