"""The results of a comparison from those of its trials: a row a method, a test a pair."""

import statistics
from collections.abc import Mapping, Sequence

from prunelora.comparison.budgets import to_be_paired, tried_on
from prunelora.comparison.results import ComparisonResults, Estimate, MethodFacts, PairFacts, TrialFacts
from prunelora.comparison.timing import measure_memory
from prunelora.comparison.trials import Trial
from prunelora.data.metrics import metrics
from prunelora.data.task import TaskData
from prunelora.delivery.checkpoints import load
from prunelora.evaluation.counting import macs, parameters
from prunelora.evaluation.machine import describe_machine
from prunelora.evaluation.measurement import macs_tokens
from prunelora.evaluation.significance import Difference, compare_answers, holm, right_answers
from prunelora.models.anatomy import dissect
from prunelora.models.device import best_device
from prunelora.models.problem_types import SINGLE_LABEL
from prunelora.run.recipe import Recipe
from prunelora.version import __version__

Finished = dict[tuple[str, float, int], TrialFacts]  # By method, learning rate and seed.
Trials = Mapping[str, Sequence[Trial]]  # By method.


def collect(
    base: Recipe, task: TaskData, trials: Trials, tried: Trials, finished: Finished, missing: tuple[str, ...] = ()
) -> ComparisonResults:
    """Returns the results without timing.

    Args:
        base: The comparison's model and task.
        task: Rows, metrics and notes.
        trials: Of the chosen learning rates, a seed each; methods in the order of the rows.
        tried: Trials of all learning rates, of the methods on which they were tried.
        finished: Results of every training that converged.
        missing: Trials that are not done yet.
    """
    tuned = tried_on([of_method[0].method for of_method in trials.values()])
    return ComparisonResults(
        model=base.model,
        data=base.task.described,
        task={"name": task.name, "problem_type": task.problem_type, "label_names": list(task.label_names)} | task.facts,
        seeds=tuple(trial.seed for trial in next(iter(trials.values()))),
        missing=missing,
        methods=tuple(
            _method_facts(of_method, tried.get(name, of_method[:1]), tuned[name].name, task, finished)
            for name, of_method in trials.items()
        ),
        pairs=_pairs(trials, task),
        trials=tuple(finished.values()),
        timing=None,
        machine=describe_machine(best_device()),
        prunelora=__version__,
    )


def _method_facts(
    trials: Sequence[Trial], tried: Sequence[Trial], tried_on: str, task: TaskData, finished: Finished
) -> MethodFacts:
    trained = [finished[trial.key] for trial in trials]
    first, method = trials[0], trials[0].method
    model = load(first.folder / "model")
    counted = macs_tokens(model)
    architecture = dissect(model).architecture
    whole = dissect(model).lineage.base
    return MethodFacts(
        name=method.name,
        title=method.title,
        learning_rate=first.learning_rate,
        tried={
            f"{trial.learning_rate:g}": finished[trial.key].validation[task.metrics[0]]
            if trial.key in finished
            else None
            for trial in tried
        },
        seeds=tuple(trial.seed for trial in trials),
        quality={
            split: {metric: Estimate.of([facts.test[split][metric] for facts in trained]) for metric in task.metrics}
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
        train_seconds=statistics.fmean(_training_seconds(facts) for facts in trained),
        keep_macs=method.keep_macs,
        base=method.base,
        tried_on=tried_on if tried_on != method.name else None,
    )


def _training_seconds(facts: TrialFacts) -> float:
    """Wall time of all stages up to the merged model."""
    return sum(seconds for stage, seconds in facts.seconds.items() if stage != "evaluate")


def _pairs(trials: Trials, task: TaskData) -> tuple[PairFacts, ...]:
    """Every pair of methods with its test on every reported split."""
    metric = task.metrics[0]
    differences: dict[tuple[str, str, str], Difference] = {}
    for first, second in to_be_paired([of_method[0].method for of_method in trials.values()]):
        for split in task.reported:
            answers = {name: [trial.answers(split) for trial in trials[name]] for name in (first.name, second.name)}
            labels = answers[first.name][0][1]
            differences[first.name, second.name, split] = compare_answers(
                [logits for logits, _ in answers[first.name]],
                [logits for logits, _ in answers[second.name]],
                labels,
                judge=lambda logits, wanted: metrics(logits, wanted, task.problem_type, task.label_names)[metric],
                row_scores=right_answers if metric == "accuracy" and task.problem_type == SINGLE_LABEL else None,
            )
    return pairs_of(differences, metric)


def pairs_of(differences: Mapping[tuple[str, str, str], Difference], metric: str) -> tuple[PairFacts, ...]:
    """Returns the tests of differences in a metric, by first and second method and split."""
    adjusted = holm([difference.p_value for difference in differences.values()])
    pairs = []
    for ((first, second, split), difference), p_holm in zip(differences.items(), adjusted, strict=True):
        low, high = difference.interval()
        pairs.append(
            PairFacts(
                first=first, second=second, split=split, metric=metric, difference=difference.mean,
                by_seed=difference.by_seed, row_error=difference.row_error, low=low, high=high,
                p_value=difference.p_value, p_holm=p_holm, rows=difference.rows,
            )
        )  # fmt: skip
    return tuple(pairs)
