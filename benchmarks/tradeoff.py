"""What speed costs: quality at six budgets against measured latency, over three seeds, on the embedded example.

python -m benchmarks.tradeoff [--seeds 0,1,2] [--page-only]

It runs `COMMAND` in runs/tradeoff, where what is finished is not repeated, and puts what that found into
benchmarks/results/tradeoff: comparison.json with every training, and made from it report.md, comparison.csv and the
figures.
"""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RUNS = ROOT / "runs" / "tradeoff"
RESULTS = Path(__file__).resolve().parent / "results" / "tradeoff"
RESULT = "comparison.json"
COMMAND = (
    "prunelora compare --model minilm --data rotten-tomatoes --methods lora,tune-first "
    "--keep-macs 1,0.75,0.5,0.35,0.25,0.15 --factors 1 --epochs 1"
)


def main(typed: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tradeoff", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="0,1,2", help="seeds, joined by commas")
    parser.add_argument("--page-only", action="store_true", help="only make the report from comparison.json")
    arguments = parser.parse_args(typed)
    if not arguments.page_only:
        words = [*COMMAND.split()[1:], "--seeds", arguments.seeds, "--out", str(RUNS)]
        code = subprocess.run([sys.executable, "-m", "prunelora.cli.main", *words], check=False).returncode
        if code:
            return code
        RESULTS.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(RUNS / RESULT, RESULTS / RESULT)
    write_report(RESULTS)
    print(RESULTS / "report.md")
    return 0


def write_report(folder: Path) -> None:
    """Make report.md, comparison.csv and the figures from comparison.json; pictures as PNG alone."""
    from prunelora.comparison.page import write_comparison
    from prunelora.comparison.results import load_comparison

    write_comparison(load_comparison(folder / RESULT), folder)
    (folder / "report.html").unlink()
    for path in (folder / "figures").glob("*.svg"):
        path.unlink()


if __name__ == "__main__":
    sys.exit(main())
