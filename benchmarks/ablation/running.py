"""Training what is missing of a group on a task, and writing down what it found."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.ablation.borrowed import borrowed_rows
from benchmarks.ablation.places import Places
from benchmarks.ablation.results import METRIC, CutFacts, Failure, Row, add, read_all
from benchmarks.ablation.variants import EVERYTHING, GROUP_OF, SCREENING_SEED, Variant, base_recipe
from prunelora.comparison.compare import compare
from prunelora.comparison.results import ComparisonResults, TrialFacts
from prunelora.comparison.trials import folder_of
from prunelora.errors import PruneLoraError
from prunelora.planning.plan import Plan
from prunelora.report.reading import kind_of
from prunelora.runfolder import Record, RunFolder
from prunelora.storage import write_text


def run_group(
    places: Places, task: str, group: str, variants: Sequence[Variant], seed: int, tell: Callable[[str], None]
) -> None:
    """Train what is missing of some variants of a group with a seed, and add it to the result file.

    A variant with trials is trained with each of its learning rates on the screening seed first. One without takes the
    multiple that was chosen for another, and is left out while none was. One that is borrowed is not trained.
    """
    for variant in variants:
        if variant.borrowed:
            add(places.results, task, group, borrowed_rows(variant, task, places.glue))
    variants = [variant for variant in variants if not variant.borrowed]
    by_trials: dict[tuple[float, ...], list[Variant]] = {}
    found = read_all(places.results)
    for variant in variants:
        if variant.trials and found.factor(variant, task) is None:
            by_trials.setdefault(variant.trials, []).append(variant)
    for trials, some in by_trials.items():
        _train(places, task, group, [(one, 1.0) for one in some], trials, SCREENING_SEED, tell)
    found = read_all(places.results)
    missing = []
    for variant in variants:
        factor = found.factor(variant, task)
        if factor is None:
            tell(f"{variant.name}: left out, no learning rate was chosen for {variant.rate_of or variant.name}")
        elif found.row(variant, task, seed) is None:
            missing.append((variant, factor))
    if missing:
        _train(places, task, group, missing, (1.0,), seed, tell)


def _train(
    places: Places,
    task: str,
    group: str,
    some: Sequence[tuple[Variant, float]],
    factors: Sequence[float],
    seed: int,
    tell: Callable[[str], None],
) -> None:
    """Compare variants, each at a multiple of its own learning rate; where one ends in an error, each by itself."""
    try:
        results = _compare(places, task, group, some, seeds=(seed,), factors=factors, tell=tell)
    except PruneLoraError as error:
        if len(some) > 1:
            for one in some:
                _train(places, task, group, [one], factors, seed, tell)
            return
        variant = some[0][0]
        tell(f"{variant.name}: failed: {error}")
        failure = Failure(
            task=task, variant=variant.name, seed=seed, definition=variant.definition(task), message=str(error)
        )
        add(places.results, task, group, (), [failure])
        return
    add(places.results, task, group, rows_of(results, task, places.runs / task / group))


def _compare(
    places: Places, task: str, group: str, some: Sequence[tuple[Variant, float]], **options: Any
) -> ComparisonResults:
    """Train variants, each at a multiple of its own learning rate; what another training has done is shared."""
    out = places.runs / task / group
    recipes = [_write_recipe(places.runs / "recipes" / task, variant, task, factor) for variant, factor in some]
    return compare(
        base=base_recipe(task, places.data),
        out=out,
        methods=[str(path) for path in recipes],
        timing=False,
        share_with=[*sorted(path for path in (places.runs / task).glob("*") if path != out), places.peers / task],
        progress=False,
        **options,
    )


def model_of(places: Places, task: str, name: str, seed: int, tell: Callable[[str], None]) -> Path | None:
    """Folder of a variant's trained model at its chosen learning rate; trained again where it is not there any more.

    Its row stays as it is. None while no learning rate was chosen.
    """
    variant, group = EVERYTHING[name], GROUP_OF[name]
    factor = read_all(places.results).factor(variant, task)
    if factor is None:
        tell(f"no learning rate was chosen for {name} yet; run python -m benchmarks.ablation --groups {group}")
        return None
    _compare(places, task, group, [(variant, factor)], seeds=(seed,), factors=(1.0,), tell=tell)
    return folder_of(name, variant.rate_at(factor), seed, out=places.runs / task / group) / "model"


def _write_recipe(folder: Path, variant: Variant, task: str, factor: float) -> Path:
    """The variant as a recipe file of its own; it is called what the variant is called."""
    path = folder / f"{variant.name}.yaml"
    write_text(path, f"# {variant.question}\n{variant.for_task(task, factor).to_yaml()}")
    return path


def rows_of(results: ComparisonResults, task: str, out: Path) -> list[Row]:
    """A row for every training of a comparison; what the comparison does not say is read from the run folders."""
    return [_row(cell, results, task, out) for cell in results.trials]


def _row(cell: TrialFacts, results: ComparisonResults, task: str, out: Path) -> Row:
    method, variant = results.method(cell.method), EVERYTHING[cell.method]
    if method is None:
        raise ValueError(f"{cell.method}: trained, but no method of the comparison.")
    folder = RunFolder(folder_of(cell.method, cell.learning_rate, cell.seed, out=out))
    plan = Plan.load(folder.file("plan.json")) if cell.plan_id is not None else None
    return Row(
        task=task,
        definition=variant.definition(task),
        keep_macs=variant.keep_macs,
        heads=None if plan is None else (plan.architecture.total_heads, plan.base.total_heads),
        neurons=None if plan is None else (plan.architecture.total_neurons, plan.base.total_neurons),
        parameters=method.parameters,
        training_memory=method.memory.training,
        cut=_cut_facts(record for name in variant.resolved.names if (record := folder.record(name)) is not None),
        cell=cell,
    )


def _cut_facts(records: Iterable[Record]) -> CutFacts | None:
    """What the last cut took and what its repair gave back, from the records of a run's stages in their order."""
    before, found = None, None
    for record in records:
        kind, facts = kind_of(record.stage), record.facts
        if kind == "prune":
            after = facts["validation"][METRIC]
            unrepaired = facts.get("validation_before_repair")
            found = CutFacts(
                before=before,
                cut=after if unrepaired is None else unrepaired[METRIC],
                repaired=None if unrepaired is None else after,
            )
            before = after
        elif kind in ("linear_probe", "merge"):
            before = facts["validation"][METRIC]
    return found
