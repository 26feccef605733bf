"""What a comparison found, as plain data: what tables and plots are made of, and what comparison.json holds."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from prunelora.errors import RecipeError, first_line
from prunelora.evaluation.significance import LEVEL, Difference, holm
from prunelora.run.recipe import as_now
from prunelora.storage import write_json


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TrialFacts(_Facts):
    """One training: a method, a learning rate, a seed.

    Attributes:
        method: Name of the method.
        learning_rate: Of the longest fine-tuning.
        seed: Of the run.
        validation: Metrics on the rows that choose checkpoint and learning rate.
        test: Metrics on the reported rows, by split: "test"; for MNLI "matched" and "mismatched" where both are there.
        best_step: Step of the checkpoint that was kept, counted over all fine-tunings of the recipe.
        steps: Optimiser steps, of all fine-tunings of the recipe.
        step_ms: Median wall time of a step of the last fine-tuning, on a machine that may have done other things
            meanwhile.
        seconds: Wall time by stage.
        trained: Trained parameters by kind: "lora", "norms", "head", "other".
        plan_id: Of the plan it was pruned by; None if nothing was cut.
        recipe: The fully resolved recipe, without where the data lies.
        prunelora: Version of the library.
        machine: What it ran on.
    """

    method: str
    learning_rate: float
    seed: int
    validation: dict[str, float]
    test: dict[str, dict[str, float]]
    best_step: int
    steps: int
    step_ms: float | None
    seconds: dict[str, float]
    trained: dict[str, int]
    plan_id: str | None
    recipe: dict[str, Any]
    prunelora: str
    machine: dict[str, Any]

    @field_validator("recipe", mode="before")
    @classmethod
    def _recipe_as_now(cls, content: Any) -> Any:
        return as_now(content)


class Estimate(_Facts):
    """A number over seeds.

    Attributes:
        mean: Over seeds.
        sd: Sample standard deviation over seeds; None for one seed.
        values: One a seed, in the order of the seeds.
    """

    mean: float
    sd: float | None
    values: tuple[float, ...]


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and sample standard deviation of one value a seed."""
    return Estimate(
        mean=statistics.fmean(values),
        sd=statistics.stdev(values) if len(values) > 1 else None,
        values=tuple(float(value) for value in values),
    )


class Share(_Facts):
    """A ratio measured round by round: median and quartiles."""

    median: float
    q25: float
    q75: float


class LatencyFacts(_Facts):
    """Time of one forward pass of a method's model.

    Attributes:
        batch_size: B.
        tokens: T.
        milliseconds: Median.
        to_dense: Over the dense model's, within each round: 0.5 is twice as fast.
    """

    batch_size: int
    tokens: int
    milliseconds: float
    to_dense: Share


class MemoryFacts(_Facts):
    """Bytes.

    Attributes:
        weights: All parameters.
        gradients: Of the trained ones.
        optimizer: Two numbers (AdamW) for each trained one.
        saved: What autograd keeps from the forward for the backward pass of one step, of `step_rows` rows of `tokens`
            tokens. Of several fine-tunings all four are those of the one that needs the most.
        device_peak: What the device's own counter says of such a step; None where there is none.
        inference: Weights and the largest sum of activations alive at once in a forward pass of `inference_rows` rows
            of `tokens` tokens.
        step_rows: Rows of the step: the batch of that fine-tuning; None in results that do not say.
        inference_rows: Rows of the forward pass; None in results that do not say.
        tokens: Of every row: 128, or as many as the model has positions for, or as its images become; None in results
            that do not say.
    """

    weights: int
    gradients: int
    optimizer: int
    saved: int
    device_peak: int | None
    inference: int
    step_rows: int | None = None
    inference_rows: int | None = None
    tokens: int | None = None

    @property
    def training(self) -> int:
        """Weights, gradients, optimiser state and what is saved for backward."""
        return self.weights + self.gradients + self.optimizer + self.saved


class MethodFacts(_Facts):
    """A method, over its seeds.

    Attributes:
        name: As in the table: "prune-lora".
        title: What it does, in a sentence.
        learning_rate: The one that was chosen.
        tried: Every learning rate with the main metric on the validation rows, first seed; None where the training
            diverged.
        seeds: Seeds of the values below.
        quality: By split ("test"; MNLI: "matched", "mismatched"), by metric.
        parameters: Of the merged model.
        trained: Parameters that were trained.
        disk_bytes: Of the saved model's weights.
        macs: Of the blocks, for one example of `macs_tokens` tokens.
        heads: Heads left, and of how many; with grouped-query attention the groups that share keys and values.
        neurons: Neurons left, and of how many.
        memory: Of a training step and of inference.
        step_ms: Median time of one training step, timed apart from the trainings, of several fine-tunings the mean by
            their epochs; None if not timed. Of all methods on the same rows: "step_rows" of the results' timing.
        step_to_full: The same over full fine-tuning's, within each round; None without it or if not timed.
        train_seconds: Wall time of all stages up to the merged model, mean over seeds, as recorded in training.
        latencies: Inference; empty if not timed.
        keep_macs: Budget of its plan, as a fraction of the dense model's MACs; None without one.
        base: The method that this is at one of several budgets: "prune-lora" of "prune-lora@0.5"; else None.
        tried_on: The budget of the same method that its learning rate was tried and chosen at; None if at its own.
        command: Builds its model, on the first seed; None where no budgets were asked for.
        step_to_lora: As `step_to_full`, over plain LoRA's; None in results that do not say, too.
        macs_tokens: 128; of images as many as they become.
        unit_of_heads: What `heads` counts: "heads", or "key/value groups".
    """

    name: str
    title: str
    learning_rate: float
    tried: dict[str, float | None]
    seeds: tuple[int, ...]
    quality: dict[str, dict[str, Estimate]]
    parameters: int
    trained: int
    disk_bytes: int
    macs: int
    heads: tuple[int, int]
    neurons: tuple[int, int]
    memory: MemoryFacts
    step_ms: float | None
    step_to_full: Share | None
    train_seconds: float
    latencies: tuple[LatencyFacts, ...]
    keep_macs: float | None = None
    base: str | None = None
    tried_on: str | None = None
    command: str | None = None
    step_to_lora: Share | None = None
    macs_tokens: int = 128
    unit_of_heads: str = "heads"


class PairFacts(_Facts):
    """Two methods on the same reported rows.

    Attributes:
        first: Name of a method.
        second: Name of another.
        split: Which rows.
        metric: The task's main metric.
        difference: Mean over the seeds that both have of the first's metric minus the second's.
        by_seed: The same, seed by seed.
        row_error: Standard error over rows of the mean over seeds.
        low: Lower end of the 95 % interval over seeds and rows, as `prunelora.evaluation.significance.Difference`; of
            one seed over rows alone.
        high: Upper end of it.
        p_value: Of the same.
        p_holm: The same, adjusted for the number of pairs in the comparison (Holm).
        rows: Number of rows.
    """

    first: str
    second: str
    split: str
    metric: str
    difference: float
    by_seed: tuple[float, ...]
    row_error: float
    low: float
    high: float
    p_value: float
    p_holm: float
    rows: int

    @property
    def told_apart(self) -> bool:
        """Whether the difference would be rare (p < 0.05, adjusted for the number of pairs) between methods alike.

        Of one seed: between two trainings that are alike, on other rows; `rows_alone` says so.
        """
        return self.p_holm < LEVEL

    @property
    def rows_alone(self) -> bool:
        """Whether nothing is known of other seeds."""
        return len(self.by_seed) == 1


class ComparisonResults(_Facts):
    """Everything a comparison found.

    Attributes:
        format: Version of this layout.
        model: Name or path of the pretrained model.
        data: What the data is called: a task's name, or the file or folder.
        task: "problem_type", "label_names", "rows" (split -> count), "majority_rate" (split -> rate or None), "metrics"
            (main metric first), "notes", "fingerprint".
        seeds: Asked for.
        missing: Trials that were asked for and are not done yet, as "method, learning rate, seed".
        methods: In the order asked for.
        pairs: Every later method with every earlier one; of methods at several budgets not all, see
            `prunelora.comparison.budgets.to_be_paired`.
        trials: Every training, those of learning rates that were not chosen too.
        timing: Untimed rounds, rounds and rows a step of the timing; None if not timed.
        machine: What the timing ran on.
        prunelora: Version of the library.
    """

    FORMAT: ClassVar[str] = "prunelora-comparison-1"

    format: Literal["prunelora-comparison-1"] = "prunelora-comparison-1"
    model: str
    data: str
    task: dict[str, Any]
    seeds: tuple[int, ...]
    missing: tuple[str, ...]
    methods: tuple[MethodFacts, ...]
    pairs: tuple[PairFacts, ...]
    trials: tuple[TrialFacts, ...]
    timing: dict[str, Any] | None
    machine: dict[str, Any]
    prunelora: str

    @property
    def main_metric(self) -> str:
        """What methods are judged by."""
        return str(self.task["metrics"][0])

    @property
    def splits(self) -> tuple[str, ...]:
        """Reported splits, in order."""
        return tuple(self.task["majority_rate"])

    def method(self, name: str) -> MethodFacts | None:
        """A method by its name."""
        return next((one for one in self.methods if one.name == name), None)

    def save(self, path: Path) -> None:
        """Write it as JSON, atomically."""
        write_json(path, self.model_dump(mode="json"))


def pairs_of(places: Sequence[Mapping[str, str]], differences: Sequence[Difference]) -> tuple[PairFacts, ...]:
    """Every pair of a comparison with its test.

    Args:
        places: "first", "second", "split" and "metric" of each.
        differences: One each.
    """
    adjusted = holm([one.p_value for one in differences])
    pairs = []
    for place, difference, p_holm in zip(places, differences, adjusted, strict=True):
        low, high = difference.interval()
        numbers = {"by_seed": difference.by_seed, "row_error": difference.row_error, "rows": difference.rows}
        tested = {"difference": difference.mean, "low": low, "high": high, "p_value": difference.p_value}
        pairs.append(PairFacts.model_validate({**place, **numbers, **tested, "p_holm": p_holm}))
    return tuple(pairs)


_TESTED_AGAIN = (
    "Tests of pairs: over seeds and rows, the part of the rows from the bootstrap interval over rows that an earlier "
    "version recorded."
)
# Standard errors between the ends of a 95 % interval of a normal distribution.
_ENDS_APART = 3.92


def _with_seeds(pairs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Tests of an earlier version, whose intervals and p values were over rows alone, as tests over seeds and rows."""
    places = [{name: pair[name] for name in ("first", "second", "split", "metric")} for pair in pairs]
    differences = [
        Difference(tuple(pair["by_seed"]), (pair["high"] - pair["low"]) / _ENDS_APART, pair["rows"]) for pair in pairs
    ]
    return [pair.model_dump() for pair in pairs_of(places, differences)]


def load_comparison(path: Path) -> ComparisonResults:
    """Read what a comparison wrote.

    Raises:
        RecipeError: If the file is not there, or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if any("row_error" not in pair for pair in content.get("pairs", ())):
            content["pairs"] = _with_seeds(content["pairs"])
            content["task"]["notes"] = [*content["task"]["notes"], _TESTED_AGAIN]
        content |= {"trials": content.pop("cells")} if "cells" in content else {}
        return ComparisonResults.model_validate(content)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ValidationError) as error:
        first = first_line(error)
        raise RecipeError(f"{path}: cannot be read as the results of a comparison ({first}).") from error
