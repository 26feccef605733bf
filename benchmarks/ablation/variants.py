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
# Smaller fractions of the MACs, with the variants that are trained at them; TIGHT takes the best at a half.
TIGHT, LOWEST, LEAST = BUDGETS = (0.35, 0.2, 0.1)
LOWEST_OF = ("tune-first", "tune-first-split-quarter", "tune-first-split-late-gentle")
LEAST_OF = ("tune-first-split-late-gentle",)
BASES = ("cut-first", "tune-first")
# The variants that became the packaged recipes.
PACKAGED = {
    "cut-first": "cut-first",
    "cut-early": "cut-first-early",
    "tune-first": "tune-first-split-late-gentle",
}


@dataclass(frozen=True)
class Variant(Method):
    """A row of the ablation; its title is the question that it answers.

    Attributes:
        against: Variant that it is compared with; None for the references.
        factors: Multiples of its learning rate that are tried.
        rate_of: Without factors: the variant whose chosen multiple it takes.
        may_win: Whether it can go on to the other seeds and tasks.
    """

    against: str | None = None
    factors: tuple[float, ...] = ()
    rate_of: str | None = None
    may_win: bool = True

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

    def at(self, budget: float, against: str | None = None) -> "Variant":
        """The variant at another fraction of the MACs."""
        settings = ("plan.keep_heads", "plan.keep_ffn") if "plan.keep_heads" in self.changes else ("plan.keep_macs",)
        base = f"{self.against}@{budget:g}" if self.against in BASES else self.against
        return replace(
            self,
            name=f"{self.name}@{budget:g}",
            changes={**self.changes, **dict.fromkeys(settings, budget)},
            against=against or base,
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
TIGHT_VARIANTS = {
    variant.name: variant
    for variant in (
        *(one.at(TIGHT) for one in VARIANTS.values() if one.may_win),
        *(VARIANTS[name].at(LOWEST) for name in LOWEST_OF),
        *(VARIANTS[name].at(LEAST, against="lora-all") for name in LEAST_OF),
    )
}
TITLES = {group: listed["title"] for group, listed in _LISTED.items()} | {
    "tight": f"At {TIGHT:g}, {LOWEST:g} and {LEAST:g} of the MACs"
}
EVERYTHING = VARIANTS | TIGHT_VARIANTS
ALL_GROUPS = (*GROUPS, "tight")
