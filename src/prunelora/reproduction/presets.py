"""Presets of a reproduction: the paper's settings, and ours."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from prunelora.errors import RecipeError, one_of, option

_FOLDER = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class Preset:
    """Settings for all methods.

    Attributes:
        name: As typed after --preset.
        methods: For `compare`: names of packaged methods, or paths of recipe files.
        changes: Settings for every method that has them.
        factors: Learning rates to try, as multiples of the recipe's.
    """

    name: str
    methods: tuple[str, ...]
    factors: tuple[float, ...]
    changes: Mapping[str, Any] = field(default_factory=dict)

    def settings(self, *, train_head: bool = True, epochs: float | None = None) -> dict[str, Any]:
        """Returns the changes, and with them an untrained task head or other epochs if asked for."""
        settings = dict(self.changes)
        if not train_head:
            settings["train_head"] = False
        if epochs is not None:
            settings["epochs"] = epochs
        return settings


# The paper's 100 of 144 heads; the same share of another model's, rounded down: 50 of 72.
KEEP_HEADS: Final = 0.7

PRESETS: Final[Mapping[str, Preset]] = {
    preset.name: preset
    for preset in (
        Preset(
            "paper",
            # No linear probe and no learning-rate warm-up; LoRA of rank 4 on query, key, value if nothing is pruned.
            methods=("full", "lora", str(_FOLDER / "prune-lora.yaml"), str(_FOLDER / "random-prune-lora.yaml")),
            factors=(1.0,),
            changes={
                "learning_rate": 2e-5,
                "epochs": 30.0,
                "weight_decay": 0.01,
                "finetune.batch_size": 32,
                "warmup_fraction": 0.0,
                "dropout": None,
                "keep_heads": KEEP_HEADS,
                "keep_ffn": 1.0,
                "rank_high": 8,
                "rank_low": 4,
                "lora_rank": 4,
                "lora_targets": ("query", "key", "value"),
            },
        ),
        Preset(
            "best",
            methods=("full", "lora", "prune-lora", "random-prune-lora"),
            factors=(1.0, 3.0),
        ),
    )
}


def preset_of(name: str) -> Preset:
    """Returns a preset; raises RecipeError if there is none of this name."""
    if name not in PRESETS:
        raise RecipeError(f"{option('preset', name)}: no preset of this name.{one_of(name, PRESETS)}")
    return PRESETS[name]
