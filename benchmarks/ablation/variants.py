"""The variants of the ablation: recipes of this folder with some settings changed, as variants.yaml lists them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import yaml

from benchmarks.tasks import STOCK_MEMORY
from benchmarks.trials import Method
from prunelora.stages.plan import PlanStage

FOLDER = Path(__file__).resolve().parent
SEEDS = (0, 1, 2)
SCREENING_SEED = 0  # Of the learning rates and of the variants that are trained on few tasks.
SCREENING_TASKS = ("sst2", "mrpc")  # One of single texts, one of pairs.
# Groups that are screened on all tasks: their answers depend on the task.
EVERY_TASK = ("splits", "weights", "start", "features")
BASES = ("cut-first", "tune-first")
# The variants that became the packaged recipes. Those that are no bases were the best of their base in the screening.
PACKAGED = {
    "cut-first": "cut-first-features-256",
    "cut-early": "cut-first-early",
    "tune-first": "tune-first-split-late-gentle",
}
FINALISTS = (PACKAGED["cut-early"], PACKAGED["tune-first"], PACKAGED["cut-first"])
# Smaller fractions of the MACs, with the variants that are trained at them.
BUDGETS = {0.35: (*BASES, *FINALISTS[:2]), 0.2: ("tune-first", FINALISTS[1]), 0.1: (FINALISTS[1],)}


@dataclass(frozen=True)
class Variant(Method):
    """A row of the ablation; its title is the question that it answers.

    Attributes:
        against: Variant that it is compared with; None for the references.
        factors: Multiples of its learning rate that are tried.
        rate_of: Without factors: the variant whose chosen multiple it takes.
    """

    against: str | None = None
    factors: tuple[float, ...] = ()
    rate_of: str | None = None

    options: ClassVar[Mapping[str, Any]] = STOCK_MEMORY

    @property
    def recipe(self) -> str:
        """Name of its recipe file."""
        return self.path.stem

    @property
    def keep_macs(self) -> float:
        """Fraction of the dense model's MACs that its last plan keeps; 1 without a plan."""
        plans = [stage for stage in self.resolved.stages if isinstance(stage, PlanStage)]
        # Equal fractions of heads and of neurons are that fraction of the MACs.
        return float(plans[-1].keep_macs or plans[-1].keep_heads or 1) if plans else 1.0

    def rate_at(self, factor: float) -> float:
        return float(f"{self.learning_rate * factor:.6g}")

    def at(self, budget: float) -> "Variant":
        """The variant at another fraction of the MACs, compared with its base there, or with the dense model."""
        base = f"{self.against}@{budget:g}" if self.against in BUDGETS[budget] else "lora-all"
        return replace(
            self,
            name=f"{self.name}@{budget:g}",
            changes={**self.changes, "plan.keep_macs": budget},
            against=base,
            factors=(),
            rate_of=self.rate_of or self.name,
        )


_LISTED = yaml.safe_load((FOLDER / "variants.yaml").read_text(encoding="utf-8"))
GROUPS: dict[str, tuple[Variant, ...]] = {
    group: tuple(
        Variant(
            name,
            path=FOLDER / "recipes" / f"{content.pop('recipe')}.yaml",
            factors=tuple(content.pop("factors", ())),
            **content,
        )
        for name, content in listed["variants"].items()
    )
    for group, listed in _LISTED.items()
}
VARIANTS = {variant.name: variant for variants in GROUPS.values() for variant in variants}
GROUPS["tight"] = tuple(VARIANTS[name].at(budget) for budget, names in BUDGETS.items() for name in names)
EVERYTHING = VARIANTS | {variant.name: variant for variant in GROUPS["tight"]}
TITLES = {group: listed["title"] for group, listed in _LISTED.items()} | {"tight": "At 0.35, 0.2 and 0.1 of the MACs"}


def members(group: str, *, task: str, seed: int) -> list[Variant]:
    """Variants of a group that are trained on a task with a seed.

    The screening seed trains all variants on the screening tasks, and the bases at the smaller budgets; the references,
    the bases and the finalists are trained on all tasks with all seeds.
    """
    screened = seed == SCREENING_SEED and (task in SCREENING_TASKS or group in (*EVERY_TASK, "tight"))
    if group in ("references", "bases") or screened:
        return list(GROUPS[group])
    return [variant for variant in GROUPS[group] if variant.name.partition("@")[0] in FINALISTS]
