"""A recipe: the one readable file that determines a run. Model, data, seed, and a list of stages.

Stages can be ordered and repeated freely, within reason: `check` says what a stage needs before it. The default is the
paper's order: warm up the task head, score, plan, prune, fine-tune, merge; then export, measure, report.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from prunelora.data.settings import OF_OWN_DATA, DataSettings
from prunelora.errors import RecipeError
from prunelora.finetuning.settings import FineTuneSettings
from prunelora.storage import write_text

FORMAT: Final = "prunelora-recipe-1"

Projection = Literal["query", "key", "value", "output", "up", "down"]


def _number(value: Any) -> Any:
    """Tell a typed count ("100") from a typed fraction ("1.0"): 1 unit and all of them are different budgets."""
    if not isinstance(value, str):
        return value
    return int(value) if value.strip().isdecimal() else float(value)


Budget = Annotated[int | float | None, BeforeValidator(_number)]


def _split(value: Any) -> Any:
    """Let a list be typed as one word: "query,value"."""
    return [piece.strip() for piece in value.split(",")] if isinstance(value, str) else value


Targets = Annotated[tuple[Projection, ...], BeforeValidator(_split)]
ATTENTION: Final = ("query", "key", "value", "output")


class _Stage(BaseModel):
    """What every stage's settings have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # What must have come before, by kind of stage.
    needs: ClassVar[tuple[str, ...]] = ()


class WarmUpStage(_Stage):
    """Train the task head alone on frozen features, so that scores are not blurred by a random head."""

    stage: Literal["warmup"] = "warmup"
    steps: int = Field(200, ge=1, description="Steps (one batch each) that train the task head alone before scoring.")
    rows: int = Field(1024, ge=1, description="Training rows used.")
    batch_size: int = Field(32, ge=1, description="Rows a step.")


class ScoreStage(_Stage):
    """Score heads and neurons on training rows."""

    stage: Literal["score"] = "score"
    criterion: Literal["gradient", "fisher", "magnitude", "random"] = Field(
        "gradient", description="What makes a head or neuron important; gradient is the paper's."
    )
    rows: int = Field(1024, ge=1, description="Training rows to score on; 500 to 2,000 are usually enough.")
    batch_size: int = Field(32, ge=1, description="Rows a backward pass; it changes time and memory, not the scores.")


class PlanStage(_Stage):
    """Choose what stays, and a rank for every matrix."""

    stage: Literal["plan"] = "plan"
    needs: ClassVar[tuple[str, ...]] = ("score",)
    keep_heads: Budget = Field(
        0.5, description="Attention heads that stay: a count of all layers' heads (100), or a fraction (0.5)."
    )
    keep_ffn: Budget = Field(
        0.5, description="Feed-forward neurons that stay: a count of all layers' neurons, or a fraction (0.5)."
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
    targets: Targets = Field(
        ATTENTION,
        description="Projections that get LoRA, joined by commas, of query, key, value, output, up, down.",
    )


class PruneStage(_Stage):
    """Remove what the plan does not keep."""

    stage: Literal["prune"] = "prune"
    needs: ClassVar[tuple[str, ...]] = ("plan",)


class FineTuneStage(FineTuneSettings):
    """Add LoRA and train it with LayerNorms and task head; or train all weights.

    Ranks are the plan's; where no plan was made, every target gets `lora_rank`.
    """

    stage: Literal["finetune"] = "finetune"
    trainable: Literal["adapter", "all"] = Field(
        "adapter", description="adapter: LoRA by the plan's ranks, LayerNorms, task head. all: every weight."
    )
    lora_rank: int = Field(8, ge=1, description="LoRA rank of every target where the recipe has no plan.")
    lora_targets: Targets = Field(ATTENTION, description="Projections that get LoRA where the recipe has no plan.")
    alpha_over_rank: float = Field(2.0, gt=0, description="LoRA's scale alpha / r, the same for every rank.")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout of LoRA's input.")
    train_norms: bool = Field(True, description="Train LayerNorms too.")
    train_head: bool = Field(True, description="Train the task head too.")
    needs: ClassVar[tuple[str, ...]] = ()


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
    tolerance: float = Field(1e-3, gt=0, description="Largest difference of a logit that is accepted.")


class BaselineStage(_Stage):
    """Fine-tune the dense model with plain LoRA, the same way, to see what pruning cost."""

    stage: Literal["baseline"] = "baseline"
    needs: ClassVar[tuple[str, ...]] = ("finetune",)
    rank: int = Field(8, ge=1, description="LoRA rank of every matrix of the dense model.")


class MeasureStage(_Stage):
    """Measure quality on the test rows, and size, speed and memory beside the dense model."""

    stage: Literal["measure"] = "measure"
    repeats: int = Field(15, ge=3, description="Rounds of timing; in each, every model runs once.")
    warmup: int = Field(3, ge=1, description="Rounds before the clock counts.")


class ReportStage(_Stage):
    """Draw figures and write report.html and report.md."""

    stage: Literal["report"] = "report"
    needs: ClassVar[tuple[str, ...]] = ("measure",)


Stage = Annotated[
    WarmUpStage
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
        WarmUpStage,
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

# The paper's order; "baseline" is only there when asked for.
DEFAULT_ORDER = ("warmup", "score", "plan", "prune", "finetune", "merge", "export", "measure", "report")


def _default_stages() -> tuple[Any, ...]:
    return tuple(STAGE_KINDS[kind]() for kind in DEFAULT_ORDER)


class Recipe(BaseModel):
    """Everything that determines a run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["prunelora-recipe-1"] = FORMAT
    model: str = Field(
        "minilm", description="Pretrained model: a folder, a name on the Hugging Face hub, or minilm, the embedded one."
    )
    task: DataSettings = Field(default_factory=lambda: DataSettings(data="rotten-tomatoes"))
    seed: int = Field(0, ge=0, description="Seed of sampling, initialisation, order of rows and dropout.")
    trust_remote_code: bool = Field(False, description="Let the model's own Python code run when it is loaded.")
    stages: tuple[Stage, ...] = Field(default_factory=_default_stages)

    @property
    def names(self) -> list[str]:
        """A unique name for every stage: its kind; where a kind is repeated, the earlier ones are numbered.

        finetune, merge, score, plan, prune, finetune, merge ->
        finetune-1, merge-1, score, plan, prune, finetune, merge: the plain name is always the final result's.
        """
        kinds = [stage.stage for stage in self.stages]
        left, seen = Counter(kinds), Counter[str]()
        names = []
        for kind in kinds:
            left[kind] -= 1
            seen[kind] += 1
            names.append(kind if not left[kind] else f"{kind}-{seen[kind]}")
        return names

    def check(self) -> None:
        """Hold the order of the stages to what each needs.

        Raises:
            RecipeError: Naming the stage and what must come before it.
        """
        if not self.stages:
            raise RecipeError(f"The recipe has no stages. Use some of: {', '.join(STAGE_KINDS)}.")
        before: set[str] = set()
        for name, stage in zip(self.names, self.stages, strict=True):
            missing = [kind for kind in stage.needs if kind not in before]
            if missing:
                raise RecipeError(f"Stage {name!r} needs {missing[0]!r} before it. Put one there.")
            before.add(stage.stage)

    def with_settings(self, changes: Mapping[str, Any]) -> "Recipe":
        """A recipe with some settings changed.

        Args:
            changes: "model", "seed", "task.text", or "STAGE.SETTING" such as "plan.keep_heads"; the stage by its name
                in `names`. Values may be strings, as typed on a command line. "task.task" takes the place of
                "task.data", and the other way round.

        Raises:
            RecipeError: If there is no such stage or setting, or the value is not one it can have.
        """
        content = self.model_dump(mode="json")
        _leave_other_source(content["task"], changes)
        for key, value in changes.items():
            owner, _, field = key.rpartition(".")
            if owner in ("", "task"):
                target: dict[str, Any] = content["task"] if owner else content
                known = DataSettings.model_fields if owner else Recipe.model_fields
            elif owner in self.names:
                target = content["stages"][self.names.index(owner)]
                known = STAGE_KINDS[target["stage"]].model_fields
            else:
                raise RecipeError(f"{key}: the recipe has no stage {owner!r}. It has: {', '.join(self.names)}.")
            settable = [name for name in known if owner == "task" or name not in _NOT_SETTINGS]
            if field not in settable:
                raise RecipeError(
                    f"{key}: no such setting. {owner or 'The recipe'} has: {', '.join(settable) or 'none'}."
                )
            target[field] = yaml.safe_load(value) if isinstance(value, str) and field not in _TEXTS else value
        return read_recipe(content, source="settings")

    def key_of(self, option: str) -> str:
        """Where an option given by its bare name belongs: "keep_heads" -> "plan.keep_heads", "text" -> "task.text".

        A name that several stages have means the stage it matters most for: "batch_size" is fine-tuning's, "rows"
        scoring's.

        Raises:
            RecipeError: If no stage of the recipe has it.
        """
        # First: "task" is the name of a task, not the section of the recipe that it stands in.
        if option in DataSettings.model_fields:
            return f"task.{option}"
        if option in Recipe.model_fields:
            return option
        owners = [
            name for name, stage in zip(self.names, self.stages, strict=True) if option in type(stage).model_fields
        ]
        if not owners:
            raise RecipeError(f"{option}: no stage of the recipe has such a setting. It has: {', '.join(self.names)}.")
        return f"{next((name for name in ('finetune', 'score') if name in owners), owners[-1])}.{option}"

    def with_baseline(self) -> "Recipe":
        """The same recipe with the dense LoRA baseline before it is measured."""
        if any(stage.stage == "baseline" for stage in self.stages):
            return self
        place = next((i for i, stage in enumerate(self.stages) if stage.stage == "measure"), len(self.stages))
        return self.model_copy(update={"stages": (*self.stages[:place], BaselineStage(), *self.stages[place:])})

    def to_yaml(self) -> str:
        """The fully resolved recipe, for people and for `read_recipe`."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def save(self, path: Path) -> None:
        """Write it to a file, atomically."""
        write_text(path, self.to_yaml())


# Settings that YAML must not read: a column may be called "1", a data set "yes"; 1.0 must not become 1.
_TEXTS = frozenset(
    {"model", "data", "task", "data_dir", "data_config", "text", "text_pair", "label", "keep_heads", "keep_ffn"}
)
# Fields of a recipe or a stage that say what it is.
_NOT_SETTINGS = frozenset({"stage", "stages", "task", "format"})


def _leave_other_source(task: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Where `changes` name a task, forget the data that the recipe had, and the other way round."""
    data, name = changes.get("task.data"), changes.get("task.task")
    if data is not None and name is not None:
        raise RecipeError(f"--data {data} and --task {name} were both given. Give one of them.")
    if data is not None:
        task |= {"task": None, "data_dir": None}
    if name is not None:
        task |= {"data": None} | dict.fromkeys(OF_OWN_DATA) | {"task_type": "auto"}


def load_recipe(path: Path | str) -> Recipe:
    """Read a recipe file (YAML or JSON).

    Raises:
        RecipeError: If it cannot be read or is not a recipe.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path}: cannot be read as a recipe ({error}).") from error
    return read_recipe(content, source=str(path))


def read_recipe(content: Any, *, source: str) -> Recipe:
    """Validate what a recipe file holds; what it leaves out is filled in.

    Raises:
        RecipeError: Naming `source` and the place.
    """
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise RecipeError(f"{source}: unknown key {place!r}.") from error
        if first["type"] == "value_error":  # A rule over several settings: its message has the values.
            raise RecipeError(f"{source}: {place}: {first['ctx']['error']}.") from error
        raise RecipeError(f"{source}: {place}: {first['msg']}, found {first.get('input')!r}.") from error
    recipe.check()
    return recipe


def digest(value: Any) -> str:
    """Short hash of JSON-able content, the same on every machine."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
