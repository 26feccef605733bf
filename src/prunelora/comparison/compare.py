"""Compare methods on one model, one task, the same splits and seeds, each with equally many learning rates.

learning rates on the first seed -> the best on validation rows -> the other seeds -> timing, in turn -> one table
"""

import contextlib
import statistics
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from prunelora.comparison.budgets import tried_on
from prunelora.comparison.collecting import Finished, collect
from prunelora.comparison.methods import METHODS, Method, load_methods
from prunelora.comparison.page import write_comparison
from prunelora.comparison.results import ComparisonResults, MethodTimes, TrialFacts, load_comparison
from prunelora.comparison.timing import TimingSettings, step_batches, time_methods
from prunelora.comparison.trials import Trial, run_trial, run_trial_in_worker
from prunelora.comparison.workers import workers
from prunelora.data.load import load_task
from prunelora.data.task import TaskData
from prunelora.errors import DivergenceError, RecipeError, option
from prunelora.evaluation.machine import describe_machine
from prunelora.models.device import best_device
from prunelora.progress import bars
from prunelora.run.recipe import Recipe
from prunelora.storage import locked

RESULTS, STORE = "comparison.json", "store"
FACTORS = (1.0, 3.0)
SEEDS = (0, 1, 2)

Tell = Callable[[str], None]
_Outcome = tuple[Trial, Callable[[], TrialFacts]]  # The function trains the trial, or waits for its end.


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
    chosen = load_methods(methods, base=base, changes=changes, keep_macs=keep_macs)
    task = load_task(base.task)
    out = Path(out)
    store = Path(store) if store else out / STORE
    _make_folder(out)
    with locked(out):
        for note in task.notes:
            tell(note)
        tried = _tries(chosen, seeds[0], factors, out)
        total = sum(map(len, tried.values())) + len(chosen) * len(seeds) - len(tried)
        training = _Training(task, store, jobs, progress, tell, total)
        training.run([trial for tries in tried.values() for trial in tries], may_diverge=True)
        best = {name: _best(tries, training.finished, task.metrics[0]) for name, tries in tried.items()}
        rates = {name: best[tuned.name] for name, tuned in tried_on(chosen).items()}
        trials = {method.name: [Trial(method, rates[method.name], seed, out) for seed in seeds] for method in chosen}
        training.run([of_method[0] for name, of_method in trials.items() if name not in tried])
        later = [of_method[place] for place in range(1, len(seeds)) for of_method in trials.values()]
        missing = [trial for trial in later if trial.facts() is None]
        training.run([trial for trial in later if trial not in missing])
        if missing:
            # Partial results of the seeds that no method lacks, which stay if the missing trials are stopped.
            lacking = {trial.seed for trial in missing}
            partly = {
                name: [trial for trial in of_method if trial.seed not in lacking] for name, of_method in trials.items()
            }
            results = collect(base, task, partly, tried, training.finished, tuple(map(str, missing)))
            _write(_with_old_times(results, out), out)
            training.run(missing)
        results = _with_old_times(collect(base, task, trials, tried, training.finished), out)
        _write(results, out)  # Before timing: if that fails, nothing is lost.
        if timing:
            tell("timing training steps and forward passes of all methods, in turn ...")
            with bars(progress):
                firsts = {name: of_method[0] for name, of_method in trials.items()}
                results = _with_new_times(results, firsts, task, timing_settings or TimingSettings())
            _write(results, out)
    return results


def _write(results: ComparisonResults, out: Path) -> None:
    results.save(out / RESULTS)
    write_comparison(results, out)


def _tries(methods: Sequence[Method], seed: int, factors: Sequence[float], out: Path) -> dict[str, list[Trial]]:
    """Trials of every learning rate, by the names of the methods on which learning rates are tried."""
    tuned = {method.name: method for method in tried_on(methods).values()}
    return {
        name: [Trial(method, rate, seed, out) for rate in method.learning_rates(factors)]
        for name, method in tuned.items()
    }


def planned_trials(
    methods: Sequence[Method], *, out: Path, seeds: Sequence[int], factors: Sequence[float]
) -> list[str]:
    """The trials that `compare` would train, a line each, with those that are done."""
    _check(seeds, factors)
    tried = _tries(methods, seeds[0], factors, out)
    lines = []
    for name, tuned in tried_on(methods).items():
        if name in tried:
            lines += [f"{trial}{' (done)' if trial.facts() else ''}" for trial in tried[name]]
            lines += [f"{name}, the best of these, seed {seed}" for seed in seeds[1:]]
        else:
            lines += [f"{name}, the learning rate of {tuned.name}, seed {seed}" for seed in seeds]
    return lines


def _check(seeds: Sequence[int], factors: Sequence[float], jobs: int = 1) -> None:
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise RecipeError(f"{option('seeds', list(seeds))}: expected one or more different numbers from 0 on.")
    if not factors or min(factors) <= 0:
        raise RecipeError(f"{option('factors', list(factors))}: expected one or more numbers above 0.")
    if jobs < 1:
        raise RecipeError(f"{option('jobs', jobs)}: expected 1 or more processes.")


def _make_folder(out: Path) -> None:
    """Make the comparison's folder, unless it holds something else."""
    if out.is_file():
        raise RecipeError(f"{out} is a file. Give a folder for the comparison.")
    if out.is_dir() and any(out.iterdir()) and not (out / "trials").is_dir():
        raise RecipeError(f"{out} is not empty and holds no comparison; it is left unchanged. Give another folder.")
    (out / "trials").mkdir(parents=True, exist_ok=True)


@dataclass
class _Training:
    """Trains the trials of a comparison, in turn or several at once, and tells how far it is.

    Attributes:
        total: Number of trials.
        finished: Results of those that converged.
        ended: Number of those that converged or diverged.
        seconds: Of each trial that was not finished before.
    """

    task: TaskData
    store: Path
    jobs: int
    progress: bool
    tell: Tell
    total: int
    finished: Finished = field(default_factory=dict)
    ended: int = 0
    seconds: list[float] = field(default_factory=list)

    def run(self, trials: Sequence[Trial], *, may_diverge: bool = False) -> None:
        """Train trials; one that diverges is an error, or left out of `finished` if it may diverge."""
        done = {trial.key for trial in trials if trial.facts() is not None}
        last_end = time.perf_counter()
        with contextlib.closing(self._at_once(trials) if self.jobs > 1 else self._in_turn(trials)) as outcomes:
            for trial, outcome in outcomes:
                try:
                    self.finished[trial.key] = outcome()
                except DivergenceError as error:
                    if not may_diverge:
                        raise DivergenceError(
                            f"{trial}: {error} Finished trainings stay: give lower {option('factors')} and the same "
                            "folder."
                        ) from error
                    self.tell(f"{trial}: diverged, and is not chosen. {error}")
                self.ended += 1
                start, last_end = last_end, time.perf_counter()
                if trial.key not in done:
                    self.seconds.append(last_end - start)

    def _in_turn(self, trials: Iterable[Trial]) -> Generator[_Outcome]:
        for trial in trials:
            self.tell(f"trial {self.ended + 1} of {self.total}: {trial}{self._time_left()}")
            yield trial, partial(run_trial, trial, self.task, store=self.store, progress=self.progress)

    def _at_once(self, trials: Iterable[Trial]) -> Generator[_Outcome]:
        threads = max(1, torch.get_num_threads() // self.jobs)
        with workers(self.jobs) as pool:
            running = {pool.submit(run_trial_in_worker, trial, threads, self.store): trial for trial in trials}
            for future in as_completed(running):
                yield running[future], future.result
                self.tell(f"trial {self.ended} of {self.total} done: {running[future]}{self._time_left()}")

    def _time_left(self) -> str:
        if not self.seconds:
            return ""
        minutes = statistics.fmean(self.seconds) * (self.total - self.ended) / 60
        return f" (about {max(1, round(minutes))} min left)"


def _best(tries: Sequence[Trial], finished: Finished, metric: str) -> float:
    """Learning rate with the highest metric on the validation rows; of equal ones that with the smallest loss."""
    converged = [trial for trial in tries if trial.key in finished]
    if not converged:
        rates = ", ".join(f"{trial.learning_rate:g}" for trial in tries)
        raise DivergenceError(
            f"{tries[0].method.name}: training diverges at every learning rate tried ({rates}). Finished trainings of "
            f"other methods stay: give lower {option('factors')} and the same folder."
        )

    def merit(trial: Trial) -> tuple[float, float]:
        validation = finished[trial.key].validation
        return validation[metric], -validation["loss"]

    return max(converged, key=merit).learning_rate


def _with_new_times(
    results: ComparisonResults, trials: Mapping[str, Trial], task: TaskData, settings: TimingSettings
) -> ComparisonResults:
    batches = step_batches(next(iter(trials.values())), task, settings)
    times = time_methods(trials, task, batches, settings)
    step_rows = len(next(iter(batches[0].values())))
    return _timed(results, times, {**vars(settings), "step_rows": step_rows}, describe_machine(best_device()))


def _with_old_times(results: ComparisonResults, out: Path) -> ComparisonResults:
    """The results with the times of an earlier call, if those are of the same models, trained in the same way."""
    try:
        old = load_comparison(out / RESULTS)
    except RecipeError:
        return results
    if old.timing is None or _timed_work(old) != _timed_work(results):
        return results
    return _timed(results, {method.name: method for method in old.methods}, old.timing, old.machine)


def _timed(
    results: ComparisonResults,
    times: Mapping[str, MethodTimes],
    settings: dict[str, Any],
    machine: dict[str, Any],
) -> ComparisonResults:
    methods = tuple(
        method.model_copy(update={name: getattr(times[method.name], name) for name in MethodTimes.model_fields})
        for method in results.methods
    )
    return results.model_copy(update={"methods": methods, "timing": settings, "machine": machine})


def _timed_work(results: ComparisonResults) -> list[tuple[Any, ...]]:
    """Everything that the times depend on: the rows, and every method's sizes, recipe and plan of the timed trial."""
    timed = {(trial.method, trial.learning_rate): trial for trial in results.trials if trial.seed == results.seeds[0]}
    return [
        (
            *(results.model, results.task["fingerprint"]),
            *(method.name, method.parameters, method.trained, method.heads, method.neurons),
            {name: value for name, value in trial.recipe.items() if name != "seed"},
            trial.plan_id,
        )
        for method in results.methods
        for trial in [timed[method.name, method.learning_rate]]
    ]
