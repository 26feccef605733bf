"""The stage prune: removes what the plan does not keep, and repairs the remaining projections."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from prunelora.stages.base import Facts, Seconds, Stage, needed

if TYPE_CHECKING:
    from prunelora.evaluation.work import Work
    from prunelora.stages.context import Run

REPAIRED = "repaired.safetensors"
# Batches of the two repairs that a forecast times.
FEW, MORE = 1, 4


class PruneStage(Stage):
    """Remove the heads and neurons that the plan does not keep, and repair the remaining projections."""

    stage: Literal["prune"] = "prune"
    repair: bool = Field(
        True, description="Re-solve output and down projections so that blocks reproduce the dense blocks' outputs."
    )
    repair_rows: int = Field(1024, ge=5, description="Training rows that repair is solved on.")
    repair_weights: Literal["equal", "loss", "features"] = Field(
        "equal",
        description="Weights of the tokens of these rows: equal, or by how much the loss, or the features that the "
        "task head reads, depend on them, which needs a backward pass.",
    )
    repair_batch_size: int = Field(32, ge=1, description="Rows of a forward pass of repair.")

    label: ClassVar[str] = "right after the cut"
    needs: ClassVar[tuple[str, ...]] = ("plan",)
    of_present: ClassVar[tuple[str, ...]] = ("plan",)
    plain_model: ClassVar[bool] = True
    changes_model: ClassVar[bool] = True
    restores_model_only: ClassVar[bool] = True

    def check(self, run: "Run", before: Sequence[Stage]) -> None:
        """Check that the model can be repaired, where that is asked for."""
        from prunelora.pruning.repair import check_repairable

        if self.repair:
            check_repairable(run.model)

    def run(self, run: "Run", name: str) -> Facts:
        """Cut the model in place, re-solve its projections against the model before the cut, and save them."""
        import copy

        from safetensors.torch import save_file

        from prunelora.pruning.repair import repair_, repaired_weights
        from prunelora.pruning.surgery import prune_
        from prunelora.storage import replacing_file

        size_before = sum(parameter.numel() for parameter in run.model.parameters())
        dense = copy.deepcopy(run.model) if self.repair else None
        prune_(run.model, needed(run.plan, "plan"))
        size_after = sum(parameter.numel() for parameter in run.model.parameters())
        facts = {"parameters_before": size_before, "parameters_after": size_after}
        if dense is not None:
            facts["validation_before_repair"] = run.quality("validation")
            batches = run.calibration(self.repair_rows, self.repair_batch_size)
            facts["repair"] = repair_(run.model, dense, batches, weights=self.repair_weights).to_dict()
        run.path(name, REPAIRED).unlink(missing_ok=True)
        # Also after an earlier repair: its file has the projections of a larger model.
        if self.repair or repair_before(run) is not None:
            with replacing_file(run.path(name, REPAIRED)) as temporary:
                save_file(repaired_weights(run.model), temporary)
        return facts | {"validation": run.quality("validation")}

    def restore(self, run: "Run", name: str) -> None:
        """Cut the model and load the repaired projections."""
        from prunelora.delivery.adapter_base import repair_as
        from prunelora.pruning.surgery import prune_

        prune_(run.model, needed(run.plan, "plan"))
        if self.repair:
            repair_as(run.model, run.path(name, REPAIRED))

    def files(self) -> tuple[str, ...]:
        """The repaired projections."""
        return (REPAIRED,)

    def forecast(self, work: "Work", run: "Run", name: str) -> Seconds:
        """Repair of one layer on two numbers of batches, less the repair of no layer, for all layers and batches."""
        from functools import partial

        import numpy as np

        from prunelora.evaluation.work import first_layers
        from prunelora.models.anatomy import dissect
        from prunelora.planning.plan import Plan
        from prunelora.pruning.repair import repair_

        plan = run.plan
        if plan is None or work.present == "cut":
            return lambda: 0.0
        judging = work.judging("validation", "cut")
        work.memory[name] = work.judging_bytes("cut")
        if not self.repair:
            return judging
        whole = Plan.whole(dissect(run.model).lineage)
        sizes = work.calibration(self.repair_rows, self.repair_batch_size)
        length = int(np.median([tokens for _, tokens in sizes]))
        batch = work.batch(self.repair_batch_size, length)
        num_batches = sum(rows * tokens for rows, tokens in sizes) / (self.repair_batch_size * length)
        tokenising = sum(rows for rows, _ in sizes) * work.row_seconds

        def repair(layers: int) -> Seconds:
            """Seconds of the repair of a model in which this many layers are not empty, on all batches."""
            thin, thick = (first_layers(run.model, kept, layers) for kept in (plan, whole))
            few, more = (
                work.pieces.add(
                    f"repair of {layers} layers on {batches} batches",
                    partial(repair_, thin, thick, [batch] * batches, weights=self.repair_weights),
                )
                for batches in (FEW, MORE)
            )

            def seconds() -> float:
                a_batch = max(0.0, more() - few()) / (MORE - FEW)
                return max(0.0, few() - a_batch) + num_batches * a_batch

            return seconds

        no_layer, one_layer = repair(0), repair(1)

        def seconds() -> float:
            layers = whole.base.num_layers * max(0.0, one_layer() - no_layer())
            return work.copy_seconds + 2 * judging() + tokenising + no_layer() + layers

        return seconds


def repair_before(run: "Run") -> str | None:
    """The last cut whose repaired projections the present model has; None if it was merged or not repaired since."""
    last = None
    for name in run.done:
        stage = run.recipe.by_name[name]
        if stage.stage == "merge":
            last = None
        elif isinstance(stage, PruneStage) and (stage.repair or last is not None):
            last = name  # A later cut saves all projections, also those that an earlier repair solved.
    return last
