"""The tables of docs/ablation.md, made from the records."""

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from benchmarks.ablation.results import Ablation, Difference, clear, loss
from benchmarks.ablation.variants import (
    BASES,
    BUDGETS,
    EVERYTHING,
    FINALISTS,
    GROUPS,
    PACKAGED,
    TITLES,
    VARIANTS,
    Variant,
)
from benchmarks.harness import FOLDER, ROOT, estimate_text, markdown, write_page
from benchmarks.tasks import FOUR, TASKS
from benchmarks.trials import METRIC, Record, accuracy, machines, means_by_task, reported, training_memory
from prunelora.report.numbers import NONE, count, decimal, percent

PAGE = ROOT / "docs" / "ablation.md"
DENSE = "lora-all"  # The dense model that the smaller ones are compared with.
UNLEARNT = "rte"
_TUNING = ("finetune.", "plan.rank", "plan.targets")  # Settings that do not change the cut.


def write_ablation() -> Path:
    return write_page("ablation", texts(Ablation()), PAGE)


def texts(ablation: Ablation) -> dict[str, str]:
    """The placeholders of page.md."""
    records = ablation.records
    groups = ((TITLES[group], differences(ablation, GROUPS[group])) for group in GROUPS)
    return {
        "trainings": str(len(records)),
        "versions": ", ".join(sorted({one["prunelora"] for one in records})),
        "machines": machines(records),
        "names": markdown(("packaged recipe", "variant"), list(PACKAGED.items())),
        "verdicts": verdicts(ablation),
        "tasks": ", ".join(f"{name} ({length(name)})" for name in FOUR),
        "best": " and ".join(FINALISTS),
        "by_task": by_task(ablation),
        "how_far": markdown(*how_far(ablation)),
        "groups": "\n\n".join(f"## {title}\n\n{table}" for title, table in groups if table),
        "around_the_cut": around_the_cut(ablation),
        "costs": costs(ablation),
        "rates": rates(ablation),
    }


def length(task: str) -> str:
    rows, epochs = TASKS[task].max_train_rows, TASKS[task].epochs
    return f"{f'at most {rows:,} training rows, ' if rows else ''}{epochs:g} epoch{'s' if epochs != 1 else ''}"


def verdicts(ablation: Ablation) -> str:
    """How many variants differ clearly from what they are compared with, and which."""
    compared = {one.name: ablation.against(one, accuracy) for one in EVERYTHING.values() if one.against}
    compared = {name: one for name, one in compared.items() if one.pairs}
    sure = clear(compared)
    better = [name for name in sure if compared[name].mean > 0]
    worse = [name for name in sure if compared[name].mean < 0]
    rows = [("clearly better", better), ("clearly worse", worse), ("no clear difference", [*compared.keys() - sure])]
    return markdown(
        ("on the validation rows", "variants", ""),
        [(what, str(len(names)), ", ".join(sorted(names)) if what[0] == "c" else "") for what, names in rows],
    )


def by_task(ablation: Ablation) -> str:
    variants = [*GROUPS["references"], *GROUPS["bases"], *(VARIANTS[name] for name in FINALISTS), *GROUPS["tight"]]

    def both(records: Sequence[Record]) -> str:
        return f"{mean(records, accuracy)} ({mean(records, reported)})" if records else NONE

    rows = []
    for variant in variants:
        of_task = [[one for one in ablation.all_of(variant) if one["task"] == task] for task in FOUR]
        if any(of_task):
            whole = both([one for records in of_task for one in records]) if all(of_task) else NONE
            rows.append((variant.name, *map(both, of_task), whole))
    return markdown(("variant", *FOUR, "mean"), rows)


def how_far(ablation: Ablation) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and rows: the dense model, cut-early, cut-first, and tune-first at every budget, on the reported rows."""
    columns = (
        "MACs that stay", *FOUR, "mean", "against dense LoRA", f"the same without {UNLEARNT}",
        "validation, against dense LoRA",
    )  # fmt: skip
    packaged, early, first = (VARIANTS[PACKAGED[name]] for name in ("tune-first", "cut-early", "cut-first"))
    variants = [
        ("all, full fine-tuning", VARIANTS["full"]),
        ("all, LoRA", VARIANTS[DENSE]),
        (f"{early.keep_macs:g}, cut-early", early),
        ("0.35, cut-early", EVERYTHING[f"{early.name}@0.35"]),
        (f"{first.keep_macs:g}, cut-first", first),
        (f"{packaged.keep_macs:g}", packaged),
        *((f"{budget:g}", EVERYTHING[f"{packaged.name}@{budget:g}"]) for budget in BUDGETS),
    ]
    majority = [majority_rate(task) for task in FOUR]
    majority.append(statistics.fmean(majority))
    rows = [("most frequent class", *(f"{rate:.1f}" for rate in majority), *[NONE] * 3)]
    for title, variant in variants:
        records = list(ablation.all_of(variant))
        of_task = [[reported(one) / 100 for one in records if one["task"] == task] for task in FOUR]
        found = ablation.against(variant, reported, DENSE)
        compared = (found, found.without(UNLEARNT), ablation.against(variant, accuracy, DENSE))
        if records:
            whole = mean(records, reported) if all(of_task) else NONE
            ends = [NONE if variant.name == DENSE else points(one) for one in compared]
            rows.append((title, *map(estimate_text, of_task), whole, *ends))
    return columns, rows


def majority_rate(task: str) -> float:
    """Share of the most frequent class among the reported rows, in points, as the GLUE benchmark recorded it."""
    import json

    path = FOLDER / "glue" / "results" / task / "comparison.json"
    return 100 * json.loads(path.read_text(encoding="utf-8"))["task"]["majority_rate"]["test"]


def trained(ablation: Ablation) -> Iterator[tuple[Variant, list[Record]]]:
    """The shown variants that have records at their chosen learning rates, with these."""
    for variant in EVERYTHING.values():
        records = list(ablation.all_of(variant))
        if records:
            yield variant, records


def differences(ablation: Ablation, variants: Sequence[Variant]) -> str:
    rows = []
    for variant in variants:
        if variant.against:
            found = ablation.against(variant, accuracy)
            others = points(ablation.against(variant, loss), 3), points(ablation.against(variant, reported))
            rests_on = counted([(task, seed) for task, seed, _ in found.pairs])
            rows.append((variant.name, variant.title, variant.against, points(found), *others, rests_on))
    columns = ("variant", "question", "against", "accuracy, points", "loss", "reported accuracy, points", "rests on")
    return markdown(columns, rows) if rows else ""


def around_the_cut(ablation: Ablation) -> str:
    rows = []
    for variant, records in trained(ablation):
        if not records[0]["cut"] or not cuts_otherwise(variant):
            continue
        moments = ([(one["task"], one["cut"][moment]) for one in records] for moment in ("before", "cut", "repaired"))
        found = [over_tasks((task, 100 * one[METRIC]) for task, one in moment if one) for moment in moments]
        rests_on = counted([(one["task"], one["seed"]) for one in records])
        rows.append((variant.name, *found, mean(records, accuracy), rests_on))
    return markdown(("variant", "before the cut", "cut", "after repair", "after tuning", "rests on"), rows)


def cuts_otherwise(variant: Variant) -> bool:
    """Whether a variant cuts other units than its base, or another model."""
    same_cut = variant.changes and all(key.startswith(_TUNING) for key in variant.changes)
    return variant.recipe not in BASES or not same_cut


def costs(ablation: Ablation) -> str:
    dense = VARIANTS[DENSE]
    rows = []
    for variant, records in trained(ablation):
        pairs = ((one, ablation.record(dense, one["task"], one["seed"])) for one in records)
        ratios = means_by_task(
            (one["task"], training_memory(one) / training_memory(other)) for one, other in pairs if other
        )
        memory = percent(statistics.fmean(ratios)) if ratios else NONE
        kept = (kept_text([one[key] for one in records]) for key in ("heads", "neurons"))
        rows.append((variant.name, mean(records, lambda one: one["steps"], 0), memory, *kept))
    return markdown(("variant", "steps", "memory", "heads", "neurons"), rows)


def rates(ablation: Ablation) -> str:
    rows = []
    for variant in EVERYTHING.values():
        for factor in sorted(variant.factors):
            found = []
            for task in FOUR:
                record = ablation.tried(variant, task).get(factor)
                chosen = ", chosen" if ablation.factor(variant, task) == factor else ""
                found.append(NONE if record is None else f"{accuracy(record):.1f}{chosen}")
            if set(found) != {NONE}:
                rows.append((variant.name, f"{variant.rate_at(factor):g}", *found))
    return markdown(("variant", "learning rate", *FOUR), rows)


# Texts ----------------------------------------------------------------------------------------------------------------


def mean(records: Sequence[Record], value: Callable[[Record], float], digits: int = 1) -> str:
    """Mean of a value of records over tasks of the means over seeds."""
    return over_tasks(((one["task"], value(one)) for one in records), digits)


def over_tasks(values: Iterable[tuple[str, float]], digits: int = 1) -> str:
    """Mean over tasks of the means of each task's values."""
    means = means_by_task(values)
    return decimal(statistics.fmean(means), digits) if means else NONE


def kept_text(counts: Sequence[Sequence[int] | None]) -> str:
    """Units left, mean over records, and of how many: "36 of 72"; "all" if nothing was cut."""
    known = [one for one in counts if one]
    return f"{count(statistics.fmean(left for left, _ in known))} of {count(known[0][1])}" if known else "all"


def points(difference: Difference, digits: int = 2) -> str:
    """Mean with its standard error over tasks: "+0.42 ± 0.21"."""
    if not difference.pairs:
        return NONE
    text = decimal(difference.mean, digits, signed=True)
    return text if difference.error is None else f"{text} \N{PLUS-MINUS SIGN} {decimal(difference.error, digits)}"


def counted(pairs: Sequence[tuple[str, int]]) -> str:
    """Tasks and seeds: "sst2, mrpc; seeds 0, 1"; tasks with different seeds each with their own."""
    by_task: dict[str, list[int]] = {}
    for task, seed in pairs:
        by_task.setdefault(task, []).append(seed)

    def seeds(numbers: Sequence[int]) -> str:
        return f"seed{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"

    if len(set(map(tuple, by_task.values()))) == 1:
        tasks = "all tasks" if set(by_task) == set(FOUR) else ", ".join(by_task)
        return f"{tasks}; {seeds(next(iter(by_task.values())))}"
    return "; ".join(f"{task}: {seeds(numbers)}" for task, numbers in by_task.items()) or NONE
