"""A transformer block of a live model, seen through its family's row: its parts and its sizes."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn
from transformers.pytorch_utils import Conv1D

from prunelora.errors import UnsupportedModelError
from prunelora.models.empty import BiasOnly, NoHeads, NoNeurons
from prunelora.models.family import Family
from prunelora.models.matrices import Matrix, widths


@dataclass(frozen=True)
class Block:
    """One transformer block of a live model: attention over some heads, and the feed-forward layer behind it, if any.

    A layer of an encoder-decoder's decoder is two of them: attention to itself, and attention to the encoder with the
    feed-forward layer. Both have the layer as their module.
    """

    index: int
    module: nn.Module
    family: Family
    prefix: str  # Name of the block within the whole model, such as "bert.encoder.layer.3".
    queries_per_head: int = 1

    def part(self, name: str) -> nn.Module:
        """The module that has a standard name such as "query", "down" or "attention"."""
        return self.module.get_submodule(self.family.path(name))

    def matrix(self, name: str) -> Matrix:
        """A projection by its standard name ("query", "up", "gate"), also where it is part of a fused layer."""
        family, module = self.family, self.part(name)
        rows = widths(module)[1]
        if name in ("query", "key", "value") and family.fused_attention:
            head = self.head_dim * self.num_heads
            query = head * self.queries_per_head
            start = {"query": 0, "key": query, "value": query + head}[name]
            return Matrix(module, start, query if name == "query" else head)
        if name in ("up", "gate") and family.fused_gate:
            # Which half is which does not matter: a neuron owns the same row of both.
            return Matrix(module, 0 if name == "up" else rows // 2, rows // 2)
        return Matrix(module, 0, rows)

    def replace(self, name: str, module: nn.Module) -> None:
        """Put `module` where the part of this standard name is."""
        self.module.set_submodule(self.family.path(name), module)

    def full_name(self, name: str) -> str:
        """Name of a part within the whole model: "bert.encoder.layer.3.attention.self.query"."""
        return f"{self.prefix}.{self.family.path(name)}"

    @property
    def num_heads(self) -> int:
        """H_l, 0 where no head is left; with grouped-query attention, key and value heads."""
        if isinstance(self.part("attention"), NoHeads):
            return 0
        rows = widths(self.part("key"))[1]
        shares = self.queries_per_head + 2 if self.family.fused_attention else 1
        return rows // (shares * self.head_dim)

    @property
    def head_dim(self) -> int:
        """d_h."""
        attention = self.part("attention")
        return attention.head_dim if isinstance(attention, NoHeads) else int(getattr(attention, self.family.head_dim))

    @property
    def num_neurons(self) -> int:
        """F_l, 0 where no neuron is left, or there never was one."""
        return widths(self.part("down"))[0] if self.family.feed_forward else 0

    @property
    def attention_bias(self) -> bool:
        """Whether q, k and v have biases, or had, where no head is left."""
        attention = self.part("attention")
        if isinstance(attention, NoHeads):
            return attention.had_bias
        return self.matrix("query").bias is not None

    @property
    def position_projections(self) -> int:
        """Further projections whose rows go with the heads, or went, where no head is left."""
        attention = self.part("attention")
        if isinstance(attention, NoHeads):
            return attention.position_projections
        return len(self.with_heads())

    def with_heads(self) -> list[nn.Module]:
        """The family's further linear layers whose rows go with the heads, those that this model has."""
        found = (find(self.module, path) for path in self.family.with_heads)
        return [module for module in found if module is not None]

    @property
    def ffn_bias(self) -> bool:
        """Whether up projections have biases, or had, where no neuron is left."""
        if not self.family.feed_forward:
            return False
        up = self.part("up")
        return up.had_bias if isinstance(up, NoNeurons) else self.matrix("up").bias is not None

    def norm_names(self) -> Iterator[str]:
        """Names of the block's norms within the whole model; some models have none where others of the family do."""
        return (
            f"{self.prefix}.{path}"
            for path in self.family.norms
            if (norm := find(self.module, path)) is not None and any(True for _ in norm.parameters())
        )


def find(module: nn.Module, path: str) -> nn.Module | None:
    """A part of a module by its path; None where there is none."""
    try:
        return module.get_submodule(path)
    except AttributeError:
        return None


def check(block: Block) -> None:
    """Hold every projection to be the plain linear layer (or what pruning left of one) that the row promises.

    Raises:
        UnsupportedModelError: Naming the part that is not.
    """
    headless = isinstance(block.part("attention"), NoHeads)
    for name in block.family.projections:
        if headless and name in ("query", "key", "value"):
            continue
        module = find(block.module, block.family.path(name))
        if not isinstance(module, nn.Linear | Conv1D | BiasOnly | NoNeurons):
            if module is None:
                raise UnsupportedModelError(
                    f"{block.full_name(name)}: expected torch.nn.Linear, found nothing of this name. The model is laid "
                    "out in another way than those of its family that are supported."
                )
            found = type(module).__name__
            raise UnsupportedModelError(
                f"{block.full_name(name)}: expected torch.nn.Linear, found {found}. Quantised or adapted layers cannot "
                "be pruned: load the plain model, prune it, then quantise."
            )
    if not headless:
        expected = block.num_heads * block.queries_per_head * block.head_dim
        columns = widths(block.part("output"))[0]
        if columns != expected or not expected:
            raise UnsupportedModelError(
                f"{block.full_name('output')}: {block.num_heads} heads of size {block.head_dim}"
                f"{f', {block.queries_per_head} queries each,' if block.queries_per_head > 1 else ''} need {expected} "
                f"columns, found {columns}."
            )
