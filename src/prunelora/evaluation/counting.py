"""Parameters, bytes and multiply-accumulates of a live model."""

from dataclasses import dataclass

from torch import nn

from prunelora.models.anatomy import dissect
from prunelora.planning.costs import Macs, block_macs, block_parameters


@dataclass(frozen=True)
class ParameterCount:
    """Parameters of a model, by place.

    Attributes:
        total: All parameters; shared ones once.
        trainable: Those with `requires_grad`.
        embeddings: Tables of `nn.Embedding`.
        blocks: Those of heads and neurons, the only ones that pruning removes.
        other: LayerNorms, output biases of the blocks, pooler, task head.
    """

    total: int
    trainable: int
    embeddings: int
    blocks: int
    other: int


def parameters(model: nn.Module) -> ParameterCount:
    """Count the parameters of a model of a supported family, pruned or not."""
    blocks = block_parameters(dissect(model).architecture)
    total = sum(p.numel() for p in model.parameters())
    tables = {id(m.weight): m.weight.numel() for m in model.modules() if isinstance(m, nn.Embedding)}
    embeddings = sum(tables.values())
    return ParameterCount(
        total=total,
        trainable=sum(p.numel() for p in model.parameters() if p.requires_grad),
        embeddings=embeddings,
        blocks=blocks,
        other=total - embeddings - blocks,
    )


def macs(model: nn.Module, *, tokens: int) -> Macs:
    """MACs of the blocks of a model, for one example of so many tokens."""
    return block_macs(dissect(model).architecture, tokens=tokens)


def weight_bytes(model: nn.Module) -> int:
    """Bytes of all parameters; shared ones once."""
    return sum(p.numel() * p.element_size() for p in model.parameters())
