"""Several methods on one model, one task, the same splits and seeds; each with the same budget for its learning rate.

learning rates on the first seed -> the best on validation rows -> the other seeds -> timing, in turn -> one table
"""

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from prunelora.comparison.budgets import load_methods_at, tried_on
from prunelora.comparison.collecting import Found, collect, key_of
from prunelora.comparison.methods import METHODS, Method
from prunelora.comparison.page import write_comparison
from prunelora.comparison.results import ComparisonResults, load_comparison
from prunelora.comparison.timing import MethodTiming, TimingSettings, time_methods
from prunelora.comparison.trials import Trial, run_trial, run_trial_in_worker, trial_of
from prunelora.data.load import load_task
from prunelora.data.task import TaskData
from prunelora.errors import DivergenceError, RecipeError, option
from prunelora.progress import bars
from prunelora.run.recipe import Recipe

RESULTS = "comparison.json"
FACTORS = (1.0, 3.0)
SEEDS = (0, 1, 2)
# What timing adds to a method's facts.
_OF_TIMING = ("step_ms", "step_to_full", "step_to_lora", "latencies")

Tell = Callable[[str], None]


@dataclass
class _Progress:
    """Trials done, the current one, and the time that the rest may take."""

    total: int
    tell: Tell
    done: int = 0
    seconds: list[float] = field(default_factory=list)  # Of the trials that were trained this time.

    def starts(self, trial: Trial) -> None:
        self.tell(f"trial {self.done + 1} of {self.total}: {trial}{self.left()}")

    def ended(self, seconds: float | None) -> None:
        """A trial is done; `seconds` is None where it was done before."""
        self.done += 1
        if seconds is not None:
            self.seconds.append(seconds)

    def left(self) -> str:
        if not self.seconds:
            return ""
        minutes = statistics.fmean(self.seconds) * (self.total - self.done) / 60
        return f" (about {max(1, round(minutes))} min left)"


def compare(
    *,
    base: Recipe,
    out: Path | str,
    methods: Sequence[str] = METHODS,
    seeds: Sequence[int] = SEEDS,
    factors: Sequence[float] = FACTORS,
    changes: Mapping[str, Any] | None = None,
    keep_macs: Sequence[float] = (),
    timing: bool = True,
    timing_settings: TimingSettings | None = None,
    share_with: Sequence[Path | str] = (),
    jobs: int = 1,
    tell: Tell | None = None,
    progress: bool = True,
) -> ComparisonResults:
    """Train every method on every seed, time them in turn, and write one table of all of it.

    Every training is a run folder of its own under `out`; a comparison that was stopped goes on, and what is finished
    under the same settings is not repeated. Every method gets the same number of tried for its learning rate: on the
    first seed it is trained with each of them, and the best on the validation rows is used for the other seeds. The
    reported rows have no part in it. A learning rate at which the training diverges is shown as such and not chosen.

    With several budgets (`keep_macs`) every method that has a plan is trained at each of them, to see what speed costs.
    Its learning rate is tried at one budget, the nearest to a half, and used for the others.

    Stages that several trainings begin with, the same in all that they depend on, are done once. Every training's
    record has the seconds that they took, so times are those of each method alone.

    Args:
        base: Gives the model and the task; its stages and seed are not used.
        out: Folder for everything.
        methods: Packaged ones by name, a person's own as paths of recipe files.
        seeds: Of the runs; the first is the one that learning rates are tried on.
        factors: Learning rates to try, as multiples of each recipe's own.
        changes: Settings for every method that has them, by bare name or as "stage.setting".
        keep_macs: Budgets for every method that has a plan, as fractions of the dense model's MACs; its recipe's own if
            empty.
        timing: Time training steps and forward passes after the trainings. Without it a timing that an earlier call
            made of the same models is kept.
        timing_settings: How to.
        share_with: Folders of other comparisons whose trainings' first stages may be used too.
        jobs: Processes that train at the same time, each with its share of the cores.
        tell: Called with a line for every trial and stage.
        progress: Show progress bars.

    Returns:
        ComparisonResults, which are also written to `out` as comparison.json, .csv, report.md and report.html.

    Raises:
        DivergenceError: If a method diverges at every learning rate, or at the chosen one with another seed or budget.
        PruneLoraError: Of the kind that fits. Finished trials stay.
    """
    _check(seeds, factors, jobs)
    tell = tell or (lambda _: None)
    chosen = load_methods_at(keep_macs, methods, base=base, changes=changes)
    tuned = tried_on(chosen)
    task = load_task(base.task)
    out = Path(out)
    train = partial(_run, task=task, share_with=(out, *map(Path, share_with)), jobs=jobs, progress=progress)
    with _locked(out):
        for note in task.notes:
            tell(note)
        tried = {
            method.name: [trial_of(method, rate, seeds[0], out=out) for rate in method.learning_rates(factors)]
            for method in chosen
            if method is tuned[method.name]
        }
        counted = sum(map(len, tried.values())) + len(chosen) * len(seeds) - len(tried)
        counter = _Progress(counted, tell)
        diverged: list[Trial] = []
        found = train([trial for trials in tried.values() for trial in trials], counter, diverged=diverged)
        best = {name: _best(name, trials, found, task.metrics[0]) for name, trials in tried.items()}
        rates = {method.name: best[tuned[method.name].name] for method in chosen}
        budgets = [
            trial_of(method, rates[method.name], seeds[0], out=out) for method in chosen if method.name not in tried
        ]
        found |= train(budgets, counter)
        rest = [trial_of(method, rates[method.name], seed, out=out) for seed in seeds[1:] for method in chosen]
        missing = tuple(str(trial) for trial in rest if trial.facts() is None)
        collected = partial(
            collect, base, chosen, task, out,
            rates=rates, tried_on=tuned, found=found, diverged=diverged, commands=bool(keep_macs),
        )  # fmt: skip
        if missing:
            # An early look, which stays if the rest is stopped.
            _write(_with_old(collected(seeds=seeds[:1], missing=missing), out), out)
        found |= train(rest, counter)
        untimed = collected(seeds=seeds)
        results = _with_old(untimed, out)
        _write(results, out)  # Before any timing: one that fails loses nothing.
        if timing:
            with bars(progress):
                results = _with_timing(untimed, chosen, task, out, tell, timing_settings)
            _write(results, out)
    return results


def _write(results: ComparisonResults, out: Path) -> None:
    results.save(out / RESULTS)
    write_comparison(results, out)


def planned_trials(
    *,
    base: Recipe,
    out: Path | str,
    methods: Sequence[str] = METHODS,
    seeds: Sequence[int] = SEEDS,
    factors: Sequence[float] = FACTORS,
    changes: Mapping[str, Any] | None = None,
    keep_macs: Sequence[float] = (),
) -> list[str]:
    """What `compare` would train: a line a trial, saying which are done."""
    _check(seeds, factors, jobs=1)
    chosen = load_methods_at(keep_macs, methods, base=base, changes=changes)
    tuned = tried_on(chosen)
    lines = []
    for method in chosen:
        tried = tuned[method.name]
        if method is not tried:
            lines += [f"{method.name}, the learning rate of {tried.name}, seed {seed}" for seed in seeds]
            continue
        for rate in method.learning_rates(factors):
            trial = trial_of(method, rate, seeds[0], out=Path(out))
            lines.append(f"{trial}{' (done)' if trial.facts() else ''}")
        lines += [f"{method.name}, the best of these, seed {seed}" for seed in seeds[1:]]
    return lines


def _check(seeds: Sequence[int], factors: Sequence[float], jobs: int) -> None:
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise RecipeError(f"{option('seeds', list(seeds))}: expected one or more different numbers from 0 on.")
    if not factors or min(factors) <= 0:
        raise RecipeError(f"{option('factors', list(factors))}: expected one or more numbers above 0.")
    if jobs < 1:
        raise RecipeError(f"{option('jobs', jobs)}: expected 1 or more processes.")


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Keep a second comparison out of the folder."""
    if out.is_file():
        raise RecipeError(f"{out} is a file. Give a folder for the comparison.")
    if out.is_dir() and any(out.iterdir()) and not (out / "trials").is_dir():
        raise RecipeError(f"{out} is not empty and holds no comparison; it is left as it is. Give another folder.")
    (out / "trials").mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / ".lock", blocking=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise RecipeError(f"{out}: another comparison works there. Wait for it, or stop it.") from error
    try:
        yield
    finally:
        lock.release()


def _run(
    trials: Sequence[Trial],
    counter: _Progress,
    *,
    task: TaskData,
    share_with: Sequence[Path],
    jobs: int,
    progress: bool,
    diverged: list[Trial] | None = None,
) -> Found:
    """Train trials; those that diverge are added to `diverged`, or are an error where there is no such list."""
    if jobs > 1:
        return _run_at_once(trials, counter, share_with, jobs, diverged)
    found: Found = {}
    for trial in trials:
        counter.starts(trial)
        started, done = time.perf_counter(), trial.facts() is not None
        with _may_diverge(trial, counter, diverged):
            found[key_of(trial)] = run_trial(trial, task, share_with=share_with, progress=progress)
            counter.ended(None if done else time.perf_counter() - started)
    return found


@contextlib.contextmanager
def _may_diverge(trial: Trial, counter: _Progress, diverged: list[Trial] | None) -> Iterator[None]:
    try:
        yield
    except DivergenceError as error:
        if diverged is None:
            raise DivergenceError(
                f"{trial}: {error} Finished trainings stay: give lower {option('factors')} and the same folder."
            ) from error
        diverged.append(trial)
        counter.ended(None)
        counter.tell(f"{trial}: diverged, and is not chosen. {error}")


def _run_at_once(
    trials: Sequence[Trial],
    counter: _Progress,
    share_with: Sequence[Path],
    jobs: int,
    diverged: list[Trial] | None = None,
) -> Found:
    threads = max(1, torch.get_num_threads() // jobs)
    found: Found = {}
    with _workers(jobs) as pool:
        running = {pool.submit(run_trial_in_worker, trial, threads, share_with): trial for trial in trials}
        for future in as_completed(running):
            trial = running[future]
            with _may_diverge(trial, counter, diverged):
                found[key_of(trial)] = future.result()
                counter.ended(sum(found[key_of(trial)].seconds.values()) / jobs)
                counter.tell(f"trial {counter.done} of {counter.total} done: {trial}{counter.left()}")
    return found


@contextlib.contextmanager
def _workers(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Processes to train in; whatever ends the block early, Ctrl-C too, stops them where they are.

    A pool by itself would first finish all that it was given: hours, and the machine busy, before the error is told.
    """
    others = set(active_children())
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))
    try:
        yield pool
    except BaseException:
        for process in set(active_children()) - others:
            process.terminate()
        pool.shutdown(cancel_futures=True)  # Waits for their end: none writes any more when the error is told.
        raise
    pool.shutdown()


def _best(name: str, trials: Sequence[Trial], found: Found, metric: str) -> float:
    """The learning rate that did best on the validation rows: highest metric; of equals the smaller loss.

    Raises:
        DivergenceError: If the method's training diverged at all of them.
    """
    finished = [trial for trial in trials if key_of(trial) in found]
    if not finished:
        rates = ", ".join(f"{trial.learning_rate:g}" for trial in trials)
        raise DivergenceError(
            f"{name}: its training diverges at every learning rate that was tried ({rates}). Finished trainings of "
            f"other methods stay: give lower {option('factors')} and the same folder."
        )

    def merit(trial: Trial) -> tuple[float, float]:
        validation = found[key_of(trial)].validation
        return validation[metric], -validation["loss"]

    return max(finished, key=merit).learning_rate


def _with_timing(
    results: ComparisonResults,
    methods: Sequence[Method],
    task: TaskData,
    out: Path,
    tell: Tell,
    settings: TimingSettings | None,
) -> ComparisonResults:
    tell("timing training steps and forward passes of all methods, in turn ...")
    settings = settings or TimingSettings()
    facts = {one.name: one for one in results.methods}
    trials = {
        method.name: trial_of(method, facts[method.name].learning_rate, results.seeds[0], out=out) for method in methods
    }
    timings = time_methods(trials, task, settings=settings)
    step_rows = next(iter(timings.values())).step_rows
    return _timed(results, timings, {**vars(settings), "step_rows": step_rows})


def _timed(
    results: ComparisonResults, timings: Mapping[str, MethodTiming], settings: Mapping[str, Any]
) -> ComparisonResults:
    methods = tuple(
        one.model_copy(
            update={
                "step_ms": timings[one.name].step.median_ms,
                "step_to_full": timings[one.name].step_to_full,
                "step_to_lora": timings[one.name].step_to_lora,
                "latencies": timings[one.name].latencies,
            }
        )
        for one in results.methods
    )
    return results.model_copy(update={"methods": methods, "timing": dict(settings)})


def _timed_of(results: ComparisonResults) -> list[tuple[Any, ...]]:
    """What times depend on, a method: its sizes, and the recipe and the plan of the trial that was timed."""
    timed = {(trial.method, trial.learning_rate): trial for trial in results.trials if trial.seed == results.seeds[0]}
    return [
        (
            *(results.model, one.name, one.parameters, one.trained, one.heads, one.neurons),
            # The seed says nothing about time; settings that change costs alone do.
            {name: value for name, value in trial.recipe.items() if name != "seed"},
            trial.plan_id,
        )
        for one in results.methods
        for trial in [timed[one.name, one.learning_rate]]
    ]


def _with_old(results: ComparisonResults, out: Path) -> ComparisonResults:
    """Keep an earlier timing where it was of the same methods with the same models, trained in the same way."""
    try:
        before = load_comparison(out / RESULTS)
    except RecipeError:
        return results

    if before.timing is None or _timed_of(before) != _timed_of(results):
        return results
    methods = tuple(
        now.model_copy(update={name: getattr(old, name) for name in _OF_TIMING})
        for now, old in zip(results.methods, before.methods, strict=True)
    )
    return results.model_copy(update={"methods": methods, "timing": before.timing, "machine": before.machine})
