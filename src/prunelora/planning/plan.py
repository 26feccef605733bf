"""Plans: the heads and neurons to keep and the LoRA rank of every matrix, in the base model's coordinates."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_serializer, field_validator

from prunelora.errors import PlanError
from prunelora.models.architecture import Architecture
from prunelora.models.family import ATTENTION_PROJECTIONS, PROJECTIONS
from prunelora.models.lineage import Lineage
from prunelora.planning.ids import check_ids, read_ids, write_ids
from prunelora.settings import complaint
from prunelora.storage import write_text

FORMAT: Final = "prunelora-plan-1"


class Plan(BaseModel):
    """The heads and neurons of a model to keep, and the ranks of its adapters. Immutable.

    Made by `make_plan`, by hand, or by `Plan.load`. Ids are those of the base model, even if a pruned model was scored,
    so that every plan can be applied to the base model, and a smaller plan to a pruned model.

    Attributes:
        format: Version of the file format.
        base: Sizes of the model before any pruning.
        heads: For every layer, sorted ids of the kept heads.
        neurons: For every layer, sorted ids of the kept neurons; in JSON as ranges or a bitmap (see `ids`).
        ranks: For every adapted projection ("query", "key", "value", "output", "up", "down"), its rank in every layer;
            0 for none.
        provenance: Scores and options that the plan was made from; not part of its identity.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal["prunelora-plan-1"] = FORMAT
    base: Architecture
    heads: tuple[tuple[int, ...], ...]
    neurons: tuple[tuple[int, ...], ...]
    ranks: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    provenance: dict[str, Any] = Field(default_factory=dict)

    # Validation -------------------------------------------------------------------------------------------------------

    @field_validator("base")
    @classmethod
    def _check_base(cls, value: Architecture) -> Architecture:
        if len(value.num_heads) != len(value.num_neurons):
            raise PlanError(
                f"base: num_heads and num_neurons have one entry per layer, found {len(value.num_heads)} and "
                f"{len(value.num_neurons)}."
            )
        for name in ("num_heads", "num_neurons"):
            if min(getattr(value, name), default=0) < 0:
                raise PlanError(f"base.{name}: counts must not be negative, found {min(getattr(value, name))}.")
        for name in ("hidden_size", "head_dim", "queries_per_head", "repeats"):
            if getattr(value, name) < 1:
                raise PlanError(f"base.{name}: expected at least 1, found {getattr(value, name)}.")
        return value

    @field_validator("neurons", mode="before")
    @classmethod
    def _read_neurons(cls, value: Any, info: ValidationInfo) -> Any:
        base = info.data.get("base")
        if base is None or not isinstance(value, Sequence):
            return value
        return tuple(
            read_ids(ids, base.num_neurons[layer], f"neurons[{layer}]")
            if isinstance(ids, str) and layer < base.num_layers
            else ids
            for layer, ids in enumerate(value)
        )

    @field_validator("heads", "neurons")
    @classmethod
    def _check_ids(cls, value: tuple[tuple[int, ...], ...], info: ValidationInfo) -> tuple[tuple[int, ...], ...]:
        base, name = info.data.get("base"), str(info.field_name)
        if base is None:
            return value
        totals = base.num_heads if name == "heads" else base.num_neurons
        if len(value) != len(totals):
            raise PlanError(f"{name}: expected one entry per layer, found {len(value)}; base has {len(totals)} layers.")
        for layer, (ids, total) in enumerate(zip(value, totals, strict=True)):
            check_ids(ids, total, f"{name}[{layer}]")
        return value

    @field_validator("ranks")
    @classmethod
    def _check_ranks(cls, value: dict[str, tuple[int, ...]], info: ValidationInfo) -> dict[str, tuple[int, ...]]:
        base = info.data.get("base")
        for name, ranks in value.items():
            if name not in PROJECTIONS:
                raise PlanError(f"ranks: {name!r} is not a projection. Use: {', '.join(PROJECTIONS)}.")
            if base is not None and len(ranks) != base.num_layers:
                raise PlanError(
                    f"ranks.{name}: expected one rank per layer, found {len(ranks)}; base has {base.num_layers} layers."
                )
            if min(ranks, default=0) < 0:
                raise PlanError(f"ranks.{name}: ranks must not be negative, found {min(ranks)}.")
        return value

    @field_serializer("neurons")
    def _write_neurons(self, value: tuple[tuple[int, ...], ...]) -> list[str]:
        return [write_ids(ids, total) for ids, total in zip(value, self.base.num_neurons, strict=True)]

    @field_serializer("base")
    def _write_base(self, value: Architecture) -> dict[str, Any]:
        """Omit default values of sizes that only some families have, so that other plans keep their format and ids."""
        defaults = {
            "queries_per_head": 1,
            "gated": False,
            "position_projections": 0,
            "relative_positions": 0,
            "repeats": 1,
        }
        return {name: size for name, size in vars(value).items() if name not in defaults or size != defaults[name]}

    @classmethod
    def whole(cls, lineage: Lineage, *, rank: int = 0, targets: Sequence[str] = ATTENTION_PROJECTIONS) -> "Plan":
        """The plan that keeps all present heads and neurons; with a rank, plain LoRA with this rank in every layer."""
        layers = lineage.base.num_layers
        return cls(
            base=lineage.base,
            heads=lineage.heads,
            neurons=lineage.neurons,
            ranks=dict.fromkeys(targets, (rank,) * layers) if rank else {},
        )

    # Reading and writing ----------------------------------------------------------------------------------------------

    @classmethod
    def from_json(cls, text: str, *, source: str = "plan") -> "Plan":
        """Read a plan from JSON.

        Raises:
            PlanError: Naming `source` and the place, if it is not JSON, has unknown keys, unsorted ids, wrong counts,
                or another version.
        """
        try:
            return cls.model_validate_json(text)
        except PlanError as error:
            raise PlanError(f"{source}: {error}") from error
        except ValidationError as error:
            raise PlanError(f"{source}: {_explain(error)}") from error

    @classmethod
    def load(cls, path: Path | str) -> "Plan":
        """Read a plan from a file; errors as in `from_json`, and if there is no such file."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise PlanError(f"{path}: cannot be read as a plan ({error}).") from error
        return cls.from_json(text, source=str(path))

    def to_json(self) -> str:
        """Write the plan as readable JSON: one line per layer."""
        return _readable_json(self.model_dump(mode="json")) + "\n"

    def save(self, path: Path | str) -> None:
        """Write the plan to a file, atomically."""
        write_text(Path(path), self.to_json())

    # Meaning ----------------------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """Identity of the plan: 16 hexadecimal digits of SHA-256 over all but the provenance."""
        # Not cached, because `model_copy` would copy the cached id to a changed plan.
        content = self.model_dump(mode="json", exclude={"provenance"})
        # Rank 0 in every layer is the same as no adapter.
        content["ranks"] = {name: ranks for name, ranks in content["ranks"].items() if any(ranks)}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def lineage(self) -> Lineage:
        """The base and the ids of the kept heads and neurons."""
        return Lineage(self.base, self.heads, self.neurons)

    @property
    def architecture(self) -> Architecture:
        """Sizes of the pruned model."""
        heads, neurons = tuple(map(len, self.heads)), tuple(map(len, self.neurons))
        return dataclasses.replace(self.base, num_heads=heads, num_neurons=neurons)

    @property
    def keeps_everything(self) -> bool:
        """Whether no head and no neuron is removed."""
        return self.architecture == self.base

    def rank(self, projection: str, layer: int) -> int:
        """LoRA rank of one matrix; 0 if it is not adapted, or no unit of it is kept."""
        kept = self.heads if projection in ATTENTION_PROJECTIONS else self.neurons
        return self.ranks[projection][layer] if projection in self.ranks and kept[layer] else 0

    def then(self, second: "Plan") -> "Plan":
        """Compose two plans: the single plan with the effect of this one followed by `second`.

        Args:
            second: A plan in the coordinates of the same base that keeps nothing that this plan removes, or in the
                coordinates of the pruned model, where head 1 is the second of the kept heads.

        Returns:
            A plan in this plan's base coordinates, with the ranks and provenance of `second`.

        Raises:
            PlanError: If `second` has another base, or keeps a head or neuron that this plan removes.
        """
        if second.base == self.base:
            check_within(second, self.lineage)
            return second
        if second.base != self.architecture:
            raise PlanError(
                f"The second plan is for {second.base.describe()}; the first prunes {self.base.describe()} to "
                f"{self.architecture.describe()}. Make the second plan for one of the two."
            )
        return second.model_copy(
            update={
                "base": self.base,
                "heads": base_ids(self.heads, second.heads),
                "neurons": base_ids(self.neurons, second.neurons),
            }
        )

    def __str__(self) -> str:
        """A table with one line per layer."""
        base = self.base
        names = [name for name in PROJECTIONS if name in self.ranks]
        lines = [
            f"plan {self.id}: {self.architecture.heads_of(base)}, "
            f"{self.architecture.total_neurons} of {base.total_neurons} neurons stay ({base.family})",
            f"layer  {base.unit_of_heads.split()[-1]}  neurons  ranks" + (f" ({' '.join(names)})" if names else ""),
        ]
        for layer in range(base.num_layers):
            ranks = " ".join(str(self.rank(name, layer)) for name in names) or "none"
            lines.append(
                f"{layer:>5}  {len(self.heads[layer]):>2}/{base.num_heads[layer]:<2}  "
                f"{len(self.neurons[layer]):>4}/{base.num_neurons[layer]:<4} {ranks}"
            )
        return "\n".join(lines)


def check_within(plan: Plan, present: Lineage) -> None:
    """Check that a plan fits a model: same base, and every kept head and neuron is present.

    Raises:
        PlanError: Naming the layer and the ids.
    """
    if plan.base != present.base:
        raise PlanError(
            f"The plan is for another model: {plan.base.describe()}. This model is {present.base.describe()}. "
            "Make a plan from this model's own scores."
        )
    for name, kept, available in (("heads", plan.heads, present.heads), ("neurons", plan.neurons, present.neurons)):
        for layer, (ids, present_ids) in enumerate(zip(kept, available, strict=True)):
            missing = sorted(set(ids) - set(present_ids))
            if missing:
                raise PlanError(
                    f"{name}[{layer}]: the plan keeps {missing[:5]}{' and more' if len(missing) > 5 else ''}, which an "
                    "earlier plan removed. Apply this plan to the base model, or make one from this model's scores."
                )


def base_ids(ids: Sequence[Sequence[int]], positions: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    """For every layer, the base ids at positions among the present ids: ([4, 7, 9], [0, 2]) -> (4, 9)."""
    return tuple(tuple(layer[position] for position in kept) for layer, kept in zip(ids, positions, strict=True))


def _explain(error: ValidationError) -> str:
    """The first of pydantic's errors, with its place."""
    first = error.errors()[0]
    if first["type"] == "literal_error" and first["loc"] == ("format",):
        return f"format is {first['input']!r}; this version of prunelora reads {FORMAT!r}."
    return complaint(error, known=lambda place: Plan.model_fields if len(place) == 1 else ())


def _readable_json(value: Mapping[str, Any]) -> str:
    """JSON with lists of numbers on one line: one line per layer."""

    def write(item: Any, indent: int) -> str:
        pad = "  " * (indent + 1)
        if isinstance(item, Mapping) and item:
            rows = [f"{pad}{json.dumps(key)}: {write(entry, indent + 1)}" for key, entry in item.items()]
            return "{\n" + ",\n".join(rows) + "\n" + "  " * indent + "}"
        if isinstance(item, list) and any(isinstance(entry, list | str | Mapping) for entry in item):
            rows = [f"{pad}{write(entry, indent + 1)}" for entry in item]
            return "[\n" + ",\n".join(rows) + "\n" + "  " * indent + "]"
        return json.dumps(item, ensure_ascii=False)

    return write(value, 0)
