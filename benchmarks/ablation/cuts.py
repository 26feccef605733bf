"""Cuts with no training after them: quality by how units are chosen, with and without repair.

Results are files results/cuts-TASK-SEED.json, which grow cut by cut.
"""

import copy
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from prunelora.data.task import TaskData

TUNED = "lora-all"  # The variant whose models are cut.
BUDGETS = (0.5, 0.35)
ROWS = 1024
SAME = 1e-3  # Relative difference of the losses of two repeats of one training, by rounding.


class Choice(NamedTuple):
    """How units are chosen: settings of a plan; balance "equal" keeps the same fraction of heads and neurons."""

    criterion: str
    normalise: str
    balance: str
    repaired: bool = False

    def __str__(self) -> str:
        layers = {"paper": "layers normalised", "none": "raw"}[self.normalise]
        kinds = {"cost": "balanced by cost", "none": "not scaled", "equal": "the same fraction of each"}[self.balance]
        return f"{self.criterion}, {layers}, heads and neurons {kinds}"


CHOICES = (
    Choice("obs", "none", "none", repaired=True),
    Choice("gradient", "paper", "cost", repaired=True),
    Choice("gradient", "none", "cost", repaired=True),
    Choice("gradient", "paper", "none"),
    Choice("gradient", "none", "none"),
    Choice("gradient", "paper", "equal"),
    Choice("gradient", "none", "equal"),
    Choice("fisher", "paper", "cost"),
    Choice("fisher", "none", "cost", repaired=True),
    Choice("fisher", "none", "none"),
    Choice("magnitude", "none", "cost", repaired=True),
    Choice("random", "none", "cost", repaired=True),
)


def path_of(results: Path, task: str, seed: int) -> Path:
    return results / f"cuts-{task}-{seed}.json"


def read_cuts(results: Path, task: str, seed: int) -> dict[str, Any] | None:
    path = path_of(results, task, seed)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def cuts_by(found: Mapping[str, Any], choice: Choice, budget: float) -> list[dict[str, Any]]:
    """The cuts of a result file that were chosen so, at a budget."""
    asked = (*choice[:3], budget)
    return [one for one in found["cuts"] if (*map(one.get, Choice._fields[:3]), one["keep_macs"]) == asked]


def missing_cuts(
    found: Mapping[str, Any] | None, choices: Sequence[Choice] = CHOICES, budgets: Sequence[float] = BUDGETS
) -> list[tuple[float, Choice]]:
    asked = [(budget, choice) for budget in budgets for choice in choices]
    return [(budget, choice) for budget, choice in asked if found is None or not cuts_by(found, choice, budget)]


def cut(
    model: Any,
    tokenizer: Any,
    rows: "TaskData",
    task: str,
    seed: int,
    *,
    found: Mapping[str, Any] | None = None,
    count: int = ROWS,
    choices: Sequence[Choice] = CHOICES,
    budgets: Sequence[float] = BUDGETS,
    keep: Callable[[dict[str, Any]], None] = lambda _: None,
) -> dict[str, Any]:
    """Cut a tuned model in every way that is missing in earlier results; `keep` receives the results after each cut."""
    import torch
    from torch.nn.functional import cross_entropy

    from prunelora.data.tokens import calibration_batches, tokenise
    from prunelora.evaluation.machine import describe_machine
    from prunelora.evaluation.quality import predict_rows
    from prunelora.importance.score import score
    from prunelora.models.device import best_device
    from prunelora.planning.make_plan import make_plan
    from prunelora.pruning.repair import repair_
    from prunelora.pruning.surgery import prune_

    validation = tokenise(rows.validation, tokenizer, max_length=128)
    labels = torch.tensor(validation["labels"])
    batches = calibration_batches(rows, tokenizer, rows=count, batch_size=32, seed=seed, max_length=128)

    def judge(judged: Any) -> dict[str, float]:
        logits = torch.from_numpy(predict_rows(judged, validation, tokenizer))
        accuracy = (logits.argmax(-1) == labels).double().mean()
        return {"accuracy": float(accuracy), "loss": float(cross_entropy(logits, labels))}

    dense = judge(model)
    if found is not None and not math.isclose(found["dense"]["loss"], dense["loss"], rel_tol=SAME):
        print("the earlier cuts are of another model: all are repeated")
        found = None
    result = dict(found or {"task": task, "seed": seed, "rows": count, "dense": dense, "score_seconds": {}, "cuts": []})
    result["machine"] = describe_machine(best_device())
    importance: dict[str, Any] = {}
    for budget, choice in missing_cuts(found, choices, budgets):
        criterion, normalise, balance, repaired = choice
        if criterion not in importance:
            importance[criterion], seconds = timed(score, model, batches, criterion=criterion, seed=seed)
            result["score_seconds"] = result["score_seconds"] | {criterion: seconds}
        equal = {"keep_heads": budget, "keep_ffn": budget}
        options = equal if balance == "equal" else {"keep_macs": budget, "balance": balance}
        plan, seconds = timed(make_plan, importance[criterion], normalise=normalise, **options)
        one = {
            "criterion": criterion,
            "normalise": normalise,
            "balance": balance,
            "keep_macs": budget,
            "heads": plan.architecture.total_heads,
            "neurons": plan.architecture.total_neurons,
            "plan_seconds": seconds,
        }
        small = prune_(copy.deepcopy(model), plan)
        one |= {"cut": judge(small), "repaired": None, "repair_seconds": None}
        if repaired:
            _, one["repair_seconds"] = timed(repair_, small, model, batches)
            one["repaired"] = judge(small)
        result["cuts"] = [*result["cuts"], one]
        keep(dict(result))
    return result


def timed(function: Callable[..., Any], *arguments: Any, **options: Any) -> tuple[Any, float]:
    """The result of a call, and its seconds."""
    started = time.perf_counter()
    result = function(*arguments, **options)
    return result, time.perf_counter() - started
