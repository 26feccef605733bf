"""The stage score: scores heads and neurons on training rows."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from prunelora.stages.base import Facts, Seconds, Stage

if TYPE_CHECKING:
    from prunelora.stages.context import Run
    from prunelora.stages.forecasting import Forecast

SCORES = "importance.safetensors"


class ScoreStage(Stage):
    """Score heads and neurons on training rows."""

    stage: Literal["score"] = "score"
    criterion: Literal["gradient", "fisher", "obs", "magnitude", "random"] = Field(
        "gradient",
        description="How the importance of a head or neuron is computed; gradient is the paper's criterion, obs scores "
        "by the loss after the remaining columns are re-solved (plan with normalise: none).",
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

    def forecast(self, forecast: "Forecast", name: str) -> Seconds:
        """Passes over the rows by the criterion; for obs, also the elimination of every layer's columns."""
        from functools import partial

        from prunelora.importance.criteria import CurvatureCriterion, WeightCriterion, find_criterion
        from prunelora.importance.curvature import Curvature
        from prunelora.importance.score import score
        from prunelora.models.anatomy import dissect
        from prunelora.models.state import left_as_found

        criterion, work = find_criterion(self.criterion), forecast.work
        model = work.models[forecast.now]
        if isinstance(criterion, WeightCriterion):
            piece = work.pieces.add(f"weights of {forecast.now}", partial(score, model, criterion=self.criterion))
            return lambda: work.pieces.seconds(piece)
        sizes = work.calibration(self.rows, self.batch_size)
        rows = sum(count for count, _ in sizes)
        if not isinstance(criterion, CurvatureCriterion):
            line = work.line(
                f"{self.criterion} of {forecast.now}",
                self.batch_size,
                lambda batch: partial(score, model, [batch], criterion=self.criterion),
            )
            return lambda: rows * work.row_seconds + line.total(work.pieces, sizes)
        curvature = Curvature(dissect(model))

        def call_of(batch: Mapping[str, Any]) -> Callable[[], object]:
            def call() -> None:
                with left_as_found(model):
                    model.eval().requires_grad_(False)
                    curvature.add(0, batch)

            return call

        line = work.line(f"curvature of {forecast.now}", self.batch_size, call_of)
        elimination = work.leaving_out(model)
        return lambda: rows * work.row_seconds + line.total(work.pieces, sizes) + elimination()
