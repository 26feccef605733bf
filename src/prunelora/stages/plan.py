"""The stage plan: chooses the heads and neurons that stay, and a rank for every matrix."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from prunelora.errors import PlanError, RecipeError
from prunelora.planning.budgets import only_one
from prunelora.planning.units import check_normalise
from prunelora.stages.base import Facts, Stage, needed
from prunelora.stages.score import ScoreStage
from prunelora.stages.targets import ATTENTION, Targets

if TYPE_CHECKING:
    from prunelora.planning.latency_model import LatencyModel, LatencySettings
    from prunelora.report.results import RunResults
    from prunelora.report.table import Table
    from prunelora.stages.context import Run

# 1 unit and all of them (1.0) are different budgets.
Budget = int | float | None
BUDGETS = ("keep_heads", "keep_ffn", "keep_macs", "keep_params", "max_latency_ms", "speedup")
KEEP_MACS = 0.5
PLAN, LATENCY = "plan.json", "latency.json"

_OF_LATENCY = {"latency_batch_size", "latency_engine", "latency_threads", "remeasure"}


class PlanStage(Stage):
    """Choose the heads and neurons that stay, and a rank for every matrix."""

    stage: Literal["plan"] = "plan"
    keep_heads: Budget = Field(
        None, description="Attention heads that stay: a count of all layers' heads (100), or a fraction (0.5)."
    )
    keep_ffn: Budget = Field(
        None, description="Feed-forward neurons that stay: a count of all layers' neurons, or a fraction (0.5)."
    )
    keep_macs: float | None = Field(
        None,
        gt=0,
        le=1,
        description=f"Fraction of the dense model's MACs that stays; heads and neurons compete. {KEEP_MACS} where no "
        "budget is given.",
    )
    keep_params: float | None = Field(None, gt=0, le=1, description="Fraction of the parameters that stays.")
    max_latency_ms: float | None = Field(None, gt=0, description="Milliseconds of a forward pass on this device.")
    speedup: float | None = Field(
        None, ge=1, description="How many times as fast as the dense model on this device: 2 is half the time."
    )
    count: Literal["encoder", "all"] = Field(
        "encoder",
        description="What keep_params is a fraction of: the parameters of heads and neurons, or all of the model's.",
    )
    tokens: int = Field(128, ge=1, description="Length of the inputs that MACs are counted, and latency measured, for.")
    latency_batch_size: int = Field(1, ge=1, description="Rows of the forward pass that latency is measured for.")
    latency_engine: Literal["torch", "onnxruntime"] = Field("torch", description="Engine that latency is measured in.")
    latency_threads: int | None = Field(None, ge=1, description="Its threads; torch's number if not given.")
    remeasure: bool = Field(
        False,
        description="Measure latency again; otherwise earlier measurements are used while a forward pass takes as long "
        "as it took then.",
    )
    balance: Literal["cost", "none"] = Field(
        "cost",
        description="How heads and neurons are compared where they compete: cost makes both worth the same for a unit "
        "of cost on average; none compares the scores directly.",
    )
    normalise: Literal["paper", "none"] = Field(
        "paper", description="paper: L2 norm of each layer, then min-max over all; none: raw scores."
    )
    round_to: int = Field(8, ge=1, description="The neurons that stay in a layer are a multiple of this.")
    rank_high: int = Field(8, ge=0, description="LoRA rank in the more important blocks.")
    rank_low: int = Field(4, ge=0, description="LoRA rank in the other blocks.")
    num_high: int | None = Field(
        None, ge=0, description="How many blocks get the high rank; a third of them if not given (4 of 12)."
    )
    block_importance: Literal["raw", "normalised"] = Field(
        "raw", description="Rank blocks by the mean of their heads' scores before or after the per-layer normalisation."
    )
    rank_by: Literal["heads", "parts"] = Field(
        "heads",
        description="What makes a block important: heads, the paper's; parts: heads for the matrices of attention, "
        "neurons for up and down.",
    )
    targets: Targets = Field(
        ATTENTION,
        description="Projections that get LoRA, joined by commas, of query, key, value, output, up, down.",
    )

    # Absent in the keys of records that were made before the setting existed.
    unsaid: ClassVar[frozenset[str]] = frozenset({"remeasure"})
    needs: ClassVar[tuple[str, ...]] = ("score",)
    of_present: ClassVar[tuple[str, ...]] = ("score",)
    artefacts: ClassVar[Mapping[str, str]] = {PLAN: "plan"}

    @model_validator(mode="before")
    @classmethod
    def _default_budget(cls, content: Any) -> Any:
        """Fill in the default budget where none is given, so that a resolved recipe names its budget."""
        if isinstance(content, Mapping) and all(content.get(name) is None for name in BUDGETS):
            return {**content, "keep_macs": KEEP_MACS}
        return content

    @model_validator(mode="after")
    def _one_budget(self) -> "PlanStage":
        only_one({name: getattr(self, name) for name in BUDGETS})
        return self

    @property
    def needs_latency(self) -> bool:
        """Whether the budget is a time on this device."""
        return self.max_latency_ms is not None or self.speedup is not None

    def latency_settings(self) -> "LatencySettings":
        """The forward pass whose latency the budget is for."""
        from prunelora.planning.latency_model import LatencySettings

        return LatencySettings(
            engine=self.latency_engine,
            batch_size=self.latency_batch_size,
            tokens=self.tokens,
            threads=self.latency_threads,
        )

    def check_place(self, name: str, before: Mapping[str, Stage]) -> None:
        """Check that the scores can be normalised as asked."""
        scores = before["score"]
        if isinstance(scores, ScoreStage):
            try:
                check_normalise(scores.criterion, self.normalise)
            except PlanError as error:
                raise RecipeError(f"Stage {name!r}: {error}") from error

    def check_packages(self) -> None:
        """Check that ONNX Runtime is installed, where latency is measured in it."""
        if self.needs_latency and self.latency_engine == "onnxruntime":
            from prunelora.delivery.onnx_packages import require_packages
            from prunelora.errors import advice

            require_packages(f"Or plan for torch: {advice('latency_engine', 'torch')}.")

    def check(self, run: "Run", before: Sequence[Stage]) -> None:
        """Check that the budget can be met, for the first plan of a whole model; a later one depends on the scores.

        A budget in time is checked after latency is measured.
        """
        from prunelora.evaluation.outlook import early_plan
        from prunelora.models.anatomy import dissect
        from prunelora.models.lineage import Lineage

        anatomy = dissect(run.model)
        first = not any(isinstance(stage, PlanStage) for stage in before)
        if not first or self.needs_latency or anatomy.lineage != Lineage.whole(anatomy.architecture):
            return
        num_parameters = sum(parameter.numel() for parameter in run.model.parameters())
        early_plan(anatomy.architecture, num_parameters=num_parameters, **self._options(run))

    def run(self, run: "Run", name: str) -> Facts:
        """Make the plan from the scores, measure latency first where the budget needs it, and save both."""
        from prunelora.planning.make_plan import make_plan

        facts: Facts = {}
        table = None
        if self.needs_latency:
            latency = self._latency(run)
            latency.save(run.path(name, LATENCY))
            table = latency.table()
            facts["dense_ms"] = table.whole
            facts["latency_measured_at"] = latency.measured_at.isoformat()
        plan = make_plan(needed(run.importance, "score"), latency=table, **self._options(run))
        if table is not None:
            facts["predicted_ms"] = table.of(plan.architecture)
        public = run.recipe.without_paths()
        origin = {"model": public.model, "data": public.task.described, "data_fingerprint": run.task.fingerprint}
        run.plan = plan.model_copy(update={"provenance": plan.provenance | origin})
        run.plan.save(run.path(name, PLAN))
        return {"plan_id": run.plan.id} | facts

    def _options(self, run: "Run") -> dict[str, Any]:
        """Options of `make_plan`."""
        from prunelora.models.inputs import image_tokens

        options = self.model_dump(exclude={"stage", *_OF_LATENCY})
        # All images have the same number of tokens.
        return options | {"tokens": image_tokens(run.model)} if run.task.of_images else options

    def _latency(self, run: "Run") -> "LatencyModel":
        """The cost of every number of heads and neurons on this device, in the dense model."""
        from prunelora.evaluation.latency_cache import latency_model_for

        return latency_model_for(run.pretrained(), self.latency_settings(), remeasure=self.remeasure, tell=run.tell)

    def restore(self, run: "Run", name: str) -> None:
        """Load the plan."""
        from prunelora.planning.plan import Plan

        run.plan = Plan.load(run.path(name, PLAN))

    def files(self) -> tuple[str, ...]:
        """The plan, and the latency model that it was made with."""
        return (PLAN, LATENCY) if self.needs_latency else (PLAN,)

    # A forecast is 0 s: `check` measures the latency that a budget in time needs, and keeps it.

    def lines(self, results: "RunResults", facts: Facts) -> "list[str | Table]":
        """The plan layer by layer."""
        return [*str(results.plan).splitlines()]

    def content(self, results: "RunResults") -> dict[str, Any]:
        """The plan."""
        return {"plan": needed(results.plan, "plan").model_dump(mode="json")}


def last_in_time(stages: Sequence[Stage]) -> PlanStage | None:
    """The last plan whose budget is a time on this device."""
    plans = (stage for stage in reversed(stages) if isinstance(stage, PlanStage) and stage.needs_latency)
    return next(plans, None)
