"""What is tried: every variant is a recipe of this folder with some settings changed, and the question it answers."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from benchmarks.tasks import FOUR, STOCK_MEMORY, data_of
from benchmarks.tasks import TASKS as ALL_TASKS
from prunelora.recipe import Recipe, digest, load_recipe
from prunelora.stage_settings import PlanStage

RECIPES = Path(__file__).resolve().parent / "recipes"

TASKS = {name: ALL_TASKS[name] for name in FOUR}
SEEDS = (0, 1, 2)
SCREENING_SEED = 0  # All variants; learning rates are tried on it too.
SCREENING_TASKS = ("sst2", "mrpc")  # What all variants are trained on; one of single texts, one of pairs.
# Multiples of a recipe's own learning rate that are tried, as many for each that tries.
TRIALS = (1.0, 0.5)
GLUE_TRIALS = (1.0, 3.0)  # Those of benchmarks.glue.
TIGHT = 0.35  # The smaller share of the MACs, for what came out best at a half.
LOWEST = 0.2  # Smaller still, for the better way to walk and those of its splits that were in question.
LOWEST_OF = ("tune-first", "tune-first-split-quarter", "tune-first-split-late-gentle")
LEAST = 0.1  # To see where it ends, for what came to be the packaged recipe.
LEAST_OF = ("tune-first-split-late-gentle",)
BUDGETS = (TIGHT, LOWEST, LEAST)


@dataclass(frozen=True)
class Variant:
    """One way to do it.

    Attributes:
        name: What its row is called.
        question: What it answers, in a sentence.
        recipe: Name of a file in recipes/.
        changes: Settings that are changed in it, as "STAGE.SETTING".
        against: Name of the variant that it is held against; None for the references.
        trials: Multiples of its own learning rate that are tried on the validation rows.
        rate_of: Where it has no trials: the variant whose chosen multiple it takes.
        may_win: Whether it can be one of those that come out best; not what is there only to see others against.
        borrowed: Whether benchmarks.glue trains it: its rows are taken over, and what is missing is not trained here.
    """

    name: str
    question: str
    recipe: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    against: str | None = None
    trials: tuple[float, ...] = ()
    rate_of: str | None = None
    may_win: bool = True
    borrowed: bool = False

    @functools.cached_property
    def resolved(self) -> Recipe:
        """All its stages, with its own learning rate."""
        return load_recipe(RECIPES / f"{self.recipe}.yaml").with_settings(self.changes)

    @property
    def learning_rate(self) -> float:
        """Its own, of the longest fine-tuning."""
        return self.resolved.tunings[self.resolved.main_tuning].learning_rate

    @property
    def keep_macs(self) -> float:
        """Share of the dense model's MACs that its last plan keeps; 1 where nothing is cut."""
        plans = [stage for stage in self.resolved.stages if isinstance(stage, PlanStage)]
        # Equal fractions of heads and of neurons are that fraction of the MACs.
        return float(plans[-1].keep_macs or plans[-1].keep_heads or 1) if plans else 1.0

    def rate_at(self, factor: float) -> float:
        """Its learning rate at a multiple of its own."""
        return float(f"{self.learning_rate * factor:.6g}")

    @staticmethod
    def rows_of(task: str) -> int | None:
        """Most training rows that are used of a task."""
        return TASKS[task].max_train_rows

    def for_task(self, task: str, factor: float) -> Recipe:
        """All its stages as they are trained on a task, at a multiple of its learning rate."""
        options = {"epochs": TASKS[task].epochs, "learning_rate": self.rate_at(factor), **STOCK_MEMORY}
        return self.resolved.with_options(options)

    def definition(self, task: str) -> str:
        """Hash of all that is said of it here, but not of what the library fills in: results under another are old."""
        rows, epochs = self.rows_of(task), TASKS[task].epochs
        return digest({"stages": _stages(self.recipe), "changes": dict(self.changes), "rows": rows, "epochs": epochs})

    def at(self, budget: float, against: str | None = None) -> "Variant":
        """The same at another share of the MACs, against its counterpart there, or another variant."""
        budgets = ("plan.keep_heads", "plan.keep_ffn") if "plan.keep_heads" in self.changes else ("plan.keep_macs",)
        base = self.against if self.against in WALKS else None
        return replace(
            self,
            name=f"{self.name}@{budget:g}",
            changes={**self.changes, **dict.fromkeys(budgets, budget)},
            against=against or (f"{base}@{budget:g}" if base else self.against),
            trials=(),
            rate_of=self.rate_of or self.name,
        )


@functools.cache
def _stages(recipe: str) -> Any:
    return yaml.safe_load((RECIPES / f"{recipe}.yaml").read_text(encoding="utf-8"))["stages"]


def base_recipe(task: str, folder: Path) -> Recipe:
    """Model and data of every training on a task."""
    return Recipe(model="minilm", task=data_of(task, folder))


WALKS = ("cut-first", "tune-first")
# The variants that came to be the packaged recipes, by their names.
PACKAGED = {
    "cut-first": "cut-first",
    "cut-early": "cut-first-early",
    "tune-first": "tune-first-split-late-gentle",
}
# Whose learning rate the variants of a way to walk take: what begins by tuning the dense model takes the dense one's.
RATE_OF = {"cut-first": "cut-first", "tune-first": "lora-all"}


def _of(walk: str, name: str, question: str, **options: Any) -> Variant:
    """A variant of one of the two ways to walk; another recipe, changes and trials where they are given."""
    return Variant(
        f"{walk}-{name}",
        question,
        recipe=options.pop("recipe", walk),
        against=options.pop("against", walk),
        rate_of=options.pop("rate_of", None if options.get("trials") else RATE_OF[walk]),
        **options,
    )


RAW = {"plan.normalise": "none"}
# Scores of heads and neurons one by one, made comparable by what they cost.
GRADIENT = {"score.criterion": "gradient", "plan.balance": "cost"}
ALL_LINEAR = "query,key,value,output,up,down"
ATTENTION = "query,key,value,output"
NOT_DOWN = "query,key,value,output,up"

# The same gradients from half of the rows at a time: what is tuned dense for so long has to fit the cut model's memory.
HALVES = {"finetune-1.batch_size": 16, "finetune-1.accumulation_steps": 2}
LATE = {"finetune-1.epochs": 2.7, "finetune.epochs": 0.3, "finetune.keep_start": True, **HALVES}


def _rows(count: int) -> dict[str, int]:
    """How many training rows are looked at before the cut."""
    return {"linear_probe.rows": count, "score.rows": count, "prune.repair_rows": count}


# In the order of work: what decides the defaults first.
GROUPS: dict[str, tuple[Variant, ...]] = {
    "references": (
        Variant(
            "full",
            "What does training every weight of the dense model give?",
            "full",
            trials=GLUE_TRIALS,
            may_win=False,
            borrowed=True,
        ),
        Variant(
            "lora",
            "What does LoRA on the four matrices of attention give, with nothing cut?",
            "lora",
            {"finetune.learning_rate": 1e-3},
            trials=GLUE_TRIALS,
            may_win=False,
            borrowed=True,
        ),
        Variant(
            "lora-all",
            "What does LoRA on every linear layer give, with nothing cut?",
            "lora",
            {"finetune.lora_targets": ALL_LINEAR},
            trials=TRIALS,
            may_win=False,
        ),
    ),
    "bases": (
        Variant(
            "cut-first",
            "What is left when the pretrained model is cut, after a warm-up of the task head, and then tuned?",
            "cut-first",
            against="lora-all",
            trials=TRIALS,
        ),
        Variant(
            "tune-first",
            "What is left when the model is tuned for two thirds of the epochs, cut, and tuned for the last third?",
            "tune-first",
            against="lora-all",
            rate_of="lora-all",
        ),
    ),
    "repair": (
        _of("cut-first", "no-repair", "Does repair help before all of the tuning?",
            changes={"prune.repair": False}),
        _of("tune-first", "no-repair", "Does repair help where the last third of the tuning follows?",
            changes={"prune.repair": False, **GRADIENT}, against="tune-first-gradient"),
    ),
    "scores": (
        _of("cut-first", "raw", "Is it worth taking a layer's norm out of its scores (the paper's equation 2)?",
            changes=RAW),
        _of("cut-first", "fisher", "Are squared gradients, as they are, the better scores?",
            changes={"score.criterion": "fisher", **RAW}),
        _of("cut-first", "no-balance", "Are scores of heads and neurons comparable as they are, scaled in no way?",
            changes={"plan.balance": "none", **RAW}, against="cut-first-raw"),
        _of("cut-first", "equal", "Is half of the heads and half of the neurons, by scores as they are, better?",
            changes={"plan.keep_heads": 0.5, "plan.keep_ffn": 0.5, **RAW}, against="cut-first-raw"),
        _of("tune-first", "gradient", "Is scoring heads and neurons one by one, by absolute gradients, as good?",
            changes=GRADIENT),
        _of("tune-first", "fisher", "Is scoring them one by one, by squared gradients, as good?",
            changes={**GRADIENT, "score.criterion": "fisher"}),
        _of("tune-first", "normalise", "Is it worth taking a layer's norm out of gradients (the paper's equation 2)?",
            changes={**GRADIENT, "plan.normalise": "paper"}, against="tune-first-gradient"),
        _of("tune-first", "magnitude", "Is the size of the weights enough to choose by?",
            changes={**GRADIENT, "score.criterion": "magnitude"}, against="tune-first-gradient"),
        _of("tune-first", "random", "What are scores worth at all?",
            changes={**GRADIENT, "score.criterion": "random"}, against="tune-first-gradient"),
    ),
    "adapter": (
        _of("cut-first", "attention", "Is LoRA on the matrices of attention enough?",
            changes={"plan.targets": ATTENTION}),
        # The input of a down projection is the widest there is, and LoRA alone needs it kept for the backward pass.
        _of("cut-first", "no-down", "Is LoRA needed on the down projections, whose inputs cost the most memory?",
            changes={"plan.targets": NOT_DOWN}),
        # The scale alpha / r falls with the square root of the rank (rank-stabilised LoRA, Kalajdzievski 2023).
        _of("cut-first", "rank-16", "Does twice the rank help?",
            changes={"plan.rank_high": 16, "plan.rank_low": 16, "finetune.alpha_over_rank": 1.41}),
        _of("cut-first", "rank-32", "Does four times the rank help?",
            changes={"plan.rank_high": 32, "plan.rank_low": 32, "finetune.alpha_over_rank": 1.0}),
        _of("cut-first", "ranks-by-importance", "Do higher ranks belong where scores are high, at the same mean rank?",
            changes={"plan.rank_high": 12, "plan.rank_low": 6, "plan.rank_by": "parts"}),
        _of("cut-first", "orthogonal", "Does an orthogonal start of LoRA help?",
            changes={"finetune.lora_init": "orthogonal"}),
        _of("cut-first", "norms-frozen", "Do LayerNorms have to be trained?", changes={"finetune.train_norms": False}),
    ),
    "splits": (
        _of("tune-first", "split-quarter", "Is a quarter of the epochs before the cut enough?",
            changes={"finetune-1.epochs": 0.75, "finetune.epochs": 2.25}),
        _of("tune-first", "split-even", "Is half of them enough?",
            changes={"finetune-1.epochs": 1.5, "finetune.epochs": 1.5}),
        # The model after repair is one of those that the last tuning chooses from.
        _of("tune-first", "keep-start", "Should the repaired model be kept where tuning it further is no better?",
            changes={"finetune.keep_start": True}),
        _of("tune-first", "split-late", "Are nine tenths of the epochs before the cut better?",
            changes=LATE),
        _of("tune-first", "split-late-gentle", "And with a quarter of the learning rate after it?",
            changes={**LATE, "finetune.learning_rate": 5e-4}),
        _of("tune-first", "half-rate", "Is half of the learning rate better after the cut?",
            changes={"finetune.learning_rate": 1e-3}),
        _of("tune-first", "one-schedule", "Is it better to let the learning rate fall after the cut alone?",
            changes={"finetune-1.schedule": "constant_with_warmup"}),
    ),
    "weights": (
        _of("tune-first", "repair-by-loss", "Should repair count tokens by how much the loss depends on them?",
            changes={"prune.repair_weights": "loss"}),
    ),
    "start": (
        _of("cut-first", "tuned", "Is it better to tune all of the dense model for a tenth of the epochs first?",
            recipe="cut-first-tuned", rate_of="lora-all"),
        _of("cut-first", "early", "And for a quarter of them, with half as many rows for scores and repair?",
            recipe="cut-first-early", rate_of="lora-all"),
        # These two are asked for the time they save.
        _of("cut-first", "early-eighth", "Is an eighth of the epochs before the cut enough?",
            recipe="cut-first-early", rate_of="lora-all", against="cut-first-early", may_win=False,
            changes={"finetune-1.epochs": 0.375, "finetune.epochs": 2.625}),
        _of("cut-first", "early-rows-256", "Are 256 rows enough for scores and repair after an early tuning?",
            recipe="cut-first-early", rate_of="lora-all", against="cut-first-early", may_win=False,
            changes={"score.rows": 256, "prune.repair_rows": 256}),
    ),
    "rows": (
        # They are asked for the time they save.
        _of("cut-first", "rows-512", "Are 512 rows enough for warm-up, scores and repair?", changes=_rows(512),
            may_win=False),
        _of("cut-first", "rows-256", "And 256?", changes=_rows(256), may_win=False),
    ),
    "rest": (
        _of("cut-first", "no-warmup", "Does a trained task head give better scores?", recipe="cut-first-no-warmup"),
        _of("cut-first", "rounds", "Is it better to cut in two rounds?", recipe="cut-first-rounds"),
        _of("cut-first", "every-weight", "What could the cut model do, if every weight of it were trained?",
            changes={"finetune.trainable": "all", "finetune.learning_rate": 5e-5}, trials=GLUE_TRIALS, may_win=False),
        _of("tune-first", "rounds", "Is it better to cut in two rounds?", recipe="tune-first-rounds"),
        _of("tune-first", "distilled", "Is the model before the cut a good teacher for what follows?",
            changes={"finetune.distillation": 0.5}),
    ),
}  # fmt: skip

TITLES = {
    "references": "The dense model",
    "bases": "Two ways to walk",
    "repair": "Repair",
    "scores": "Scores and what is kept",
    "adapter": "The adapter",
    "splits": "Before and after the cut",
    "weights": "What repair is fitted to",
    "start": "Before an early cut",
    "rows": "How many rows are looked at before the cut",
    "rest": "Warm-up, rounds, distillation, every weight",
    "tight": f"At {TIGHT:g}, {LOWEST:g} and {LEAST:g} of the MACs",
}

VARIANTS = {variant.name: variant for group in GROUPS.values() for variant in group}
TIGHT_GROUP = {
    variant.name: variant
    for variant in (
        *(one.at(TIGHT) for one in VARIANTS.values() if one.may_win),
        *(VARIANTS[name].at(LOWEST) for name in LOWEST_OF),
        *(VARIANTS[name].at(LEAST, against="lora-all") for name in LEAST_OF),
    )
}
EVERYTHING = VARIANTS | TIGHT_GROUP
GROUP_OF = {variant.name: group for group, some in GROUPS.items() for variant in some} | dict.fromkeys(
    TIGHT_GROUP, "tight"
)
