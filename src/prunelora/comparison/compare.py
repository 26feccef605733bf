"""Compare methods on one model, one task, the same splits and seeds, each with equally many learning rates.

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
from prunelora.comparison.collecting import Finished, collect
from prunelora.comparison.methods import METHODS, Method
from prunelora.comparison.page import write_comparison
from prunelora.comparison.results import ComparisonResults, MethodFacts, load_comparison
from prunelora.comparison.timing import MethodTiming, TimingSettings, time_methods
from prunelora.comparison.trials import Trial, run_trial, run_trial_in_worker, trial_of
from prunelora.data.load import load_task
from prunelora.data.task import TaskData
from prunelora.errors import DivergenceError, RecipeError, option
from prunelora.evaluation.machine import describe_machine
from prunelora.models.device import best_device
from prunelora.progress import bars
from prunelora.run.recipe import Recipe

RESULTS, STORE = "comparison.json", "store"
FACTORS = (1.0, 3.0)
SEEDS = (0, 1, 2)

Tell = Callable[[str], None]


@dataclass
class _Progress:
    """Finished trials, the current trial, and the estimated time left."""

    total: int
    tell: Tell
    done: int = 0
    seconds: list[float] = field(default_factory=list)  # Of the trials that were trained this time.

    def starts(self, trial: Trial) -> None:
        self.tell(f"trial {self.done + 1} of {self.total}: {trial}{self.left()}")

    def ended(self, seconds: float | None) -> None:
        """Count a finished trial; `seconds` is None if it was finished before."""
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
    store: Path | str | None = None,
    jobs: int = 1,
    tell: Tell | None = None,
    progress: bool = True,
) -> ComparisonResults:
    """Train every method on every seed, time the methods in turn, and write the results as tables.

    Every training is a run folder under `out`. A stopped comparison continues; trials that are finished under the same
    settings are not repeated. On the first seed every method is trained with equally many learning rates, and the best
    on the validation rows is used for the other seeds; the reported rows have no part in it. A learning rate at which
    training diverges is reported and not chosen.

    With several budgets (`keep_macs`) every method that has a plan is trained at each of them. Its learning rate is
    tried at the budget nearest to a half and used for the others.

    Stages that several trials have in common are run once. Every trial records the seconds that they took, so times are
    those of each method alone.

    Args:
        base: Gives the model and the task; its stages and seed are not used.
        out: Folder for everything.
        methods: Names of packaged methods, or paths of recipe files.
        seeds: Of the runs; learning rates are tried on the first.
        factors: Learning rates to try, as multiples of each recipe's own.
        changes: Settings for every method that has them, by bare name or as "stage.setting".
        keep_macs: Budgets for every method that has a plan, as fractions of the dense model's MACs; the recipe's own if
            empty.
        timing: Time training steps and forward passes after the trainings. Otherwise an earlier timing of the same
            models is kept.
        timing_settings: Rounds and batches.
        store: Folder of finished stages, which other comparisons may share; `out`/store if not given.
        jobs: Number of processes that train at the same time, each with its share of the cores.
        tell: Called with a line for every trial and stage.
        progress: Show progress bars.

    Returns:
        The results, which are also written to `out` as comparison.json, .csv, report.md and report.html.

    Raises:
        DivergenceError: If a method diverges at every learning rate, or at the chosen one with another seed or budget.
        PruneLoraError: If model, data or options are wrong. Finished trials stay.
    """
    _check(seeds, factors, jobs)
    tell = tell or (lambda _: None)
    chosen = load_methods_at(keep_macs, methods, base=base, changes=changes)
    tuned = tried_on(chosen)
    task = load_task(base.task)
    out = Path(out)
    train = partial(_run, task=task, store=Path(store) if store else out / STORE, jobs=jobs, progress=progress)
    with _locked(out):
        for note in task.notes:
            tell(note)
        tried = {
            method.name: [trial_of(method, rate, seeds[0], out=out) for rate in method.learning_rates(factors)]
            for method in chosen
            if method is tuned[method.name]
        }
        counter = _Progress(sum(map(len, tried.values())) + len(chosen) * len(seeds) - len(tried), tell)
        diverged: list[Trial] = []
        finished = train([trial for trials in tried.values() for trial in trials], counter, diverged=diverged)
        best = {name: _best(name, trials, finished, task.metrics[0]) for name, trials in tried.items()}
        rates = {method.name: best[tuned[method.name].name] for method in chosen}
        others = [method for method in chosen if method.name not in tried]
        finished |= train([trial_of(method, rates[method.name], seeds[0], out=out) for method in others], counter)
        rest = [trial_of(method, rates[method.name], seed, out=out) for seed in seeds[1:] for method in chosen]
        missing = tuple(str(trial) for trial in rest if trial.facts() is None)
        collected = partial(
            collect, base, chosen, task, out, rates=rates, tried_on=tuned, finished=finished, diverged=diverged
        )
        if missing:
            # Partial results, which stay if the rest is stopped.
            _write(_with_old(collected(seeds=seeds[:1], missing=missing), out), out)
        finished |= train(rest, counter)
        results = _with_old(collected(seeds=seeds), out)
        _write(results, out)  # Before timing: if that fails, nothing is lost.
        if timing:
            with bars(progress):
                results = _with_timing(results, chosen, task, out, tell, timing_settings or TimingSettings())
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
    """The trials that `compare` would train, a line each, with those that are done."""
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
    """Keep other comparisons out of the folder."""
    if out.is_file():
        raise RecipeError(f"{out} is a file. Give a folder for the comparison.")
    if out.is_dir() and any(out.iterdir()) and not (out / "trials").is_dir():
        content = (
            "holds a comparison of an earlier version, in cells/, which this version can only read"
            if (out / "cells").is_dir()
            else "is not empty and holds no comparison"
        )
        raise RecipeError(f"{out} {content}; it is left unchanged. Give another folder.")
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
    store: Path,
    jobs: int,
    progress: bool,
    diverged: list[Trial] | None = None,
) -> Finished:
    """Train trials. Those that diverge are added to `diverged`; without it they are an error."""
    if jobs > 1:
        return _run_at_once(trials, counter, store, jobs, diverged)
    finished: Finished = {}
    for trial in trials:
        counter.starts(trial)
        started, done = time.perf_counter(), trial.facts() is not None
        with _may_diverge(trial, counter, diverged):
            finished[trial.key] = run_trial(trial, task, store=store, progress=progress)
            counter.ended(None if done else time.perf_counter() - started)
    return finished


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
    store: Path,
    jobs: int,
    diverged: list[Trial] | None = None,
) -> Finished:
    threads = max(1, torch.get_num_threads() // jobs)
    finished: Finished = {}
    with _workers(jobs) as pool:
        running = {pool.submit(run_trial_in_worker, trial, threads, store): trial for trial in trials}
        for future in as_completed(running):
            trial = running[future]
            with _may_diverge(trial, counter, diverged):
                finished[trial.key] = future.result()
                counter.ended(sum(finished[trial.key].seconds.values()) / jobs)
                counter.tell(f"trial {counter.done} of {counter.total} done: {trial}{counter.left()}")
    return finished


@contextlib.contextmanager
def _workers(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes that are terminated if the block fails or is interrupted.

    The pool alone would first finish all submitted trainings, which takes hours.
    """
    others = set(active_children())
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))
    try:
        yield pool
    except BaseException:
        for process in set(active_children()) - others:
            process.terminate()
        pool.shutdown(cancel_futures=True)  # Waits until they have ended, so that none writes any more.
        raise
    pool.shutdown()


def _best(name: str, trials: Sequence[Trial], finished: Finished, metric: str) -> float:
    """Learning rate with the highest metric on the validation rows; of equal ones that with the smallest loss."""
    converged = [trial for trial in trials if trial.key in finished]
    if not converged:
        rates = ", ".join(f"{trial.learning_rate:g}" for trial in trials)
        raise DivergenceError(
            f"{name}: training diverges at every learning rate tried ({rates}). Finished trainings of other methods "
            f"stay: give lower {option('factors')} and the same folder."
        )

    def merit(trial: Trial) -> tuple[float, float]:
        validation = finished[trial.key].validation
        return validation[metric], -validation["loss"]

    return max(converged, key=merit).learning_rate


def _with_timing(
    results: ComparisonResults,
    methods: Sequence[Method],
    task: TaskData,
    out: Path,
    tell: Tell,
    settings: TimingSettings,
) -> ComparisonResults:
    tell("timing training steps and forward passes of all methods, in turn ...")
    rates = {method.name: method.learning_rate for method in results.methods}
    trials = {method.name: trial_of(method, rates[method.name], results.seeds[0], out=out) for method in methods}
    timings = time_methods(trials, task, settings=settings)
    step_rows = next(iter(timings.values())).step_rows
    return _timed(results, timings, {**vars(settings), "step_rows": step_rows}, describe_machine(best_device()))


def _timed(
    results: ComparisonResults,
    timings: Mapping[str, MethodTiming | MethodFacts],
    settings: Mapping[str, Any],
    machine: Mapping[str, Any],
) -> ComparisonResults:
    names = ("step_ms", "step_to_full", "step_to_lora", "latencies")
    methods = tuple(
        method.model_copy(update={name: getattr(timings[method.name], name) for name in names})
        for method in results.methods
    )
    return results.model_copy(update={"methods": methods, "timing": dict(settings), "machine": dict(machine)})


def _timed_work(results: ComparisonResults) -> list[tuple[Any, ...]]:
    """What the times of every method depend on: its sizes, and recipe and plan of the timed trial."""
    timed = {(trial.method, trial.learning_rate): trial for trial in results.trials if trial.seed == results.seeds[0]}
    return [
        (
            *(results.model, method.name, method.parameters, method.trained, method.heads, method.neurons),
            {name: value for name, value in trial.recipe.items() if name != "seed"},
            trial.plan_id,
        )
        for method in results.methods
        for trial in [timed[method.name, method.learning_rate]]
    ]


def _with_old(results: ComparisonResults, out: Path) -> ComparisonResults:
    """The results with the timing of an earlier call, if that was of the same models, trained in the same way."""
    try:
        old = load_comparison(out / RESULTS)
    except RecipeError:
        return results
    if old.timing is None or _timed_work(old) != _timed_work(results):
        return results
    return _timed(results, {method.name: method for method in old.methods}, old.timing, old.machine)
