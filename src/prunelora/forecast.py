"""Seconds and memory of every stage of a run, before it is begun: each as a sum of the pieces that it is made of."""

import copy
import dataclasses
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prunelora.evaluation.counting import weight_bytes
from prunelora.evaluation.layers_alone import first_layers
from prunelora.evaluation.measurement import measure, sizes_for, synchronise
from prunelora.evaluation.outlook import made_up_scores
from prunelora.evaluation.run_outlook import RunOutlook, StageOutlook
from prunelora.evaluation.timing import LEAST_REPEATS
from prunelora.evaluation.training_cost import step_memory
from prunelora.evaluation.work import Later, Work, run_once
from prunelora.importance.criteria import CurvatureCriterion, WeightCriterion, find_criterion
from prunelora.importance.curvature import Curvature
from prunelora.importance.linear_probe import train_linear_probe_
from prunelora.importance.score import score
from prunelora.judging import last_in_time, latency_settings
from prunelora.models.anatomy import dissect
from prunelora.models.device import device_of
from prunelora.models.state import left_as_found
from prunelora.planning.plan import Plan
from prunelora.pruning.repair import repair_
from prunelora.report.run_page import write_report
from prunelora.running import Run, made, ready_to_train
from prunelora.stage_settings import (
    BaselineStage,
    ExportStage,
    FineTuneStage,
    LinearProbeStage,
    MeasureStage,
    PruneStage,
    ScoreStage,
)

# Seconds after which `measure` gives a size no more rounds.
MEASURED_SECONDS = 4.0


def forecast(run: Run, plan: Plan | None, names: Sequence[str]) -> RunOutlook:
    """Tell what every stage of a run takes.

    Nothing is trained: pieces of the stages' work are timed, a few seconds of each.

    Args:
        run: With the dense model, whose weights may be random; it is not changed.
        plan: What the last plan leaves; the scores may be made up.
        names: Of the stages.
    """
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch, torch.random.fork_rng():
        work = Work(run.model, plan, run.task, run.processor, run.recipe.task.max_length, Path(scratch))
        stages = _Stages(run, plan, work)
        later = {name: stages.of(name, stage) for name, stage in run.recipe.by_name.items() if name in names}
        work.pieces.measure(synchronise(device_of(run.model)))
        found = tuple(StageOutlook(name, seconds(), stages.memory.get(name)) for name, seconds in later.items())
    return RunOutlook(found, work.pieces.noise(), time.perf_counter() - began)


class _Stages:
    """What the stages of a recipe do, one after the other.

    Attributes:
        memory: Bytes of the stages, by name, where they are counted.
        now: The model before the next stage: "dense" or "cut".
    """

    def __init__(self, run: Run, plan: Plan | None, work: Work) -> None:
        self.run, self.plan, self.work = run, plan, work
        self.memory: dict[str, int] = {}
        self.now = "dense"

    def of(self, name: str, stage: Any) -> Later:
        """Seconds of a stage, to be asked for when all pieces are timed."""
        later: Later = getattr(self, f"_{stage.stage}")(name, stage)
        if stage.stage == "prune":
            self.now = "cut"
        return later

    def _linear_probe(self, name: str, stage: LinearProbeStage) -> Later:
        sizes = self.work.calibration(stage.rows, stage.batch_size)
        features = self.work.passes(self.now, sizes)
        judging = self.work.judging("validation", self.now)
        model, batch = self.work.models[self.now], self.work.batch(stage.batch_size, self.work.ends[1])
        if not dissect(model).task_head_names():
            return judging
        few, more = (
            self.work.pieces.add(f"{n} steps of the head", partial(train_linear_probe_, model, [batch], steps=n))
            for n in (5, 25)
        )
        self.memory[name] = self.work.judging_bytes(self.now)
        rows = sum(rows for rows, _ in sizes)

        def seconds() -> float:
            step = max(0.0, self.work.pieces.seconds(more) - self.work.pieces.seconds(few)) / 20
            return rows * self.work.row_seconds + features() + stage.steps * step + judging()

        return seconds

    def _score(self, name: str, stage: ScoreStage) -> Later:
        criterion = find_criterion(stage.criterion)
        model = self.work.models[self.now]
        if isinstance(criterion, WeightCriterion):
            piece = self.work.pieces.add(f"weights of {self.now}", partial(score, model, criterion=stage.criterion))
            return lambda: self.work.pieces.seconds(piece)
        sizes = self.work.calibration(stage.rows, stage.batch_size)
        rows = sum(rows for rows, _ in sizes)
        if not isinstance(criterion, CurvatureCriterion):
            line = self.work.line(
                f"{stage.criterion} of {self.now}",
                stage.batch_size,
                lambda batch: partial(score, model, [batch], criterion=stage.criterion),
            )
            return lambda: rows * self.work.row_seconds + line.total(self.work.pieces, sizes)
        curvature = Curvature(dissect(model))

        def call_of(batch: Mapping[str, Any]) -> Callable[[], object]:
            def call() -> None:
                with left_as_found(model):
                    model.eval().requires_grad_(False)
                    curvature.add(0, batch)

            return call

        line = self.work.line(f"curvature of {self.now}", stage.batch_size, call_of)
        leaving_out = self.work.leaving_out(model)
        return lambda: rows * self.work.row_seconds + line.total(self.work.pieces, sizes) + leaving_out()

    def _plan(self, name: str, stage: Any) -> Later:
        return lambda: 0.0  # Times that a plan in time needs are measured by `check` already, and kept.

    def _prune(self, name: str, stage: PruneStage) -> Later:
        if self.plan is None or self.now == "cut":
            return lambda: 0.0
        judging = self.work.judging("validation", "cut")
        self.memory[name] = self.work.judging_bytes("cut")
        if not stage.repair:
            return judging
        layers = dissect(self.run.model).architecture.num_layers
        everything = Plan.whole(dissect(self.run.model).lineage)
        sizes = self.work.calibration(stage.repair_rows, stage.repair_batch_size)
        length = int(np.median([length for _, length in sizes]))
        batch = self.work.batch(stage.repair_batch_size, length)
        counts = (1, 4)

        def pieces(count: int) -> list[str]:
            """Repair of a model with so many layers that are not empty, on few batches and on more."""
            thin, thick = (first_layers(self.run.model, plan, count) for plan in (made(self.plan, "plan"), everything))
            return [
                self.work.pieces.add(
                    f"repair of {count} layers on {number} batches",
                    partial(repair_, thin, thick, [batch] * number, weights=stage.repair_weights),
                )
                for number in counts
            ]

        empty, one = pieces(0), pieces(1)
        tokens = sum(rows * length for rows, length in sizes) / (stage.repair_batch_size * length)
        rows = sum(rows for rows, _ in sizes)

        def repair(names: Sequence[str]) -> float:
            few, more = map(self.work.pieces.seconds, names)
            each = max(0.0, more - few) / (counts[1] - counts[0])
            return max(0.0, few - each) + tokens * each

        def seconds() -> float:
            repaired = repair(empty) + layers * max(0.0, repair(one) - repair(empty))
            return self.work.copy_seconds + 2 * judging() + rows * self.work.row_seconds + repaired

        return seconds

    def _finetune(self, name: str, stage: FineTuneStage) -> Later:
        plan = self.plan if name in self.run.recipe.after_plans else None
        return self._training(name, stage, plan, self.now)

    def _training(self, name: str, stage: FineTuneStage, plan: Plan | None, model: str) -> Later:
        trained = ready_to_train(copy.deepcopy(self.work.models[model]), plan, stage, seed=0)
        self.memory[name] = step_memory(trained, stage, tokens=self.work.longest).total
        return self.work.training(name, trained, stage, model)

    def _merge(self, name: str, _: Any) -> Later:
        judging, saving = (
            self.work.judging("validation", self.now),
            self.work.saving(weight_bytes(self.work.models[self.now])),
        )
        self.memory[name] = self.work.judging_bytes(self.now)
        return lambda: judging() + saving()

    def _evaluate(self, name: str, _: Any) -> Later:
        judged = [self.work.judging(split, self.now) for split in self.run.task.reported]
        self.memory[name] = self.work.judging_bytes(self.now)
        return lambda: sum(one() for one in judged)

    def _export(self, name: str, _: ExportStage) -> Later:
        warm = self.work.exporting()
        # The first export of a process imports the exporter.
        return lambda: warm() + self.work.import_seconds

    def _baseline(self, name: str, stage: BaselineStage) -> Later:
        tunings = self.run.recipe.tunings
        main = tunings[self.run.recipe.main_tuning]
        epochs = sum(one.epochs for one in tunings.values())
        tuning = main.model_copy(update={"epochs": epochs, "distillation": 0.0, "trainable": "adapter"})
        training = self._training(name, tuning, None, "dense")
        judged = [self.work.judging(split, "dense") for split in ("validation", self.run.task.test_name)]
        return lambda: training() + sum(one() for one in judged)

    def _measure(self, name: str, stage: MeasureStage) -> Later:
        models = ("dense", self.now) if self.now != "dense" else ("dense",)
        run = self.run
        exported = "export" in (one.stage for one in run.recipe.stages)
        sizes = sizes_for(run.model)
        passes = {}
        for model in models:
            for rows, length in sizes:
                batch = self.work.batch(rows, length)
                inputs = {key: value for key, value in batch.items() if key != "labels"}
                passes[model, rows, length] = self.work.pieces.add(
                    f"pass of {model}, {rows} x {length}", partial(run_once, self.work.models[model], inputs)
                )
        judging = [self.work.judging(split, self.now) for split in run.task.reported]
        kinds = [one.stage for one in run.recipe.stages]
        if (
            "prune" in kinds and "merge" in kinds[: kinds.index("prune")]
        ):  # What was tuned before the cut is judged too.
            judging += [self.work.judging(split, "dense") for split in run.task.reported]
        asked = self._asked_latency(models, stage)
        exporting = self.work.exporting() if exported else None
        engines = self.work.engines(sizes[len(sizes) // 2]) if exported else None
        self.memory[name] = self.work.judging_bytes(*models)
        counting = self._counted()

        def seconds() -> float:
            slower = (
                0.0 if engines is None else self.work.pieces.seconds(engines[1]) / self.work.pieces.seconds(engines[0])
            )
            timing = 0.0
            for rows, length in sizes:
                torch_seconds = sum(
                    self.work.pieces.seconds(passes[model, rows, length]) for model in ("dense", models[-1])
                )
                timing += timed_rounds(torch_seconds * (1 + slower), stage)
            told = sum(one() for one in judging) + asked()
            return told + timing + len(models) * counting + (exporting() if exporting is not None else 0.0)

        return seconds

    def _counted(self) -> float:
        """Seconds in which the memory of a training step is counted; once, as it takes long."""
        started = time.perf_counter()
        measure(self.work.models["cut"], sizes=[], repeats=1, warmup=0)
        return time.perf_counter() - started

    def _asked_latency(self, models: Sequence[str], stage: MeasureStage) -> Later:
        """Rounds of the latency that a budget in time is for; in ONNX Runtime taken as quick as in torch."""
        plan = last_in_time(self.run.recipe.stages)
        if plan is None:
            return lambda: 0.0
        wanted = latency_settings(plan)
        batch = self.work.batch(wanted.batch_size, wanted.tokens)
        inputs = {key: value for key, value in batch.items() if key != "labels"}
        size = f"{wanted.batch_size} x {wanted.tokens}"
        passes = [
            self.work.pieces.add(f"pass of {model}, {size}", partial(run_once, self.work.models[model], inputs))
            for model in models
        ]
        return lambda: timed_rounds(sum(map(self.work.pieces.seconds, passes)), stage, most=2 * MEASURED_SECONDS)

    def _report(self, name: str, _: Any) -> Later:
        run = self.run
        made = dataclasses.replace(run, plan=self.plan, importance=None, done=[])
        if self.plan is not None:
            architecture = dissect(run.model).architecture
            number = sum(parameter.numel() for parameter in run.model.parameters())
            made.importance = made_up_scores(architecture, num_parameters=number)
        started = time.perf_counter()
        write_report(made.results(), self.work.scratch / "report")
        spent = time.perf_counter() - started
        return lambda: spent


def timed_rounds(round_seconds: float, stage: MeasureStage, *, most: float = MEASURED_SECONDS) -> float:
    """Seconds in which `measure` times one size: a round of all models, as often as it is repeated."""
    if not round_seconds:
        return 0.0
    warmup = min(stage.warmup, math.ceil(most / 4 / round_seconds))
    rounds = min(stage.repeats, max(LEAST_REPEATS, math.ceil(most / round_seconds)))
    return (warmup + rounds) * round_seconds
