"""Which results are there, of the recipes as they are now."""

from typing import Any

from benchmarks.peers.benchmark import Benchmark
from benchmarks.peers.contenders import CONTENDERS, TORCH_PRUNING, Contender
from benchmarks.peers.facts import (
    HeadCountTrials,
    PeerCell,
    PeerTiming,
    cell_file,
    head_counts_file,
    load_facts,
    timing_file,
)
from benchmarks.peers.walks import as_recipe
from prunelora.comparison.trials import portable


def have_cell(benchmark: Benchmark, task: str, contender: Contender, seed: int) -> PeerCell | None:
    """The result of a cell, where it is there and of the present recipe."""
    found = load_facts(PeerCell, cell_file(benchmark.results, task, contender.name, seed))
    return found if found is not None and found.facts.recipe == recipe_of(benchmark, task, contender, seed) else None


def recipe_of(benchmark: Benchmark, task: str, contender: Contender, seed: int) -> dict[str, Any]:
    """What a cell's training does, as plain data."""
    recipe = benchmark.cell(task, contender, seed).recipe
    return as_recipe(recipe) if contender.cut_by == TORCH_PRUNING else portable(recipe)


def models_of(benchmark: Benchmark, task: str, seed: int) -> dict[str, tuple[int, int]]:
    """Parameters and MACs by contender, of those that have a result on this seed."""
    found = {name: have_cell(benchmark, task, one, seed) for name, one in CONTENDERS.items()}
    return {name: (cell.parameters, cell.macs) for name, cell in found.items() if cell is not None}


def have_timing(benchmark: Benchmark, task: str, seed: int) -> PeerTiming | None:
    """The times of a task, where they are of models that are there now; some may have come since."""
    found = load_facts(PeerTiming, timing_file(benchmark.results, task))
    fresh = found is not None and found.seed == seed
    return found if fresh and found.models.items() <= models_of(benchmark, task, seed).items() else None


def have_head_counts(benchmark: Benchmark) -> bool:
    """Whether they were tried."""
    return load_facts(HeadCountTrials, head_counts_file(benchmark.results)) is not None
