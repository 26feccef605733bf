"""Which stages a recipe may have in which order."""

from collections.abc import Mapping
from typing import Any

from prunelora.errors import PlanError, RecipeError, option
from prunelora.planning.units import check_normalise
from prunelora.stage_settings import STAGE_KINDS, FineTuneStage, PlanStage

# Stages that cannot work on a model that carries an adapter.
_OF_PLAIN_MODELS = frozenset({"linear_probe", "score", "prune", "finetune", "export", "measure"})


def check_order(stages: Mapping[str, Any]) -> None:
    """Check that every stage has before it what it needs, made from the model as it is then.

    Scores are of one model, and a plan is for it: a stage that changes the model makes both stale, and what was
    exported or measured before it is not of the final model.

    Args:
        stages: By name, in order.

    Raises:
        RecipeError: Naming the stage and what must come before it, or what cannot go with it.
    """
    if not stages:
        raise RecipeError(f"The recipe has no stages. Use some of: {', '.join(STAGE_KINDS)}.")
    before: dict[str, Any] = {}
    changed_by: dict[str, str] = {}  # By kind: the last stage that has changed the model since.
    for name, stage in stages.items():
        missing = [kind for kind in stage.needs if kind not in before]
        if missing:
            raise RecipeError(f"Stage {name!r} needs {missing[0]!r} before it. Put one there.")
        if isinstance(stage, PlanStage):
            try:
                check_normalise(before["score"].criterion, stage.normalise)
            except PlanError as error:
                raise RecipeError(f"Stage {name!r}: {error}") from error
        if isinstance(stage, FineTuneStage) and stage.distillation and "merge" not in before:
            raise RecipeError(
                f"{option(f'{name}.distillation', stage.distillation)} needs a teacher, and no model was merged "
                "before. Put 'finetune' and 'merge' before the cut, or set it to 0."
            )
        if stage.stage in _OF_PLAIN_MODELS and _is_adapted(before):
            raise RecipeError(f"Stage {name!r} needs a model without an adapter: put 'merge' before it.")
        for kind in stage.of_present:
            if (change := changed_by.get(kind)) is not None:
                raise RecipeError(
                    f"Stage {name!r}: the {kind!r} before it is of the model before {change!r} changed it. Put "
                    f"{kind!r} between {change!r} and {name!r}."
                )
        before.pop(stage.stage, None)  # The last of its kind, and where it stands, is what counts.
        if stage.changes_model:
            changed_by |= dict.fromkeys(before, name)
        changed_by.pop(stage.stage, None)
        before[stage.stage] = stage
    for kind, stage in before.items():
        if stage.of_final and kind in changed_by:
            raise RecipeError(
                f"Stage {kind!r} is not of the final model: {changed_by[kind]!r} changes it afterwards. Put "
                f"{kind!r} behind it."
            )


def _is_adapted(before: Mapping[str, Any]) -> bool:
    """Whether an adapter is on the model that the last stage of each kind, in their order, has left."""
    kinds = list(before)
    return (
        "finetune" in before
        and before["finetune"].trainable == "adapter"
        and "merge" not in kinds[kinds.index("finetune") :]
    )
