"""Projections as matrices, whether stored as a linear layer, as rows of a fused layer, or transposed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D


@dataclass(frozen=True)
class Matrix:
    """One projection: all of a linear layer, or some of its output rows.

    Attributes:
        module: `nn.Linear`, or `Conv1D` of transformers, which keeps its weight as (in, out).
        start: Index of the projection's first row in the module.
        out_features: Number of rows.
    """

    module: nn.Module
    start: int
    out_features: int

    @property
    def in_features(self) -> int:
        """Width of the input."""
        return widths(self.module)[0]

    @property
    def weight(self) -> torch.Tensor:
        """A view of shape (out, in)."""
        weight: Any = self.module.weight
        oriented = weight.T if isinstance(self.module, Conv1D) else weight
        return oriented[self.start : self.start + self.out_features]

    @property
    def bias(self) -> torch.Tensor | None:
        """A view of shape (out,); None without a bias."""
        bias: Any = getattr(self.module, "bias", None)
        return None if bias is None else bias[self.start : self.start + self.out_features]


def widths(module: nn.Module) -> tuple[int, int]:
    """(in, out) features of a linear layer or its replacement."""
    if isinstance(module, Conv1D):
        return int(module.weight.shape[0]), int(module.nf)
    return int(module.in_features), int(module.out_features)  # type: ignore[arg-type]


def keep_rows(module: nn.Module, rows: Sequence[int]) -> None:
    """Keep some outputs of a layer: q: (768, 768) -> (512, 768) when 8 of 12 heads of size 64 stay."""
    layer: Any = module
    transposed = isinstance(module, Conv1D)
    layer.weight = _selected(layer.weight, 1 if transposed else 0, rows)
    if layer.bias is not None:
        layer.bias = _selected(layer.bias, 0, rows)
    setattr(layer, "nf" if transposed else "out_features", len(rows))


def keep_columns(module: nn.Module, columns: Sequence[int]) -> None:
    """Keep some inputs of a layer: output projection (768, 768) -> (768, 512). The bias stays."""
    layer: Any = module
    transposed = isinstance(module, Conv1D)
    layer.weight = _selected(layer.weight, 0 if transposed else 1, columns)
    setattr(layer, "nx" if transposed else "in_features", len(columns))


def _selected(tensor: torch.Tensor, dim: int, index: Sequence[int]) -> nn.Parameter:
    values = tensor.detach().index_select(dim, torch.tensor(index, device=tensor.device, dtype=torch.long))
    return nn.Parameter(values.contiguous(), requires_grad=tensor.requires_grad)
