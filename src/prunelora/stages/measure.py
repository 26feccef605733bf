"""The stage measure: quality on the test rows, and size, speed and memory beside the dense model."""

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from prunelora.stages.base import Facts, Seconds, Stage
from prunelora.stages.plan import last_in_time

if TYPE_CHECKING:
    from prunelora.evaluation.work import Work
    from prunelora.report.results import RunResults
    from prunelora.report.table import Table
    from prunelora.stages.context import Run

# Seconds after which a size gets no more rounds.
MAX_SECONDS = 4.0


class MeasureStage(Stage):
    """Measure quality on the test rows, and size, speed and memory beside the dense model."""

    stage: Literal["measure"] = "measure"
    repeats: int = Field(15, ge=3, description="Rounds of timing; in each, every model runs once.")
    warmup: int = Field(3, ge=1, description="Rounds before the clock counts.")

    makes_model: ClassVar[bool] = False
    plain_model: ClassVar[bool] = True
    of_final: ClassVar[bool] = True

    def run(self, run: "Run", name: str) -> Facts:
        """Judge the model on the test rows, which no earlier stage has seen, and measure its costs."""
        import tempfile
        from pathlib import Path

        from prunelora.delivery.onnx import export
        from prunelora.evaluation.measurement import measure
        from prunelora.stages.judging import tested

        dense = run.pretrained()
        exported = run.done_of("export")  # After the last change of the model: a recipe's order ensures it.
        with tempfile.TemporaryDirectory() as scratch:
            measurement = measure(
                run.model,
                base=dense,
                onnx=run.path(exported[-1], "model.onnx") if exported else None,
                # The dense export is only timed: no difference of its logits is refused.
                base_onnx=export(dense, Path(scratch) / "dense.onnx", tolerance=math.inf) if exported else None,
                repeats=self.repeats,
                warmup=self.warmup,
            )
        facts = {
            **tested(run, run.model),
            "more_tests": {split: run.quality(split) for split in run.task.more_tests},
            "test_rows": len(run.task.test),
            "majority_rate": run.task.majority_rate,
            "measurement": measurement.to_dict(),
            **_tuned_dense(run),
            **self._asked_latency(run, dense),
        }
        _update_card(run, facts)
        return facts

    def _asked_latency(self, run: "Run", dense: Any) -> Facts:
        """The last plan's budget in time, and the latency that was reached; {} without such a budget."""
        from prunelora.evaluation.latency_sweep import latency_at, resolved

        plan = last_in_time([run.recipe.by_name[name] for name in run.done])
        if plan is None:
            return {}
        wanted = resolved(plan.latency_settings(), dense)
        latency = latency_at(run.model, dense, wanted, repeats=self.repeats, warmup=self.warmup)
        budget = {"max_latency_ms": plan.max_latency_ms, "speedup": plan.speedup}
        return {"asked_latency": {**budget, "threads": wanted.threads, **latency.to_dict()}}

    def forecast(self, work: "Work", run: "Run", name: str) -> Seconds:
        """Passes over the reported rows, rounds of timing at every size, counts, and the dense model's export."""
        from prunelora.evaluation.measurement import measure, sizes_for

        models = ("dense", work.present)
        kinds = [stage.stage for stage in run.recipe.by_name.values()]
        sizes = sizes_for(run.model)
        passes = [[work.one_pass(model, size) for model in models] for size in sizes]
        judging = [work.judging(split, work.present) for split in run.task.reported]
        if "prune" in kinds and "merge" in kinds[: kinds.index("prune")]:  # The model tuned before the cut is judged.
            judging += [work.judging(split, "dense") for split in run.task.reported]
        plan, asked = last_in_time(list(run.recipe.by_name.values())), []
        if plan is not None:  # ONNX Runtime is assumed to be as fast as torch.
            asked = [work.one_pass(model, (plan.latency_batch_size, plan.tokens)) for model in models]
        exporting, slower = 0.0, lambda: 0.0
        if "export" in kinds:
            exporting, slower = work.export_seconds[0], work.onnx_over_torch(sizes[len(sizes) // 2])
        work.memory[name] = work.judging_bytes(*models)
        started = time.perf_counter()
        measure(work.models["cut"], sizes=[], repeats=1, warmup=0)
        counting = len(models) * (time.perf_counter() - started)  # Timed once, since it takes long.

        def seconds() -> float:
            timing = sum(self.timed_rounds(_sum(size_passes) * (1 + slower())) for size_passes in passes)
            timing += self.timed_rounds(_sum(asked), most=2 * MAX_SECONDS)
            return _sum(judging) + timing + counting + exporting

        return seconds

    def timed_rounds(self, round_seconds: float, *, most: float = MAX_SECONDS) -> float:
        """Seconds that `measure` spends on one size: rounds of all models, until `repeats` or the time limit."""
        from prunelora.evaluation.timing import LEAST_REPEATS

        if not round_seconds:
            return 0.0
        warmup = min(self.warmup, math.ceil(most / 4 / round_seconds))
        rounds = min(self.repeats, max(LEAST_REPEATS, math.ceil(most / round_seconds)))
        return (warmup + rounds) * round_seconds

    def lines(self, results: "RunResults", facts: Facts) -> "list[str | Table]":
        """Quality and costs beside the dense model's."""
        from prunelora.report.summary import shown

        return shown(results)


def _sum(parts: Sequence[Seconds]) -> float:
    return sum(seconds() for seconds in parts)


def merged_before_the_cut(run: "Run") -> str | None:
    """The last merge before the first cut; None if there is none."""
    kinds = [run.recipe.by_name[name].stage for name in run.done]
    if "prune" not in kinds:
        return None
    up_to_cut = list(zip(run.done, kinds, strict=True))[: kinds.index("prune")]
    return next((name for name, kind in reversed(up_to_cut) if kind == "merge"), None)


def _tuned_dense(run: "Run") -> Facts:
    """Quality of the model that was tuned and merged before the cut, on the reported rows: {} if there is none.

    The run trains that model anyway: no training is added for it.
    """
    from prunelora.delivery.checkpoints import load
    from prunelora.models.device import best_device
    from prunelora.stages.judging import tested

    name = merged_before_the_cut(run)
    if name is None:
        return {}
    model = load(run.path(name, "model")).to(best_device())
    more = {split: run.quality(split, model) for split in run.task.more_tests}
    return {"tuned_dense": {"stage": name, **tested(run, model), "more_tests": more}}


def _update_card(run: "Run", facts: Facts) -> None:
    """Add the reported quality to the card of the saved model, unless the model was changed after it was saved."""
    from prunelora.delivery.card import add_numbers

    merged, stages = run.done_of("merge"), run.recipe.by_name
    names = list(run.done)
    if not merged or any(stages[name].changes_model for name in names[names.index(merged[-1]) + 1 :]):
        return
    rows = f"{len(run.task.test):,} {run.task.test_name} rows"
    metric, tuned = run.task.metrics[0], facts.get("tuned_dense")
    numbers = {f"{metric}, {rows}": f"{facts['test'][metric]:.4f}"}
    if tuned:
        numbers[f"the same training up to the cut, nothing cut: {metric}, {rows}"] = f"{tuned['test'][metric]:.4f}"
    add_numbers(run.path(merged[-1], "model"), numbers)
