"""The page docs/ablation.md, made from the result files alone."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.ablation.borrowed import most_frequent
from benchmarks.ablation.cut_results import CHOICES, Cuts, Judged, read_all_cuts
from benchmarks.ablation.results import (
    METRIC,
    Difference,
    Found,
    Row,
    accuracy,
    clear,
    finalists,
    loss,
    mean_over_tasks,
    members,
    read_all,
    tested,
)
from benchmarks.ablation.variants import (
    BUDGETS,
    EVERYTHING,
    GROUPS,
    LEAST,
    LOWEST,
    PACKAGED,
    SCREENING_SEED,
    SCREENING_TASKS,
    SEEDS,
    TASKS,
    TIGHT,
    TIGHT_GROUP,
    TITLES,
    VARIANTS,
    WALKS,
    Variant,
)
from benchmarks.tasks import BenchmarkTask
from prunelora.comparison.results import estimate
from prunelora.comparison.texts import NONE, quality_text
from prunelora.report.reading import percent
from prunelora.report.sections import Section
from prunelora.report.tables import Table
from prunelora.report.writing import Page, page_as_markdown
from prunelora.storage import write_text

COMMAND = "python -m benchmarks.ablation"
TITLE = "Ablation"
YARDSTICK = "lora-all"
UNLEARNT = "rte"

# Settings that say how the cut model is tuned, not what is cut.
_OF_TUNING = ("finetune.", "plan.rank", "plan.targets")
_MINUS = "\N{MINUS SIGN}"


def write_page(results: Path, page: Path, glue: Path) -> Path:
    """Write the page from the folder of result files, and that of benchmarks.glue's."""
    write_text(page, page_text(read_all(results), read_all_cuts(results), most_frequent(glue)))
    return page


def page_text(found: Found, cuts: Sequence[Cuts] = (), frequent: Mapping[str, float] | None = None) -> str:
    """The page as Markdown."""
    return page_as_markdown(page_of(found, cuts, frequent or {})).rstrip("\n") + "\n"


def page_of(found: Found, cuts: Sequence[Cuts], frequent: Mapping[str, float]) -> Page:
    """What the page says; `frequent` is the share of the most frequent class by task, in points."""
    if not found.rows:
        return Page(TITLE, f"No results yet: {COMMAND} trains what is missing and writes this page.", (), (), (), "")
    best = finalists(found)
    cells = [row.cell for row in found.rows.values()]
    machines = ", ".join(sorted({str(cell.machine["cpu"]) for cell in cells}))
    versions = ", ".join(sorted({cell.prunelora for cell in cells}))
    return Page(
        title=TITLE,
        subtitle=f"Which parts of the method help, alone and together: {len(cells)} trainings of MiniLM, prunelora "
        f"{versions}, {machines}; made from result files by {COMMAND}.",
        summary=(
            ("What the packaged recipes are called here", tuple(_called())),
            ("What the validation rows say", tuple(_said(found))),
        ),
        warnings=tuple(_warnings(found, best)),
        sections=tuple(
            section for section in _sections(found, best, cuts, frequent) if section.table is None or section.table.rows
        ),
        numbers="benchmarks/ablation/results/TASK-GROUP.json",
    )


def _sections(
    found: Found, best: Sequence[Variant], cuts: Sequence[Cuts], frequent: Mapping[str, float]
) -> Iterator[Section]:
    tasks = ", ".join(f"{name} ({_length(task)})" for name, task in TASKS.items())
    names = ", ".join(variant.name for variant in best) or "none so far"
    cut_rows = ", ".join(f"{count:,}" for count in sorted({one.rows for one in cuts})) or NONE
    yield Section(
        "How to read it",
        (
            f"Tasks: {tasks}. All variants train for as long; what is trained before the cut counts. "
            "Half of the MACs stays where nothing else is said.",
            "Choices are made on validation rows, which are cut from training: the checkpoint, the learning rate, the "
            "variants that go on. The reported rows stand beside and choose nothing.",
            "A difference is the mean over tasks of what the variant has more than what it is held against, the same "
            f"task and seed each. Behind {_pm()} stands its standard error over tasks: seeds of one task share its "
            "rows and its peculiarities, so they are first averaged. "
            "It is called clear where p of Student's t over tasks, adjusted for the number of variants (Holm), is "
            "below 0.05. Two tasks, or four, show large differences alone: where nothing is clear, read the numbers as "
            "what these tasks gave, not as what others would.",
            "References and cut-first try two learning rates on the first seed of each task; a variant takes the "
            "multiple that was chosen for its way to walk, so that one thing is changed. Tune-first, and "
            "what else tunes the dense model before the cut, takes that of lora-all: it begins as lora-all does. "
            "So the training that variants of cut-first are held against with the first seed is the better of two on "
            "these very rows, and the same one for all of them: small minuses are to be expected, and say little.",
            f"The first seed of {' and '.join(SCREENING_TASKS)} screens all variants. The best of each way to walk, "
            f"where it is above the way itself there, goes on to all tasks and seeds and to {TIGHT:g} of the MACs: "
            f"{names}. It was taken for being high on the screening, so a part of its lead there is luck, which the "
            "other seeds and tasks take out; where they take out all of it, the next one goes on. How to share out "
            "the epochs, how fast to learn after the cut, what repair is fitted to, and what comes before an early "
            "cut, is screened on all tasks. "
            f"The packaged recipes go to {TIGHT:g} with it, and both ways themselves with the first seed. "
            f"Tune-first goes down to {LOWEST:g} of the MACs too, its packaged recipe to {LEAST:g}.",
            "The rows of full and lora are those of the GLUE benchmark, which trained them under the same settings.",
        ),
    )
    yield Section(
        "Accuracy by task",
        ("On the validation rows, in per cent; on the reported rows in parentheses. Mean over seeds.",),
        table=_by_task(found, best),
    )
    yield Section(
        "How far down it holds",
        (
            "The packaged tune-first by the share of the MACs that stays, beside the dense model and the packaged "
            f"cut-early. Accuracy on the reported rows, in per cent, mean {_pm()} standard deviation over seeds. The "
            f"last columns: the mean difference to LoRA on every linear layer of the dense model ({YARDSTICK}), paired "
            f"by task and seed, {_pm()} its standard error over tasks; on the reported rows, there without {UNLEARNT}, "
            "which nobody learns, and on the validation rows.",
        ),
        table=how_far(found, frequent),
    )
    for group in (*GROUPS, "tight"):
        variants = [one for one in _shown(found, group, best) if one.against is not None]
        yield Section(
            TITLES[group],
            tuple(f"{one.name}: {one.question}" for one in variants) if group != "tight" else (),
            table=_differences(found, group, variants, best),
        )
    yield Section(
        "Right after the cut",
        (
            "Accuracy on the validation rows around the last cut, before any further training, in per cent: mean over "
            "tasks. The column after repair says what is had where nothing is trained after the cut. Variants that "
            "change only the tuning are left out: their cut is that of their base.",
        ),
        table=_after_the_cut(found, best),
    )
    yield Section(
        "How to choose what is cut",
        (
            "The models of lora-all, cut, with nothing trained after it: accuracy on the validation rows in per cent, "
            "and the loss there in parentheses; mean over "
            f"{_counted([(one.task, one.seed) for one in cuts])}. Scored and repaired on {cut_rows} training rows. "
            "Layers normalised is equation 2 of the paper, raw is without it. Made by "
            "python -m benchmarks.ablation.cuts.",
        ),
        table=_choices(cuts),
    )
    yield Section(
        "Time of scoring, planning and repair",
        (
            f"Seconds, for {cut_rows} training rows, mean over the same tasks and seeds, as recorded: scoring of the "
            "dense model, planning, and repair of the half that is left.",
        ),
        table=_seconds_of_cuts(cuts),
    )
    yield Section(
        "Memory and sizes",
        (
            f"Memory is of {YARDSTICK}'s on the same task with the same seed, mean over tasks: that of a step of the "
            "fine-tuning that needs most, counted tensor by tensor. What tunes the dense model first, in steps of as "
            f"many rows, needs what {YARDSTICK} needs; the late splits, and so the packaged tune-first, take smaller "
            "steps there. Nothing is recomputed in these trainings; what selective recomputation takes off, for all "
            "alike, is in the page on fine-tuning. Times are not compared here: the trainings were recorded over many "
            "days, on machines of different speed. benchmarks.training_time trains the packaged recipes in turn.",
        ),
        table=_costs(found, best),
    )
    yield Section(
        "Learning rates",
        ("Accuracy on the validation rows of the first seed, in per cent.",),
        table=_rates(found),
    )


# Tables ---------------------------------------------------------------------------------------------------------------


def _by_task(found: Found, best: Sequence[Variant]) -> Table:
    others = dict.fromkeys([*PACKAGED.values(), *(variant.name for variant in best)])
    bases = [*GROUPS["references"], *GROUPS["bases"]]
    more = [VARIANTS[name] for name in others if VARIANTS[name] not in bases]
    shown = [*bases, *more, *_shown(found, "tight", best)]
    rows = []
    for variant in shown:
        of_task = {task: [row for row in found.all_of(variant) if row.task == task] for task in TASKS}
        if not any(of_task.values()):
            continue
        texts = [_both(of_task[task]) for task in TASKS]
        all_rows = [row for some in of_task.values() for row in some]
        whole = _both(all_rows) if all(of_task.values()) else NONE
        rows.append((variant.name, *texts, whole))
    return Table(("variant", *TASKS, "mean"), tuple(rows))


# docs/results.md shows the first of them, up to the first difference.
HOW_FAR = (
    "MACs that stay", *TASKS, "mean", "against dense LoRA", f"the same without {UNLEARNT}",
    "validation, against dense LoRA",
)  # fmt: skip


def how_far(found: Found, frequent: Mapping[str, float]) -> Table:
    """The dense model, cut-early, and tune-first at every budget, on the reported rows."""
    packaged, early = (VARIANTS[PACKAGED[name]] for name in ("tune-first", "cut-early"))
    shown = [
        ("all, full fine-tuning", VARIANTS["full"]),
        ("all, LoRA", VARIANTS[YARDSTICK]),
        (f"{early.keep_macs:g}, cut-early", early),
        (f"{TIGHT:g}, cut-early", EVERYTHING[f"{early.name}@{TIGHT:g}"]),
        (f"{packaged.keep_macs:g}", packaged),
        *((f"{budget:g}", EVERYTHING[f"{packaged.name}@{budget:g}"]) for budget in BUDGETS),
    ]
    rows = []
    if set(frequent) == set(TASKS):
        rates = [frequent[task] for task in TASKS]
        rates = [*rates, statistics.fmean(rates)]
        rows.append(("most frequent class", *(f"{rate:.1f}" for rate in rates), *[NONE] * 3))
    for name, variant in shown:
        own = list(found.all_of(variant))
        if own:
            of_task = [[row.cell.test["test"][METRIC] for row in own if row.task == task] for task in TASKS]
            texts = [quality_text(METRIC, estimate(some) if some else None) for some in of_task]
            mean = f"{mean_over_tasks((row.task, tested(row)) for row in own):.1f}" if all(of_task) else NONE
            held = replace(variant, against=YARDSTICK)
            reported, validated = found.against(held, tested), found.against(held, accuracy)
            differences = (reported, reported.without(UNLEARNT), validated)
            points = [NONE if variant.name == YARDSTICK else _points(one) for one in differences]
            rows.append((name, *texts, mean, *points))
    return Table(HOW_FAR, tuple(rows))


def _both(rows: Sequence[Row]) -> str:
    if not rows:
        return NONE
    first, second = (mean_over_tasks((row.task, value(row)) for row in rows) for value in (accuracy, tested))
    return f"{first:.1f} ({second:.1f})"


def _differences(found: Found, group: str, variants: Sequence[Variant], best: Sequence[Variant]) -> Table:
    rows = []
    for variant in variants:
        difference = found.against(variant, accuracy)
        rows.append(
            (
                variant.name,
                str(variant.against),
                _points(difference),
                _points(found.against(variant, loss), digits=3),
                _points(found.against(variant, tested)),
                _rests_on(difference),
                _missing_text(found, group, variant, best),
            )
        )
    columns = ("variant", "against", "accuracy, points", "loss", "reported accuracy, points", "rests on", "missing")
    return Table(columns, tuple(rows))


def _after_the_cut(found: Found, best: Sequence[Variant]) -> Table:
    rows = []
    for group in (*GROUPS, "tight"):
        for variant in _shown(found, group, best):
            cut = [(row, row.cut) for row in found.all_of(variant) if row.cut is not None]
            if not cut or not _cuts_otherwise(variant):
                continue
            before = [(row.task, 100 * facts.before) for row, facts in cut if facts.before is not None]
            repaired = [(row.task, 100 * facts.repaired) for row, facts in cut if facts.repaired is not None]
            rows.append(
                (
                    variant.name,
                    *(
                        _one(values)
                        for values in (
                            before,
                            [(row.task, 100 * facts.cut) for row, facts in cut],
                            repaired,
                            [(row.task, accuracy(row)) for row, _ in cut],
                        )
                    ),
                    _counted([(row.task, row.cell.seed) for row, _ in cut]),
                )
            )
    return Table(("variant", "before the cut", "cut", "after repair", "after tuning", "rests on"), tuple(rows))


def _cuts_otherwise(variant: Variant) -> bool:
    """Whether it can cut other heads and neurons than its way to walk does, or cut another model."""
    return variant.recipe not in WALKS or not variant.changes or not all(
        key.startswith(_OF_TUNING) for key in variant.changes
    )  # fmt: skip


def _choices(cuts: Sequence[Cuts]) -> Table:
    budgets = sorted({cut.keep_macs for one in cuts for cut in one.cuts}, reverse=True)
    columns = ["scores"]
    for budget in budgets:
        columns += [f"heads at {budget:g}", f"neurons at {budget:g}", f"cut to {budget:g}", f"repaired at {budget:g}"]
    rows = [("nothing cut", *["", "", _judged([(one.task, one.dense) for one in cuts]), ""] * len(budgets))]
    for choice in CHOICES:
        texts = [str(choice)]
        for budget in budgets:
            of_choice = [(one.task, cut) for one in cuts for cut in one.cuts if choice.made(cut, budget)]
            texts += [
                f"{mean_over_tasks((task, cut.heads) for task, cut in of_choice):,.0f}",
                f"{mean_over_tasks((task, cut.neurons) for task, cut in of_choice):,.0f}",
                _judged([(task, cut.cut) for task, cut in of_choice]),
                _judged([(task, cut.repaired) for task, cut in of_choice if cut.repaired is not None]),
            ]
        rows.append(tuple(texts))
    return Table(tuple(columns), tuple(rows) if cuts else ())


def _judged(values: Sequence[tuple[str, Judged]]) -> str:
    if not values:
        return NONE
    accuracies = mean_over_tasks((task, 100 * one.accuracy) for task, one in values)
    return f"{accuracies:.1f} ({mean_over_tasks((task, one.loss) for task, one in values):.3f})"


def _seconds_of_cuts(cuts: Sequence[Cuts]) -> Table:
    half = [(one, cut) for one in cuts for cut in one.cuts if cut.keep_macs == 0.5]
    repairs = [(one.task, cut.repair_seconds) for one, cut in half if cut.repair_seconds is not None]
    rows = [
        *(
            (f"scoring, {criterion}", _one([(one.task, one.score_seconds[criterion]) for one in cuts]))
            for criterion in (cuts[0].score_seconds if cuts else ())
        ),
        ("planning", f"{mean_over_tasks((one.task, cut.plan_seconds) for one, cut in half):.2f}"),
        ("repair", _one(repairs)),
    ]
    return Table(("work", "seconds"), tuple(rows) if cuts else ())


def _costs(found: Found, best: Sequence[Variant]) -> Table:
    dense = EVERYTHING[YARDSTICK]
    rows = []
    for group in (*GROUPS, "tight"):
        for variant in _shown(found, group, best):
            own = list(found.all_of(variant))
            pairs = [(row, other) for row in own if (other := found.row(dense, row.task, row.cell.seed)) is not None]
            if not own:
                continue
            rows.append(
                (
                    variant.name,
                    f"{mean_over_tasks((row.task, row.cell.steps) for row in own):,.0f}",
                    _share([(row.task, row.training_memory / other.training_memory) for row, other in pairs]),
                    _kept([row.heads for row in own]),
                    _kept([row.neurons for row in own]),
                )
            )
    return Table(("variant", "steps", "memory", "heads", "neurons"), tuple(rows))


def _rates(found: Found) -> Table:
    rows = []
    for variant in EVERYTHING.values():
        for factor in sorted(variant.trials):
            texts = []
            for task in TASKS:
                row = found.trials(variant, task).get(factor)
                chosen = ", chosen" if found.factor(variant, task) == factor else ""
                texts.append(NONE if row is None else f"{accuracy(row):.1f}{chosen}")
            if set(texts) != {NONE}:
                rows.append((variant.name, f"{variant.rate_at(factor):g}", *texts))
    return Table(("variant", "learning rate", *TASKS), tuple(rows))


# Lines ----------------------------------------------------------------------------------------------------------------


def _called() -> Iterator[str]:
    for name, variant in PACKAGED.items():
        other = f"; what is called {name} here is another" if name != variant and name in VARIANTS else ""
        yield f"the recipe {name} is {variant}{other}"


def _said(found: Found) -> Iterator[str]:
    """Which variants differ clearly from what they are held against, and which do not."""
    better, worse, unclear, single = [], [], [], []
    held = [variant for variant in EVERYTHING.values() if variant.against is not None]
    differences = {variant.name: found.against(variant, accuracy) for variant in held}
    sure = clear(differences)
    for variant in held:
        difference = differences[variant.name]
        if not difference.pairs:
            continue
        if difference.error is None:
            kind = single
        else:
            kind = unclear if variant.name not in sure else better if difference.mean > 0 else worse
        kind.append(f"{variant.name} ({_points(difference)} against {variant.against})")
    for what, names in (
        ("clearly better", better),
        ("clearly worse", worse),
        ("no clear difference in accuracy", unclear),
    ):
        yield f"{what}: {'; '.join(names) or 'none'}"
    if single:
        yield f"one task so far, which has no standard error over tasks: {'; '.join(single)}"


def _length(task: BenchmarkTask) -> str:
    rows = f"at most {task.max_train_rows:,} training rows, " if task.max_train_rows else ""
    return f"{rows}{task.epochs:g} epoch{'s' if task.epochs != 1 else ''}"


def _warnings(found: Found, best: Sequence[Variant]) -> Iterator[str]:
    wanted = [
        (variant, task, seed)
        for group in (*GROUPS, "tight")
        for seed in SEEDS
        for task in TASKS
        for variant in members(group, best, task=task, seed=seed)
    ]
    missing = [one for one in wanted if found.row(*one) is None]
    if missing:
        yield f"{len(missing)} of {len(wanted)} trainings are not done yet; the tables say which"
    if not best:
        yield "the screening is not complete, so nothing is trained with the other seeds yet but the bases"
    for one in found.failures:
        yield f"{one.variant} on {one.task}, seed {one.seed}, ended in an error: {one.message}"


def _missing_text(found: Found, group: str, variant: Variant, best: Sequence[Variant]) -> str:
    """Tasks and seeds that a variant was not trained on yet: "rte: 0; qnli: 1, 2"."""
    lacking = {
        task: [
            str(seed)
            for seed in SEEDS
            if variant in members(group, best, task=task, seed=seed) and found.row(variant, task, seed) is None
        ]
        for task in TASKS
    }
    return "; ".join(f"{task}: {', '.join(some)}" for task, some in lacking.items() if some)


def _shown(found: Found, group: str, best: Sequence[Variant]) -> list[Variant]:
    """Variants of a group that are to be trained on some seed, and those that were, though no longer among the best."""
    planned = members(group, best, task=SCREENING_TASKS[0], seed=SCREENING_SEED)
    if group != "tight":
        return planned
    trained = {variant for variant, *_ in found.rows}
    return planned + [one for one in TIGHT_GROUP.values() if one.name in trained and one not in planned]


def _rests_on(difference: Difference) -> str:
    return _counted([(task, seed) for task, seed, _ in difference.pairs])


def _counted(pairs: Sequence[tuple[str, int]]) -> str:
    """Tasks and seeds: "sst2, mrpc; seeds 0, 1"; where tasks have different seeds, each with its own."""
    if not pairs:
        return NONE
    by_task: dict[str, list[int]] = {}
    for task, seed in pairs:
        by_task.setdefault(task, []).append(seed)
    if len(set(map(tuple, by_task.values()))) == 1:
        seeds = next(iter(by_task.values()))
        tasks = "all tasks" if set(by_task) == set(TASKS) else ", ".join(by_task)
        return f"{tasks}; {_seeds(seeds)}"
    return "; ".join(f"{task}: {_seeds(seeds)}" for task, seeds in by_task.items())


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _points(difference: Difference, *, digits: int = 2) -> str:
    """A mean with its standard error: "+0.42 +- 0.21"."""
    if not difference.pairs:
        return NONE
    mean = f"{difference.mean:+.{digits}f}".replace("-", _MINUS)
    return mean if difference.error is None else f"{mean} {_pm()} {difference.error:.{digits}f}"


def _pm() -> str:
    return "\N{PLUS-MINUS SIGN}"


def _one(values: Sequence[tuple[str, float]]) -> str:
    return f"{mean_over_tasks(values):.1f}" if values else NONE


def _share(values: Sequence[tuple[str, float]]) -> str:
    return percent(mean_over_tasks(values)) if values else NONE


def _kept(counts: Sequence[tuple[int, int] | None]) -> str:
    """Units left, mean over trainings, and of how many: "36 of 72"."""
    some = [one for one in counts if one is not None]
    return f"{statistics.fmean(left for left, _ in some):,.0f} of {some[0][1]:,}" if some else "all"
