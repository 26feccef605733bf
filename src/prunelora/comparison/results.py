"""Results of a comparison as plain data: the content of comparison.json, and the source of all tables and figures."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from prunelora.errors import RecipeError, first_line
from prunelora.evaluation.significance import LEVEL
from prunelora.evaluation.timing import Spread
from prunelora.storage import write_json


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TrialFacts(_Facts):
    """Results of one training: a method with a learning rate and a seed.

    Attributes:
        learning_rate: Of the longest fine-tuning.
        validation: Metrics on the rows that choose checkpoint and learning rate.
        test: Metrics on the reported rows, by split: "test"; for MNLI "matched" and "mismatched".
        best_step: Step of the kept checkpoint, counted over all fine-tunings of the recipe.
        step_ms: Median wall time of a step of the last fine-tuning, as recorded in training.
        seconds: Wall time by stage.
        trained: Trained parameters by kind: "lora", "norms", "head", "other".
        plan_id: Id of the plan that the model was pruned by; None if nothing was cut.
        recipe: The resolved recipe, without the path of the data.
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


class Estimate(_Facts):
    """A number over seeds.

    Attributes:
        sd: Sample standard deviation over seeds; None for one seed.
        values: In the order of the seeds.
    """

    mean: float
    sd: float | None
    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> "Estimate":
        """Mean and sample standard deviation of one value a seed."""
        deviation = statistics.stdev(values) if len(values) > 1 else None
        return cls(mean=statistics.fmean(values), sd=deviation, values=tuple(values))


class LatencyFacts(_Facts):
    """Time of one forward pass of a method's model.

    Attributes:
        to_dense: Ratio to the dense model's time in the same round: 0.5 is twice as fast.
    """

    batch_size: int
    tokens: int
    milliseconds: float
    to_dense: Spread


class MemoryFacts(_Facts):
    """Memory in bytes, of the fine-tuning that needs most, and of inference. Older results lack the last three fields.

    Attributes:
        optimizer: AdamW's two moments of each trained parameter.
        saved: Tensors that autograd saves for the backward pass of one step.
        device_peak: Peak of the device's own counter in such a step; None without one.
        inference: Weights, and the largest sum of activations alive at once in a forward pass.
        step_rows: Rows of the training step: the batch of that fine-tuning.
        inference_rows: Rows of the forward pass.
        tokens: Tokens of every row: 128, or the model's positions if fewer, or the patches of an image.
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
        """Weights, gradients, optimiser state and tensors saved for backward."""
        return self.weights + self.gradients + self.optimizer + self.saved


class MethodTimes(_Facts):
    """Times of a method, measured after the trainings on the same rows for all methods; None or empty if not timed.

    Attributes:
        name: Of the method's row: "prune-lora", "prune-lora@0.5".
        step_ms: Median time of one training step; of several fine-tunings the mean, weighted by epochs.
        step_to_full: Ratio to full fine-tuning's step in the same round; None without full fine-tuning.
        step_to_lora: Ratio to LoRA's step, as `step_to_full`.
        latencies: Forward passes of the merged model, by size.
    """

    name: str
    step_ms: float | None = None
    step_to_full: Spread | None = None
    step_to_lora: Spread | None = None
    latencies: tuple[LatencyFacts, ...] = ()


class MethodFacts(MethodTimes):
    """Results of a method over its seeds.

    Attributes:
        tried: Main metric on the validation rows by learning rate, first seed; None if the training diverged.
        quality: By split ("test"; MNLI: "matched", "mismatched"), by metric.
        parameters: Of the merged model.
        disk_bytes: Of the saved model's weights.
        macs: Of the blocks, for one example of `macs_tokens` tokens.
        heads: Kept heads and all heads, in `unit_of_heads`; `neurons` likewise.
        train_seconds: Wall time of all stages up to the merged model, mean over seeds, as recorded in training.
        keep_macs: Budget of its plan, as a fraction of the dense model's MACs; None without one.
        base: The method of which this is one of several budgets: "prune-lora" of "prune-lora@0.5"; else None.
        tried_on: The budget of `base` at which the learning rate was chosen; None if at its own.
        macs_tokens: 128; for images the number of patches.
        unit_of_heads: Unit of `heads`: "heads" or "key/value groups".
    """

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
    train_seconds: float
    keep_macs: float | None = None
    base: str | None = None
    tried_on: str | None = None
    macs_tokens: int = 128
    unit_of_heads: str = "heads"


class PairFacts(_Facts):
    """Test of the difference between two methods on the same reported rows.

    Attributes:
        difference: The first's metric minus the second's, mean over the seeds that both have; `by_seed` has each.
        row_error: Standard error over rows of the mean over seeds.
        low: Lower end of the 95 % interval over seeds and rows; with one seed over rows alone.
        p_holm: p value adjusted for the number of pairs in the comparison (Holm 1979).
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
        """Whether the difference is significant: adjusted p < 0.05."""
        return self.p_holm < LEVEL

    @property
    def rows_alone(self) -> bool:
        """Whether there is one seed, so that the test says nothing about other seeds."""
        return len(self.by_seed) == 1


class ComparisonResults(_Facts):
    """All results of a comparison.

    Attributes:
        data: Name of the task, or of the file or folder.
        task: "problem_type", "label_names", "rows" (split -> count), "majority_rate" (split -> rate or None), "metrics"
            (main metric first), "notes", "fingerprint".
        seeds: The requested seeds.
        missing: Requested trials that are not finished, as "method, learning rate, seed".
        pairs: Every later method with every earlier one; for methods at several budgets see
            `prunelora.comparison.budgets.to_be_paired`.
        trials: Every training, of the rejected learning rates too.
        timing: Warm-up rounds, rounds, and rows a step; None if not timed.
        machine: Of the timing.
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
        """The metric that methods are judged by."""
        return str(self.task["metrics"][0])

    @property
    def splits(self) -> tuple[str, ...]:
        """Reported splits, in order."""
        return tuple(self.task["majority_rate"])

    def method(self, name: str) -> MethodFacts | None:
        """Returns a method by its name."""
        return next((method for method in self.methods if method.name == name), None)

    def save(self, path: Path) -> None:
        """Write the results as JSON, atomically."""
        write_json(path, self.model_dump(mode="json"))


def trial_folder(method: str, learning_rate: float, seed: int) -> str:
    """Returns the run folder of a trial, relative to the comparison's folder."""
    return f"trials/{method}/lr-{learning_rate:g}/seed-{seed}"


def load_comparison(path: Path) -> ComparisonResults:
    """Read the results of a comparison.

    Raises:
        RecipeError: If the file does not exist or has other content.
    """
    try:
        return ComparisonResults.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise RecipeError(
            f"{path}: cannot be read as the results of a comparison of this version ({first_line(error)})."
        ) from error
