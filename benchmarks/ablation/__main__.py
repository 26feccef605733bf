"""Train what is missing, and make the page.

python -m benchmarks.ablation [--tasks sst2,rte] [--groups bases,repair] [--variants tune-first] [--seeds 0,1,2]
python -m benchmarks.ablation --page-only

Every variant of variants.py is trained on two tasks with seed 0. On all tasks with all seeds come the references, both
ways to walk, and those variants that came out best on the validation rows; the same are trained at a smaller share of
the MACs too. `--every-seed` trains all variants on all tasks with all seeds. Full fine-tuning and LoRA on attention
alone are not trained here: benchmarks.glue has them, under the same settings, and its results are taken over.

Trainings lie in runs/ablation (TASK/GROUP; whatever is finished there is not repeated, and what several begin with is
done once). Results lie in benchmarks/ablation/results, TASK-GROUP.json; a training that has its row there is not run
again, also where its run folder is gone. A variant that is changed in variants.py, or in its recipe, is new.
"""

import argparse
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from benchmarks.ablation.places import Places
from benchmarks.ablation.variants import EVERYTHING, GROUPS, SEEDS, TASKS, Variant
from benchmarks.tasks import GLUE, NO_GLUE

ROOT = Path(__file__).resolve().parents[2]
RUNS = ROOT / "runs" / "ablation"
PEERS = RUNS.parent / "peers"
RESULTS = Path(__file__).resolve().parent / "results"
GLUE_RESULTS = RESULTS.parents[1] / "glue" / "results"
PAGE = ROOT / "docs" / "ablation.md"
PLACES = Places(data=GLUE, runs=RUNS, results=RESULTS, glue=GLUE_RESULTS, peers=PEERS)
ALL_GROUPS = (*GROUPS, "tight")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablation", description="The ablation.")
    parser.add_argument("--tasks", default=",".join(TASKS), help="tasks, joined by commas")
    parser.add_argument("--groups", default=",".join(ALL_GROUPS), help="groups of variants, joined by commas")
    parser.add_argument("--variants", help="variants, joined by commas; all of the groups if not given")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)), help="seeds, joined by commas")
    parser.add_argument("--every-seed", action="store_true", help="all variants with all seeds, not the best alone")
    parser.add_argument("--page-only", action="store_true", help="only make the page from the results")
    asked = parser.parse_args(arguments)
    tasks, groups, seeds = asked.tasks.split(","), asked.groups.split(","), asked.seeds.split(",")
    names = asked.variants.split(",") if asked.variants else list(EVERYTHING)
    for given, known in ((tasks, TASKS), (groups, ALL_GROUPS), (names, EVERYTHING), (seeds, tuple(map(str, SEEDS)))):
        unknown = [one for one in given if one not in known]
        if unknown:
            parser.error(f"{unknown[0]} is not known; there are {', '.join(known)}")
    if not asked.page_only:
        if not GLUE.is_dir():
            print(NO_GLUE, file=sys.stderr)
            return 1
        _run(tasks, groups, [int(seed) for seed in seeds], every_seed=asked.every_seed, names=names)
    from benchmarks.ablation.page import write_page

    print(write_page(RESULTS, PAGE, GLUE_RESULTS))
    return 0


def _run(
    tasks: Sequence[str], groups: Sequence[str], seeds: Sequence[int], *, every_seed: bool, names: Collection[str]
) -> None:
    from benchmarks.ablation.results import finalists, read_all
    from benchmarks.ablation.running import run_group

    def best() -> list[Variant]:
        return finalists(read_all(RESULTS))

    for seed, group, task, variants in schedule(tasks, groups, seeds, best, every_seed=every_seed):
        title = f"{task}, {group}, seed {seed}"
        some = [variant for variant in variants if variant.name in names]
        run_group(PLACES, task, group, some, seed, lambda line, title=title: print(f"{title}: {line}", flush=True))


def schedule(
    tasks: Sequence[str],
    groups: Sequence[str],
    seeds: Sequence[int],
    best: Callable[[], list[Variant]],
    *,
    every_seed: bool = False,
) -> Iterator[tuple[int, str, str, list[Variant]]]:
    """Seed, group, task and variants, in order: one seed of everything before the next, then as the groups stand.

    What a group is held against comes before it, asked for or not. `best` is asked when it is needed: what came out
    best may be known by then only.
    """
    from benchmarks.ablation.results import members

    ordered = [group for group in ALL_GROUPS if group in groups]
    if any(group not in ("references", "bases") for group in ordered) and "bases" not in ordered:
        ordered = sorted([*ordered, "bases"], key=ALL_GROUPS.index)
    for seed in seeds:
        for group in ordered:
            for task in tasks:
                every = every_seed and group in GROUPS
                variants = list(GROUPS[group]) if every else members(group, best(), task=task, seed=seed)
                if variants:
                    yield seed, group, task, variants


if __name__ == "__main__":
    sys.exit(main())
