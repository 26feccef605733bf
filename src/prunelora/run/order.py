"""Which stages a recipe may have in which order."""

from collections.abc import Mapping

from prunelora.errors import RecipeError
from prunelora.stages.base import Stage
from prunelora.stages.finetune import FineTuneStage
from prunelora.stages.kinds import BY_KIND


def check_order(stages: Mapping[str, Stage]) -> None:
    """Check that every stage has the results that it needs before it, and that they are of the present model.

    Scores describe one model, and a plan is for it: a stage that changes the model makes both stale. An export or a
    measurement before such a stage does not describe the final model.

    Args:
        stages: By name, in order.

    Raises:
        RecipeError: Naming the stage, and the stage that must come before it or that cannot go with it.
    """
    if not stages:
        raise RecipeError(f"The recipe has no stages. Use some of: {', '.join(BY_KIND)}.")
    last: dict[str, Stage] = {}  # The last stage of each kind, in their order.
    changed_by: dict[str, str] = {}  # By kind: the last stage that has changed the model since.
    for name, stage in stages.items():
        missing = [kind for kind in stage.needs if kind not in last]
        if missing:
            raise RecipeError(f"Stage {name!r} needs {missing[0]!r} before it. Put one there.")
        stage.check_place(name, last)
        if stage.plain_model and _is_adapted(last):
            raise RecipeError(f"Stage {name!r} needs a model without an adapter: put 'merge' before it.")
        for kind in stage.of_present:
            if (change := changed_by.get(kind)) is not None:
                raise RecipeError(
                    f"Stage {name!r}: the {kind!r} before it is of the model before {change!r} changed it. Put "
                    f"{kind!r} between {change!r} and {name!r}."
                )
        last.pop(stage.stage, None)
        if stage.changes_model:
            changed_by |= dict.fromkeys(last, name)
        changed_by.pop(stage.stage, None)
        last[stage.stage] = stage
    for kind, stage in last.items():
        if stage.of_final and kind in changed_by:
            raise RecipeError(
                f"Stage {kind!r} is not of the final model: {changed_by[kind]!r} changes it afterwards. Put "
                f"{kind!r} after it."
            )


def _is_adapted(last: Mapping[str, Stage]) -> bool:
    """Whether the model carries an adapter after these last stages of each kind, in their order."""
    tuning, kinds = last.get("finetune"), list(last)
    adapter = isinstance(tuning, FineTuneStage) and tuning.trainable == "adapter"
    return adapter and "merge" not in kinds[kinds.index("finetune") :]
