"""Importance: the scores of all attention heads and feed-forward neurons, and their file."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from prunelora.errors import ScoreError
from prunelora.models.architecture import Architecture
from prunelora.models.lineage import Lineage
from prunelora.storage import replacing_file

Scores = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Importance:
    """Scores of the heads and neurons of a model for one task, unnormalised.

    Attributes:
        heads: For every layer l, shape (H_l,), float64: I[l, h] of the paper's eq. 1.
        neurons: For every layer l, shape (F_l,), float64.
        lineage: Ids of the scored heads and neurons in the base model.
        num_parameters: Number of parameters of the scored model, task head included; None if unknown.
        provenance: Criterion, model, and numbers of examples and tokens.
    """

    heads: tuple[Scores, ...]
    neurons: tuple[Scores, ...]
    lineage: Lineage
    num_parameters: int | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that scores have the shapes of the lineage and are finite and not negative."""
        for name, scores, ids in (
            ("heads", self.heads, self.lineage.heads),
            ("neurons", self.neurons, self.lineage.neurons),
        ):
            if len(scores) != len(ids):
                raise ScoreError(f"{name}: scores for {len(scores)} layers, but the model has {len(ids)}.")
            for layer, (values, present) in enumerate(zip(scores, ids, strict=True)):
                if values.shape != (len(present),):
                    raise ScoreError(f"{name}[{layer}]: expected shape ({len(present)},), found {values.shape}.")
                if not np.isfinite(values).all() or (values < 0).any():
                    raise ScoreError(
                        f"{name}[{layer}]: scores must be finite and not negative, found "
                        f"{values[~(np.isfinite(values) & (values >= 0))][:3].tolist()}."
                    )

    def save(self, path: Path | str) -> None:
        """Write the scores as safetensors, atomically; lineage and provenance go into its metadata."""
        tensors = {f"heads.{layer}": scores for layer, scores in enumerate(self.heads)}
        tensors |= {f"neurons.{layer}": scores for layer, scores in enumerate(self.neurons)}
        base = self.lineage.base
        metadata = {
            "format": "prunelora-importance-1",
            "base": json.dumps(vars(base)),
            "head_ids": json.dumps(self.lineage.heads),
            "neuron_ids": json.dumps(self.lineage.neurons),
            "num_parameters": json.dumps(self.num_parameters),
            "provenance": json.dumps(self.provenance),
        }
        with replacing_file(Path(path)) as temporary:
            save_file(tensors, temporary, metadata=metadata)

    @classmethod
    def load(cls, path: Path | str) -> "Importance":
        """Read a file that `save` wrote.

        Raises:
            ScoreError: If the file is missing, damaged, or not a file of scores.
        """
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        except (OSError, SafetensorError) as error:
            raise ScoreError(
                f"{path}: cannot be read as importance scores ({error}). Run `prunelora score` again."
            ) from error
        if metadata.get("format") != "prunelora-importance-1":
            raise ScoreError(f"{path}: format {metadata.get('format')!r}, expected 'prunelora-importance-1'.")
        base = json.loads(metadata["base"])
        base |= {name: tuple(base[name]) for name in ("num_heads", "num_neurons")}
        lineage = Lineage(
            base=Architecture(**base),
            heads=tuple(map(tuple, json.loads(metadata["head_ids"]))),
            neurons=tuple(map(tuple, json.loads(metadata["neuron_ids"]))),
        )
        layers = range(len(lineage.heads))
        # Files of prunelora 0.2 and earlier have the keys ffn.0, ffn.1, ... and the criterion "surgeon".
        neurons = "ffn" if "ffn.0" in tensors else "neurons"
        provenance = metadata["provenance"].replace('"criterion": "surgeon"', '"criterion": "obs"')
        return cls(
            heads=tuple(tensors[f"heads.{layer}"] for layer in layers),
            neurons=tuple(tensors[f"{neurons}.{layer}"] for layer in layers),
            lineage=lineage,
            num_parameters=json.loads(metadata.get("num_parameters", "null")),
            provenance=json.loads(provenance),
        )
