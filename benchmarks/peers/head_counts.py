"""Can layers keep different numbers of heads? Torch-Pruning's ways to rank, and prunelora's, each tried."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from benchmarks.peers.benchmark import Benchmark
from benchmarks.peers.cells import versions
from benchmarks.peers.contenders import CONTENDERS, RANKINGS
from benchmarks.peers.facts import (
    HeadCounts,
    HeadCountTrials,
    Trial,
    head_counts_file,
    save_facts,
)
from benchmarks.peers.saving import attempt, first_line, logits
from benchmarks.peers.torch_pruning_cut import (
    TorchPruningCut,
    as_in_the_example_,
    cut_with_torch_pruning,
    gradients_of,
)
from prunelora.data.embedded import model_source
from prunelora.data.task import TaskData
from prunelora.data.tokens import calibration_batches
from prunelora.delivery.processors import load_tokenizer
from prunelora.errors import PlanError
from prunelora.importance.importance import Importance
from prunelora.importance.score import score
from prunelora.models.anatomy import dissect
from prunelora.planning.costs import block_macs
from prunelora.planning.make_plan import make_plan
from prunelora.pruning.surgery import prune_
from prunelora.running import pretrained
from prunelora.stage_settings import ScoreStage

BUDGETS = (0.5, 0.2, 0.1)
TOKENS = 128
RUNS_AS_CUT = "a forward pass"
RUNS_BY_ITS_BOOKS = "a forward pass with the counts of the pruner's books, as in Torch-Pruning's example for BERT"


def try_head_counts(
    dense: nn.Module, batches: Sequence[Mapping[str, Any]], *, budgets: Sequence[float] = BUDGETS
) -> tuple[HeadCounts, ...]:
    """Cut copies of a dense model in every way, and see what is left and whether it runs."""
    found = []
    gradients, importance = gradients_of(dense, batches), score(dense, batches)
    for budget in budgets:
        for ranking, options in RANKINGS.items():
            way = f"Torch-Pruning, {', '.join(f'{name}={value}' for name, value in options.items())}"
            try:
                cut = cut_with_torch_pruning(
                    dense, batches, keep_macs=budget, tokens=TOKENS, ranking=ranking, gradients=gradients
                )
            except (PlanError, RuntimeError, ValueError, ArithmeticError) as error:
                found.append(_nothing(way, budget, error))
            else:
                found.append(_by_torch_pruning(way, budget, cut, batches[0]))
        found.append(_by_prunelora(dense, importance, batches[0], budget))
    return tuple(found)


def _nothing(way: str, budget: float, error: Exception) -> HeadCounts:
    trial = Trial(what="the cut", works=False, outcome=first_line(error))
    return HeadCounts(way=way, keep_macs=budget, share=None, heads=(), by_its_books=(), neurons=(), trials=(trial,))


def _by_torch_pruning(way: str, budget: float, cut: TorchPruningCut, batch: Mapping[str, Any]) -> HeadCounts:
    def by_its_books() -> str:
        as_in_the_example_(cut.model, cut.pruner_heads)
        return _runs(cut.model, batch)

    return HeadCounts(
        way=way,
        keep_macs=budget,
        share=cut.macs / cut.dense_macs,
        heads=cut.heads,
        by_its_books=cut.pruner_heads,
        neurons=cut.neurons,
        trials=(
            attempt(RUNS_AS_CUT, lambda: _runs(cut.model, batch)),
            attempt(RUNS_BY_ITS_BOOKS, by_its_books),
        ),
    )


def _by_prunelora(dense: nn.Module, importance: Importance, batch: Mapping[str, Any], budget: float) -> HeadCounts:
    plan = make_plan(importance, keep_macs=budget, tokens=TOKENS)
    small = prune_(copy.deepcopy(dense), plan)
    left, whole = (block_macs(dissect(one).architecture, tokens=TOKENS).total for one in (small, dense))
    return HeadCounts(
        way="prunelora",
        keep_macs=budget,
        share=left / whole,
        heads=dissect(small).architecture.num_heads,
        by_its_books=plan.architecture.num_heads,
        neurons=dissect(small).architecture.num_neurons,
        trials=(attempt(RUNS_AS_CUT, lambda: _runs(small, batch)),),
    )


def _runs(model: nn.Module, batch: Mapping[str, Any]) -> str:
    return f"gives {'finite' if bool(logits(model.eval(), batch).isfinite().all()) else 'no finite'} logits"


def run_head_counts(
    benchmark: Benchmark, name: str, task: TaskData, *, budgets: Sequence[float] = BUDGETS
) -> HeadCountTrials:
    """Try them on the pretrained model and the calibration rows of a task, and write what was found."""
    recipe = benchmark.cell(name, CONTENDERS["cut-first"], 0).recipe
    stage = next(one for one in recipe.stages if isinstance(one, ScoreStage))
    batches = calibration_batches(
        task,
        load_tokenizer(model_source(recipe.model)),
        rows=stage.rows,
        batch_size=stage.batch_size,
        max_length=recipe.task.max_length,
    )
    found = HeadCountTrials(
        task=name,
        model=benchmark.model,
        rows=min(stage.rows, len(task.train)),
        ways=try_head_counts(pretrained(recipe, task), batches, budgets=budgets),
        versions=versions(),
    )
    save_facts(found, head_counts_file(benchmark.results))
    return found
