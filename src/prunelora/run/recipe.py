"""A recipe: the one readable file that determines a run. Model, data, seed, and a list of stages.

Stages can be ordered and repeated freely, within reason: `check` says what a stage needs before it. Recipes that come
with the package lie in `recipes/`. The default, tune-first, tunes the dense model, cuts what the tuned model does not
need, and tunes again; cut-early does so after a quarter of the epochs; cut-first has the paper's order: warm up the
task head, score, plan, prune, fine-tune, merge. All then export, measure and report.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Union

import yaml
from pydantic import Field, ValidationError

from prunelora.data.settings import DataSettings
from prunelora.errors import InPython, PlanError, RecipeError, advice, did_you_mean, one_of, option, spelled
from prunelora.planning.units import compared_as
from prunelora.run.changes import leave_other_budgets, leave_other_source, number_of, value_of
from prunelora.run.order import check_order
from prunelora.settings import Place, Settings, complaint, dotted, plain, read_yaml, write_yaml
from prunelora.stages.base import Stage
from prunelora.stages.baseline import BaselineStage
from prunelora.stages.finetune import FineTuneStage
from prunelora.stages.kinds import BY_KIND, KINDS
from prunelora.stages.plan import PlanStage
from prunelora.stages.score import ScoreStage
from prunelora.storage import name_of, write_text

FORMAT: Final = "prunelora-recipe-1"

_PACKAGED = Path(__file__).parent.parent / "recipes"

DEFAULT = "tune-first"

if TYPE_CHECKING:
    AnyStage = Stage
else:
    AnyStage = Annotated[Union[KINDS], Field(discriminator="stage")]  # noqa: UP007 of as many types as there are kinds


def _default_stages() -> tuple[Any, ...]:
    return load_recipe(DEFAULT).stages


class Recipe(Settings):
    """Everything that determines a run."""

    format: Literal["prunelora-recipe-1"] = FORMAT
    model: str = Field(
        "minilm",
        min_length=1,
        description="Pretrained model: a folder, a name on the Hugging Face hub, or minilm, the embedded one.",
    )
    task: DataSettings = Field(default_factory=lambda: DataSettings(data="rotten-tomatoes"))
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of sampling, initialisation, order of rows and dropout.")
    stages: tuple[AnyStage, ...] = Field(default_factory=_default_stages)

    @property
    def names(self) -> list[str]:
        """A unique name for every stage: its kind; where a kind is repeated, the earlier ones are numbered.

        finetune, merge, score, plan, prune, finetune, merge ->
        finetune-1, merge-1, score, plan, prune, finetune, merge: the plain name is always the final result's.
        """
        return _names([stage.stage for stage in self.stages])

    @property
    def by_name(self) -> dict[str, Any]:
        """All stages by their names, in order."""
        return dict(zip(self.names, self.stages, strict=True))

    @property
    def tunings(self) -> dict[str, FineTuneStage]:
        """All fine-tunings by name, in order."""
        return {name: stage for name, stage in self.by_name.items() if isinstance(stage, FineTuneStage)}

    @property
    def main_tuning(self) -> str:
        """Name of the longest fine-tuning, the last of equals: its learning rate is what is called the recipe's.

        Raises:
            ValueError: If the recipe fine-tunes nothing.
        """
        return max(reversed(self.tunings.items()), key=lambda one: one[1].epochs)[0]

    @property
    def after_plans(self) -> set[str]:
        """Names of the stages behind a plan."""
        kinds = [stage.stage for stage in self.stages]
        return set(self.names[kinds.index("plan") :]) if "plan" in kinds else set()

    @property
    def cuts_untuned(self) -> bool:
        """Whether the first cut is made before any fine-tuning."""
        kinds = [stage.stage for stage in self.stages]
        return "prune" in kinds and "finetune" not in kinds[: kinds.index("prune")]

    def check(self) -> None:
        """Check that every stage has before it what it needs, made from the model as it is then.

        Raises:
            RecipeError: Naming the stage and what must come before it, or what cannot go with it.
        """
        check_order(self.by_name)

    def with_settings(self, changes: Mapping[str, Any]) -> "Recipe":
        """A recipe with some settings changed.

        Args:
            changes: "model", "seed", "task.text", or "STAGE.SETTING" such as "plan.keep_heads"; the stage by its name
                in `names`. Values may be strings, as typed on a command line. "task.task" takes the place of
                "task.data", and the other way round; a budget takes the place of one of another kind.

        Raises:
            RecipeError: If there is no such stage or setting, or the value is not one it can have.
        """
        return self._changed(changes, {})

    def _changed(self, changes: Mapping[str, Any], given: Mapping[str, tuple[str, Any]]) -> "Recipe":
        """A recipe with some settings changed; `given` has the bare names and values by which some were given."""
        content = self.model_dump(mode="json")
        content["task"]["data"] = self.task.given or self.task.data
        leave_other_source(content["task"], changes)
        leave_other_budgets(dict(zip(self.names, content["stages"], strict=True)), changes)
        for key, value in changes.items():
            owner, _, field = key.rpartition(".")
            if owner in ("", "task"):
                target: dict[str, Any] = content["task"] if owner else content
                known = DataSettings.model_fields if owner else Recipe.model_fields
            elif owner in self.names:
                target = content["stages"][self.names.index(owner)]
                known = BY_KIND[target["stage"]].model_fields
            else:
                raise RecipeError(
                    f"{option(key)}: the recipe has no stage {owner!r}.{did_you_mean(owner, self.names)} "
                    f"It has: {', '.join(self.names)}."
                )
            settable = [name for name in known if owner == "task" or name not in _NOT_SETTINGS]
            if field not in settable:
                raise RecipeError(
                    f"{option(key)}: no such setting.{self._meant(key, settable)} {owner or 'The recipe'} has: "
                    f"{', '.join(settable) or 'none'}."
                )
            target[field] = value_of(key, value) if isinstance(value, str) and field not in _TEXTS else plain(value)
        return _validated(content, lambda key, value: option(*given.get(key, (key, value))))

    def _meant(self, key: str, settable: Sequence[str]) -> str:
        """The setting that a mistyped one resembles: of its own stage, or one that is named without its stage."""
        owner, _, field = key.rpartition(".")
        if not owner and self.has_option(field) and self.key_of(field) != key:
            return f" Did you mean {self.key_of(field)!r}?"
        return did_you_mean(field, settable)

    def with_options(self, options: Mapping[str, Any], settings: Mapping[str, Any] | None = None) -> "Recipe":
        """A recipe with options given by their bare names: keep_heads, text, epochs.

        A name that several stages have means the stage it matters most for: "batch_size" is fine-tuning's, "rows"
        scoring's. Where the recipe fine-tunes more than once, an option of fine-tuning is for all of them: "epochs" are
        shared out in the recipe's own proportion; "learning_rate" is the longest's, "batch_size" the last's, and the
        others' are scaled; any other is the same for each.

        With another criterion of scores comes the way in which plans compare its heads with its neurons, where that is
        not given too.

        Args:
            options: By bare name.
            settings: More changes, as `with_settings` takes them, which come before options for the same setting. All
                are made at once, so that two budgets are an error wherever each was given.

        Raises:
            RecipeError: If no stage of the recipe has such a setting, or the value is not one it can have.
        """
        changes: dict[str, Any] = {}
        given: dict[str, tuple[str, Any]] = {}
        for bare, value in options.items():
            spread = self._spread(bare, value)
            changes |= spread
            given |= dict.fromkeys(spread, (bare, value))
        for key in filter(self.is_planned, settings or {}):
            raise _planned(key)
        changes |= dict(settings or {})
        given = {key: typed for key, typed in given.items() if key not in (settings or {})}
        return self._changed(self._compared_by_criterion(changes) | changes, given)

    def _compared_by_criterion(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """How a plan compares scores, where another criterion is asked for: those of obs as they are, others by cost.

        The recipe's own way is for its own criterion: gradients of a tuned model, taken as they are, leave hardly a
        head.
        """
        found: dict[str, Any] = {}
        criterion = None
        for name, stage in self.by_name.items():
            if isinstance(stage, ScoreStage):
                asked = changes.get(f"{name}.criterion", stage.criterion)
                criterion = asked if asked != stage.criterion else None
            elif isinstance(stage, PlanStage) and criterion is not None:
                found |= {f"{name}.{setting}": value for setting, value in compared_as(criterion).items()}
        return found

    def _spread(self, bare: str, value: Any) -> dict[str, Any]:
        key, tunings = self.key_of(bare), self.tunings
        if len(tunings) < 2 or key.partition(".")[0] not in tunings:
            return {key: value}
        if bare in _BEFORE_PLANS:
            return {f"{name}.{bare}": value for name in tunings if name not in self.after_plans}
        number = number_of(value)
        if bare not in ("epochs", "learning_rate", "batch_size") or number is None:
            return {f"{name}.{bare}": value for name in tunings}
        own = {name: float(getattr(stage, bare)) for name, stage in tunings.items()}
        whole = sum(own.values()) if bare == "epochs" else own[key.partition(".")[0]]
        scaled = {name: float(f"{number * one / whole:.6g}") for name, one in own.items()}
        if bare == "batch_size":
            # Whole rows; what was typed stays as it was typed.
            return {f"{name}.{bare}": math.ceil(one) for name, one in scaled.items()} | {key: value}
        return {f"{name}.{bare}": one for name, one in scaled.items()}

    def is_planned(self, key: str) -> bool:
        """Whether a plan, made before, has its own in place of a setting: the ranks and targets of LoRA."""
        owner, _, field = key.rpartition(".")
        return field in _BEFORE_PLANS and owner in self.after_plans

    def has_option(self, bare: str) -> bool:
        """Whether `with_options` knows an option."""
        try:
            self.key_of(bare)
        except RecipeError:
            return False
        return True

    def key_of(self, bare: str, *, first: str | None = None) -> str:
        """Where an option given by its bare name belongs: "keep_heads" -> "plan.keep_heads", "text" -> "task.text".

        A name that several stages have means the stage it matters most for: "batch_size" is fine-tuning's, "rows"
        scoring's, and "learning_rate" that of the longest fine-tuning.

        Args:
            bare: The option.
            first: Name of a stage that is meant before all others, if it has such a setting.

        Raises:
            RecipeError: If no stage of the recipe has it.
        """
        # First: "task" is the name of a task, not the section of the recipe that it stands in.
        if bare in DataSettings.model_fields:
            return f"task.{bare}"
        if bare in Recipe.model_fields:
            return bare
        owners = [name for name, stage in self.by_name.items() if bare in type(stage).model_fields]
        if not owners:
            known = {*Recipe.model_fields}.union(*(type(stage).model_fields for stage in self.stages)) - _NOT_SETTINGS
            raise RecipeError(
                f"{option(bare)}: no stage of the recipe has such a setting."
                f"{did_you_mean(bare, {*DataSettings.model_fields, *known})} It has: {', '.join(self.names)}."
            )
        if bare in _BEFORE_PLANS:
            owners = [name for name in owners if name not in self.after_plans]
            if not owners:
                raise _planned(bare)
        # Fine-tunings alone have a learning rate.
        most = (self.main_tuning,) if bare == "learning_rate" else ("finetune", "score")
        return f"{next((name for name in (first, *most) if name in owners), owners[-1])}.{bare}"

    def with_baseline(self) -> "Recipe":
        """The same recipe with the dense LoRA baseline before it is measured."""
        if any(stage.stage == "baseline" for stage in self.stages):
            return self
        place = next((i for i, stage in enumerate(self.stages) if stage.stage == "measure"), len(self.stages))
        return self.model_copy(update={"stages": (*self.stages[:place], BaselineStage(), *self.stages[place:])})

    def without_export(self) -> "Recipe":
        """The same recipe without its stage "export": nothing of it needs the extra "onnx" then."""
        return self.model_copy(update={"stages": tuple(stage for stage in self.stages if stage.stage != "export")})

    def without_paths(self) -> "Recipe":
        """The same recipe with the last part of every path on this machine in place of the path, for other people."""
        task = {name: value and name_of(value) for name in ("data", "data_dir") for value in [getattr(self.task, name)]}
        return self.model_copy(
            update={"model": name_of(self.model), "task": self.task.model_copy(update=task)}, deep=True
        )

    def to_yaml(self) -> str:
        """The fully resolved recipe, for people and for `read_recipe`."""
        return write_yaml(self.model_dump(mode="json"))

    def save(self, path: Path) -> None:
        """Write it to a file, atomically."""
        write_text(path, self.to_yaml())


# Names of stages and of criteria in recipes of prunelora 0.2 and before.
RENAMED: Final[Mapping[Any, str]] = {"warmup": "linear_probe", "surgeon": "obs"}
# Settings that YAML must not read: a column may be called "1", an encoding "437".
_TEXTS = frozenset({"model", "data", "task", "data_dir", "data_config", "text", "text_pair", "label", "encoding"})
# Settings of a fine-tuning that a plan, where one was made before, has in its place.
_BEFORE_PLANS = frozenset({"lora_rank", "lora_targets"})
# Fields of a recipe or a stage that say what it is.
_NOT_SETTINGS = frozenset({"stage", "stages", "task", "format"})


def _planned(key: str) -> RecipeError:
    """For a setting of a fine-tuning that the plan before it has in its place."""
    lora_targets = key.rpartition(".")[2] == "lora_targets"
    own = advice("plan.targets") if lora_targets else f"{advice('plan.rank_high')} and {advice('plan.rank_low')}"
    return RecipeError(f"{option(key)}: a plan was made before, and what it says counts. Set {own}.")


def packaged_recipes() -> dict[str, Path]:
    """Recipes that come with the package, by name."""
    return {path.stem: path for path in sorted(_PACKAGED.glob("*.yaml"))}


def load_recipe(path: Path | str) -> Recipe:
    """Read a recipe: a file (YAML or JSON), or a packaged one by its name.

    Raises:
        RecipeError: If it cannot be read or is not a recipe.
    """
    packaged = packaged_recipes()
    if str(path) in packaged:
        path = packaged[str(path)]
    elif not Path(path).suffix and not Path(path).exists():
        raise RecipeError(f"{path}: no file, and no packaged recipe.{one_of(str(path), packaged)}")
    try:
        content = read_yaml(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path}: cannot be read as a recipe ({error}).") from error
    return read_recipe(content, source=str(path))


def read_recipe(content: Any, *, source: str) -> Recipe:
    """Validate what a recipe file holds; what it leaves out is filled in.

    Raises:
        RecipeError: Naming `source` and the place.
    """
    with spelled(InPython()):  # As in the file, whatever else was typed.
        try:
            return _validated(content, option)
        except (RecipeError, PlanError) as error:
            raise RecipeError(f"{source}: {error}") from error


def _validated(content: Any, spell: Callable[[str, Any], str]) -> Recipe:
    """A recipe of plain data; `spell` writes a setting, by its key ("plan.keep_heads"), and its value."""
    content = as_now(content)
    kinds = [stage.get("stage") for stage in content["stages"]] if _has_stages(content) else []
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        raise RecipeError(
            complaint(error, name=lambda place: _key(place, _names(kinds)), spell=spell, known=_known_at)
        ) from error
    recipe.check()
    return recipe


def as_now(content: Any) -> Any:
    """The content of a recipe with the names that stages and criteria have today."""
    if not _has_stages(content):
        return content
    stages = [
        {key: RENAMED.get(value, value) if key in ("stage", "criterion") else value for key, value in stage.items()}
        for stage in content["stages"]
    ]
    unknown = {"trust_remote_code"} if content.get("trust_remote_code") is False else set()
    return {key: value for key, value in content.items() if key not in unknown} | {"stages": stages}


def _has_stages(content: Any) -> bool:
    stages = content.get("stages") if isinstance(content, Mapping) else None
    return isinstance(stages, list | tuple) and all(isinstance(stage, Mapping) for stage in stages)


def _names(kinds: Sequence[Any]) -> list[str]:
    """Names of stages: finetune, score, finetune -> finetune-1, score, finetune."""
    left, seen = Counter(kinds), Counter[Any]()
    names = []
    for kind in kinds:
        left[kind] -= 1
        seen[kind] += 1
        names.append(str(kind) if not left[kind] else f"{kind}-{seen[kind]}")
    return names


def _key(place: Place, names: Sequence[str]) -> str:
    """The key of a setting, by its place in a recipe: ("stages", 8, "measure", "repeats") -> "measure.repeats"."""
    match place:
        case ("stages", int(number), "stage"):
            return f"stage {number + 1}"
        case ("stages", int(number), _, field, *_):
            return f"{names[number]}.{field}"
        case ("task", field, *_):
            return f"task.{field}"
    return dotted(place)


def _known_at(place: Place) -> Iterable[str]:
    match place:
        case ("stages", _, kind, _):
            return BY_KIND[str(kind)].model_fields
        case ("task", _):
            return DataSettings.model_fields
    return Recipe.model_fields
