"""What the stage measure finds beside costs: quality on the reported rows, and the latency that was asked for."""

from collections.abc import Sequence
from typing import Any

from prunelora.data.metrics import metrics
from prunelora.delivery.checkpoints import load
from prunelora.evaluation.latency_check import latency_at
from prunelora.evaluation.latency_model import LatencySettings
from prunelora.evaluation.latency_sweep import resolved
from prunelora.evaluation.significance import bootstrap
from prunelora.models.device import best_device
from prunelora.models.problem_types import SINGLE_LABEL, TOKENS
from prunelora.report.judged import bits_of
from prunelora.running import Facts, Run
from prunelora.stage_settings import MeasureStage, PlanStage


def tested(run: Run, model: Any) -> Facts:
    """Metrics on the test rows, and what says how far other rows would move them.

    Where every row has one label, that is which rows were answered rightly; of metrics that are no share of the rows,
    their values on bootstrap samples of the rows. Entities are not sampled: judging them once is slow enough.
    """
    answers, labels = run.answers("test", model)
    kind, names = run.task.problem_type, run.task.label_names
    found: Facts = {"test": metrics(answers, labels, kind, names)}
    if kind == SINGLE_LABEL:
        found["test_right"] = bits_of(answers.argmax(-1) == labels)
    others = [metric for metric in run.task.metrics if metric != "accuracy"]
    if others and kind != TOKENS:
        draws = bootstrap(lambda some, of: metrics(some, of, kind, names), answers, labels)
        found["test_draws"] = {metric: [float(f"{one[metric]:.6g}") for one in draws] for metric in others}
    return found


def tuned_dense(run: Run) -> Facts:
    """The model that was tuned and merged before anything was cut, judged on the reported rows: {} if there is none.

    It is what the run's own training gives up to the cut; no training is added for it.
    """
    name = merged_before_the_cut(run)
    if name is None:
        return {}
    model = load(run.path(name, "model")).to(best_device())
    more = {split: run.quality(split, model) for split in run.task.more_tests}
    return {"tuned_dense": {"stage": name, **tested(run, model), "more_tests": more}}


def merged_before_the_cut(run: Run) -> str | None:
    """The last merge before the first cut."""
    kinds = [run.recipe.by_name[name].stage for name in run.done]
    if "prune" not in kinds:
        return None
    before = list(zip(run.done, kinds, strict=True))[: kinds.index("prune")]
    return next((name for name, kind in reversed(before) if kind == "merge"), None)


def asked_latency(run: Run, dense: Any, settings: MeasureStage) -> Facts:
    """The budget of the last plan that had one in time, and the latency that was reached: {} without such a plan."""
    asked = last_in_time([run.recipe.by_name[name] for name in run.done])
    if asked is None:
        return {}
    wanted = resolved(latency_settings(asked), dense)
    latency = latency_at(run.model, dense, wanted, repeats=settings.repeats, warmup=settings.warmup)
    budget = {"max_latency_ms": asked.max_latency_ms, "speedup": asked.speedup}
    return {"asked_latency": {**budget, "threads": wanted.threads, **latency.to_dict()}}


def last_in_time(stages: Sequence[Any]) -> PlanStage | None:
    """The last plan whose budget is in times of this device."""
    return next(
        (stage for stage in reversed(stages) if isinstance(stage, PlanStage) and stage.needs_latency),
        None,
    )


def latency_settings(settings: PlanStage) -> LatencySettings:
    """Which latency a plan's budget, and `check`, mean."""
    return LatencySettings(
        engine=settings.latency_engine,
        batch_size=settings.latency_batch_size,
        tokens=settings.tokens,
        threads=settings.latency_threads,
    )
