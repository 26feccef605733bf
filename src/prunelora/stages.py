"""The stages of a run up to the merged model: how each works, and how its result is brought back in a stopped run."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from peft import PeftModel
from safetensors.torch import load_file, save_file

from prunelora.delivering import DELIVERY
from prunelora.delivery import onnx
from prunelora.delivery.adapter_base import MODEL, REPAIRED, repair_as
from prunelora.delivery.checkpoints import load, save
from prunelora.evaluation.latency_cache import latency_model_for
from prunelora.evaluation.latency_model import LatencyModel
from prunelora.evaluation.outlook import early_plan
from prunelora.finetuning.adapter import merge
from prunelora.importance.importance import Importance
from prunelora.importance.linear_probe import train_linear_probe_
from prunelora.importance.score import score
from prunelora.judging import latency_settings
from prunelora.models.anatomy import dissect
from prunelora.models.device import best_device
from prunelora.models.inputs import image_tokens
from prunelora.models.lineage import Lineage
from prunelora.planning.make_plan import make_plan
from prunelora.planning.plan import Plan
from prunelora.pruning.repair import check_repairable, repair_, repaired_weights
from prunelora.pruning.surgery import prune_
from prunelora.running import Facts, Run, StageWork, made, ready_to_train, tune
from prunelora.stage_settings import FineTuneStage, LinearProbeStage, PlanStage, PruneStage, ScoreStage
from prunelora.storage import replacing_file

CHECKPOINTS = ".checkpoints"

# Linear probe: the task head alone, on frozen features ----------------------------------------------------------------


def _linear_probe(run: Run, name: str, settings: LinearProbeStage) -> Facts:
    heads = dissect(run.model).task_head_names()
    facts: Facts = {}
    if heads:  # A language model's was trained with it.
        batches = run.calibration(settings.rows, settings.batch_size)
        facts["loss"] = train_linear_probe_(run.model, batches, steps=settings.steps, seed=run.recipe.seed)
    tensors = {
        key: value.detach().cpu().contiguous()
        for key, value in run.model.state_dict().items()
        if any(key.startswith(f"{head}.") for head in heads)
    }
    with replacing_file(run.path(name, "head.safetensors")) as temporary:
        save_file(tensors, temporary)
    return facts | {"validation": run.quality("validation")}


def _restore_head(run: Run, name: str, _: LinearProbeStage) -> None:
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
    importance = made(run.importance, "score")
    facts: Facts = {}
    table = None
    if settings.needs_latency:
        latency = _latency(run, settings)
        latency.save(run.path(name, "latency.json"))
        table = latency.table()
        facts["dense_ms"] = table.whole
        facts["latency_measured_at"] = latency.measured_at.isoformat() if latency.measured_at else None
    plan = make_plan(importance, latency=table, **_planning(run, settings))
    if table is not None:
        facts["predicted_ms"] = table.of(plan.architecture)
    shown = run.recipe.without_paths()
    origin = {"model": shown.model, "data": shown.task.described, "data_fingerprint": run.task.fingerprint}
    run.plan = plan.model_copy(update={"provenance": plan.provenance | origin})
    run.plan.save(run.path(name, "plan.json"))
    return {"plan_id": run.plan.id} | facts


def _planning(run: Run, settings: PlanStage) -> dict[str, Any]:
    """Options of `make_plan`."""
    if run.task.of_images:  # They are of one length.
        settings = settings.model_copy(update={"tokens": image_tokens(run.model)})
    return settings.model_dump(
        exclude={"stage", "latency_batch_size", "latency_engine", "latency_threads", "remeasure"}
    )


def check_stages(run: Run, names: Sequence[str]) -> None:
    """Check that the pretrained model can go through the stages, before anything is trained.

    Args:
        run: With the pretrained model.
        names: Of the stages that are to be run.

    Raises:
        PlanError: If the first plan's budget cannot be met; the message says which can.
        UnsupportedModelError: If the model cannot be repaired, where that is asked for.
        ExportError: If it cannot be exported, where that is.
    """
    stages = [stage for name, stage in run.recipe.by_name.items() if name in names]
    _check_first_plan(run, next((stage for stage in stages if isinstance(stage, PlanStage)), None))
    if any(isinstance(stage, PruneStage) and stage.repair for stage in stages):
        check_repairable(run.model)
    if any(stage.stage == "export" for stage in stages):
        onnx.check_family(dissect(run.model).family)


def _check_first_plan(run: Run, first: PlanStage | None) -> None:
    """Budgets in times of this device wait for them to be measured, and those of a model cut before for its scores."""
    anatomy = dissect(run.model)
    if first is None or first.needs_latency or anatomy.lineage != Lineage.whole(anatomy.architecture):
        return
    num_parameters = sum(parameter.numel() for parameter in run.model.parameters())
    early_plan(anatomy.architecture, num_parameters=num_parameters, **_planning(run, first))


def _latency(run: Run, settings: PlanStage) -> LatencyModel:
    """What every number of heads and neurons costs on this device, for the model as it was before any cut."""
    return latency_model_for(run.pretrained(), latency_settings(settings), remeasure=settings.remeasure, tell=run.tell)


def _restore_plan(run: Run, name: str, _: PlanStage) -> None:
    run.plan = Plan.load(run.path(name, "plan.json"))


# Prune: rows and columns leave the weights; what is left is repaired --------------------------------------------------


def _prune(run: Run, name: str, settings: PruneStage) -> Facts:
    before = sum(parameter.numel() for parameter in run.model.parameters())
    dense = copy.deepcopy(run.model) if settings.repair else None
    prune_(run.model, made(run.plan, "plan"))
    after = sum(parameter.numel() for parameter in run.model.parameters())
    facts = {"parameters_before": before, "parameters_after": after}
    if dense is not None:
        facts["validation_before_repair"] = run.quality("validation")
        batches = run.calibration(settings.repair_rows, settings.repair_batch_size)
        facts["repair"] = repair_(run.model, dense, batches, weights=settings.repair_weights).to_dict()
    if settings.repair or REPAIRED in _made_from(run):
        # After an earlier repair too: its file has the projections of a larger model.
        tensors = repaired_weights(run.model)
        with replacing_file(run.path(name, "repaired.safetensors")) as temporary:
            save_file(tensors, temporary)
    return facts | {"validation": run.quality("validation")}


def _restore_pruned(run: Run, name: str, settings: PruneStage) -> None:
    prune_(run.model, made(run.plan, "plan"))
    if settings.repair:
        repair_as(run.model, run.path(name, "repaired.safetensors"))


# Fine-tune: LoRA by the plan's ranks, LayerNorms and task head; or all weights ----------------------------------------


def _finetune(run: Run, name: str, settings: FineTuneStage) -> Facts:
    run.model = ready_to_train(run.model, run.plan, settings, seed=run.recipe.seed)
    teacher = _teacher(run) if settings.distillation else None
    facts = tune(run, run.model, settings, run.path(name, CHECKPOINTS), run.path(name, "tensorboard"), teacher)
    # An adapter is small, and its base model has the tokenizer.
    tokenizer = None if settings.trainable == "adapter" else run.processor
    save(run.model, run.path(name, _tuned_folder(settings)), tokenizer=tokenizer, made_from=_made_from(run))
    return facts


def _made_from(run: Run) -> dict[str, str]:
    """What the model before a fine-tuning was made from, beside the pretrained one and the plan; beside its folder."""
    stages = run.recipe.by_name
    found: dict[str, str] = {}
    for name in run.done:
        stage = stages[name]
        if stage.stage == "merge":
            found = {MODEL: f"../{run.path(name, 'model').name}"}
        elif isinstance(stage, PruneStage) and (stage.repair or REPAIRED in found):
            # The last one has all projections, those too that an earlier one has solved.
            found[REPAIRED] = f"../{run.path(name, 'repaired.safetensors').name}"
    return found


def _teacher(run: Run) -> Any:
    """The model that was last merged: dense and tuned, where the recipe tunes first."""
    stages = run.recipe.by_name
    merged = next(name for name in reversed(run.done) if stages[name].stage == "merge")
    return load(run.path(merged, "model")).to(best_device())


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
    rate = run.task.validation_majority_rate
    if rate is not None:
        shown["validation, most frequent class"] = f"{rate:.4f}"
    shown |= {"validation rows": f"{len(run.task.validation):,}", "seed": str(run.recipe.seed)}
    model = run.path(name, "model")
    save(run.model, model, tokenizer=run.processor, facts=shown, recipe=run.recipe.without_paths().to_yaml())
    return facts


def _restore_merged(run: Run, name: str, _: Any) -> None:
    run.model = load(run.path(name, "model")).to(best_device())


WORK: Mapping[str, StageWork] = {
    "linear_probe": StageWork(_linear_probe, _restore_head, lambda _: ("head.safetensors",), model_only=True),
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
    "finetune": StageWork(
        _finetune,
        _restore_finetuned,
        lambda settings: (_tuned_folder(settings),),
        model_only=True,
        unfinished=(CHECKPOINTS,),
    ),
    "merge": StageWork(_merge, _restore_merged, lambda _: ("model",), model_only=True, whole_model=True),
    **DELIVERY,
}
