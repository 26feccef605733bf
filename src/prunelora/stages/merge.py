"""The stage merge: folds the adapter into the weights and saves the model."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from prunelora.stages.base import Facts, Seconds, Stage

if TYPE_CHECKING:
    from prunelora.evaluation.work import Work
    from prunelora.stages.context import Run


class MergeStage(Stage):
    """Fold the adapter into the weights and save the plain small model."""

    stage: Literal["merge"] = "merge"

    label: ClassVar[str] = "adapter merged"
    needs: ClassVar[tuple[str, ...]] = ("finetune",)
    restores_model_only: ClassVar[bool] = True
    restores_whole_model: ClassVar[bool] = True
    artefacts: ClassVar[Mapping[str, str]] = {"model": "model"}

    def run(self, run: "Run", name: str) -> Facts:
        """Merge the adapter, judge the model on the validation rows, and save it with its card and tokenizer."""
        from peft import PeftModel

        from prunelora.delivery.checkpoints import save
        from prunelora.finetuning.adapter import merge

        if isinstance(run.model, PeftModel):
            run.model = merge(run.model)
        facts = {"validation": run.quality("validation")}
        shown = {f"validation {metric}": f"{value:.4f}" for metric, value in facts["validation"].items()}
        rate = run.task.validation_majority_rate
        if rate is not None:
            shown["validation, most frequent class"] = f"{rate:.4f}"
        shown |= {"validation rows": f"{len(run.task.validation):,}", "seed": str(run.recipe.seed)}
        recipe = run.recipe.without_paths().to_yaml()
        save(run.model, run.path(name, "model"), tokenizer=run.processor, facts=shown, recipe=recipe)
        return facts

    def restore(self, run: "Run", name: str) -> None:
        """Load the model."""
        from prunelora.delivery.checkpoints import load
        from prunelora.models.device import best_device

        run.model = load(run.path(name, "model")).to(best_device())

    def files(self) -> tuple[str, ...]:
        """The model's folder."""
        return ("model",)

    def forecast(self, work: "Work", run: "Run", name: str) -> Seconds:
        """A pass over the validation rows, and the weights written to a file."""
        from prunelora.evaluation.counting import weight_bytes

        judging = work.judging("validation", work.present)
        saving = work.saving(weight_bytes(work.models[work.present]))
        work.memory[name] = work.judging_bytes(work.present)
        return lambda: judging() + saving()
