"""Settings of every stage, described in one place for --help, recipes and docs."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BaseModel, BeforeValidator, Field, model_validator

from prunelora.finetuning.settings import FineTuneSettings
from prunelora.planning.budgets import only_one
from prunelora.settings import Settings

Projection = Literal["query", "key", "value", "output", "up", "down"]


# 1 unit and all of them (1.0) are different budgets.
Budget = int | float | None


def _split(value: Any) -> Any:
    """Let a list be typed as one word: "query,value"."""
    return [piece.strip() for piece in value.split(",")] if isinstance(value, str) else value


Targets = Annotated[tuple[Projection, ...], BeforeValidator(_split)]
ATTENTION: Final = ("query", "key", "value", "output")

# Every kind of budget that a plan can be given.
BUDGETS: Final = ("keep_heads", "keep_ffn", "keep_macs", "keep_params", "max_latency_ms", "speedup")
KEEP_MACS: Final = 0.5


class _Stage(Settings):
    """What every stage's settings have in common."""

    # What must have come before, by kind of stage.
    needs: ClassVar[tuple[str, ...]] = ()
    # What of it must be of the present model: made since a stage last changed it.
    of_present: ClassVar[tuple[str, ...]] = ()
    # Whether weights or sizes of the model are others afterwards.
    changes_model: ClassVar[bool] = False
    # Whether its result is about the model that the recipe ends with.
    of_final: ClassVar[bool] = False


class LinearProbeStage(_Stage):
    """Train the task head alone on frozen features, so that scores are not blurred by a random head."""

    stage: Literal["linear_probe"] = "linear_probe"
    changes_model: ClassVar[bool] = True
    steps: int = Field(200, ge=1, description="Steps (one batch each) that train the task head alone before scoring.")
    rows: int = Field(1024, ge=1, description="Training rows used.")
    batch_size: int = Field(32, ge=1, description="Rows a step.")


class ScoreStage(_Stage):
    """Score heads and neurons on training rows."""

    stage: Literal["score"] = "score"
    criterion: Literal["gradient", "fisher", "obs", "magnitude", "random"] = Field(
        "gradient",
        description="What makes a head or neuron important; gradient is the paper's, obs knows what can stand in "
        "for what (plan with normalise: none).",
    )
    rows: int = Field(1024, ge=1, description="Training rows to score on; 500 to 2,000 are usually enough.")
    batch_size: int = Field(32, ge=1, description="Rows a backward pass; it changes time and memory, not the scores.")


class PlanStage(_Stage):
    """Choose what stays, and a rank for every matrix."""

    stage: Literal["plan"] = "plan"
    # Keys of what was finished without it stay what they were.
    unsaid: ClassVar[frozenset[str]] = frozenset({"remeasure"})
    needs: ClassVar[tuple[str, ...]] = ("score",)
    of_present: ClassVar[tuple[str, ...]] = ("score",)
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
    latency_engine: Literal["torch", "onnxruntime"] = Field("torch", description="What latency is measured in.")
    latency_threads: int | None = Field(None, ge=1, description="Threads of it; torch's number if not given.")
    remeasure: bool = Field(
        False,
        description="Measure latency again, whatever was kept from earlier; without it that is used while a forward "
        "pass takes the time that it took then.",
    )
    balance: Literal["cost", "none"] = Field(
        "cost",
        description="How heads and neurons are compared where they compete: cost makes both worth the same for a unit "
        "of cost on average; none takes scores as they are.",
    )
    normalise: Literal["paper", "none"] = Field(
        "paper", description="paper: L2 norm of each layer, then min-max over all; none: raw scores."
    )
    round_to: int = Field(8, ge=1, description="Neurons stay in multiples of so many in every layer.")
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

    @model_validator(mode="before")
    @classmethod
    def _one_budget(cls, content: Any) -> Any:
        """Fill the default budget in where none is given, so that a resolved recipe says what it does."""
        if isinstance(content, Mapping) and all(content.get(name) is None for name in BUDGETS):
            return {**content, "keep_macs": KEEP_MACS}
        return content

    @model_validator(mode="after")
    def _no_two_budgets(self) -> "PlanStage":
        only_one({name: getattr(self, name) for name in BUDGETS})
        return self

    @property
    def needs_latency(self) -> bool:
        """Whether the budget is in times of this device."""
        return self.max_latency_ms is not None or self.speedup is not None


class PruneStage(_Stage):
    """Remove what the plan does not keep, and repair what is left."""

    stage: Literal["prune"] = "prune"
    needs: ClassVar[tuple[str, ...]] = ("plan",)
    of_present: ClassVar[tuple[str, ...]] = ("plan",)
    changes_model: ClassVar[bool] = True
    repair: bool = Field(
        True, description="Re-solve output and down projections so that blocks give what the dense ones gave."
    )
    repair_rows: int = Field(1024, ge=5, description="Training rows that repair is solved on.")
    repair_weights: Literal["equal", "loss"] = Field(
        "equal",
        description="How the tokens of these rows count: all alike, or by how much the loss depends on them, for which "
        "labels are used and a backward pass is made.",
    )
    repair_batch_size: int = Field(32, ge=1, description="Rows of a forward pass of repair.")


class FineTuneStage(FineTuneSettings):
    """Add LoRA and train it with LayerNorms and task head; or train all weights.

    Ranks are the plan's; where no plan was made, every target gets `lora_rank`.
    """

    stage: Literal["finetune"] = "finetune"
    trainable: Literal["adapter", "all"] = Field(
        "adapter", description="adapter: LoRA by the plan's ranks, LayerNorms, task head. all: every weight."
    )
    lora_rank: int = Field(
        8, ge=1, description="LoRA rank of every target where no plan was made before; after one its ranks count."
    )
    lora_targets: Targets = Field(
        ATTENTION, description="Projections that get LoRA where no plan was made before; after one its targets count."
    )
    alpha_over_rank: float = Field(2.0, gt=0, description="LoRA's scale alpha / r, the same for every rank.")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout of LoRA's input.")
    lora_init: Literal["kaiming", "gaussian", "orthogonal"] = Field(
        "kaiming", description="How LoRA's A begins (orthogonal: A and B, so that their product is 0)."
    )
    train_norms: bool = Field(True, description="Train LayerNorms too.")
    train_head: bool = Field(True, description="Train the task head too.")
    needs: ClassVar[tuple[str, ...]] = ()
    of_present: ClassVar[tuple[str, ...]] = ()
    changes_model: ClassVar[bool] = True
    of_final: ClassVar[bool] = False


class MergeStage(_Stage):
    """Fold the adapter into the weights and save the plain small model."""

    stage: Literal["merge"] = "merge"
    needs: ClassVar[tuple[str, ...]] = ("finetune",)


class EvaluateStage(_Stage):
    """Judge the model on the reported rows and keep its answers, for comparisons row by row."""

    stage: Literal["evaluate"] = "evaluate"


class ExportStage(_Stage):
    """Write the model as ONNX and compare its logits with torch's."""

    stage: Literal["export"] = "export"
    of_final: ClassVar[bool] = True
    tolerance: float = Field(1e-3, gt=0, description="Largest difference of a logit that is accepted.")


class BaselineStage(_Stage):
    """Fine-tune the dense model with plain LoRA, the same way, to see what pruning cost."""

    stage: Literal["baseline"] = "baseline"
    needs: ClassVar[tuple[str, ...]] = ("finetune",)
    rank: int = Field(8, ge=1, description="LoRA rank of every matrix of the dense model.")


class MeasureStage(_Stage):
    """Measure quality on the test rows, and size, speed and memory beside the dense model."""

    stage: Literal["measure"] = "measure"
    of_final: ClassVar[bool] = True
    repeats: int = Field(15, ge=3, description="Rounds of timing; in each, every model runs once.")
    warmup: int = Field(3, ge=1, description="Rounds before the clock counts.")


class ReportStage(_Stage):
    """Draw figures and write report.html and report.md."""

    stage: Literal["report"] = "report"
    needs: ClassVar[tuple[str, ...]] = ("measure",)


def deciding(settings: BaseModel) -> dict[str, Any]:
    """What a stage's result depends on, of its settings, as plain data: all but those that change its costs alone.

    Settings that are `unsaid` count only where they are not the default.
    """
    fields = type(settings).model_fields
    default = {name for name in getattr(settings, "unsaid", ()) if getattr(settings, name) == fields[name].default}
    return settings.model_dump(mode="json", exclude=default | set(getattr(settings, "costs_alone", ())))


Stage = Annotated[
    LinearProbeStage
    | ScoreStage
    | PlanStage
    | PruneStage
    | FineTuneStage
    | MergeStage
    | EvaluateStage
    | ExportStage
    | BaselineStage
    | MeasureStage
    | ReportStage,
    Field(discriminator="stage"),
]

STAGE_KINDS: dict[str, type[BaseModel]] = {
    kind.model_fields["stage"].default: kind
    for kind in (
        LinearProbeStage,
        ScoreStage,
        PlanStage,
        PruneStage,
        FineTuneStage,
        MergeStage,
        EvaluateStage,
        ExportStage,
        BaselineStage,
        MeasureStage,
        ReportStage,
    )
}
