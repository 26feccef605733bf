"""One transformer block of a loaded model: its projections, norms and sizes."""

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
    """One transformer block: attention, and the feed-forward layer after it, if it has one.

    A decoder layer of an encoder-decoder is two blocks: self-attention, and cross-attention with the feed-forward
    layer. Both have the layer as their module.
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
        """A projection by its standard name ("query", "up", "gate"), also if it is part of a fused layer."""
        family, module = self.family, self.part(name)
        rows = widths(module)[1]
        if name in ("query", "key", "value") and family.fused_attention:
            head = self.head_dim * self.num_heads
            query = head * self.queries_per_head
            start = {"query": 0, "key": query, "value": query + head}[name]
            return Matrix(module, start, query if name == "query" else head)
        if name in ("up", "gate") and family.fused_gate:
            # The order of the halves does not matter: a neuron owns the same row of both.
            return Matrix(module, 0 if name == "up" else rows // 2, rows // 2)
        return Matrix(module, 0, rows)

    def replace(self, name: str, module: nn.Module) -> None:
        """Replace the part with this standard name by `module`."""
        self.module.set_submodule(self.family.path(name), module)

    def full_name(self, name: str) -> str:
        """Name of a part within the whole model: "bert.encoder.layer.3.attention.self.query"."""
        return f"{self.prefix}.{self.family.path(name)}"

    @property
    def num_heads(self) -> int:
        """H_l, 0 if all heads were removed; with grouped-query attention, key and value heads."""
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
        """F_l, 0 if all neurons were removed or the block has no feed-forward layer."""
        return widths(self.part("down"))[0] if self.family.feed_forward else 0

    @property
    def attention_bias(self) -> bool:
        """Whether q, k and v have biases, or had before all heads were removed."""
        attention = self.part("attention")
        if isinstance(attention, NoHeads):
            return attention.had_bias
        return self.matrix("query").bias is not None

    @property
    def position_projections(self) -> int:
        """Number of further projections that are split into heads, also after all heads were removed."""
        attention = self.part("attention")
        if isinstance(attention, NoHeads):
            return attention.position_projections
        return len(self.with_heads())

    def with_heads(self) -> list[nn.Module]:
        """The family's further linear layers whose rows are split into heads, if this model has them."""
        modules = (find(self.module, path) for path in self.family.with_heads)
        return [module for module in modules if module is not None]

    @property
    def neuron_bias(self) -> bool:
        """Whether up projections have biases, or had before all neurons were removed."""
        if not self.family.feed_forward:
            return False
        up = self.part("up")
        return up.had_bias if isinstance(up, NoNeurons) else self.matrix("up").bias is not None

    def norm_names(self) -> Iterator[str]:
        """Names of the block's norms within the whole model; norms of the row that this model lacks are skipped."""
        return (
            f"{self.prefix}.{path}"
            for path in self.family.norms
            if (norm := find(self.module, path)) is not None and any(True for _ in norm.parameters())
        )


def find(module: nn.Module, path: str) -> nn.Module | None:
    """A submodule by its path; None if there is none."""
    try:
        return module.get_submodule(path)
    except AttributeError:
        return None


def check(block: Block) -> None:
    """Check that every projection is a plain linear layer, or its replacement in a pruned block, of the right width.

    Raises:
        UnsupportedModelError: Naming the first part that is not.
    """
    headless = isinstance(block.part("attention"), NoHeads)
    for name in block.family.projections:
        if headless and name in ("query", "key", "value"):
            continue
        module = find(block.module, block.family.path(name))
        if module is None:
            raise UnsupportedModelError(
                f"{block.full_name(name)}: expected torch.nn.Linear, found no module of this name. The model's layout "
                "differs from the supported models of its family."
            )
        if not isinstance(module, nn.Linear | Conv1D | BiasOnly | NoNeurons):
            raise UnsupportedModelError(
                f"{block.full_name(name)}: expected torch.nn.Linear, found {type(module).__name__}. Quantised or "
                "adapted layers cannot be pruned: load the plain model, prune it, then quantise."
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
