"""Presets of a reproduction: the paper's settings, and ours."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_FOLDER = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class Preset:
    """Settings for all methods.

    Attributes:
        methods: For `compare`: names of packaged methods, or paths of recipe files.
        factors: Learning rates to try, as multiples of the recipe's.
        changes: Settings for every method that has them.
    """

    methods: tuple[str, ...]
    factors: tuple[float, ...]
    changes: dict[str, Any]


# The paper's 100 of 144 heads; the same share of another model's, rounded down: 50 of 72.
KEEP_HEADS: Final = 0.7

PRESETS: Final[Mapping[str, Preset]] = {
    "paper": Preset(
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
    "best": Preset(methods=("full", "lora", "prune-lora", "random-prune-lora"), factors=(1.0, 3.0), changes={}),
}
