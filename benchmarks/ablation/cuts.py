"""What a cut costs before anything is trained after it: by how its units are chosen, with and without repair.

python -m benchmarks.ablation.cuts [--tasks sst2,mrpc] [--seeds 0]

Cuts the models of the variant lora-all, which benchmarks.ablation has trained and which lie in runs/ablation, and
judges them on the validation rows. Results lie in benchmarks/ablation/results/cuts, a file for every task and seed;
what is there is not done again. The page of benchmarks.ablation shows them.
"""

import argparse
import copy
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.ablation.cut_results import CHOICES, Choice, Cut, Cuts, Judged, path_of, read_cuts
from benchmarks.tasks import FOUR, GLUE, NO_GLUE, data_of

if TYPE_CHECKING:
    from prunelora.data.task import TaskData

TUNED = "lora-all"
ROWS = 1024
BUDGETS = (0.5, 0.35)


def main(arguments: Sequence[str] | None = None) -> int:
    from benchmarks.ablation.__main__ import RESULTS, RUNS

    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablation.cuts", description="Cuts, not trained after.")
    parser.add_argument("--tasks", default=",".join(FOUR), help="tasks, joined by commas")
    parser.add_argument("--seeds", default="0", help="seeds, joined by commas")
    asked = parser.parse_args(arguments)
    if not GLUE.is_dir():
        print(NO_GLUE, file=sys.stderr)
        return 1
    for task in asked.tasks.split(","):
        for seed in map(int, asked.seeds.split(",")):
            if read_cuts(RESULTS, task, seed) is None:
                run(RUNS, RESULTS, task, seed, lambda line, title=f"{task}, seed {seed}": print(f"{title}: {line}"))
    return 0


def run(runs: Path, results: Path, task: str, seed: int, tell: Callable[[str], None]) -> None:
    """Cut the tuned model of a task and seed in every way, and write what was found."""
    from benchmarks.ablation.results import read_all
    from benchmarks.ablation.variants import EVERYTHING
    from prunelora.comparison.cells import folder_of
    from prunelora.data.load import load_task
    from prunelora.delivery.checkpoints import load
    from prunelora.delivery.processors import load_tokenizer
    from prunelora.storage import write_json

    tuned = read_all(results).row(EVERYTHING[TUNED], task, seed)
    if tuned is None:
        tell(f"{TUNED} is not trained yet; run python -m benchmarks.ablation --groups references")
        return
    folder = folder_of(TUNED, tuned.cell.learning_rate, seed, out=runs / task / "references") / "model"
    if not folder.is_dir():
        tell(f"{folder} is not there any more")
        return
    found = cuts_of(load(folder), load_tokenizer(folder), load_task(data_of(task)), task, seed, tell)
    write_json(path_of(results, task, seed), found.model_dump(mode="json"))


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
) -> Cuts:
    """Cut a tuned model in every way."""
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

    importance, seconds = {}, {}
    for criterion in dict.fromkeys(choice.criterion for choice in choices):
        importance[criterion], seconds[criterion] = _timed(
            lambda criterion=criterion: score(model, batches, criterion=criterion, seed=seed)
        )
        tell(f"scores by {criterion}: {seconds[criterion]:.1f} s")
    cuts = []
    for budget in budgets:
        for choice in choices:
            one = _cut(model, importance[choice.criterion], batches, choice, budget, judged)
            repaired = f", repaired {one.repaired.accuracy:.3f}" if one.repaired else ""
            tell(f"{budget:g} of the MACs, {choice}: {one.cut.accuracy:.3f}{repaired}")
            cuts.append(one)
    return Cuts(
        task=name,
        seed=seed,
        rows=rows,
        choices=tuple(asdict(choice) for choice in choices),
        machine=describe_machine(best_device()),
        dense=judged(model),
        score_seconds=seconds,
        cuts=tuple(cuts),
    )


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
