"""The state of a forecast: which pieces of the stages' work are timed, and on which model."""

import copy
import dataclasses
import time
from dataclasses import dataclass, field
from typing import Any

from prunelora.data.task import TaskData
from prunelora.evaluation.measurement import measure
from prunelora.evaluation.outlook import made_up_scores
from prunelora.evaluation.training_cost import step_memory
from prunelora.evaluation.work import Work
from prunelora.models.anatomy import dissect
from prunelora.planning.plan import Plan
from prunelora.report.run_page import write_report
from prunelora.stages.base import Seconds
from prunelora.stages.context import Run, RunRecipe
from prunelora.stages.finetune import FineTuneStage
from prunelora.stages.training import ready_to_train


@dataclass
class Forecast:
    """The state of a forecast of a run, stage after stage.

    Attributes:
        run: With the dense model, whose weights may be random; it is not changed.
        plan: The last plan of the run; the scores that it is made from may be made up.
        work: The timed pieces.
        now: The model before the next stage: "dense" or "cut".
        memory: Most bytes at once of the stages, by name, where they are counted.
    """

    run: Run
    plan: Plan | None
    work: Work
    now: str = "dense"
    memory: dict[str, int] = field(default_factory=dict)

    @property
    def recipe(self) -> RunRecipe:
        """The recipe of the run."""
        return self.run.recipe

    @property
    def task(self) -> TaskData:
        """The rows and labels of the run."""
        return self.run.task

    @property
    def model(self) -> Any:
        """The dense model."""
        return self.run.model

    def training(self, name: str, stage: FineTuneStage, plan: Plan | None, model: str) -> Seconds:
        """Training of the dense or the cut model; its memory is counted."""
        trained = ready_to_train(copy.deepcopy(self.work.models[model]), plan, stage, seed=0)
        self.memory[name] = step_memory(trained, stage, tokens=self.work.longest).total
        return self.work.training(name, trained, stage, model)

    def counting_seconds(self) -> float:
        """Seconds to count the memory of a training step of the cut model; counted once, since it takes long."""
        started = time.perf_counter()
        measure(self.work.models["cut"], sizes=[], repeats=1, warmup=0)
        return time.perf_counter() - started

    def report_seconds(self) -> float:
        """Seconds to write a report with the plan and made-up scores."""
        run = dataclasses.replace(self.run, plan=self.plan, importance=None, done={})
        if self.plan is not None:
            number = sum(parameter.numel() for parameter in self.model.parameters())
            run.importance = made_up_scores(dissect(self.model).architecture, num_parameters=number)
        started = time.perf_counter()
        write_report(run.results(), self.work.scratch / "report")
        return time.perf_counter() - started
