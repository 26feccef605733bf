"""The stage finetune: trains LoRA, LayerNorms and task head, or all weights."""

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from prunelora.errors import RecipeError, option
from prunelora.finetuning.settings import FineTuneSettings
from prunelora.stages.base import Facts, Seconds, Stage
from prunelora.stages.targets import ATTENTION, Targets

if TYPE_CHECKING:
    from prunelora.evaluation.work import Work
    from prunelora.stages.context import Run

CHECKPOINTS = ".checkpoints"


class FineTuneStage(FineTuneSettings, Stage):
    """Add LoRA and train it with LayerNorms and task head; or train all weights.

    Ranks are the plan's; without a plan, every target gets `lora_rank`.
    """

    stage: Literal["finetune"] = "finetune"
    trainable: Literal["adapter", "all"] = Field(
        "adapter", description="adapter: LoRA by the plan's ranks, LayerNorms, task head. all: every weight."
    )
    lora_rank: int = Field(
        8, ge=1, description="LoRA rank of every target, before any plan; after a plan its ranks count."
    )
    lora_targets: Targets = Field(
        ATTENTION, description="Projections that get LoRA, before any plan; after a plan its targets count."
    )
    alpha_over_rank: float = Field(2.0, gt=0, description="LoRA's scale alpha / r, the same for every rank.")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout of LoRA's input.")
    lora_init: Literal["kaiming", "gaussian", "orthogonal"] = Field(
        "kaiming", description="Initialisation of LoRA's A (orthogonal: of A and B, so that their product is 0)."
    )
    train_norms: bool = Field(True, description="Train LayerNorms too.")
    train_head: bool = Field(True, description="Train the task head too.")

    label: ClassVar[str] = "after fine-tuning"
    plain_model: ClassVar[bool] = True
    changes_model: ClassVar[bool] = True
    restores_model_only: ClassVar[bool] = True
    unfinished: ClassVar[tuple[str, ...]] = (CHECKPOINTS,)
    artefacts: ClassVar[Mapping[str, str]] = {"adapter": "adapter", "tuned": "tuned"}

    def check_place(self, name: str, before: Mapping[str, Stage]) -> None:
        """Check that distillation has a teacher: a model that was merged before."""
        if self.distillation and "merge" not in before:
            raise RecipeError(
                f"{option(f'{name}.distillation', self.distillation)} needs a teacher, and no model was merged "
                "before. Put 'finetune' and 'merge' before the cut, or set it to 0."
            )

    def check_packages(self) -> None:
        """Check that TensorBoard is installed, where it is asked for."""
        self.check_installed()

    def run(self, run: "Run", name: str) -> Facts:
        """Train the present model in place and save the adapter or the model."""
        from prunelora.delivery.checkpoints import save
        from prunelora.stages.training import made_from, ready_to_train, teacher_of, tune

        run.model = ready_to_train(run.model, run.plan, self, seed=run.recipe.seed)
        teacher = teacher_of(run) if self.distillation else None
        facts = tune(run, run.model, self, run.path(name, CHECKPOINTS), run.path(name, "tensorboard"), teacher)
        # An adapter is small, and its base model has the tokenizer.
        tokenizer = None if self.trainable == "adapter" else run.processor
        save(run.model, run.path(name, self.files()[0]), tokenizer=tokenizer, made_from=made_from(run))
        return facts

    def restore(self, run: "Run", name: str) -> None:
        """Load the adapter onto the present model, or the tuned model."""
        from prunelora.delivery.checkpoints import load
        from prunelora.models.device import best_device

        base = run.model if self.trainable == "adapter" else None
        run.model = load(run.path(name, self.files()[0]), base=base).to(best_device())

    def files(self) -> tuple[str, ...]:
        """The adapter, or the tuned model."""
        return ("adapter",) if self.trainable == "adapter" else ("tuned",)

    def forecast(self, work: "Work", run: "Run", name: str) -> Seconds:
        """Training steps, evaluations and checkpoints."""
        from prunelora.stages.training import ready_to_train

        plan = run.plan if name in run.recipe.after_plans else None
        trained = ready_to_train(copy.deepcopy(work.models[work.present]), plan, self, seed=0)
        return work.training(name, trained, self, work.present)
