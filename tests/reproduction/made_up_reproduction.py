"""A finished reproduction made up by hand: a folder with a comparison for every task; nothing is trained."""

from comparison.made_up_comparison import make_comparison
from report.made_up_run import made_up_importance

import prunelora as pl
from prunelora.reproduction.paper import TASKS
from prunelora.reproduction.results import TaskSettings, settings_kept

METHODS = ("full", "lora", "prune-lora", "random-prune-lora")
NOTES = {"qnli": "split of the official validation set", "mnli": "subset, without full stops"}
# Rows of the most frequent class, of all reported rows.
MAJORITY = {"mrpc": 279 / 408, "wnli": 40 / 71}
ROWS = {"mrpc": 408, "wnli": 71}


def made_up_task(task, *, model="minilm", **options):
    """A task's comparison; WNLI's is learnt by nobody."""
    splits = ("matched", "mismatched") if task == "mnli" else ("test",)
    accuracies = dict.fromkeys(METHODS, (40 / 71,) * 3) if task == "wnli" else None
    results = make_comparison(METHODS, splits=splits, accuracies=accuracies, model=model, data=task, **options)
    facts = {**results.task, "rows": {"train": 3_000, "validation": 300, **dict.fromkeys(splits, ROWS.get(task, 872))}}
    facts["majority_rate"] = {split: MAJORITY.get(task, 0.5092) for split in splits}
    return results.model_copy(update={"task": facts})


def write_task(out, task, *, seed=0, scores=True, **options):
    """What `compare` leaves of a task, as far as a reproduction reads it."""
    results = made_up_task(task, **options)
    results.save(out / task / "comparison.json")
    if scores:
        method = results.method("prune-lora")
        cell = out / task / "trials" / "prune-lora" / f"lr-{method.learning_rate:g}" / f"seed-{method.seeds[0]}"
        importance = made_up_importance(seed=seed)
        importance.save(cell / "importance.safetensors")
        pl.make_plan(importance, keep_heads=0.7).save(cell / "plan.json")
    return results


def write_all(out, *, tasks=TASKS, notes=None, preset="best", train_head=True, **options):
    for number, task in enumerate(tasks):
        note = (NOTES if notes is None else notes).get(task, "")
        with settings_kept(out, task, TaskSettings(preset, train_head=train_head, note=note)):
            write_task(out, task, seed=number, **options)
    return out
