"""How the stages of a run train a model: with which parameters, on which rows, with which teacher."""

import shutil
from pathlib import Path
from typing import Any

from prunelora.delivery.adapter_base import MODEL, REPAIRED
from prunelora.delivery.checkpoints import load
from prunelora.evaluation.quality import predict_rows
from prunelora.finetuning.adapter import add_adapter
from prunelora.finetuning.checkpoints import IDENTITY
from prunelora.finetuning.distillation import TEACHER, check_task
from prunelora.finetuning.settings import FineTuneSettings
from prunelora.finetuning.training import finetune
from prunelora.models.anatomy import dissect
from prunelora.models.device import best_device
from prunelora.planning.plan import Plan
from prunelora.pruning.surgery import prune_
from prunelora.stages.base import Facts
from prunelora.stages.context import Run
from prunelora.stages.finetune import FineTuneStage
from prunelora.stages.prune import REPAIRED as REPAIRED_FILE
from prunelora.stages.prune import repair_before


def ready_to_train(model: Any, plan: Plan | None, settings: FineTuneStage, *, seed: int) -> Any:
    """The model with its trainable parameters: every weight, or an adapter by the plan; without a plan, of one rank."""
    if settings.trainable == "all":
        return model.requires_grad_(True)
    if plan is None:
        # A plan that cuts nothing stores the ranks with the model, where a saved adapter looks for them.
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


def tune(run: Run, model: Any, settings: FineTuneSettings, checkpoints: Path, logs: Path, teacher: Any = None) -> Facts:
    """Train a model in place on the training rows; with a teacher, towards the teacher's answers."""
    _remove_checkpoints_of_earlier_versions(run, checkpoints)
    train = run.tokenised("train")
    if teacher is not None:
        check_task(train, run.task.problem_type)
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
    return result.to_dict() | {"truncation": {split: cut.to_dict() for split, cut in run.truncation.items()}}


def teacher_of(run: Run) -> Any:
    """The last merged model; in a recipe that tunes first, it is dense and tuned."""
    return load(run.path(run.done_of("merge")[-1], "model")).to(best_device())


def made_from(run: Run) -> dict[str, str]:
    """Paths of the files that the present model is made from, beside the pretrained model and the plan.

    Relative to the folder of an adapter in the run folder.
    """
    files = {}
    if merged := run.done_of("merge"):
        files[MODEL] = f"../{run.path(merged[-1], 'model').name}"
    if (repaired := repair_before(run)) is not None:
        files[REPAIRED] = f"../{run.path(repaired, REPAIRED_FILE).name}"
    return files


def _remove_checkpoints_of_earlier_versions(run: Run, folder: Path) -> None:
    """Remove checkpoints that do not record what they were made from; the training starts anew."""
    if any(folder.glob("checkpoint-*")) and not (folder / IDENTITY).exists():
        run.tell(f"{folder.name}: checkpoints of an earlier version of prunelora are removed; the training starts anew")
        shutil.rmtree(folder)
