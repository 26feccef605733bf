"""The tables of peers/RESULTS.md, made from the records."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import estimate_text, markdown, read_results, where, write_page
from benchmarks.peers.methods import CONTENDERS, LORA, SEEDS, Peers
from benchmarks.tasks import FOUR, TASKS
from benchmarks.trials import METRIC, Record, machines, reported, training_memory
from prunelora.evaluation.timing import Spread
from prunelora.report.numbers import NONE, count, duration, milliseconds, percent, scaled, with_quartiles

BATCHES = {"batch 32": (32, 128), "batch 1": (1, 128)}  # Rows and tokens of the forward passes that the tables show.


def write_peers() -> list[Path]:
    """The page of the finished study; none while a training or a timing is missing."""
    peers = Peers()
    results = read_results("peers")
    timings = {task: results[f"timing-{task}"] for task in FOUR if f"timing-{task}" in results}
    if len(peers.records) < len(FOUR) * len(CONTENDERS) * len(SEEDS) or len(timings) < len(FOUR):
        return []
    return [write_page("peers", texts(peers, timings))]


def texts(peers: Peers, timings: Mapping[str, Any]) -> dict[str, str]:
    """The placeholders of page.md."""
    steps = read_results("training_step")["training_step"]["counted_bytes"]
    stock = steps["dense, nothing recomputed"]
    timed = [f"{len(timing['contenders'])} of {len(CONTENDERS)} on {task}" for task, timing in timings.items()]
    return {
        "trainings": str(len(peers.records)),
        "machines": machines(peers.records),
        "methods": markdown(("method", "training"), [(name, one.title) for name, one in CONTENDERS.items()]),
        "epochs": ", ".join(f"{task} {TASKS[task].epochs:g}" for task in FOUR),
        "quality": quality(peers),
        "costs": costs(peers, timings),
        "timed": ", ".join(timed),
        "recomputed": percent(steps["dense, selective recomputation"] / stock),
        "halves": percent(steps["dense, selective recomputation, half of the rows"] / stock),
        "tasks": "\n\n".join(task_section(peers, task, timings[task]) for task in FOUR),
    }


def quality(peers: Peers) -> str:
    rates = {record["task"]: f"{100 * record['data']['majority_rate']['test']:.1f}" for record in peers.records}
    rows = [("most frequent class", *(rates[task] for task in FOUR), NONE)]
    for name in CONTENDERS:
        by_task = [peers.of(task, name) for task in FOUR]
        mean = statistics.fmean(statistics.fmean(map(reported, records)) for records in by_task)
        rows.append((name, *map(quality_text, by_task), f"{mean:.1f}"))
    return markdown(("method", *(f"{task}, accuracy, %" for task in FOUR), "mean"), rows)


def quality_text(records: Sequence[Record]) -> str:
    return estimate_text([reported(record) / 100 for record in records])


def costs(peers: Peers, timings: Mapping[str, Any]) -> str:
    """Medians over all records of a method."""
    lora = {(record["task"], record["seed"]): training_memory(record) for record in peers.everywhere(LORA)}
    rows = []
    for name in CONTENDERS:
        records = peers.everywhere(name)
        times = [timing["contenders"][name] for timing in timings.values() if name in timing["contenders"]]
        ways: dict[str, list[bool]] = {}
        for attempt in (attempt for record in records for attempt in record["saving"]):
            ways.setdefault(attempt["what"], []).append(attempt["works"])
        rows.append(
            (
                name,
                fractions(records),
                median((record["parameters"] for record in records), scaled),
                median(map(seconds_to_cut, records), duration),
                median((training_memory(record) / lora[record["task"], record["seed"]] for record in records), percent),
                median((time["step_to_lora"]["median"] for time in times if time["step_to_lora"]), percent),
                *(median((to_dense(time, size).median for time in times), percent) for size in BATCHES.values()),
                f"{sum(map(all, ways.values()))} of {len(ways)}",
            )
        )
    columns = ("MACs left", "parameters", "to the cut model", "memory, of LoRA's", "step, of LoRA's")
    ends = (*(f"{batch}, of dense" for batch in BATCHES), "ways to save and load that work")
    return markdown(("method", *columns, *ends), rows)


def to_dense(times: Mapping[str, Any], size: tuple[int, int]) -> Spread:
    """Ratio of a forward pass of (rows, tokens) to the dense model's."""
    ratios = {(latency["batch_size"], latency["tokens"]): latency["to_dense"] for latency in times["latencies"]}
    return Spread.read(ratios[size])


def seconds_to_cut(record: Record) -> float | None:
    """From scoring to the cut model; None if nothing was cut."""
    return sum(record["seconds"].get(stage, 0.0) for stage in ("score", "plan", "prune")) if record["cut"] else None


def task_section(peers: Peers, task: str, timing: Mapping[str, Any]) -> str:
    rows = []
    for name in CONTENDERS:
        records, times = peers.of(task, name), timing["contenders"].get(name)
        cuts = [record["cut"]["repaired"] or record["cut"]["cut"] for record in records if record["cut"]]
        rows.append(
            (
                name,
                quality_text(records),
                f"{100 * statistics.fmean(metrics[METRIC] for metrics in cuts):.1f}" if cuts else NONE,
                fractions(records),
                count(statistics.fmean(record["heads"][0] for record in records)),
                count(statistics.fmean(record["neurons"][0] for record in records)),
                scaled(statistics.fmean(record["parameters"] for record in records)),
                median(map(seconds_to_cut, records), duration),
                scaled(statistics.fmean(map(training_memory, records)), "B"),
                milliseconds(times["step_ms"]) if times else NONE,
                "; ".join(
                    f"{size[0]} x {size[1]}: {with_quartiles(percent, to_dense(times, size))}"
                    for size in reversed(BATCHES.values())
                )
                if times
                else NONE,
            )
        )
    columns = (
        "method", f"{task}, accuracy, %", "after the cut (and repair), validation rows", "MACs left", "heads",
        "neurons", "parameters", "to the cut model", "training memory", "step", "forward pass, of dense",
    )  # fmt: skip
    sizes = peers.of(task, LORA)[0]["data"]["rows"]
    about = [", ".join(f"{count(number)} {split} rows" for split, number in sizes.items()), TASKS[task].note]
    intro = f"{'; '.join(filter(None, about))}. Timed on {where([timing])}."
    return f"## {task}: every method\n\n{intro}\n\n{markdown(columns, rows)}"


def fractions(records: Sequence[Record]) -> str:
    """Fraction of the dense model's MACs; smallest and largest if they differ."""
    low, high = (f"{end(one['macs'] / one['dense_macs'] for one in records):.3f}" for end in (min, max))
    return low if low == high else f"{low} to {high}"


def median(values: Iterable[float | None], text: Callable[[float], str]) -> str:
    known = [value for value in values if value is not None]
    return text(statistics.median(known)) if known else NONE
