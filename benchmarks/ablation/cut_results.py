"""Result files of cuts that nothing was trained after: results/cuts/TASK-SEED.json."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from benchmarks.ablation.results import Facts
from benchmarks.ablation.variants import SEEDS, TASKS


@dataclass(frozen=True)
class Choice:
    """How it is chosen what stays.

    Attributes:
        criterion: Of the scores.
        normalise: Of the scores of layers.
        balance: Of heads and neurons; "equal" keeps the same fraction of both.
        repaired: Whether the cut is also repaired.
    """

    criterion: str
    normalise: str
    balance: str
    repaired: bool = False

    def made(self, cut: "Cut", budget: float) -> bool:
        """Whether a cut was chosen so, at a budget."""
        asked = (self.criterion, self.normalise, self.balance, budget)
        return (cut.criterion, cut.normalise, cut.balance, cut.keep_macs) == asked

    def __str__(self) -> str:
        """As people read it."""
        layers = {"paper": "layers normalised", "none": "raw"}[self.normalise]
        kinds = {"cost": "balanced by cost", "none": "as they are", "equal": "the same fraction of each"}[self.balance]
        return f"{self.criterion}, {layers}, heads and neurons {kinds}"


CHOICES = (
    Choice("obs", "none", "none", repaired=True),
    Choice("gradient", "paper", "cost", repaired=True),
    Choice("gradient", "none", "cost", repaired=True),
    Choice("gradient", "paper", "none"),
    Choice("gradient", "none", "none"),
    Choice("gradient", "paper", "equal"),
    Choice("gradient", "none", "equal"),
    Choice("fisher", "paper", "cost"),
    Choice("fisher", "none", "cost", repaired=True),
    Choice("fisher", "none", "none"),
    Choice("magnitude", "none", "cost", repaired=True),
    Choice("random", "none", "cost", repaired=True),
)
BUDGETS = (0.5, 0.35)
ROWS = 1024


class Judged(Facts):
    """Accuracy and loss on the validation rows."""

    accuracy: float
    loss: float


class Cut(Facts):
    """One cut.

    Attributes:
        criterion, normalise, balance: How it was chosen.
        keep_macs: Share of the MACs that stays.
        heads: Left in all layers.
        neurons: Likewise.
        cut: Right after the cut.
        repaired: After repair; None where it was not tried.
        plan_seconds: Of planning.
        repair_seconds: Of repair.
    """

    criterion: str
    normalise: str
    balance: str
    keep_macs: float
    heads: int
    neurons: int
    cut: Judged
    repaired: Judged | None
    plan_seconds: float
    repair_seconds: float | None


class Cuts(Facts):
    """A result file, TASK-SEED.json; it grows cut by cut.

    Attributes:
        rows: Training rows that were scored and repaired on.
        dense: Before the cut.
        score_seconds: By criterion.
    """

    format: Literal["prunelora-cuts-1"] = "prunelora-cuts-1"
    task: str
    seed: int
    rows: int
    machine: dict[str, Any]
    dense: Judged
    score_seconds: dict[str, float] = Field(default_factory=dict)
    cuts: tuple[Cut, ...] = ()

    def missing(
        self, choices: Sequence[Choice] | None = None, budgets: Sequence[float] = BUDGETS
    ) -> list[tuple[float, Choice]]:
        """What was not cut yet, of all choices where none are given."""
        choices = CHOICES if choices is None else choices
        every = [(budget, choice) for budget in budgets for choice in choices]
        return [(budget, choice) for budget, choice in every if not any(choice.made(cut, budget) for cut in self.cuts)]


def path_of(results: Path, task: str, seed: int) -> Path:
    """Of a result file."""
    return results / "cuts" / f"{task}-{seed}.json"


def read_cuts(results: Path, task: str, seed: int) -> Cuts | None:
    """What is there, whole or not; None if nothing is."""
    try:
        return Cuts.model_validate_json(path_of(results, task, seed).read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return None


def read_all_cuts(results: Path) -> list[Cuts]:
    """All tasks and seeds on which every choice was tried: means of other choices are over the same."""
    found = [read_cuts(results, task, seed) for task in TASKS for seed in SEEDS]
    return [one for one in found if one is not None and not one.missing()]
