"""A recipe: the file that determines a run: model, data, seed, a list of stages, and what options change.

Stages can be ordered and repeated freely within the rules of `prunelora.run.order`. The packaged recipes are in
`recipes/`. The default, tune-first, tunes the dense model, prunes it, and tunes again; cut-early prunes after a quarter
of the epochs; cut-first has the paper's order: score, plan, prune, fine-tune, merge. All then export, measure and
report.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Union

import yaml
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from prunelora.data.settings import DataSettings
from prunelora.errors import InPython, PlanError, RecipeError, did_you_mean, one_of, option, spelled
from prunelora.run import options as of_options
from prunelora.run.order import check_order
from prunelora.settings import Place, Settings, as_number, complaint, dotted, read_yaml, write_yaml
from prunelora.stages.base import Stage
from prunelora.stages.baseline import BaselineStage
from prunelora.stages.finetune import FineTuneStage
from prunelora.stages.kinds import BY_KIND, KINDS
from prunelora.stages.score import ScoreStage
from prunelora.storage import name_of, write_text

FORMAT: Final = "prunelora-recipe-1"

_PACKAGED = Path(__file__).parent.parent / "recipes"

DEFAULT = "tune-first"

if TYPE_CHECKING:
    AnyStage = Stage
else:
    AnyStage = Annotated[Union[KINDS], Field(discriminator="stage")]  # noqa: UP007 of as many types as there are kinds

# The factor of an option's value, by the name of the stage that the option changes.
Factors = Annotated[dict[str, Annotated[float, BeforeValidator(as_number), Field(gt=0)]], Field(min_length=1)]


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
    stages: tuple[AnyStage, ...] = ()
    options: dict[str, Factors] = Field(
        default_factory=dict,
        description="Which stages an option changes, and the factor of its value: {epochs: {finetune-1: 0.9, finetune: "
        "0.1}}. An option without an entry changes every fine-tuning, or the stage that it matters most for.",
    )

    @model_validator(mode="before")
    @classmethod
    def _default_recipe(cls, content: Any) -> Any:
        """Without stages, take those of the default recipe, with its options."""
        if isinstance(content, Mapping) and "stages" not in content:
            default = load_recipe(DEFAULT)
            return {"stages": default.stages, "options": default.options, **content}
        return content

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
        """Name of the longest fine-tuning, the last of equals.

        Raises:
            ValueError: If the recipe fine-tunes nothing.
        """
        return max(reversed(self.tunings.items()), key=lambda tuning: tuning[1].epochs)[0]

    @property
    def after_plans(self) -> set[str]:
        """Names of the first plan and all stages after it."""
        kinds = [stage.stage for stage in self.stages]
        return set(self.names[kinds.index("plan") :]) if "plan" in kinds else set()

    @property
    def cuts_untuned(self) -> bool:
        """Whether the first cut comes before any fine-tuning, and its scores are not the features'."""
        kinds = [stage.stage for stage in self.stages]
        if "prune" not in kinds:
            return False
        return not any(
            isinstance(stage, FineTuneStage) or (isinstance(stage, ScoreStage) and stage.criterion == "features")
            for stage in self.stages[: kinds.index("prune")]
        )

    def check(self) -> None:
        """Check the order of the stages, and the stages that `options` names.

        Raises:
            RecipeError: Naming the stage, and the stage that must come before it or that cannot go with it.
        """
        check_order(self.by_name)
        of_options.check_options(self)

    def with_settings(self, changes: Mapping[str, Any]) -> "Recipe":
        """A recipe with some settings changed.

        Args:
            changes: "model", "seed", "task.text", or "STAGE.SETTING" such as "plan.keep_heads"; the stage by its name
                in `names`. Values may be strings, as typed on a command line. "task.task" replaces "task.data", and
                the reverse; a budget replaces a budget of another kind.

        Raises:
            RecipeError: If there is no such stage or setting, or the value is not possible.
        """
        return self._changed(changes, {})

    def with_options(self, options: Mapping[str, Any], settings: Mapping[str, Any] | None = None) -> "Recipe":
        """A recipe with options given by their bare names: keep_heads, text, epochs; see `prunelora.run.options`.

        Another criterion of scores also changes how plans compare its heads with its neurons, unless that is given.

        Args:
            options: By bare name.
            settings: More changes, as `with_settings` takes them, which override options for the same setting. All are
                made at once, so that two budgets are an error wherever each was given.

        Raises:
            RecipeError: If no stage of the recipe has such a setting, or the value is not possible.
        """
        settings = dict(settings or {})
        for key in settings:
            if of_options.is_planned(self, key):
                raise of_options.planned(key)
        changes: dict[str, Any] = {}
        typed: dict[str, tuple[str, Any]] = {}
        for bare, value in options.items():
            of_option = of_options.changes_of(self, bare, value)
            changes |= of_option
            typed |= dict.fromkeys(of_option.keys() - settings.keys(), (bare, value))
        changes |= settings
        return self._changed(of_options.compared_by_criterion(self, changes) | changes, typed)

    def _changed(self, changes: Mapping[str, Any], typed: Mapping[str, tuple[str, Any]]) -> "Recipe":
        """A recipe with some settings changed.

        Args:
            changes: New values by key.
            typed: Bare names and values of the options that gave some of them, by key, for messages.
        """
        content = self.model_dump(mode="json")
        content["task"]["data"] = self.task.given or self.task.data
        of_options.clear_other_source(content["task"], changes)
        of_options.clear_other_budgets(dict(zip(self.names, content["stages"], strict=True)), changes)
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
            settable = [name for name in known if owner == "task" or name not in of_options.NOT_SETTINGS]
            if field not in settable:
                raise RecipeError(
                    f"{option(key)}: no such setting.{self._meant(key, settable)} {owner or 'The recipe'} has: "
                    f"{', '.join(settable) or 'none'}."
                )
            target[field] = of_options.value_of(key, value, as_text=field in _TEXTS)
        return _validated(content, lambda key, value: option(*typed.get(key, (key, value))))

    def _meant(self, key: str, settable: Sequence[str]) -> str:
        """The setting that a mistyped name resembles: of the same stage, or one that was named without its stage."""
        owner, _, field = key.rpartition(".")
        if not owner and self.has_option(field) and self.key_of(field) != key:
            return f" Did you mean {self.key_of(field)!r}?"
        return did_you_mean(field, settable)

    def has_option(self, bare: str) -> bool:
        """Whether `with_options` takes an option."""
        try:
            of_options.factors_of(self, bare)
        except RecipeError:
            return False
        return True

    def key_of(self, bare: str, *, first: str | None = None) -> str:
        """The key of an option's setting: "keep_heads" -> "plan.keep_heads"; see `prunelora.run.options.key_of`."""
        return of_options.key_of(self, bare, first=first)

    def is_planned(self, key: str) -> bool:
        """Whether an earlier plan replaces a setting: the ranks and targets of LoRA."""
        return of_options.is_planned(self, key)

    def in_proportion(self, setting: str, value: float, of: float) -> "Recipe":
        """A recipe with a setting of every fine-tuning multiplied by `value / of`."""
        return self.with_settings(
            {
                f"{name}.{setting}": float(f"{value * getattr(tuning, setting) / of:.6g}")
                for name, tuning in self.tunings.items()
            }
        )

    def with_baseline(self) -> "Recipe":
        """The recipe with the dense LoRA baseline before the stage measure."""
        if any(stage.stage == "baseline" for stage in self.stages):
            return self
        place = next((i for i, stage in enumerate(self.stages) if stage.stage == "measure"), len(self.stages))
        return self.model_copy(update={"stages": (*self.stages[:place], BaselineStage(), *self.stages[place:])})

    def without_export(self) -> "Recipe":
        """The recipe without its stage "export", so that it does not need the extra "onnx"."""
        stages = tuple(stage for stage in self.stages if stage.stage != "export")
        names = set(_names([stage.stage for stage in stages]))
        of_stages = {
            bare: {name: factor for name, factor in factors.items() if name in names}
            for bare, factors in self.options.items()
        }
        options = {bare: factors for bare, factors in of_stages.items() if factors}
        return self.model_copy(update={"stages": stages, "options": options})

    def without_paths(self) -> "Recipe":
        """The recipe without this machine's paths: the last part stands in place of each."""
        task = {name: value and name_of(value) for name in ("data", "data_dir") for value in [getattr(self.task, name)]}
        return self.model_copy(
            update={"model": name_of(self.model), "task": self.task.model_copy(update=task)}, deep=True
        )

    def to_yaml(self) -> str:
        """The fully resolved recipe, for people and for `read_recipe`."""
        content = self.model_dump(mode="json")
        return write_yaml({name: value for name, value in content.items() if name != "options" or value})

    def save(self, path: Path) -> None:
        """Write the recipe to a file, atomically."""
        write_text(path, self.to_yaml())


# Names of stages and of criteria in recipes of prunelora 0.2 and before.
RENAMED: Final[Mapping[Any, str]] = {"warmup": "linear_probe", "surgeon": "obs"}
# Settings that are not read as YAML: a column may be called "1", an encoding "437".
_TEXTS = frozenset({"model", "data", "task", "data_dir", "data_config", "text", "text_pair", "label", "encoding"})


def packaged_recipes() -> dict[str, Path]:
    """Paths of the packaged recipes, by name."""
    return {path.stem: path for path in sorted(_PACKAGED.glob("*.yaml"))}


def load_recipe(path: Path | str) -> Recipe:
    """Read a recipe: a file (YAML or JSON), or a packaged recipe by its name.

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
    """Validate the content of a recipe file; missing settings get their defaults.

    Raises:
        RecipeError: Naming `source` and the place.
    """
    with spelled(InPython()):  # Keys are spelled as in the file, not as on a command line.
        try:
            return _validated(content, option)
        except (RecipeError, PlanError) as error:
            raise RecipeError(f"{source}: {error}") from error


def _validated(content: Any, spell: Callable[[str, Any], str]) -> Recipe:
    """A recipe from plain data; `spell` writes a key, such as "plan.keep_heads", and its value in messages."""
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
    """The content of a recipe, with names of earlier versions replaced."""
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
    later, seen = Counter(kinds), Counter[Any]()
    names = []
    for kind in kinds:
        later[kind] -= 1
        seen[kind] += 1
        names.append(str(kind) if not later[kind] else f"{kind}-{seen[kind]}")
    return names


def _key(place: Place, names: Sequence[str]) -> str:
    """The key of a setting for its place in a recipe: ("stages", 8, "measure", "repeats") -> "measure.repeats"."""
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
