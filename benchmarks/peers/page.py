"""The page of results, made from the files of results alone; what is not there is said to be missing."""

import json
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers.benchmark import Benchmark
from benchmarks.peers.contenders import CONTENDERS, LORA, TORCH_PRUNING
from benchmarks.peers.facts import (
    HeadCountTrials,
    PeerCell,
    PeerTiming,
    TimedContender,
    head_counts_file,
    load_facts,
)
from benchmarks.peers.present import have_cell, have_timing
from benchmarks.training_step import HALF, REFERENCE, RESULT, SELECTIVE
from prunelora.comparison.results import estimate
from prunelora.comparison.texts import NONE, number_text, quality_text, share_text, with_quartiles
from prunelora.report.reading import duration, in_units, metric_title, milliseconds
from prunelora.report.sections import Section
from prunelora.report.tables import Table
from prunelora.report.writing import Page, page_as_markdown
from prunelora.storage import write_text

COMMAND = "python -m benchmarks.peers"
MISSING = "missing"


@dataclass(frozen=True)
class Found:
    """All results there are.

    Attributes:
        benchmark: What was to be run.
        seeds: On which seeds.
        cells: By task, contender and seed.
        timings: By task.
        heads: What every way to cut leaves of the heads.
        notes: What a task's rows are, by task, where not all of GLUE's.
    """

    benchmark: Benchmark
    seeds: tuple[int, ...]
    cells: Mapping[tuple[str, str, int], PeerCell]
    timings: Mapping[str, PeerTiming]
    heads: HeadCountTrials | None
    notes: Mapping[str, str]

    def of(self, task: str, contender: str) -> list[PeerCell]:
        """Cells of a contender on a task, in the order of the seeds."""
        return [self.cells[key] for seed in self.seeds if (key := (task, contender, seed)) in self.cells]

    def everywhere(self, contender: str) -> list[PeerCell]:
        """Cells of a contender on all tasks."""
        return [cell for task in self.benchmark.tasks for cell in self.of(task, contender)]

    def timed(self, contender: str) -> list[TimedContender]:
        """Times of a contender on every task that was timed."""
        return [one.contenders[contender] for one in self.timings.values() if contender in one.contenders]

    @property
    def asked(self) -> list[tuple[str, str, int]]:
        """Every cell that the benchmark is made of."""
        return [(task, name, seed) for task in self.benchmark.tasks for name in CONTENDERS for seed in self.seeds]


def write_page(benchmark: Benchmark, *, seeds: Sequence[int], notes: Mapping[str, str]) -> Path:
    """Write RESULTS.md beside the folder of results."""
    path = benchmark.results.parent / "RESULTS.md"
    write_text(path, page_as_markdown(page_of(read(benchmark, seeds=seeds, notes=notes))))
    return path


def read(benchmark: Benchmark, *, seeds: Sequence[int], notes: Mapping[str, str]) -> Found:
    """All results of the present recipes."""
    cells = {
        (task, name, seed): cell
        for task in benchmark.tasks
        for name, contender in CONTENDERS.items()
        for seed in seeds
        if (cell := have_cell(benchmark, task, contender, seed)) is not None
    }
    timings = {task: one for task in benchmark.tasks if (one := have_timing(benchmark, task, seeds[0])) is not None}
    heads = load_facts(HeadCountTrials, head_counts_file(benchmark.results))
    return Found(benchmark, tuple(seeds), cells, timings, heads, notes)


def page_of(found: Found) -> Page:
    """What RESULTS.md says."""
    machines = sorted({str(cell.facts.machine["cpu"]) for cell in found.cells.values()})
    where = f" on {', '.join(machines)}" if machines else ""
    return Page(
        title="prunelora beside its peers",
        subtitle=f"{found.benchmark.model}, {len(found.cells)} of {len(found.asked)} trainings{where}; {COMMAND}",
        summary=(("What is compared", tuple(f"{name}: {one.title}" for name, one in CONTENDERS.items())),),
        warnings=tuple(_warnings(found)),
        sections=tuple(_sections(found)),
        numbers="results/TASK/METHOD/seed-SEED.json",
    )


def _sections(found: Found) -> Iterable[Section]:
    epochs = ", ".join(f"{task} {count:g}" for task, count in found.benchmark.epochs.items())
    yield Section(
        "Quality",
        (
            "Mean and standard deviation over seeds, on the reported rows. All start from the same model and see the "
            f"same rows for as many epochs in all ({epochs}); every cut is given at most "
            f"{found.benchmark.keep_macs:g} of the dense model's MACs. Learning rates are those that the ablation "
            "chose of two on validation rows, for full, lora and cut-first; all that cut the pretrained model take "
            "that of cut-first, and all that tune the dense model before the cut that of lora. So nothing was chosen "
            "for random cuts, cuts by magnitude and Torch-Pruning's alone. How the epochs are shared out, and the "
            "gentle steps after the cut of tune-first, are prunelora's choice too, made with repair, which "
            "Torch-Pruning has not.",
            *(f"{task}: {note}." for task, note in found.notes.items()),
        ),
        table=quality_table(found),
    )
    yield Section(
        "What it takes",
        (
            "Medians over all trainings (tasks and seeds) there are; MACs with the smallest and the largest share. "
            "To the cut model: from scoring to the cut, repair included where there is one, and with it two judgements "
            "of the model on the validation rows; for Torch-Pruning the gradients, the search for the ratio, and the "
            "cut; as recorded while the machine may have done other things. Memory: of a training step of as many rows "
            "as the recipe has in one, of 128 tokens each, in the fine-tuning that takes most, beside LoRA's. A "
            "forward pass and a step of the last fine-tuning: timed in turn with all others in one run. What whole "
            "trainings take is not compared here: these were recorded over many days, and some begin with stages that "
            "another has done. python -m benchmarks.training_time trains LoRA and the packaged recipes in turn.",
            "Not all of the memory is saved by the cut. Full and lora keep what autograd keeps; what is cut is trained "
            "with selective recomputation, and what is tuned before the cut (tune-first, cut-early) takes half batches "
            f"there, two an update. {_without_a_cut()}",
        ),
        table=cost_table(found),
    )
    yield Section(
        "Can it be saved and loaded again?",
        ("What happened when it was tried with every trained model, and how often.",),
        table=saving_table(found),
    )
    yield Section("Can layers have different numbers of heads?", tuple(_about_heads(found)), table=heads_table(found))
    for task in found.benchmark.tasks:
        yield Section(f"{task}: every method", tuple(_about(found, task)), table=task_table(found, task))
    yield Section(
        "Commands", ("What makes every cell.",), code="\n".join(_commands(found)), language="bash", folded=True
    )


def _without_a_cut() -> str:
    """What dense LoRA needs with what the recipes of the library do beside the cut, as another benchmark counted it."""
    steps = json.loads(RESULT.read_text(encoding="utf-8"))["steps"]
    stock, recomputed, half = (steps[name]["counted_bytes"] for name in (REFERENCE, f"dense, {SELECTIVE}", HALF))
    return (
        f"Dense LoRA on every linear layer takes {share_text(recomputed / stock)} of its memory with recomputation "
        f"alone, and {share_text(half / stock)} with half batches too (python -m benchmarks.training_step)."
    )


def quality_table(found: Found) -> Table:
    """A row a contender, a column a task, and the mean over tasks where all are there."""
    tasks = list(found.benchmark.tasks)
    rows = [("most frequent class", *(_majority(found, task) for task in tasks), NONE)]
    for name in CONTENDERS:
        means = [statistics.fmean(cell.quality for cell in cells) for task in tasks if (cells := found.of(task, name))]
        complete = all(len(found.of(task, name)) == len(found.seeds) for task in tasks)
        mean = f"{100 * statistics.fmean(means):.1f}" if complete else NONE
        rows.append((name, *(_quality(found, task, name) for task in tasks), mean))
    return Table(("method", *(_heading(found, task) for task in tasks), "mean"), tuple(rows))


def cost_table(found: Found) -> Table:
    """A row a contender: medians over all cells there are."""
    rows = []
    for name in CONTENDERS:
        cells = found.everywhere(name)
        if not cells:
            rows.append((name, MISSING, *[NONE] * 7))
            continue
        rows.append(
            (
                name,
                _shares([cell.macs / cell.dense_macs for cell in cells]),
                in_units(statistics.median(cell.parameters for cell in cells)),
                _median([cell.seconds_to_cut for cell in cells], duration),
                _median(_beside_lora(found, name, lambda cell: cell.most_memory), share_text),
                _median([one.step_to_lora.median for one in found.timed(name) if one.step_to_lora], share_text),
                *(
                    _median([one.latencies[place].to_dense.median for one in found.timed(name)], share_text)
                    for place in (1, 0)
                ),
                _ways(cells),
            )
        )
    return Table(
        (
            "method", "MACs left", "parameters", "to the cut model", "memory, of LoRA's",
            "step, of LoRA's", "batch 32, of dense", "batch 1, of dense", "ways to save and load that work",
        ),
        tuple(rows),
    )  # fmt: skip


def saving_table(found: Found) -> Table:
    """A row for every way and outcome, for the models of each kind of cut."""
    kinds = {
        "cut by prunelora": [name for name, one in CONTENDERS.items() if one.cut_by not in (None, TORCH_PRUNING)],
        "cut by Torch-Pruning": [name for name, one in CONTENDERS.items() if one.cut_by == TORCH_PRUNING],
        "not cut": [name for name, one in CONTENDERS.items() if one.cut_by is None],
    }
    rows = []
    for kind, names in kinds.items():
        cells = [cell for name in names for cell in found.everywhere(name)]
        if not cells:
            rows.append((kind, MISSING, NONE, NONE))
        outcomes = Counter((trial.what, trial.outcome) for cell in cells for trial in cell.saving)
        for what in dict.fromkeys(what for what, _ in outcomes):
            same = {outcome: count for (other, outcome), count in outcomes.items() if other == what}
            # Errors that name shapes differ from model to model: the most frequent one stands for them.
            outcome = max(same, key=lambda one: same[one])
            more = f" (and {len(same) - 1} others)" if len(same) > 1 else ""
            worked = sum(trial.works for cell in cells for trial in cell.saving if trial.what == what)
            rows.append((kind, what, f"{worked} of {sum(same.values())}", f"{outcome}{more}"))
    return Table(("model", "way", "worked", "what happened"), tuple(rows))


def heads_table(found: Found) -> Table:
    """What every way to cut left of the heads, and whether it runs."""
    if found.heads is None:
        return Table(("way to cut", "what happened"), ((MISSING, f"{COMMAND} --head-counts"),))
    rows = tuple(
        (
            f"{one.way}, keep_macs={one.keep_macs:g}",
            NONE if one.share is None else f"{one.share:.3f}",
            _list(one.heads),
            _list(one.by_its_books),
            _list(one.neurons),
            "; ".join(f"{trial.what}: {trial.outcome}" for trial in one.trials),
        )
        for one in found.heads.ways
    )
    return Table(("way to cut", "MACs left", "heads", "heads by its own books", "neurons", "what happened"), rows)


def task_table(found: Found, task: str) -> Table:
    """Everything that is known of every contender on one task; means over seeds."""
    timing = found.timings.get(task)
    rows = []
    for name in CONTENDERS:
        cells = found.of(task, name)
        if not cells:
            rows.append((name, MISSING, *[NONE] * 9))
            continue
        timed = timing.contenders.get(name) if timing is not None else None
        metric = cells[0].data["metrics"][0]
        after = [cell.after_cut[metric] for cell in cells if cell.after_cut is not None]
        rows.append(
            (
                name,
                _quality(found, task, name),
                number_text(metric, statistics.fmean(after)) if after else NONE,
                _shares([cell.macs / cell.dense_macs for cell in cells]),
                f"{statistics.fmean(sum(cell.heads) for cell in cells):.0f}",
                f"{statistics.fmean(sum(cell.neurons) for cell in cells):,.0f}",
                in_units(statistics.fmean(cell.parameters for cell in cells)),
                _median([cell.seconds_to_cut for cell in cells], duration),
                in_units(statistics.fmean(cell.most_memory for cell in cells), "B"),
                milliseconds(timed.step_ms) if timed else NONE,
                "; ".join(
                    f"{one.batch_size} × {one.tokens}: {with_quartiles(one.to_dense)}"  # noqa: RUF001
                    for one in timed.latencies
                )
                if timed
                else NONE,
            )
        )
    return Table(
        (
            "method", _heading(found, task), "after the cut (repaired where it is), validation rows", "MACs left",
            "heads", "neurons", "parameters", "to the cut model", "training memory", "step",
            "forward pass, of dense",
        ),
        tuple(rows),
    )  # fmt: skip


def _warnings(found: Found) -> Iterable[str]:
    missing = [key for key in found.asked if key not in found.cells]
    if missing:
        by_task = Counter(task for task, _, _ in missing)
        where = ", ".join(f"{count} of {task}" for task, count in by_task.items())
        yield f"{len(missing)} of {len(found.asked)} trainings are missing: {where}"
    untimed = [task for task in found.benchmark.tasks if task not in found.timings]
    if untimed:
        yield f"not timed with the models that are there: {', '.join(untimed)}"
    partly = {task: len(one.contenders) for task, one in found.timings.items() if len(one.contenders) < len(CONTENDERS)}
    for task, count in partly.items():
        yield f"{task}: {count} of {len(CONTENDERS)} methods were timed"
    above = [
        f"{cell.facts.method} on {cell.task}"
        for cell in found.cells.values()
        if cell.after_cut is not None and cell.macs > found.benchmark.keep_macs * cell.dense_macs
    ]
    if above:
        yield f"more MACs than the budget: {', '.join(above)}"


def _about_heads(found: Found) -> Iterable[str]:
    if found.heads is None:
        return
    yield (
        f"Heads and neurons that each way to cut left of the pretrained model in every layer, on {found.heads.rows:,} "
        f"training rows of {found.heads.task}, and what happened with the model then. Its own books: what the pruner "
        "counts, which Torch-Pruning's example for BERT writes into the model; for prunelora, the plan. Where the two "
        "differ, the model runs only because this benchmark counts the weights' rows instead."
    )


def _about(found: Found, task: str) -> Iterable[str]:
    cells = [cell for name in CONTENDERS for cell in found.of(task, name)]
    if cells:
        rows = cells[0].data["rows"]
        yield ", ".join(f"{count:,} {split} rows" for split, count in rows.items()) + "."
    if task in found.notes:
        yield f"{found.notes[task]}."
    timing = found.timings.get(task)
    if timing is not None:
        machine = timing.machine
        yield f"Timed on {machine['cpu']}, {machine['threads']} threads, torch {machine['versions']['torch']}."


def _commands(found: Found) -> Iterable[str]:
    seeds = ",".join(map(str, found.seeds))
    for task in found.benchmark.tasks:
        for name in CONTENDERS:
            lacking = [seed for seed in found.seeds if (task, name, seed) not in found.cells]
            note = f"  # missing: seed {', '.join(map(str, lacking))}" if lacking else ""
            yield f"{found.benchmark.command(task, name, seeds)}{note}"


def _heading(found: Found, task: str) -> str:
    cells = [cell for name in CONTENDERS for cell in found.of(task, name)]
    return f"{task}, {metric_title(cells[0].data['metrics'][0])}, %" if cells else task


def _majority(found: Found, task: str) -> str:
    cells = [cell for name in CONTENDERS for cell in found.of(task, name)]
    rate = next(iter(cells[0].data["majority_rate"].values())) if cells else None
    return NONE if rate is None else f"{100 * rate:.1f}"


def _quality(found: Found, task: str, name: str) -> str:
    cells = found.of(task, name)
    if not cells:
        return MISSING
    text = quality_text(cells[0].data["metrics"][0], estimate([cell.quality for cell in cells]))
    some = 1 < len(cells) < len(found.seeds)
    return f"{text} ({len(cells)} of {len(found.seeds)} seeds)" if some else text


def _beside_lora(found: Found, name: str, value: Callable[[PeerCell], float]) -> list[float]:
    """A contender's values over LoRA's, on every task and seed that both have."""
    return [
        value(cell) / value(found.cells[key])
        for cell in found.everywhere(name)
        if (key := (cell.task, LORA, cell.facts.seed)) in found.cells
    ]


def _ways(cells: Sequence[PeerCell]) -> str:
    """How many ways worked with every model."""
    by_way: dict[str, list[bool]] = {}
    for cell in cells:
        for trial in cell.saving:
            by_way.setdefault(trial.what, []).append(trial.works)
    return f"{sum(all(worked) for worked in by_way.values())} of {len(by_way)}"


def _shares(shares: Sequence[float]) -> str:
    low, high = f"{min(shares):.3f}", f"{max(shares):.3f}"
    return low if low == high else f"{low} to {high}"


def _median(values: Iterable[Any], text: Callable[[float], str]) -> str:
    there = [value for value in values if value is not None]
    return text(statistics.median(there)) if there else NONE


def _list(counts: Sequence[int]) -> str:
    return ", ".join(map(str, counts)) or NONE
