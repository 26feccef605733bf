"""Quality against measured latency at six budgets, on the embedded example."""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.harness import FOLDER, RUNS, Benchmark, Option, Piece

RESULTS = FOLDER / "tradeoff" / "results"
COMMAND = (
    "prunelora compare --model minilm --data rotten-tomatoes --methods lora,tune-first "
    "--keep-macs 1,0.75,0.5,0.35,0.25,0.15 --factors 1 --epochs 1"
)


def work(settings: argparse.Namespace) -> Iterator[Piece]:
    if settings.again or not (RESULTS / "comparison.json").exists():
        seeds = ",".join(map(str, settings.seeds))
        yield Piece(f"{COMMAND} --seeds {seeds}", lambda: run(seeds))


def run(seeds: str) -> None:
    words = [*COMMAND.split()[1:], "--seeds", seeds, "--out", str(RUNS / "tradeoff")]
    subprocess.run([sys.executable, "-m", "prunelora.cli.main", *words], check=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(RUNS / "tradeoff" / "comparison.json", RESULTS / "comparison.json")


def write_report(folder: Path = RESULTS) -> list[Path]:
    """Write report.md, comparison.csv and the figures (PNG) from comparison.json."""
    from prunelora.comparison.page import write_comparison
    from prunelora.comparison.results import load_comparison

    write_comparison(load_comparison(folder / "comparison.json"), folder)
    (folder / "report.html").unlink()
    for path in (folder / "figures").glob("*.svg"):
        path.unlink()
    return [folder / "report.md"]


BENCHMARK = Benchmark(
    measures=__doc__,
    work=work,
    pages=write_report,
    options={"seeds": Option((0, 1, 2), "seeds, joined by commas")},
)
