"""The results of a comparison from those of its trials: a row a method, a test a pair."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from prunelora.comparison.budgets import to_be_paired
from prunelora.comparison.methods import Method
from prunelora.comparison.results import ComparisonResults, MethodFacts, PairFacts, TrialFacts, estimate, pairs_of
from prunelora.comparison.timing import measure_memory
from prunelora.comparison.trials import Trial, trial_of
from prunelora.data.metrics import metrics
from prunelora.data.task import TaskData
from prunelora.delivery.checkpoints import load
from prunelora.evaluation.counting import macs, parameters
from prunelora.evaluation.machine import describe_machine
from prunelora.evaluation.measurement import macs_tokens
from prunelora.evaluation.significance import compare_answers, right_answers
from prunelora.models.anatomy import dissect
from prunelora.models.device import best_device
from prunelora.models.problem_types import SINGLE_LABEL
from prunelora.run.recipe import Recipe
from prunelora.version import __version__

Finished = dict[tuple[str, float, int], TrialFacts]  # By method, learning rate and seed.


def collect(
    base: Recipe,
    methods: Sequence[Method],
    task: TaskData,
    out: Path,
    *,
    seeds: Sequence[int],
    rates: Mapping[str, float],
    tried_on: Mapping[str, Method],
    finished: Finished,
    diverged: Sequence[Trial] = (),
    missing: tuple[str, ...] = (),
) -> ComparisonResults:
    """Returns the results without timing.

    Args:
        base: The comparison's model and task.
        methods: In the order of the rows.
        task: Rows, metrics and notes.
        out: The comparison's folder.
        seeds: Of the chosen learning rates.
        rates: The chosen learning rate by method.
        tried_on: The method that a method's learning rate was tried on, by name.
        finished: Every finished training.
        diverged: Trials whose training diverged.
        missing: Trials that are not done yet.
    """
    trials = {
        method.name: [trial_of(method, rates[method.name], seed, out=out) for seed in seeds] for method in methods
    }
    return ComparisonResults(
        model=base.model,
        data=base.task.described,
        task={"name": task.name, "problem_type": task.problem_type, "label_names": list(task.label_names)} | task.facts,
        seeds=tuple(seeds),
        missing=missing,
        methods=tuple(
            _method_facts(method, trials[method.name], task, finished, diverged, tried_on[method.name])
            for method in methods
        ),
        pairs=_pairs(methods, trials, task),
        trials=tuple(finished.values()),
        timing=None,
        machine=describe_machine(best_device()),
        prunelora=__version__,
    )


def _method_facts(
    method: Method,
    trials: Sequence[Trial],
    task: TaskData,
    finished: Finished,
    diverged: Sequence[Trial],
    tried_on: Method,
) -> MethodFacts:
    trained = [finished[trial.key] for trial in trials]
    first = trials[0]
    model = load(first.folder / "model")
    counted = macs_tokens(model)
    architecture = dissect(model).architecture
    whole = dissect(model).lineage.base
    tried: dict[str, float | None] = {
        f"{facts.learning_rate:g}": facts.validation[task.metrics[0]]
        for facts in finished.values()
        if facts.method == method.name and facts.seed == first.seed
    }
    tried |= {f"{trial.learning_rate:g}": None for trial in diverged if trial.method.name == method.name}
    return MethodFacts(
        name=method.name,
        title=method.title,
        learning_rate=first.learning_rate,
        tried=tried,
        seeds=tuple(trial.seed for trial in trials),
        quality={
            split: {metric: estimate([facts.test[split][metric] for facts in trained]) for metric in task.metrics}
            for split in task.reported
        },
        parameters=parameters(model).total,
        trained=sum(trained[0].trained.values()),
        disk_bytes=(first.folder / "model" / "model.safetensors").stat().st_size,
        macs=macs(model, tokens=counted).total,
        macs_tokens=counted,
        unit_of_heads=whole.unit_of_heads,
        heads=(architecture.total_heads, whole.total_heads),
        neurons=(architecture.total_neurons, whole.total_neurons),
        memory=measure_memory(first, task),
        step_ms=None,
        step_to_full=None,
        train_seconds=statistics.fmean(_training_seconds(facts) for facts in trained),
        latencies=(),
        keep_macs=method.keep_macs,
        base=method.base,
        tried_on=tried_on.name if tried_on.name != method.name else None,
    )


def _training_seconds(facts: TrialFacts) -> float:
    """Wall time of all stages up to the merged model."""
    return sum(seconds for stage, seconds in facts.seconds.items() if stage != "evaluate")


def _pairs(methods: Sequence[Method], trials: Mapping[str, Sequence[Trial]], task: TaskData) -> tuple[PairFacts, ...]:
    metric = task.metrics[0]
    places, differences = [], []
    for first, second in to_be_paired(methods):
        for split in task.reported:
            answers = {name: [trial.answers(split) for trial in trials[name]] for name in (first.name, second.name)}
            labels = answers[first.name][0][1]
            places.append({"first": first.name, "second": second.name, "split": split, "metric": metric})
            differences.append(
                compare_answers(
                    [logits for logits, _ in answers[first.name]],
                    [logits for logits, _ in answers[second.name]],
                    labels,
                    judge=lambda logits, wanted: metrics(logits, wanted, task.problem_type, task.label_names)[metric],
                    row_scores=right_answers if metric == "accuracy" and task.problem_type == SINGLE_LABEL else None,
                )
            )
    return pairs_of(places, differences)
