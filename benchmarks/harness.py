"""Shared parts of all benchmarks: their description, fresh processes, peak memory, result files and pages."""

import argparse
import gc
import json
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent
RUNS = ROOT / "runs"
RUNNERS = ("alone", "again", "list", "page_only")  # Settings of the runner.


@dataclass(frozen=True)
class Option:
    """An option of a benchmark; a tuple as default makes it a list joined by commas.

    Attributes:
        choices: Allowed values; any if empty.
    """

    default: Any
    help: str
    choices: Sequence[Any] = ()


@dataclass(frozen=True)
class Piece:
    """A part of a benchmark's work, with a result of its own."""

    title: str
    run: Callable[[], object]


@dataclass(frozen=True)
class Benchmark:
    """A benchmark, as `python -m benchmarks NAME` runs it.

    Attributes:
        measures: One sentence.
        work: Yields the pieces that have no result yet; each is run before the next is asked for.
        pages: Writes the pages from the results alone and returns their paths.
        options: By name.
        alone: Returns one measurement made in the present process, as JSON; see `in_fresh_process`.
        needs_glue: Whether it reads GLUE.
        packages: Modules of the extra `bench` that it imports.
    """

    measures: str
    work: Callable[[argparse.Namespace], Iterable[Piece]]
    pages: Callable[[], list[Path]]
    options: Mapping[str, Option] = field(default_factory=dict)
    alone: Callable[[argparse.Namespace, str], Any] = lambda *_: None
    needs_glue: bool = False
    packages: tuple[str, ...] = ()


# Results --------------------------------------------------------------------------------------------------------------


def read_results(name: str) -> dict[str, Any]:
    """A benchmark's result files by their names without suffix."""
    paths = sorted((FOLDER / name / "results").glob("*.json"))
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths}


def measurement(
    name: str, file: str, settings: argparse.Namespace, measure: Callable[[], dict[str, Any]]
) -> Iterator[Piece]:
    """A piece that writes results/FILE.json with the settings and the machine; nothing if the file is there."""
    path = FOLDER / name / "results" / f"{file}.json"

    def run() -> None:
        from prunelora.evaluation.machine import describe_machine
        from prunelora.models.device import best_device
        from prunelora.storage import write_json

        content = {"benchmark": name, "settings": own_settings(settings), **measure()}
        write_json(path, content | {"machine": describe_machine(best_device())})

    if settings.again or not path.exists():
        yield Piece(f"{name}: {file}", run)


def as_typed(value: object) -> str:
    """A setting as the command line takes it."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def own_settings(settings: argparse.Namespace) -> dict[str, Any]:
    """The settings without the runner's."""
    return {name: value for name, value in vars(settings).items() if name not in RUNNERS}


# Measuring ------------------------------------------------------------------------------------------------------------


def in_fresh_process(
    name: str, settings: argparse.Namespace, what: str, environment: Mapping[str, str] | None = None
) -> Any:
    """Result of a benchmark's `alone` in a process of its own, which holds nothing of another measurement.

    Args:
        name: The benchmark.
        settings: Its settings.
        what: The measurement.
        environment: Variables in addition to those of this process.
    """
    command = [sys.executable, "-m", "benchmarks", name, "--alone", what]
    for option, value in own_settings(settings).items():
        command += [f"--{option.replace('_', '-')}", as_typed(value)]
    variables = os.environ | dict(environment or {})
    done = subprocess.run(command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def peak_memory(call: Callable[[], object]) -> int:
    """Highest number of resident bytes during a call, above those before it."""
    gc.collect()
    clear_refs = Path("/proc/self/clear_refs")
    if clear_refs.exists():  # Linux resets its high-water mark; elsewhere the peak of loading stays.
        clear_refs.write_text("5", encoding="ascii")
    resident = _resident_bytes("VmRSS")
    call()
    return max(0, _resident_bytes("VmHWM") - resident)


def _resident_bytes(field_name: str) -> int:
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would start from the peak of the parent process.
        lines = status.read_text(encoding="ascii").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith(f"{field_name}:")).split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


# Variants -------------------------------------------------------------------------------------------------------------


def variants_benchmark(
    name: str,
    measures: str,
    prepare: Callable[[argparse.Namespace, Sequence[str]], dict[str, Callable[[], Any]]],
    references: Callable[[argparse.Namespace], Mapping[str, str]],
    options: Mapping[str, Option],
    *,
    warmup: int,
    memory_calls: int = 1,
    environments: Mapping[str, Mapping[str, str]] | None = None,
    facts: Callable[[argparse.Namespace, Mapping[str, Callable[[], Any]]], dict[str, Any]] = lambda *_: {},
    aims: Mapping[str, str] | None = None,
) -> Benchmark:
    """A benchmark of the time and peak memory of variants; its result is NAME.json.

    Args:
        name: Its folder.
        measures: One sentence.
        prepare: Returns some variants as callables.
        references: For every variant, the variant that its time is divided by.
        options: With "repeats", the number of timed rounds.
        warmup: Rounds that are not timed.
        memory_calls: Calls over which the peak memory is taken.
        environments: Variables of the processes that measure memory, by name.
        facts: Further facts for the result, from the settings and the callables.
        aims: What the ratio should be, by variant.
    """

    def measure(settings: argparse.Namespace) -> dict[str, Any]:
        from prunelora.evaluation.timing import interleaved, ratio

        compared = references(settings)
        peaks = {  # In fresh processes, which hold nothing of another variant.
            variant: {
                label: in_fresh_process(name, settings, variant, variables)
                for label, variables in (environments or {"": {}}).items()
            }
            for variant in compared
        }
        calls = prepare(settings, list(compared))
        timings = interleaved(calls, warmup=warmup, repeats=settings.repeats)
        variants = {
            variant: {
                "peak_bytes_above_loaded_model": peaks[variant],
                "time": timings[variant].to_dict(),
                "reference": reference,
                "time_to_reference": vars(ratio(timings[variant], timings[reference])),
            }
            for variant, reference in compared.items()
        }
        return {"model": "minilm", "variants": variants, **facts(settings, calls)}

    def alone(settings: argparse.Namespace, variant: str) -> int:
        call = prepare(settings, [variant])[variant]
        return peak_memory(lambda: [call() for _ in range(memory_calls)])

    def pages() -> list[Path]:
        result = read_results(name)[name]
        return [write_page(name, texts_of(result) | {"table": variants_table(result, aims or {})})]

    return Benchmark(
        measures=measures,
        work=lambda settings: measurement(name, name, settings, lambda: measure(settings)),
        pages=pages,
        options=options,
        alone=alone,
    )


def variants_table(result: Mapping[str, Any], aims: Mapping[str, str]) -> str:
    counted = result.get("counted_bytes", {})
    labels = list(next(iter(result["variants"].values()))["peak_bytes_above_loaded_model"])
    columns = [
        "variant",
        *(["counted"] if counted else []),
        *(f"peak memory{label and f', {label}'}" for label in labels),
    ]
    rows = []
    for variant, one in result["variants"].items():
        known = counted.get(variant)
        peaks = [one["peak_bytes_above_loaded_model"][label] for label in labels]
        rows.append(
            (
                variant,
                *([megabytes(known) if known else "not counted"] if counted else []),
                *map(megabytes, peaks),
                spread_text(one["time"], seconds=True),
                f"{spread_text(one['time_to_reference'])} of {one['reference']}",
                *([aims.get(variant, "")] if aims else []),
            )
        )
    return markdown((*columns, "time", "ratio", *(["aim"] if aims else [])), rows)


# Pages ----------------------------------------------------------------------------------------------------------------


def write_page(name: str, texts: Mapping[str, str], path: Path | None = None) -> Path:
    """Fill the placeholders ($NAME) of a benchmark's page.md; into RESULTS.md beside it if no path is given."""
    from prunelora.storage import write_text

    template = Template((FOLDER / name / "page.md").read_text(encoding="utf-8"))
    path = path or FOLDER / name / "RESULTS.md"
    write_text(path, template.substitute(texts))
    return path


def texts_of(result: Mapping[str, Any]) -> dict[str, str]:
    """Placeholders of the settings and the facts of a result, and "where" for its machine."""

    def text(value: Any) -> str:
        if isinstance(value, list | dict):
            return ", ".join(text(one) for one in (value.values() if isinstance(value, dict) else value))
        return f"{value:,}" if isinstance(value, int) else f"{value:.2g}" if isinstance(value, float) else str(value)

    return {name: text(value) for name, value in {**result["settings"], **result}.items()} | {"where": where([result])}


def where(results: Iterable[Mapping[str, Any]]) -> str:
    """The machines and the versions of torch that results were made with."""
    machines = [result["machine"] for result in results]
    names = {f"{one['cpu']}, {one['threads']} threads, torch {one['versions']['torch']}" for one in machines}
    return "; ".join(sorted(names))


def megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    from prunelora.report.table import Table

    return Table(tuple(columns), tuple(map(tuple, rows))).to_markdown()


def estimate_text(shares: Sequence[float]) -> str:
    """Mean and standard deviation over seeds, in per cent: "87.7 ± 0.4"; of one seed "87.7 (1 seed)"."""
    from prunelora.report.numbers import NONE, estimate

    deviation = statistics.stdev(shares) if len(shares) > 1 else None
    return estimate("accuracy", statistics.fmean(shares), deviation) if shares else NONE


def spread_text(spread: Mapping[str, float], *, seconds: bool = False) -> str:
    """Median and quartiles of a ratio, or of a timing in seconds: "0.52 (0.51-0.54)", with an en dash."""
    from prunelora.evaluation.timing import Spread
    from prunelora.report.numbers import decimal, with_quartiles

    def show(value: float) -> str:
        return f"{decimal(value / 1000, 2)} s" if seconds else decimal(value, 2)

    return with_quartiles(show, Spread.read(spread))
