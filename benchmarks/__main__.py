"""Runs one benchmark: does the work that has no result yet, then writes its pages.

python -m benchmarks NAME [--list] [--again] [--page-only] [the benchmark's own options]
"""

import argparse
import importlib
import importlib.util
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.harness import Benchmark, Option, Piece, as_typed
from benchmarks.tasks import GLUE, NO_GLUE

FOLDER = Path(__file__).resolve().parent


def main(typed: Sequence[str] | None = None) -> int:
    typed = list(sys.argv[1:] if typed is None else typed)
    names = sorted(path.parent.name for path in FOLDER.glob("*/benchmark.py"))
    if not typed or typed[0] not in names:
        print(f"usage: python -m benchmarks NAME, where NAME is one of: {', '.join(names)}", file=sys.stderr)
        return 2
    benchmark: Benchmark = importlib.import_module(f"benchmarks.{typed[0]}.benchmark").BENCHMARK
    settings = parse(typed[0], benchmark, typed[1:])
    if settings.alone:
        print(json.dumps(benchmark.alone(settings, settings.alone)))
        return 0
    failed = False
    if not settings.page_only:
        problem = missing_requirement(benchmark)
        if problem and not settings.list:
            print(problem, file=sys.stderr)
            return 1
        failed = run(benchmark.work(settings), only_list=settings.list)
    if not settings.list:
        for path in benchmark.pages():
            print(path)
    return int(failed)


def run(pieces: Iterable[Piece], *, only_list: bool) -> bool:
    """Run the pieces; one that ends in an error of the library does not stop the others.

    Returns:
        Whether any ended in an error.
    """
    from prunelora.errors import PruneLoraError

    failed = False
    for piece in pieces:
        print(piece.title, flush=True)
        try:
            if not only_list:
                piece.run()
        except PruneLoraError as error:
            failed = True
            print(f"{piece.title}: failed: {error}", file=sys.stderr)
    return failed


def parse(name: str, benchmark: Benchmark, typed: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks {name}", description=benchmark.measures)
    parser.add_argument("--list", action="store_true", help="only list the work that has no result yet")
    parser.add_argument("--again", action="store_true", help="repeat measurements that have a result")
    parser.add_argument("--page-only", action="store_true", help="only write the pages from the results")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    for option_name, option in benchmark.options.items():
        parser.add_argument(
            f"--{option_name.replace('_', '-')}",
            type=reader_of(option),
            default=option.default,
            help=f"{option.help} (default: {as_typed(option.default)})",
        )
    return parser.parse_args(typed)


def reader_of(option: Option):
    kind = type(option.default[0] if isinstance(option.default, tuple) else option.default)

    def read(text: str):
        values = tuple(kind(part) for part in text.split(","))
        for value in values:
            if option.choices and value not in option.choices:
                raise argparse.ArgumentTypeError(f"{value!r} is not one of {', '.join(map(str, option.choices))}")
        return values if isinstance(option.default, tuple) else kind(text)

    return read


def missing_requirement(benchmark: Benchmark) -> str | None:
    if benchmark.needs_glue and not GLUE.is_dir():
        return NO_GLUE
    if any(importlib.util.find_spec(package) is None for package in benchmark.packages):
        return f'Missing: {", ".join(benchmark.packages)}. Run: pip install -c constraints.txt -e ".[bench]"'
    return None


if __name__ == "__main__":
    sys.exit(main())
