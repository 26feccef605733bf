"""The stages after the merge: evaluate, export, baseline, measure and report."""

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from prunelora.data.metrics import metrics
from prunelora.data.tokens import batches, by_length
from prunelora.delivery.card import add_numbers
from prunelora.delivery.onnx import compared, export
from prunelora.evaluation.measurement import measure
from prunelora.judging import asked_latency, tested, tuned_dense
from prunelora.models.anatomy import dissect
from prunelora.planning.plan import Plan
from prunelora.report.run_page import write_report
from prunelora.running import Facts, Run, StageWork, ready_to_train, restore_nothing, tune
from prunelora.stage_settings import BaselineStage, ExportStage, MeasureStage
from prunelora.storage import replacing_file

# Validation rows on which an exported model is compared with torch.
COMPARED_ROWS = 32
BASELINE_CHECKPOINTS = ".baseline-checkpoints"

# Evaluate: answers on the reported rows -----------------------------------------------------------------------------


def _evaluate(run: Run, name: str, _: Any) -> Facts:
    """What metrics take, logits most often, and labels of every reported split, in the order of its rows."""
    tensors: dict[str, torch.Tensor] = {}
    quality = {}
    for split in run.task.reported:
        answers, labels = run.answers(split, run.model)
        quality[split] = metrics(answers, labels, run.task.problem_type, run.task.label_names)
        tensors |= {f"{split}.logits": torch.from_numpy(answers), f"{split}.labels": torch.from_numpy(labels)}
    with replacing_file(run.path(name, "answers.safetensors")) as temporary:
        save_file(tensors, temporary)
    return {"quality": quality}


# Export, baseline, measure, report ------------------------------------------------------------------------------------


def _export(run: Run, name: str, settings: ExportStage) -> Facts:
    path = run.path(name, "model.onnx")
    export(run.model, path, batches=_rows_to_compare(run), tolerance=settings.tolerance)
    return {"file": path.name, "bytes": path.stat().st_size, **compared(path)}


def _rows_to_compare(run: Run) -> list[dict[str, Any]]:
    """Validation rows of all lengths, as the run judges them: the longest alone, and several together."""
    tokenised = run.tokenised("validation")
    order = by_length(tokenised)
    count = min(COMPARED_ROWS, len(order))
    chosen = [order[-1 - number * (len(order) - 1) // max(1, count - 1)] for number in range(count)]
    return [
        *batches(tokenised.select(chosen[:1]), run.processor, batch_size=1),
        *batches(tokenised.select(chosen), run.processor, batch_size=8),
    ]


def _baseline(run: Run, name: str, settings: BaselineStage) -> Facts:
    """Same data, seed, targets and training as the longest fine-tuning, for as long as all of them together.

    Nothing cut, the same rank everywhere, and no teacher.
    """
    tunings = run.recipe.tunings
    epochs = sum(stage.epochs for stage in tunings.values())
    tuning = tunings[run.recipe.main_tuning].model_copy(update={"epochs": epochs, "distillation": 0.0})
    model = run.pretrained()
    plan = Plan.whole(dissect(model).lineage, rank=settings.rank, targets=_adapted_by(run, run.recipe.main_tuning))
    model = ready_to_train(model, plan, tuning.model_copy(update={"trainable": "adapter"}), seed=run.recipe.seed)
    checkpoints = run.path(name, BASELINE_CHECKPOINTS)
    training = tune(run, model, tuning, checkpoints, run.path(name, "tensorboard-baseline"))
    return {
        "rank": settings.rank,
        "training": training,
        "validation": run.quality("validation", model),
        **tested(run, model),
    }


def _adapted_by(run: Run, name: str) -> tuple[str, ...]:
    """The projections that a fine-tuning gives LoRA: by the plan, or by itself where none was made before."""
    tuning = run.recipe.tunings[name]
    if run.plan is not None and (name in run.recipe.after_plans or tuning.trainable == "all"):
        return tuple(run.plan.ranks)
    return tuning.lora_targets


def _measure(run: Run, _: str, settings: MeasureStage) -> Facts:
    """Quality on the test rows, which nothing before has seen; size, speed and memory beside the dense model."""
    dense = run.pretrained()
    exported = "export" in run.done  # After the last change of the model, which a recipe's order sees to.
    with tempfile.TemporaryDirectory() as scratch:
        measurement = measure(
            run.model,
            base=dense,
            onnx=run.folder.file("model.onnx") if exported else None,
            # It is timed, not delivered, so its logits are not judged.
            base_onnx=export(dense, Path(scratch) / "dense.onnx", tolerance=math.inf) if exported else None,
            repeats=settings.repeats,
            warmup=settings.warmup,
        )
    facts = {
        **tested(run, run.model),
        "more_tests": {split: run.quality(split) for split in run.task.more_tests},
        "test_rows": len(run.task.test),
        "majority_rate": run.task.majority_rate,
        "measurement": measurement.to_dict(),
        **tuned_dense(run),
        **asked_latency(run, dense, settings),
    }
    _tell_on_the_card(run, facts)
    return facts


def _tell_on_the_card(run: Run, facts: Facts) -> None:
    """Put the reported quality on the card of the saved model; not where the model was changed since it was saved."""
    stages = run.recipe.by_name
    merged = next((name for name in reversed(run.done) if stages[name].stage == "merge"), None)
    if merged is None or any(stages[name].changes_model for name in run.done[run.done.index(merged) + 1 :]):
        return
    rows = f"{len(run.task.test):,} {run.task.test_name} rows"
    metric, tuned = run.task.metrics[0], facts.get("tuned_dense")
    numbers = {f"{metric}, {rows}": f"{facts['test'][metric]:.4f}"}
    if tuned:
        numbers[f"the same training up to the cut, nothing cut: {metric}, {rows}"] = f"{tuned['test'][metric]:.4f}"
    add_numbers(run.path(merged, "model"), numbers)


def _report(run: Run, _: str, __: Any) -> Facts:
    return {"files": write_report(run.results(), run.folder.path)}


DELIVERY: Mapping[str, StageWork] = {
    "evaluate": StageWork(_evaluate, restore_nothing, lambda _: ("answers.safetensors",)),
    "export": StageWork(_export, restore_nothing, lambda _: ("model.onnx",)),
    "baseline": StageWork(_baseline, restore_nothing, unfinished=(BASELINE_CHECKPOINTS,)),
    "measure": StageWork(_measure, restore_nothing),
    "report": StageWork(_report, restore_nothing, lambda _: ("report.html", "report.md", "metrics.json", "figures")),
}
