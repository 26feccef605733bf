"""Latency of a model on a device, as measured points and as a table: milliseconds by heads and neurons of each layer.

T(h, w) = fixed + sum over layers l of (A(h_l) + N(w_l)) / L, where A and N are piecewise linear between the measured
counts and never fall. Zero is a count of its own, since a module without units vanishes with its overhead.
"""

import datetime
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from prunelora.errors import PlanError
from prunelora.models.architecture import Architecture
from prunelora.models.families import FAMILIES
from prunelora.planning.cost_tables import CostTable
from prunelora.settings import complaint
from prunelora.storage import write_text

FORMAT: Final = "prunelora-latency-1"

# All other points are ratios to the dense model's time, so the fit must meet that point.
_WEIGHT_OF_DENSE = 1e3


class LatencySettings(BaseModel):
    """Input and engine of a latency."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: Literal["torch", "onnxruntime"] = Field(
        "torch", description="Engine: torch on the model's device, or onnxruntime on the CPU."
    )
    batch_size: int = Field(1, ge=1, description="Rows a forward pass.")
    tokens: int = Field(128, ge=1, description="Tokens a row, none of them padding.")
    threads: int | None = Field(None, ge=1, description="Threads of the CPU; torch's own number if not given.")


class LatencyPoint(BaseModel):
    """Median and quartiles of the time of a forward pass, with every layer cut alike."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    heads: int = Field(ge=0, description="Heads left in every layer.")
    neurons: int = Field(ge=0, description="Neurons left in every layer.")
    ms: float = Field(gt=0, description="Median of the ratios to the dense model, times the dense model's median.")
    q25_ms: float = Field(gt=0, description="A quarter of the rounds were faster.")
    q75_ms: float = Field(gt=0, description="Three quarters of the rounds were faster.")


class LatencyModel(BaseModel):
    """Latency of every model that can be cut from one dense model, on one device.

    Attributes:
        format: Version of the layout.
        architecture: Sizes of the dense model; its layers are alike.
        settings: Input and engine, with `threads` filled in.
        points: Measured points, among them the dense model and models without heads and without neurons.
        of_model: Further properties that the time depends on: class, dtype, attention implementation and a hash of
            the configuration.
        machine: Machine and versions of the measurement.
        rounds: Number of timed rounds.
        measured_at: Time in UTC: "2026-11-30T20:05:00+00:00".
        reference_ms: Time of the dense model's forward pass in torch, alone, right after the measurement, by which a
            later run detects a change of the machine's speed. None if the engine runs on another device.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["prunelora-latency-1"] = FORMAT
    architecture: Architecture
    settings: LatencySettings
    points: tuple[LatencyPoint, ...]
    of_model: dict[str, Any] = Field(default_factory=dict)
    machine: dict[str, Any] = Field(default_factory=dict)
    rounds: int = Field(0, ge=0)
    measured_at: datetime.datetime
    reference_ms: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _check_points(self) -> "LatencyModel":
        """Raises PlanError if a count from nothing to all lies outside the measured ones."""
        heads, neurons = whole_layer(self.architecture)
        for name, most, counts in (
            ("heads", heads, {point.heads for point in self.points}),
            ("neurons", neurons, {point.neurons for point in self.points}),
        ):
            if not {0, most} <= counts or max(counts) > most:
                raise PlanError(
                    f"points: {name} are measured at {sorted(counts)}; 0 and {most} must be among them, none above. "
                    "Measure the model again."
                )
        shapes = [(point.heads, point.neurons) for point in self.points]
        if (heads, neurons) not in shapes or len(set(shapes)) < len(shapes):
            raise PlanError(
                f"points: expected the dense model ({heads} heads, {neurons} neurons a layer) and no shape twice, "
                f"found {shapes}. Measure the model again."
            )
        return self

    # Meaning ----------------------------------------------------------------------------------------------------------

    @property
    def dense_ms(self) -> float:
        """Time with nothing cut."""
        whole = whole_layer(self.architecture)
        return next(point.ms for point in self.points if (point.heads, point.neurons) == whole)

    def when(self) -> str:
        """Age of the measurement: "measured 3 hours ago (2026-11-30 20:05 UTC)"."""
        age = datetime.datetime.now(datetime.UTC) - self.measured_at
        return f"measured {_ago(age)} ({self.measured_at.astimezone(datetime.UTC):%Y-%m-%d %H:%M} UTC)"

    def table(self) -> CostTable:
        """Fit a table of milliseconds to plan with.

        The costs minimise the sum of squared relative errors at the measured points, under the constraints that costs
        are not negative and never fall. The dense model costs its measured time.
        """
        from scipy.optimize import nnls

        head_counts = sorted({point.heads for point in self.points})
        neuron_counts = sorted({point.neurons for point in self.points})
        # Unknowns: the fixed part and the step from each count to the next; a point is the sum of the steps below it.
        rows = np.array(
            [
                [
                    1.0,
                    *(count <= point.heads for count in head_counts[1:]),
                    *(count <= point.neurons for count in neuron_counts[1:]),
                ]
                for point in self.points
            ]
        )
        times = np.array([point.ms for point in self.points])
        weights = np.where(rows.all(axis=1), _WEIGHT_OF_DENSE, 1.0) / times
        steps, _ = nnls(rows * weights[:, None], times * weights)
        of_heads, of_neurons = steps[1 : len(head_counts)], steps[len(head_counts) :]
        layers = self.architecture.num_layers
        heads, neurons = whole_layer(self.architecture)
        with_neurons = [count > 0 for count in self.architecture.num_neurons]
        a_layers_neurons = _interpolated(neurons, neuron_counts, of_neurons / max(1, sum(with_neurons)))
        return CostTable(
            unit="ms",
            heads=(_interpolated(heads, head_counts, of_heads / layers),) * layers,
            neurons=tuple(a_layers_neurons if some else np.zeros(1) for some in with_neurons),
            fixed=float(steps[0]),
            architecture=self.architecture,
        )

    def predict(self, architecture: Architecture) -> float:
        """Milliseconds of a forward pass of a model of this architecture.

        Raises:
            PlanError: If the measured model cannot be cut to it.
        """
        dense = self.architecture
        differing = dense.differences(architecture)
        heads, neurons = whole_layer(dense)
        if differing or max(architecture.num_heads) > heads or max(architecture.num_neurons) > neurons:
            raise PlanError(
                f"The latency model is of {dense.describe()}; {architecture.describe()} cannot be cut from it"
                f"{': ' + ', '.join(differing) if differing else ''}. Measure the latency of that model's base."
            )
        return self.table().of(architecture)

    # Reading and writing ----------------------------------------------------------------------------------------------

    @classmethod
    def load(cls, path: Path | str) -> "LatencyModel":
        """Read a latency model from a file.

        Raises:
            PlanError: If it cannot be read, is no JSON, has unknown keys or another version, or points are missing;
                names the file and the place.
        """
        try:
            return cls.model_validate_json(Path(path).read_text(encoding="utf-8"))
        except PlanError as error:
            raise PlanError(f"{path}: {error}") from error
        except ValidationError as error:
            raise PlanError(f"{path}: {complaint(error)} Measure the model again.") from error
        except (OSError, UnicodeDecodeError) as error:
            raise PlanError(f"{path}: cannot be read as a latency model ({error}). Measure the model again.") from error

    def save(self, path: Path | str) -> None:
        """Write it to a file as JSON, atomically."""
        write_text(Path(path), self.model_dump_json(indent=2) + "\n")


def whole_layer(architecture: Architecture) -> tuple[int, int]:
    """Heads and neurons of every layer; an encoder-decoder also has layers of attention alone.

    Raises:
        PlanError: If layers differ otherwise, as in a cut model.
    """
    family = FAMILIES.get(architecture.family)
    neurons = {count for count in architecture.num_neurons if count or not (family and family.encoder_decoder)}
    if len({*architecture.num_heads}) != 1 or len(neurons) != 1:
        raise PlanError(
            f"Latency is modelled for cuts of a dense model, whose layers are alike; found {architecture.describe()}. "
            "Give the base model."
        )
    return architecture.num_heads[0], neurons.pop()


def _ago(age: datetime.timedelta) -> str:
    """90 minutes -> "1 hour ago"."""
    for unit, seconds in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        count = int(age.total_seconds() // seconds)
        if count:
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"


def _interpolated(most: int, counts: list[int], steps: np.ndarray) -> np.ndarray:
    """Costs of 0, 1, ... `most` of something, shape (most + 1,), from the steps between the counts."""
    return np.interp(np.arange(most + 1), counts, np.concatenate([[0.0], np.cumsum(steps)]))
