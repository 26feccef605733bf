"""What a cut costs before anything is trained after it: by how its units are chosen, with and without repair.

python -m benchmarks.ablation.cuts [--tasks sst2,mrpc] [--seeds 0]

Cuts the models of the variant lora-all and judges them on the validation rows. They lie in runs/ablation, where
benchmarks.ablation has trained them; one that is not there any more is trained again, unless benchmarks.peers has it.
Results lie in benchmarks/ablation/results/cuts, a file for every task and seed that grows cut by cut; what is there is
not done again. The page of benchmarks.ablation shows them.
"""

import argparse
import copy
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.ablation.cut_results import BUDGETS, CHOICES, ROWS, Choice, Cut, Cuts, Judged, path_of, read_cuts
from benchmarks.tasks import FOUR, GLUE, NO_GLUE, data_of

if TYPE_CHECKING:
    from benchmarks.ablation.running import Places
    from prunelora.data.task import TaskData

TUNED = "lora-all"
SAME = 1e-3  # By how much losses of the same training differ at most, by roundings.


def main(arguments: Sequence[str] | None = None) -> int:
    from benchmarks.ablation.__main__ import PLACES

    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablation.cuts", description="Cuts, not trained after.")
    parser.add_argument("--tasks", default=",".join(FOUR), help="tasks, joined by commas")
    parser.add_argument("--seeds", default="0", help="seeds, joined by commas")
    asked = parser.parse_args(arguments)
    if not GLUE.is_dir():
        print(NO_GLUE, file=sys.stderr)
        return 1
    for task in asked.tasks.split(","):
        for seed in map(int, asked.seeds.split(",")):
            run(PLACES, task, seed, lambda line, title=f"{task}, seed {seed}": print(f"{title}: {line}", flush=True))
    return 0


def run(places: "Places", task: str, seed: int, tell: Callable[[str], None]) -> None:
    """Cut the tuned model of a task and seed in every way that was not tried yet, and write what was found."""
    from benchmarks.ablation.running import model_of
    from prunelora.data.load import load_task
    from prunelora.delivery.checkpoints import load
    from prunelora.delivery.processors import load_tokenizer
    from prunelora.storage import write_json

    found = read_cuts(places.results, task, seed)
    if found is not None and not found.missing():
        return
    folder = model_of(places, task, TUNED, seed, tell)
    if folder is None:
        return

    def keep(cuts: Cuts) -> None:
        write_json(path_of(places.results, task, seed), cuts.model_dump(mode="json"))

    cuts_of(load(folder), load_tokenizer(folder), load_task(data_of(task)), task, seed, tell, found=found, keep=keep)


def cuts_of(
    model: Any,
    tokenizer: Any,
    task: "TaskData",
    name: str,
    seed: int,
    tell: Callable[[str], None],
    *,
    rows: int = ROWS,
    choices: Sequence[Choice] = CHOICES,
    budgets: Sequence[float] = BUDGETS,
    found: Cuts | None = None,
    keep: Callable[[Cuts], None] = lambda _: None,
) -> Cuts:
    """Cut a tuned model in every way that is missing in what was found of it before; `keep` gets every cut at once."""
    import torch
    from torch.nn.functional import cross_entropy

    from prunelora.data.tokens import calibration_batches, tokenise
    from prunelora.evaluation.machine import describe_machine
    from prunelora.evaluation.quality import predict_rows
    from prunelora.importance.score import score
    from prunelora.models.device import best_device

    validation = tokenise(task.validation, tokenizer, max_length=128)
    labels = torch.tensor(validation["labels"])
    batches = calibration_batches(task, tokenizer, rows=rows, batch_size=32, seed=seed, max_length=128)

    def judged(one: Any) -> Judged:
        logits = torch.from_numpy(predict_rows(one, validation, tokenizer))
        accuracy = (logits.argmax(-1) == labels).double().mean()
        return Judged(accuracy=float(accuracy), loss=float(cross_entropy(logits, labels)))

    dense = judged(model)
    if found is not None and not (found.rows == rows and math.isclose(found.dense.loss, dense.loss, rel_tol=SAME)):
        tell("the cuts that are there are of another model: begins anew")
        found = None
    if found is None:
        found = Cuts(task=name, seed=seed, rows=rows, machine=describe_machine(best_device()), dense=dense)
    importance: dict[str, Any] = {}
    for budget, choice in found.missing(choices, budgets):
        criterion = choice.criterion
        if criterion not in importance:
            importance[criterion], seconds = _timed(
                lambda criterion=criterion: score(model, batches, criterion=criterion, seed=seed)
            )
            tell(f"scores by {criterion}: {seconds:.1f} s")
            found = found.model_copy(update={"score_seconds": {**found.score_seconds, criterion: seconds}})
        one = _cut(model, importance[criterion], batches, choice, budget, judged)
        repaired = f", repaired {one.repaired.accuracy:.3f}" if one.repaired else ""
        tell(f"{budget:g} of the MACs, {choice}: {one.cut.accuracy:.3f}{repaired}")
        found = found.model_copy(update={"cuts": (*found.cuts, one)})
        keep(found)
    return found


def _cut(
    model: Any,
    importance: Any,
    batches: Sequence[Mapping[str, Any]],
    choice: Choice,
    budget: float,
    judged: Callable[[Any], Judged],
) -> Cut:
    from prunelora.planning.make_plan import make_plan
    from prunelora.pruning.repair import repair_
    from prunelora.pruning.surgery import prune_

    how = (
        {"keep_heads": budget, "keep_ffn": budget}
        if choice.balance == "equal"
        else {"keep_macs": budget, "balance": choice.balance}
    )
    plan, plan_seconds = _timed(lambda: make_plan(importance, normalise=choice.normalise, **how))
    small = prune_(copy.deepcopy(model), plan)
    cut, repaired, repair_seconds = judged(small), None, None
    if choice.repaired:
        _, repair_seconds = _timed(lambda: repair_(small, model, batches))
        repaired = judged(small)
    return Cut(
        criterion=choice.criterion,
        normalise=choice.normalise,
        balance=choice.balance,
        keep_macs=budget,
        heads=plan.architecture.total_heads,
        neurons=plan.architecture.total_neurons,
        cut=cut,
        repaired=repaired,
        plan_seconds=plan_seconds,
        repair_seconds=repair_seconds,
    )


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    result = work()
    return result, time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
