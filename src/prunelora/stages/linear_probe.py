"""The stage linear_probe: trains the task head on frozen features."""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from prunelora.stages.base import Facts, Seconds, Stage

if TYPE_CHECKING:
    from prunelora.evaluation.work import Work
    from prunelora.stages.context import Run


class LinearProbeStage(Stage):
    """Train the task head alone on frozen features, so that scores do not depend on a random head."""

    stage: Literal["linear_probe"] = "linear_probe"
    steps: int = Field(200, ge=1, description="Steps (one batch each) that train the task head alone before scoring.")
    rows: int = Field(1024, ge=1, description="Training rows used.")
    batch_size: int = Field(32, ge=1, description="Rows a step.")

    has_command: ClassVar[bool] = False
    label: ClassVar[str] = "after the linear probe"
    plain_model: ClassVar[bool] = True
    changes_model: ClassVar[bool] = True
    restores_model_only: ClassVar[bool] = True

    def run(self, run: "Run", name: str) -> Facts:
        """Train the head and save it; a language model's head is pretrained and is left as it is."""
        from safetensors.torch import save_file

        from prunelora.importance.linear_probe import train_linear_probe_
        from prunelora.models.anatomy import dissect
        from prunelora.storage import replacing_file

        heads = dissect(run.model).task_head_names()
        facts: Facts = {}
        if heads:
            batches = run.calibration(self.rows, self.batch_size)
            facts["loss"] = train_linear_probe_(run.model, batches, steps=self.steps, seed=run.recipe.seed)
        tensors = {
            key: value.detach().cpu().contiguous()
            for key, value in run.model.state_dict().items()
            if any(key.startswith(f"{head}.") for head in heads)
        }
        with replacing_file(run.path(name, "head.safetensors")) as temporary:
            save_file(tensors, temporary)
        return facts | {"validation": run.quality("validation")}

    def restore(self, run: "Run", name: str) -> None:
        """Load the trained head into the model."""
        from safetensors.torch import load_file

        run.model.load_state_dict(load_file(run.path(name, "head.safetensors")), strict=False)

    def files(self) -> tuple[str, ...]:
        """The head's weights."""
        return ("head.safetensors",)

    def forecast(self, work: "Work", run: "Run", name: str) -> Seconds:
        """Features of the rows once, then steps of the head; a step's time is the slope between 5 and 25 steps."""
        from functools import partial

        from prunelora.importance.linear_probe import train_linear_probe_
        from prunelora.models.anatomy import dissect

        sizes = work.calibration(self.rows, self.batch_size)
        features = work.passes(work.present, sizes)
        judging = work.judging("validation", work.present)
        model, batch = work.models[work.present], work.batch(self.batch_size, work.ends[1])
        if not dissect(model).task_head_names():
            return judging
        few, more = (
            work.pieces.add(f"{steps} steps of the head", partial(train_linear_probe_, model, [batch], steps=steps))
            for steps in (5, 25)
        )
        work.memory[name] = work.judging_bytes(work.present)
        rows = sum(count for count, _ in sizes)

        def seconds() -> float:
            step = max(0.0, more() - few()) / 20
            return rows * work.row_seconds + features() + self.steps * step + judging()

        return seconds
