"""What is compared: recipes of the library with some of their settings, and who makes the cut in them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from prunelora.models.family import PROJECTIONS

PRUNELORA, TORCH_PRUNING = "prunelora", "torch-pruning"
LORA = "lora"

# How Torch-Pruning ranks what is cut: within each layer, over all layers, or over all layers of like structure.
RANKINGS: Mapping[str, Mapping[str, bool]] = {
    "each layer by itself": {"global_pruning": False},
    "all layers together": {"global_pruning": True},
    "all layers together, heads and neurons apart": {"global_pruning": True, "isomorphic": True},
}
RANKING = "all layers together, heads and neurons apart"


@dataclass(frozen=True)
class Contender:
    """One way from the pretrained model to a tuned one.

    Attributes:
        name: What its rows are called.
        title: What it does.
        recipe: The packaged recipe that it follows.
        settings: Of the recipe, by "stage.setting".
        cut_by: Who scores and cuts; None where nothing is cut. Another's cut takes the place of the recipe's stages
            from the first scoring to the last pruning, with their rows and budget; all other stages are the recipe's.
    """

    name: str
    title: str
    recipe: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    cut_by: str | None = PRUNELORA


def _walks() -> tuple[Contender, ...]:
    walks = []
    for walk in ("cut-first", "tune-first"):
        # Neither knows what a head is worth beside a neuron: both are made worth the same for their cost on average.
        by_cost = {"plan.balance": "cost"}
        walks += [
            Contender(walk, f"{walk}, as it comes with prunelora", walk),
            Contender(
                f"random-{walk}", f"{walk}, cut at random, repaired", walk, {"score.criterion": "random", **by_cost}
            ),
            Contender(
                f"magnitude-{walk}",
                f"{walk}, cut by the size of the weights, repaired",
                walk,
                {"score.criterion": "magnitude", **by_cost},
            ),
            Contender(
                f"torch-pruning-{walk}",
                f"{walk}, cut by Torch-Pruning with its Taylor importance, nothing repaired",
                walk,
                cut_by=TORCH_PRUNING,
            ),
        ]
    return tuple(walks)


# Nothing of prunelora's own in the training: it keeps what autograd keeps.
ALONE: Mapping[str, Any] = {"finetune.selective_recomputation": False}

CONTENDERS = {
    one.name: one
    for one in (
        # Its learning rate, as that of the others, gives way to what the ablation chose for a task.
        Contender(
            "full",
            "full fine-tuning by transformers alone",
            "full",
            {"finetune.learning_rate": 1.5e-4, **ALONE},
            cut_by=None,
        ),
        Contender(
            "lora",
            "LoRA by peft alone, on every linear layer of the dense model, with LayerNorms and task head",
            "lora",
            {"finetune.lora_targets": list(PROJECTIONS), "finetune.learning_rate": 2e-3, **ALONE},
            cut_by=None,
        ),
        *_walks(),
        Contender("cut-early", "cut-early, as it comes with prunelora: between the two", "cut-early"),
    )
}
