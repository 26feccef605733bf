"""The stage score: scores heads and neurons on training rows."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from prunelora.stages.base import Facts, Seconds, Stage

if TYPE_CHECKING:
    from prunelora.evaluation.work import Work
    from prunelora.stages.context import Run

SCORES = "importance.safetensors"


class ScoreStage(Stage):
    """Score heads and neurons on training rows."""

    stage: Literal["score"] = "score"
    criterion: Literal["gradient", "fisher", "obs", "features", "magnitude", "random"] = Field(
        "gradient",
        description="How the importance of a head or neuron is computed; gradient is the paper's criterion, obs scores "
        "by the loss after the remaining columns are re-solved, features likewise by the vectors that the task head "
        "reads, without labels (plan both with normalise: none).",
    )
    rows: int = Field(1024, ge=1, description="Training rows to score on; 500 to 2,000 are usually enough.")
    batch_size: int = Field(32, ge=1, description="Rows a backward pass; it changes time and memory, not the scores.")

    plain_model: ClassVar[bool] = True
    artefacts: ClassVar[Mapping[str, str]] = {SCORES: "importance"}

    def run(self, run: "Run", name: str) -> Facts:
        """Score the present model and save the scores."""
        from prunelora.importance.score import score

        batches = run.calibration(self.rows, self.batch_size)
        run.importance = score(run.model, batches, criterion=self.criterion, seed=run.recipe.seed)
        run.importance.save(run.path(name, SCORES))
        return dict(run.importance.provenance)

    def restore(self, run: "Run", name: str) -> None:
        """Load the scores."""
        from prunelora.importance.importance import Importance

        run.importance = Importance.load(run.path(name, SCORES))

    def files(self) -> tuple[str, ...]:
        """The scores."""
        return (SCORES,)

    def forecast(self, work: "Work", run: "Run", name: str) -> Seconds:
        """Passes over the rows by the criterion; for obs, also the elimination of every layer's columns."""
        from functools import partial

        from prunelora.importance.criteria import CurvatureCriterion, WeightCriterion, find_criterion
        from prunelora.importance.curvature import Curvature
        from prunelora.importance.score import score
        from prunelora.models.anatomy import dissect
        from prunelora.models.state import left_as_found

        criterion, model = find_criterion(self.criterion), work.models[work.present]
        if isinstance(criterion, WeightCriterion):
            return work.pieces.add(f"weights of {work.present}", partial(score, model, criterion=self.criterion))
        sizes = work.calibration(self.rows, self.batch_size)
        tokenising = sum(rows for rows, _ in sizes) * work.row_seconds
        if not isinstance(criterion, CurvatureCriterion):
            gradients = work.in_batches(
                f"{self.criterion} of {work.present}",
                self.batch_size,
                lambda batch: partial(score, model, [batch], criterion=self.criterion),
                sizes,
            )
            return lambda: tokenising + gradients()
        curvature = Curvature(dissect(model), criterion.objective)

        def add(batch: Mapping[str, Any]) -> None:
            with left_as_found(model):
                model.eval().requires_grad_(False)
                curvature.add(0, batch)

        passes = work.in_batches(f"curvature of {work.present}", self.batch_size, partial(partial, add), sizes)
        elimination = work.elimination(model)
        return lambda: tokenising + passes() + elimination()
