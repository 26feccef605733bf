"""The stages of a run: how each does its work, and how its result is brought back when a stopped run goes on."""

import copy
import dataclasses
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from datasets import Dataset
from peft import PeftModel
from safetensors.torch import load_file, save_file

from prunelora.data.answers import labels_of
from prunelora.data.embedded import model_source
from prunelora.data.metrics import metrics
from prunelora.data.task import TaskData
from prunelora.data.tokens import calibration_batches, tokenise
from prunelora.delivery.checkpoints import load, save
from prunelora.delivery.onnx import export
from prunelora.errors import RecipeError
from prunelora.evaluation.latency_cache import latency_model_for
from prunelora.evaluation.latency_model import LatencyModel, LatencySettings
from prunelora.evaluation.measurement import measure
from prunelora.evaluation.quality import evaluate, predict_rows
from prunelora.finetuning.adapter import add_adapter, merge
from prunelora.finetuning.distillation import TEACHER
from prunelora.finetuning.settings import FineTuneSettings
from prunelora.finetuning.training import finetune
from prunelora.importance.importance import Importance
from prunelora.importance.score import score
from prunelora.importance.warmup import warm_up_
from prunelora.models.anatomy import dissect
from prunelora.models.device import best_device
from prunelora.models.family import ATTENTION_PROJECTIONS
from prunelora.models.inputs import image_tokens
from prunelora.models.loading import load_pretrained
from prunelora.planning.make_plan import make_plan
from prunelora.planning.plan import Plan
from prunelora.pruning.repair import repair_, repaired_weights
from prunelora.pruning.surgery import prune_
from prunelora.recipe import Recipe
from prunelora.report.results import RunResults
from prunelora.report.writing import write_report
from prunelora.runfolder import RunFolder
from prunelora.stage_settings import (
    BaselineStage,
    ExportStage,
    FineTuneStage,
    MeasureStage,
    PlanStage,
    PruneStage,
    ScoreStage,
    WarmUpStage,
)
from prunelora.storage import replacing_file

Facts = dict[str, Any]
Made = TypeVar("Made")


@dataclasses.dataclass
class Run:
    """What the stages hand on to each other."""

    recipe: Recipe
    folder: RunFolder
    task: TaskData
    processor: Any  # Tokenizer, or image processor.
    model: Any = None
    importance: Importance | None = None
    plan: Plan | None = None
    progress: bool = True
    done: list[str] = dataclasses.field(default_factory=list)  # Stages that are up to date, in order.

    def path(self, stage: str, file: str) -> Path:
        """Where a stage puts a file: plan.json; for an earlier stage of the same kind, plan-1, plan-1.json."""
        _, _, number = stage.partition("-")
        name = Path(file)
        return self.folder.file(f"{name.stem}-{number}{name.suffix}" if number else file)

    def calibration(self, rows: int, batch_size: int) -> Sequence[dict[str, torch.Tensor]]:
        """Batches of a seeded sample of training rows."""
        return calibration_batches(
            self.task,
            self.processor,
            rows=rows,
            batch_size=batch_size,
            seed=self.recipe.seed,
            max_length=self.recipe.task.max_length,
        )

    def tokenised(self, split: str) -> Dataset:
        """Tokenised rows of "train", "validation", "test", or another reported split."""
        rows = self.task.more_tests[split] if split in self.task.more_tests else getattr(self.task, split)
        return tokenise(rows, self.processor, max_length=self.recipe.task.max_length)

    def quality(self, split: str, model: Any = None) -> dict[str, float]:
        """Metrics of the present model, or another, on a split."""
        return evaluate(
            self.model if model is None else model,
            self.tokenised(split),
            self.processor,
            problem_type=self.task.problem_type,
        )

    def pretrained(self) -> Any:
        """The model everything starts from, dense, on the best device."""
        return pretrained(self.recipe, self.task)

    def results(self) -> RunResults:
        """What has been found so far, for the report."""
        records = [record for name in self.done if (record := self.folder.record(name)) is not None]
        return RunResults(
            model=self.recipe.model,
            data=self.recipe.task.described,
            task={
                "problem_type": self.task.problem_type,
                "label_names": list(self.task.label_names),
                "rows": {name: len(getattr(self.task, name)) for name in ("train", "validation", "test")}
                | {split: len(rows) for split, rows in self.task.more_tests.items()},
                "majority_rate": self.task.majority_rate,
                "majority_rates": self.task.majority_rates,
                "metrics": list(self.task.metrics),
                "columns": self.task.columns,
                "notes": list(self.task.notes),
                "fingerprint": self.task.fingerprint,
            },
            seed=self.recipe.seed,
            recipe_yaml=self.recipe.to_yaml(),
            folder=str(self.folder.path),
            importance=self.importance,
            plan=self.plan,
            stages={record.stage: {"seconds": record.seconds, "facts": record.facts} for record in records},
        )


def pretrained(recipe: Recipe, task: TaskData) -> Any:
    """The dense model that a recipe starts from, with a task head for the task, on the best device."""
    model: Any = load_pretrained(
        model_source(recipe.model),
        label_names=task.label_names,
        problem_type=task.problem_type,
        seed=recipe.seed,
        trust_remote_code=recipe.trust_remote_code,
    )
    model.config.name_or_path = recipe.model
    return model.to(best_device())


def ready_to_train(model: Any, plan: Plan | None, settings: FineTuneStage, *, seed: int) -> Any:
    """The model as a fine-tuning trains it: every weight, or an adapter by the plan; without one, of one rank."""
    if settings.trainable == "all":
        return model.requires_grad_(True)
    if plan is None:
        # Cuts nothing, and leaves its ranks with the model, where a saved adapter finds them.
        plan = Plan.whole(dissect(model).lineage, rank=settings.lora_rank, targets=settings.lora_targets)
        prune_(model, plan)
    return add_adapter(
        model,
        plan,
        alpha_over_rank=settings.alpha_over_rank,
        dropout=settings.lora_dropout,
        train_norms=settings.train_norms,
        train_head=settings.train_head,
        initialisation=settings.lora_init,
        seed=seed,
    )


@dataclasses.dataclass(frozen=True)
class StageWork:
    """How a stage is carried out.

    Attributes:
        run: Does the work on the run, leaves files, and returns facts for the report.
        restore: Brings the run to the state after the stage, from its files.
        files: What it leaves in the run folder, by its plain names; depends on its settings.
        model_only: Whether `restore` changes nothing but the model.
        whole_model: Whether `restore` brings a model that does not depend on the one before.
    """

    run: Callable[[Run, str, Any], Facts]
    restore: Callable[[Run, str, Any], None]
    files: Callable[[Any], tuple[str, ...]] = lambda _: ()
    model_only: bool = False
    whole_model: bool = False


# Warm-up: the task head alone, on frozen features ---------------------------------------------------------------------


def _warm_up(run: Run, name: str, settings: WarmUpStage) -> Facts:
    heads = dissect(run.model).task_head_names()
    facts: Facts = {}
    if heads:  # A language model's was trained with it.
        batches = run.calibration(settings.rows, settings.batch_size)
        facts["loss"] = warm_up_(run.model, batches, steps=settings.steps, seed=run.recipe.seed)
    tensors = {
        key: value.detach().cpu().contiguous()
        for key, value in run.model.state_dict().items()
        if any(key.startswith(f"{head}.") for head in heads)
    }
    with replacing_file(run.path(name, "head.safetensors")) as temporary:
        save_file(tensors, temporary)
    return facts | {"validation": run.quality("validation")}


def _restore_head(run: Run, name: str, _: WarmUpStage) -> None:
    run.model.load_state_dict(load_file(run.path(name, "head.safetensors")), strict=False)


# Score: how much the loss depends on every head and neuron ------------------------------------------------------------


def _score(run: Run, name: str, settings: ScoreStage) -> Facts:
    batches = run.calibration(settings.rows, settings.batch_size)
    run.importance = score(run.model, batches, criterion=settings.criterion, seed=run.recipe.seed)
    run.importance.save(run.path(name, "importance.safetensors"))
    return dict(run.importance.provenance)


def _restore_importance(run: Run, name: str, _: ScoreStage) -> None:
    run.importance = Importance.load(run.path(name, "importance.safetensors"))


# Plan: what stays, and a rank for every matrix ------------------------------------------------------------------------


def _plan(run: Run, name: str, settings: PlanStage) -> Facts:
    importance = _made(run.importance, "score")
    facts: Facts = {}
    table = None
    if settings.needs_latency:
        latency = _latency(run, settings)
        latency.save(run.path(name, "latency.json"))
        table = latency.table()
        facts["dense_ms"] = table.whole
    if run.task.of_images:  # They are of one length.
        settings = settings.model_copy(update={"tokens": image_tokens(run.model)})
    own = {"stage", "latency_batch_size", "latency_engine", "latency_threads"}
    plan = make_plan(importance, latency=table, **settings.model_dump(exclude=own))
    if table is not None:
        facts["predicted_ms"] = table.of(plan.architecture)
    origin = {"model": run.recipe.model, "data": run.recipe.task.described, "data_fingerprint": run.task.fingerprint}
    run.plan = plan.model_copy(update={"provenance": plan.provenance | origin})
    run.plan.save(run.path(name, "plan.json"))
    return {"plan_id": run.plan.id} | facts


def _latency(run: Run, settings: PlanStage) -> LatencyModel:
    """What every number of heads and neurons costs on this device, for the model as it was before any cut."""
    return latency_model_for(run.pretrained(), latency_settings(settings))


def latency_settings(settings: PlanStage) -> LatencySettings:
    """Which latency a plan's budget, and `check`, mean."""
    return LatencySettings(
        engine=settings.latency_engine,
        batch_size=settings.latency_batch_size,
        tokens=settings.tokens,
        threads=settings.latency_threads,
    )


def _restore_plan(run: Run, name: str, _: PlanStage) -> None:
    run.plan = Plan.load(run.path(name, "plan.json"))


# Prune: rows and columns leave the weights; what is left is repaired --------------------------------------------------


def _prune(run: Run, name: str, settings: PruneStage) -> Facts:
    before = sum(parameter.numel() for parameter in run.model.parameters())
    dense = copy.deepcopy(run.model) if settings.repair else None
    prune_(run.model, _made(run.plan, "plan"))
    after = sum(parameter.numel() for parameter in run.model.parameters())
    facts = {"parameters_before": before, "parameters_after": after}
    if dense is not None:
        facts["validation_before_repair"] = run.quality("validation")
        batches = run.calibration(settings.repair_rows, settings.repair_batch_size)
        facts["repair"] = repair_(run.model, dense, batches).to_dict()
        tensors = repaired_weights(run.model)
        with replacing_file(run.path(name, "repaired.safetensors")) as temporary:
            save_file(tensors, temporary)
    return facts | {"validation": run.quality("validation")}


def _restore_pruned(run: Run, name: str, settings: PruneStage) -> None:
    prune_(run.model, _made(run.plan, "plan"))
    if settings.repair:
        run.model.load_state_dict(load_file(run.path(name, "repaired.safetensors")), strict=False)


# Fine-tune: LoRA by the plan's ranks, LayerNorms and task head; or all weights ----------------------------------------


def _finetune(run: Run, name: str, settings: FineTuneStage) -> Facts:
    run.model = ready_to_train(run.model, run.plan, settings, seed=run.recipe.seed)
    teacher = _teacher(run) if settings.distillation else None
    facts = _train(run, run.model, settings, run.path(name, ".checkpoints"), run.path(name, "tensorboard"), teacher)
    # An adapter is small, and its base model has the tokenizer.
    tokenizer = None if settings.trainable == "adapter" else run.processor
    save(run.model, run.path(name, _tuned_folder(settings)), tokenizer=tokenizer)
    shutil.rmtree(run.path(name, ".checkpoints"), ignore_errors=True)
    return facts


def _teacher(run: Run) -> Any:
    """The model that was last merged: dense and tuned, where the recipe tunes first."""
    merged = next((name for name in reversed(run.done) if name.partition("-")[0] == "merge"), None)
    if merged is None:
        raise RecipeError(
            "finetune.distillation needs a teacher, and no model was merged before. Put 'finetune' and 'merge' before "
            "the cut, or set distillation to 0."
        )
    return load(run.path(merged, "model")).to(best_device())


def _train(
    run: Run, model: Any, settings: FineTuneSettings, checkpoints: Path, logs: Path, teacher: Any = None
) -> Facts:
    train = run.tokenised("train")
    if teacher is not None:
        train = train.add_column(TEACHER, predict_rows(teacher, train, run.processor).tolist())
    result = finetune(
        model,
        train,
        run.tokenised("validation"),
        tokenizer=run.processor,
        checkpoints=checkpoints,
        logs=logs,
        seed=run.recipe.seed,
        progress=run.progress,
        main_metric=run.task.metrics[0],
        **settings.model_dump(include=set(FineTuneSettings.model_fields)),
    )
    return result.to_dict()


def _tuned_folder(settings: FineTuneStage) -> str:
    return "adapter" if settings.trainable == "adapter" else "tuned"


def _restore_finetuned(run: Run, name: str, settings: FineTuneStage) -> None:
    base = run.model if settings.trainable == "adapter" else None
    run.model = load(run.path(name, _tuned_folder(settings)), base=base).to(best_device())


# Merge: a plain small model -------------------------------------------------------------------------------------------


def _merge(run: Run, name: str, _: Any) -> Facts:
    if isinstance(run.model, PeftModel):
        run.model = merge(run.model)
    facts = {"validation": run.quality("validation")}
    shown = {f"validation {metric}": f"{value:.4f}" for metric, value in facts["validation"].items()}
    save(run.model, run.path(name, "model"), tokenizer=run.processor, facts=shown)
    return facts


def _restore_merged(run: Run, name: str, _: Any) -> None:
    run.model = load(run.path(name, "model")).to(best_device())


# Evaluate: answers on the reported rows -----------------------------------------------------------------------------


def _evaluate(run: Run, name: str, _: Any) -> Facts:
    """What metrics take, logits most often, and labels of every reported split, in the order of its rows."""
    tensors: dict[str, torch.Tensor] = {}
    quality = {}
    for split, rows in run.task.reported.items():
        tokenised = tokenise(rows, run.processor, max_length=run.recipe.task.max_length)
        answers = predict_rows(run.model, tokenised, run.processor, problem_type=run.task.problem_type)
        labels = labels_of(tokenised)
        quality[split] = metrics(answers, labels, run.task.problem_type, run.task.label_names)
        tensors |= {f"{split}.logits": torch.from_numpy(answers), f"{split}.labels": torch.from_numpy(labels)}
    with replacing_file(run.path(name, "answers.safetensors")) as temporary:
        save_file(tensors, temporary)
    return {"quality": quality}


# Export, baseline, measure, report: what is delivered and what is known about it --------------------------------------


def _export(run: Run, name: str, settings: ExportStage) -> Facts:
    path = export(run.model, run.path(name, "model.onnx"), tolerance=settings.tolerance)
    return {"file": path.name, "bytes": path.stat().st_size}


def _baseline(run: Run, name: str, settings: BaselineStage) -> Facts:
    """Same data, seed, targets and training as the last fine-tuning; nothing cut, the same rank everywhere."""
    tuning = next(stage for stage in reversed(run.recipe.stages) if isinstance(stage, FineTuneStage))
    model = run.pretrained()
    targets = tuple(run.plan.ranks) if run.plan is not None else ATTENTION_PROJECTIONS
    plan = Plan.whole(dissect(model).lineage, rank=settings.rank, targets=targets)
    model = ready_to_train(model, plan, tuning.model_copy(update={"trainable": "adapter"}), seed=run.recipe.seed)
    checkpoints = run.path(name, ".baseline-checkpoints")
    training = _train(run, model, tuning, checkpoints, run.path(name, "tensorboard-baseline"))
    shutil.rmtree(checkpoints, ignore_errors=True)
    return {
        "rank": settings.rank,
        "training": training,
        "validation": run.quality("validation", model),
        "test": run.quality("test", model),
    }


def _measure(run: Run, _: str, settings: MeasureStage) -> Facts:
    """Quality on the test rows, which nothing before has seen; size, speed and memory beside the dense model."""
    if isinstance(run.model, PeftModel):
        raise RecipeError("Stage 'measure' needs a plain model: put 'merge' before it.")
    dense = run.pretrained()
    exported = run.folder.file("model.onnx")
    with tempfile.TemporaryDirectory() as scratch:
        was_exported = "export" in run.done
        measurement = measure(
            run.model,
            base=dense,
            onnx=exported if was_exported else None,
            base_onnx=export(dense, Path(scratch) / "dense.onnx") if was_exported else None,
            repeats=settings.repeats,
            warmup=settings.warmup,
        )
    return {
        "test": run.quality("test"),
        "more_tests": {split: run.quality(split) for split in run.task.more_tests},
        "test_rows": len(run.task.test),
        "majority_rate": run.task.majority_rate,
        "measurement": measurement.to_dict(),
    }


def _report(run: Run, _: str, __: Any) -> Facts:
    return {"files": write_report(run.results(), run.folder.path)}


def _nothing(_: Run, __: str, ___: Any) -> None:
    """Restore nothing: no later stage reads what this one left."""


def _made(value: Made | None, kind: str) -> Made:
    if value is None:
        raise RecipeError(f"Nothing to go on from: the stage {kind!r} has not run. Put it before this one.")
    return value


WORK: Mapping[str, StageWork] = {
    "warmup": StageWork(_warm_up, _restore_head, lambda _: ("head.safetensors",), model_only=True),
    "score": StageWork(_score, _restore_importance, lambda _: ("importance.safetensors",)),
    "plan": StageWork(
        _plan,
        _restore_plan,
        lambda settings: ("plan.json", "latency.json") if settings.needs_latency else ("plan.json",),
    ),
    "prune": StageWork(
        _prune,
        _restore_pruned,
        lambda settings: ("repaired.safetensors",) if settings.repair else (),
        model_only=True,
    ),
    "finetune": StageWork(_finetune, _restore_finetuned, lambda settings: (_tuned_folder(settings),), model_only=True),
    "merge": StageWork(_merge, _restore_merged, lambda _: ("model",), model_only=True, whole_model=True),
    "evaluate": StageWork(_evaluate, _nothing, lambda _: ("answers.safetensors",)),
    "export": StageWork(_export, _nothing, lambda _: ("model.onnx",)),
    "baseline": StageWork(_baseline, _nothing),
    "measure": StageWork(_measure, _nothing),
    "report": StageWork(_report, _nothing, lambda _: ("report.html", "report.md", "metrics.json", "figures")),
}
