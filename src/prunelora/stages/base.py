"""What a stage is: settings, its place in a recipe, and the work on a run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from prunelora.errors import RecipeError
from prunelora.settings import Settings

if TYPE_CHECKING:
    from prunelora.evaluation.work import Work
    from prunelora.report.results import RunResults
    from prunelora.report.table import Table
    from prunelora.stages.context import Run

Facts = dict[str, Any]
# Seconds, to be called after all pieces of a forecast are timed.
Seconds = Callable[[], float]
Value = TypeVar("Value")


@dataclass(frozen=True)
class Record:
    """A finished stage.

    Attributes:
        stage: Its name in the recipe.
        key: Hash of its settings and of everything before it.
        seconds: Wall time, over all processes that worked on it and were not killed outright.
        files: Its files in the run folder, relative to the folder.
        facts: Numbers for the report.
        version: The version of the stage that made it; 0 in records of prunelora 0.2, which have none.
    """

    stage: str
    key: str
    seconds: float
    files: tuple[str, ...]
    facts: Facts
    version: int = 0


class Stage(Settings):
    """A stage: the fields are its settings, the class attributes place it in a recipe, the methods do its work.

    A new stage is a subclass in a file of its own, and a line in `prunelora.stages.kinds`. Its docstring's first line
    is the help of its command.
    """

    stage: str

    # Part of the key of its records. A higher number repeats the stage in existing run folders: raise it when the same
    # settings give other results.
    version: ClassVar[int] = 1
    # Settings that change costs and not the result; they are no part of the key.
    costs_alone: ClassVar[frozenset[str]] = frozenset()
    # Settings that are part of the key only if they differ from their default.
    unsaid: ClassVar[frozenset[str]] = frozenset()

    # Whether the command line has a command that runs a recipe up to this stage.
    has_command: ClassVar[bool] = True
    # Whether the stage is a step towards the model. The others examine or deliver the model: a comparison leaves them
    # out of its methods, and their wall time is not part of the time to the model.
    makes_model: ClassVar[bool] = True
    # How the report names the model's quality after this stage.
    label: ClassVar[str] = ""

    # Kinds of stages that must come before.
    needs: ClassVar[tuple[str, ...]] = ()
    # Kinds among them whose last result must be of the present model: no later stage may have changed the model.
    of_present: ClassVar[tuple[str, ...]] = ()
    # Whether the stage cannot work on a model that carries an adapter.
    plain_model: ClassVar[bool] = False
    # Whether weights or sizes of the model differ afterwards.
    changes_model: ClassVar[bool] = False
    # Whether the result describes the model that the recipe ends with.
    of_final: ClassVar[bool] = False

    # Whether `restore` changes only the model, and whether the restored model depends on no earlier stage.
    restores_model_only: ClassVar[bool] = False
    restores_whole_model: ClassVar[bool] = False
    # Folders, by their plain names, that a stopped stage resumes from; removed when the stage is finished.
    unfinished: ClassVar[tuple[str, ...]] = ()
    # Names under which scripts find its files: {"plan.json": "plan"}.
    artefacts: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def kind(cls) -> str:
        """The name of this kind of stage in recipes."""
        return str(cls.model_fields["stage"].default)

    def check_place(self, name: str, before: Mapping[str, "Stage"]) -> None:
        """Check the settings against the stages before; `needs` and the other class attributes hold already.

        Args:
            name: This stage's name in the recipe.
            before: The last earlier stage of each kind, by kind.

        Raises:
            RecipeError: If the stage cannot follow those.
        """

    def check_packages(self) -> None:
        """Check that the packages that the stage needs are installed.

        Raises:
            MissingExtraError: Naming the extra.
        """

    def check(self, run: "Run", before: Sequence["Stage"]) -> None:
        """Check, before any work, that the run's pretrained model can go through this stage.

        Args:
            run: With the pretrained model, whose weights may be random.
            before: The earlier stages that are to be run.

        Raises:
            PruneLoraError: If it cannot; the message says what can be done.
        """

    def run(self, run: "Run", name: str) -> Facts:
        """Do the stage's work on the run, write its files, and return facts for the report."""
        raise NotImplementedError  # pragma: no cover

    def restore(self, run: "Run", name: str) -> None:
        """Bring the run to its state after the stage, from the files; nothing by default."""

    def files(self) -> tuple[str, ...]:
        """The plain names of the files that the stage may write into the run folder; records list those it wrote."""
        return ()

    def forecast(self, work: "Work", run: "Run", name: str) -> Seconds:
        """Add pieces of the stage's work to the timed ones; returns a function that predicts its seconds from them.

        Args:
            work: The pieces; counts memory by name of the stage.
            run: With the dense model, whose weights may be random, and the last plan, by made-up scores.
            name: Name of the stage.
        """
        return lambda: 0.0

    def facts_shown(self, results: "RunResults", name: str) -> Facts:
        """The facts for the stage's command; beside an accuracy stands that of the most frequent class."""
        facts = dict(results.facts(name))
        rate = results.task.get("validation_majority_rate")
        if rate is not None and any(fact.endswith("accuracy") for fact in _flat(facts)):
            facts["validation_majority_rate"] = rate
        return facts

    def lines(self, results: "RunResults", facts: Facts) -> "list[str | Table]":
        """The outcome for people, as the stage's command prints it."""
        from prunelora.report.reading import cut_off, fact_text

        cut = cut_off(results) if "truncation" in facts else []
        shown = _flat({name: value for name, value in facts.items() if name != "truncation"})
        return [*(f"{name}: {fact_text(name, value)}" for name, value in shown.items()), *cut]

    def content(self, results: "RunResults") -> dict[str, Any]:
        """The outcome beside the facts, for the JSON of the stage's command."""
        return {}


def _flat(facts: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested facts on one level: {"test": {"accuracy": 0.8}} -> {"test.accuracy": 0.8}; lists are left out."""
    flat: dict[str, Any] = {}
    for key, value in facts.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        elif not isinstance(value, list):
            flat[f"{prefix}{key}"] = value
    return flat


def deciding(stage: Stage) -> dict[str, Any]:
    """The settings that decide a stage's result, as plain data: all except those that change its costs alone."""
    fields = type(stage).model_fields
    default = {name for name in stage.unsaid if getattr(stage, name) == fields[name].default}
    return stage.model_dump(mode="json", exclude=default | stage.costs_alone)


def stage_file(stage: str, file: str) -> str:
    """The name of a stage's file in the run folder: plan.json; for an earlier stage of the same kind, plan-1.json."""
    _, _, number = stage.partition("-")
    name = Path(file)
    return f"{name.stem}-{number}{name.suffix}" if number else file


def needed(value: Value | None, kind: str) -> Value:
    """The result of an earlier stage.

    Raises:
        RecipeError: If that stage did not run.
    """
    if value is None:
        raise RecipeError(f"The stage {kind!r} has not run. Put it before this stage.")
    return value
