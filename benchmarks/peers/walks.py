"""A recipe with Torch-Pruning's cut in place of its own, before anything is run."""

from typing import Any

from benchmarks.peers.contenders import RANKING
from prunelora.comparison.trials import portable
from prunelora.models.anatomy import dissect
from prunelora.planning.plan import Plan
from prunelora.recipe import Recipe
from prunelora.stage_settings import PlanStage, ScoreStage

CUT_STAGES = ("score", "plan", "prune")


def split(recipe: Recipe) -> tuple[list[str], list[str]]:
    """Names of the stages before the first scoring and after the last pruning."""
    kinds = [stage.stage for stage in recipe.stages]
    first = min(index for index, kind in enumerate(kinds) if kind in CUT_STAGES)
    last = max(index for index, kind in enumerate(kinds) if kind in CUT_STAGES)
    return recipe.names[:first], recipe.names[last + 1 :]


def cut_settings(recipe: Recipe) -> tuple[ScoreStage, PlanStage]:
    """Settings of the last scoring and of the last plan: rows, budget, and what is adapted."""
    scores = [stage for stage in recipe.stages if isinstance(stage, ScoreStage)]
    plans = [stage for stage in recipe.stages if isinstance(stage, PlanStage)]
    return scores[-1], plans[-1]


def as_recipe(recipe: Recipe) -> dict[str, Any]:
    """What the walk does, as plain data: the recipe with Torch-Pruning's cut in it."""
    content = portable(recipe)
    score, plan = cut_settings(recipe)
    cut = {
        "stage": "torch-pruning",
        "importance": "GroupTaylorImportance",
        "ranking": RANKING,
        "rows": score.rows,
        "batch_size": score.batch_size,
        "keep_macs": plan.keep_macs,
        "tokens": plan.tokens,
        "round_to": plan.round_to,
        "lora_ranks": [plan.rank_high, plan.rank_low],
        "lora_targets": list(plan.targets),
    }
    before, after = split(recipe)
    by_name = dict(zip(recipe.names, content["stages"], strict=True))
    return content | {"stages": [*(by_name[n] for n in before), cut, *(by_name[n] for n in after)]}


def adapter_plan(model: Any, plan: PlanStage) -> Plan:
    """LoRA on the matrices that the recipe's plan adapts, of one rank: the mean of the recipe's. It cuts nothing."""
    lineage = dissect(model).lineage
    blocks = lineage.base.num_layers
    high = plan.num_high if plan.num_high is not None else round(blocks / 3)
    rank = round((high * plan.rank_high + (blocks - high) * plan.rank_low) / blocks)
    return Plan.whole(lineage, rank=max(1, rank), targets=plan.targets)
