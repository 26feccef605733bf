"""One cell: a contender trained on a task with a seed, and all that is asked of its model."""

import importlib.metadata
from typing import Any

from benchmarks.peers.benchmark import Benchmark
from benchmarks.peers.contenders import TORCH_PRUNING, Contender
from benchmarks.peers.driver import WEIGHTS, load_walked, rows_of, walk
from benchmarks.peers.facts import PeerCell, cell_file, save_facts
from benchmarks.peers.saving import try_saving
from benchmarks.peers.walks import CUT_STAGES, adapter_plan
from prunelora.comparison.results import MemoryFacts
from prunelora.comparison.timing import MEMORY_TOKENS
from prunelora.comparison.trials import Trial, run_trial
from prunelora.data.task import TaskData
from prunelora.delivery.checkpoints import load
from prunelora.evaluation.counting import macs, parameters
from prunelora.evaluation.measurement import MACS_TOKENS
from prunelora.evaluation.memory import inference_memory
from prunelora.evaluation.training_cost import step_memory
from prunelora.evaluation.training_step import random_batch
from prunelora.models.anatomy import dissect
from prunelora.models.device import best_device
from prunelora.pipeline import Tell
from prunelora.runfolder import RunFolder
from prunelora.running import pretrained, ready_to_train
from prunelora.stage_settings import FineTuneStage, PlanStage

PACKAGES = ("torch", "transformers", "peft", "torch-pruning")


def run_contender(
    benchmark: Benchmark, name: str, contender: Contender, seed: int, task: TaskData, *, tell: Tell | None = None
) -> PeerCell:
    """Train a cell, ask all of its model, and write its result."""
    cell = benchmark.cell(name, contender, seed)
    share_with = benchmark.share_with(name)
    cut: dict[str, Any] | None = None
    history = None
    if contender.cut_by == TORCH_PRUNING:
        walked = walk(cell, task, share_with=share_with, tell=tell)
        model, facts, cut, after_cut, history = (
            walked.model, walked.facts, walked.cut, walked.after_cut, walked.history,
        )  # fmt: skip
    else:
        facts = run_trial(cell, task, share_with=share_with, tell=tell)
        model = load_own(cell)
        pruned = RunFolder(cell.folder).record("prune") if contender.cut_by else None
        after_cut = pruned.facts["validation"] if pruned is not None else None
    dense = pretrained(cell.recipe, task)
    architecture = dissect(model).architecture
    found = PeerCell(
        task=name,
        command=benchmark.command(name, contender.name, str(seed)),
        facts=facts,
        data=task.facts,
        parameters=parameters(model).total,
        macs=macs(model, tokens=MACS_TOKENS).total,
        dense_macs=macs(dense, tokens=MACS_TOKENS).total,
        heads=architecture.num_heads,
        neurons=architecture.num_neurons,
        after_cut=after_cut,
        cut=cut,
        saving=try_saving(model, rows_of(cell, task), dense=lambda: pretrained(cell.recipe, task), history=history),
        # Last: it puts an adapter into the model.
        memory=memory_of(cell, model, task, by_another=contender.cut_by == TORCH_PRUNING),
        versions=versions(),
    )
    save_facts(found, cell_file(benchmark.results, name, contender.name, seed))
    return found


def is_here(cell: Trial, contender: Contender) -> bool:
    """Whether the trained model of a finished cell lies where it was trained; results may come from elsewhere."""
    return (cell.folder / (WEIGHTS if contender.cut_by == TORCH_PRUNING else "model")).exists()


def load_plain(cell: Trial, contender: Contender, task: TaskData) -> Any:
    """The trained model of a finished cell, in eval mode."""
    return load_walked(cell, task) if contender.cut_by == TORCH_PRUNING else load_own(cell)


def load_own(cell: Trial) -> Any:
    """The same of a cell that prunelora cut, or nobody."""
    return load(cell.folder / "model").to(best_device())


def as_tuned(cell: Trial, model: Any, stage: FineTuneStage, *, by_another: bool) -> Any:
    """A merged model as its last fine-tuning had it: with its adapter, and with what is trained set so."""
    if by_another:
        plans = [one for one in cell.recipe.stages if isinstance(one, PlanStage)]
        plan = adapter_plan(model, plans[-1])
    else:
        plan = getattr(model, "prunelora_plan", None)
    return ready_to_train(model, plan, stage, seed=cell.seed)


def memory_of(cell: Trial, model: Any, task: TaskData, *, by_another: bool) -> dict[str, MemoryFacts]:
    """Memory of a training step in every fine-tuning, of its own rows: of the dense model, then of the small one."""
    found = {}
    kinds = [stage.stage for stage in cell.recipe.stages]
    cut_at = max((index for index, kind in enumerate(kinds) if kind in CUT_STAGES), default=-1)
    for index, (name, stage) in enumerate(cell.recipe.by_name.items()):
        if not isinstance(stage, FineTuneStage):
            continue
        if index < cut_at:
            trained = ready_to_train(pretrained(cell.recipe, task), None, stage, seed=cell.seed)
        else:
            trained = as_tuned(cell, model, stage, by_another=by_another)
        batch = random_batch(trained, rows=stage.batch_size, tokens=MEMORY_TOKENS)
        step = step_memory(trained, stage, tokens=MEMORY_TOKENS)
        found[name] = MemoryFacts(
            weights=step.weights_bytes,
            gradients=step.gradients_bytes,
            optimizer=step.optimizer_bytes,
            saved=step.saved_bytes,
            device_peak=None,
            inference=inference_memory(trained, batch),
        )
    return found


def versions() -> dict[str, str | None]:
    """Of the packages that matter here."""
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found
