"""Time to `--help`, to every kind of early error, and to the first training step, beside the imports alone."""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks import harness

IMPORTS, HELP, STEP = "imports alone", "--help", "first training step"
# Arguments of `prunelora` that end in an error, in a folder that `files` fills. The error names
# the last word.
ERRORS = {
    "missing file": "run --out run --data missing.csv",
    "wrong suffix": "run --out run --data reviews.docx",
    "unknown option": "run --out run --keep-hedas",
    "missing model folder": "run --out run --data reviews.csv --model ./nomodel",
    "bad recipe": "run --out run --recipe bad.yaml",
    "wrong column": "run --out run --data reviews.csv --label nocolumn",
}
# The process ends at the end of the first step; the run would import transformers a moment later anyway.
FIRST_STEP = """
import os, sys, transformers
step = transformers.Trainer.training_step
def first(*arguments, **options):
    step(*arguments, **options)
    os._exit(0)
transformers.Trainer.training_step = first
sys.argv = ["prunelora", "run", "--out", "run"]
from prunelora.cli.main import main
main()
"""


def commands() -> dict[str, list[str]]:
    prunelora = [sys.executable, "-m", "prunelora.cli.main"]
    return {
        IMPORTS: [sys.executable, "-c", "import torch, transformers, peft, datasets"],
        HELP: [*prunelora, "--help"],
        **{name: [*prunelora, *arguments.split()] for name, arguments in ERRORS.items()},
        STEP: [sys.executable, "-c", FIRST_STEP],
    }


def work(settings: argparse.Namespace) -> Iterator[harness.Piece]:
    return harness.measurement("startup", "startup", settings, lambda: measure(settings.repeats))


def measure(repeats: int) -> dict[str, Any]:
    """Every command in a process and a folder of its own, all in turn."""
    from prunelora.evaluation.timing import interleaved, ratio

    timings = interleaved({name: call(name, words) for name, words in commands().items()}, warmup=1, repeats=repeats)
    return {
        "model": "minilm",
        "commands": {
            name: {
                "time": timing.to_dict(),
                "time_to_imports": vars(ratio(timing, timings[IMPORTS])),
                "time_to_help": vars(ratio(timing, timings[HELP])),
            }
            for name, timing in timings.items()
        },
    }


def call(name: str, words: list[str]) -> Callable[[], None]:
    """Runs a command once; raises if its exit code or its error is not the expected one."""

    def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            for file, text in files().items():
                (Path(folder) / file).write_text(text, encoding="utf-8")
            done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
        wanted = ERRORS.get(name, "").split(" ")[-1]
        if bool(done.returncode) != (name in ERRORS) or wanted not in done.stderr or "Traceback" in done.stderr:
            raise RuntimeError(f"{name}: exit code {done.returncode}\n{done.stderr[-2000:]}")

    return run


def files() -> Mapping[str, str]:
    rows = "".join(f"a {word} film number {index},{word}\n" for index in range(100) for word in ("good", "bad"))
    return {"reviews.csv": f"text,label\n{rows}", "reviews.docx": "", "bad.yaml": "stages: [{stage: finetun}]\n"}


def pages() -> list[Path]:
    result = harness.read_results("startup")["startup"]
    rows = [
        (
            name,
            f"prunelora {ERRORS.get(name, '--help')}" if name not in (IMPORTS, STEP) else "",
            harness.spread_text(one["time"], seconds=True),
            harness.spread_text(one["time_to_help"]),
            harness.spread_text(one["time_to_imports"]),
        )
        for name, one in result["commands"].items()
    ]
    table = harness.markdown(("case", "command", "time", "of --help", "of the imports"), rows)
    return [harness.write_page("startup", harness.texts_of(result) | {"table": table})]


BENCHMARK = harness.Benchmark(
    measures=__doc__,
    work=work,
    pages=pages,
    options={"repeats": harness.Option(5, "timed rounds, after one round that is not timed")},
)
