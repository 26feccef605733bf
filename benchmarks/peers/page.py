"""The tables of peers/RESULTS.md, made from the records."""

import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import estimate_text, markdown, read_results, where, write_page
from benchmarks.peers.methods import CONTENDERS, LORA, RESULTS, SEEDS, Peers
from benchmarks.tasks import FOUR, TASKS
from benchmarks.trials import METRIC, Record, machines, reported, training_memory
from prunelora.evaluation.timing import Spread
from prunelora.report.numbers import NONE, count, duration, milliseconds, percent, scaled, with_quartiles

MISSING = "missing"


def write_peers() -> Path:
    paths = {task: path for task in FOUR if (path := RESULTS / f"timing-{task}.json").exists()}
    timings = {task: json.loads(path.read_text(encoding="utf-8")) for task, path in paths.items()}
    return write_page("peers", texts(Peers(), timings))


def texts(peers: Peers, timings: Mapping[str, Any]) -> dict[str, str]:
    """The placeholders of page.md."""
    asked = len(FOUR) * len(CONTENDERS) * len(SEEDS)
    timed = [f"{len(one['contenders'])} of {len(CONTENDERS)} on {task}" for task, one in timings.items()]
    steps = read_results("training_step")["training_step"]["counted_bytes"]
    stock = steps["dense, nothing recomputed"]
    return {
        "trainings": f"{len(peers.records)} of {asked} trainings",
        "machines": machines(peers.records),
        "methods": markdown(("method", "training"), [(name, one.title) for name, one in CONTENDERS.items()]),
        "epochs": ", ".join(f"{task} {TASKS[task].epochs:g}" for task in FOUR),
        "quality": quality(peers),
        "costs": costs(peers, timings),
        "timed": ", ".join(timed),
        "recomputed": percent(steps["dense, selective recomputation"] / stock),
        "halves": percent(steps["dense, selective recomputation, half of the rows"] / stock),
        "tasks": "\n\n".join(task_section(peers, task, timings.get(task)) for task in FOUR),
    }


def quality(peers: Peers) -> str:
    rates = {one["task"]: f"{100 * one['data']['majority_rate']['test']:.1f}" for one in peers.records}
    rows = [("most frequent class", *(rates.get(task, NONE) for task in FOUR), NONE)]
    for name in CONTENDERS:
        of_task = [peers.of(task, name) for task in FOUR]
        complete = all(len(records) == len(SEEDS) for records in of_task)
        means = [statistics.fmean(map(reported, records)) for records in of_task if records]
        mean = f"{statistics.fmean(means):.1f}" if complete else NONE
        rows.append((name, *map(quality_text, of_task), mean))
    return markdown(("method", *(f"{task}, accuracy, %" for task in FOUR), "mean"), rows)


def quality_text(records: Sequence[Record]) -> str:
    some = f" ({len(records)} of {len(SEEDS)} seeds)" if 1 < len(records) < len(SEEDS) else ""
    return f"{estimate_text([reported(one) / 100 for one in records])}{some}" if records else MISSING


def costs(peers: Peers, timings: Mapping[str, Any]) -> str:
    """Medians over all records of a method."""
    rows = []
    for name in CONTENDERS:
        records = peers.everywhere(name)
        if not records:
            rows.append((name, MISSING, *[NONE] * 7))
            continue
        lora = {(one["task"], one["seed"]): training_memory(one) for one in peers.everywhere(LORA)}
        memory = [training_memory(one) / lora[key] for one in records if (key := (one["task"], one["seed"])) in lora]
        times = [one["contenders"][name] for one in timings.values() if name in one["contenders"]]
        worked: dict[str, list[bool]] = {}
        for trial in (trial for one in records for trial in one["saving"]):
            worked.setdefault(trial["what"], []).append(trial["works"])
        rows.append(
            (
                name,
                fractions(records),
                median((one["parameters"] for one in records), scaled),
                median(map(seconds_to_cut, records), duration),
                median(memory, percent),
                median((one["step_to_lora"]["median"] for one in times if one["step_to_lora"]), percent),
                *(median((to_dense(one, size).median for one in times), percent) for size in ((32, 128), (1, 128))),
                f"{sum(map(all, worked.values()))} of {len(worked)}",
            )
        )
    columns = ("MACs left", "parameters", "to the cut model", "memory, of LoRA's", "step, of LoRA's")
    ends = ("batch 32, of dense", "batch 1, of dense", "ways to save and load that work")
    return markdown(("method", *columns, *ends), rows)


def to_dense(times: Mapping[str, Any], size: tuple[int, int]) -> Spread:
    """Ratio of a forward pass of (rows, tokens) to the dense model's."""
    found = {(one["batch_size"], one["tokens"]): one["to_dense"] for one in times["latencies"]}
    return Spread.read(found[size])


def seconds_to_cut(record: Record) -> float | None:
    """From scoring to the cut model; None if nothing was cut."""
    return sum(record["seconds"].get(stage, 0.0) for stage in ("score", "plan", "prune")) if record["cut"] else None


def task_section(peers: Peers, task: str, timing: Mapping[str, Any] | None) -> str:
    rows = []
    for name in CONTENDERS:
        records = peers.of(task, name)
        if not records:
            rows.append((name, MISSING, *[NONE] * 9))
            continue
        times = timing["contenders"].get(name) if timing else None
        cuts = [one["cut"]["repaired"] or one["cut"]["cut"] for one in records if one["cut"]]

        def mean(value: Callable[[Record], float], records: Sequence[Record] = records) -> float:
            return statistics.fmean(map(value, records))

        rows.append(
            (
                name,
                quality_text(records),
                f"{100 * statistics.fmean(one[METRIC] for one in cuts):.1f}" if cuts else NONE,
                fractions(records),
                count(mean(lambda one: one["heads"][0])),
                count(mean(lambda one: one["neurons"][0])),
                scaled(mean(lambda one: one["parameters"])),
                median(map(seconds_to_cut, records), duration),
                scaled(mean(training_memory), "B"),
                milliseconds(times["step_ms"]) if times else NONE,
                "; ".join(
                    f"{size[0]} x {size[1]}: {with_quartiles(percent, to_dense(times, size))}"
                    for size in ((1, 128), (32, 128))
                )
                if times
                else NONE,
            )
        )
    sizes = {one["task"]: one["data"]["rows"] for one in peers.records}.get(task, {})
    columns = (
        "method", f"{task}, accuracy, %", "after the cut (and repair), validation rows", "MACs left", "heads",
        "neurons", "parameters", "to the cut model", "training memory", "step", "forward pass, of dense",
    )  # fmt: skip
    about = [", ".join(f"{count(number)} {split} rows" for split, number in sizes.items()), TASKS[task].note]
    timed = f"Timed on {where([timing])}." if timing else "Not timed."
    return f"## {task}: every method\n\n{'; '.join(filter(None, about))}. {timed}\n\n{markdown(columns, rows)}"


def fractions(records: Sequence[Record]) -> str:
    """Fraction of the dense model's MACs; smallest and largest if they differ."""
    low, high = (f"{end(one['macs'] / one['dense_macs'] for one in records):.3f}" for end in (min, max))
    return low if low == high else f"{low} to {high}"


def median(values: Iterable[float | None], text: Callable[[float], str]) -> str:
    there = [value for value in values if value is not None]
    return text(statistics.median(there)) if there else NONE
