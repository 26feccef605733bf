"""What a cell of the benchmark found, as plain data: what the page is made of."""

import json
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from prunelora.comparison.results import LatencyFacts, MemoryFacts, Share, TrialFacts
from prunelora.storage import write_json

Facts = TypeVar("Facts", bound=BaseModel)


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Trial(_Facts):
    """Something that was tried.

    Attributes:
        what: It.
        works: Whether it did what it is for.
        outcome: What happened: the first line of the error, or what came of it.
    """

    what: str
    works: bool
    outcome: str


class PeerCell(_Facts):
    """One training, its model, and what can be done with it.

    Attributes:
        format: Version of this layout.
        task: Name of the task.
        command: What makes this file.
        facts: As of every training of a comparison. Of seconds, "score" to "prune" are from scoring to the cut model.
        data: "rows", "majority_rate", "metrics", "notes", "fingerprint".
        parameters: Of the merged model.
        macs: Of its blocks, for one example.
        dense_macs: The same of the dense model.
        heads: Left in every layer.
        neurons: Left in every layer.
        after_cut: Metrics on the validation rows after cut and repair, before further training; None where nothing was
            cut.
        cut: What is known of a cut by another than prunelora.
        memory: Of every fine-tuning, by the name of its stage.
        saving: Ways to save the model and load it again.
        versions: Of the packages.
    """

    format: Literal["prunelora-peers-1"] = "prunelora-peers-1"
    task: str
    command: str
    facts: TrialFacts
    data: dict[str, Any]
    parameters: int
    macs: int
    dense_macs: int
    heads: tuple[int, ...]
    neurons: tuple[int, ...]
    after_cut: dict[str, float] | None
    cut: dict[str, Any] | None
    memory: dict[str, MemoryFacts]
    saving: tuple[Trial, ...]
    versions: dict[str, str | None]

    @property
    def quality(self) -> float:
        """Main metric on the first reported split."""
        split = next(iter(self.facts.test))
        return self.facts.test[split][self.data["metrics"][0]]

    @property
    def seconds_to_cut(self) -> float | None:
        """From scoring to the cut model; None where nothing was cut."""
        if self.after_cut is None:
            return None
        return sum(self.facts.seconds.get(stage, 0.0) for stage in ("score", "plan", "prune"))

    @property
    def seconds(self) -> float:
        """Of all that leads to the merged model."""
        return sum(seconds for stage, seconds in self.facts.seconds.items() if stage != "evaluate")

    @property
    def most_memory(self) -> int:
        """Of a training step, in the fine-tuning that takes most."""
        return max(one.training for one in self.memory.values())


class TimedContender(_Facts):
    """Times of one contender's model, beside all others.

    Attributes:
        step_ms: A step of its last fine-tuning.
        step_to_lora: The same over a step of LoRA, within each round; None without it.
        latencies: Forward passes.
    """

    step_ms: float
    step_to_lora: Share | None
    latencies: tuple[LatencyFacts, ...]


class PeerTiming(_Facts):
    """All contenders of a task, timed in turn in one run.

    Attributes:
        format: Version of this layout.
        seed: Of the models.
        models: Parameters and MACs of each model, by contender: which models they were.
        contenders: By name.
        settings: Rounds and batches.
        machine: What it ran on.
    """

    format: Literal["prunelora-peers-timing-1"] = "prunelora-peers-timing-1"
    seed: int
    models: dict[str, tuple[int, int]]
    contenders: dict[str, TimedContender]
    settings: dict[str, Any]
    machine: dict[str, Any]


class HeadCounts(_Facts):
    """Whether one way to cut can leave different numbers of heads in different layers, and what it left.

    Attributes:
        way: Who cut, and how.
        keep_macs: What was asked for.
        share: What was left of the MACs; None where nothing was cut.
        heads: In every layer, by the weights.
        by_its_books: In every layer, by what the one who cut says.
        neurons: In every layer.
        trials: What was done with it.
    """

    way: str
    keep_macs: float
    share: float | None
    heads: tuple[int, ...]
    by_its_books: tuple[int, ...]
    neurons: tuple[int, ...]
    trials: tuple[Trial, ...]


class HeadCountTrials(_Facts):
    """All of them, on one model and the calibration rows of one task."""

    format: Literal["prunelora-peers-heads-1"] = "prunelora-peers-heads-1"
    task: str
    model: str
    rows: int
    ways: tuple[HeadCounts, ...]
    versions: dict[str, str | None]


def cell_file(results: Path, task: str, contender: str, seed: int) -> Path:
    """Where a cell's facts lie."""
    return results / task / contender / f"seed-{seed}.json"


def timing_file(results: Path, task: str) -> Path:
    """Where a task's times lie."""
    return results / task / "timing.json"


def head_counts_file(results: Path) -> Path:
    """Where the trials of head counts lie."""
    return results / "head-counts.json"


def save_facts(facts: BaseModel, path: Path) -> None:
    """Write facts as JSON, atomically."""
    write_json(path, facts.model_dump(mode="json"))


def load_facts(kind: type[Facts], path: Path) -> Facts | None:
    """Read facts; None where there are none of this kind."""
    try:
        return kind.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError):
        return None
