"""The stage baseline: trains the dense model with plain LoRA."""

import copy
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from prunelora.stages.base import Facts, Seconds, Stage

if TYPE_CHECKING:
    from prunelora.evaluation.work import Work
    from prunelora.stages.context import Run

CHECKPOINTS = ".baseline-checkpoints"


class BaselineStage(Stage):
    """Fine-tune the dense model with plain LoRA, the same way, to see what pruning cost."""

    stage: Literal["baseline"] = "baseline"
    rank: int = Field(8, ge=1, description="LoRA rank of every matrix of the dense model.")

    has_command: ClassVar[bool] = False
    makes_model: ClassVar[bool] = False
    label: ClassVar[str] = "dense baseline after its training"
    needs: ClassVar[tuple[str, ...]] = ("finetune",)
    unfinished: ClassVar[tuple[str, ...]] = (CHECKPOINTS,)

    def run(self, run: "Run", name: str) -> Facts:
        """Train with the settings of the longest fine-tuning, for the epochs of all together, and judge the model.

        Data, seed and targets are the same; nothing is cut, every rank is equal, and there is no teacher.
        """
        from prunelora.models.anatomy import dissect
        from prunelora.planning.plan import Plan
        from prunelora.stages.judging import tested
        from prunelora.stages.training import ready_to_train, tune

        tunings = run.recipe.tunings
        epochs = sum(stage.epochs for stage in tunings.values())
        tuning = tunings[run.recipe.main_tuning].model_copy(update={"epochs": epochs, "distillation": 0.0})
        model = run.pretrained()
        plan = Plan.whole(dissect(model).lineage, rank=self.rank, targets=_targets(run, run.recipe.main_tuning))
        model = ready_to_train(model, plan, tuning.model_copy(update={"trainable": "adapter"}), seed=run.recipe.seed)
        checkpoints = run.path(name, CHECKPOINTS)
        training = tune(run, model, tuning, checkpoints, run.path(name, "tensorboard-baseline"))
        return {
            "rank": self.rank,
            "training": training,
            "validation": run.quality("validation", model),
            **tested(run, model),
        }

    def forecast(self, work: "Work", run: "Run", name: str) -> Seconds:
        """The training of the dense model, and a pass over the validation and test rows."""
        from prunelora.stages.training import ready_to_train

        tunings = run.recipe.tunings
        epochs = sum(tuning.epochs for tuning in tunings.values())
        changes = {"epochs": epochs, "distillation": 0.0, "trainable": "adapter"}
        tuning = tunings[run.recipe.main_tuning].model_copy(update=changes)
        trained = ready_to_train(copy.deepcopy(work.models["dense"]), None, tuning, seed=0)
        training = work.training(name, trained, tuning, "dense")
        judged = [work.judging(split, "dense") for split in ("validation", run.task.test_name)]
        return lambda: training() + sum(seconds() for seconds in judged)


def _targets(run: "Run", name: str) -> tuple[str, ...]:
    """The projections to which a fine-tuning adds LoRA: the plan's, or its own where no plan was made before."""
    tuning = run.recipe.tunings[name]
    if run.plan is not None and (name in run.recipe.after_plans or tuning.trainable == "all"):
        return tuple(run.plan.ranks)
    return tuning.lora_targets
