"""The sizes of a transformer's blocks, as numbers, without the model."""

from dataclasses import fields

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

# The fields that pruning changes.
_PRUNED = ("num_heads", "num_neurons")


@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True))
class Architecture:
    """Sizes of the blocks, layer by layer.

    An encoder-decoder has one layer for each encoder layer, and then two for each decoder layer: self-attention without
    neurons, and cross-attention with the feed-forward neurons.

    Attributes:
        family: Name of the row in the table of families, such as "bert".
        hidden_size: D, width of the residual stream.
        head_dim: d_h, width of one head.
        num_heads: H_l for every layer l: attention heads; with grouped-query attention, key and value heads, each with
            the query heads that share it, since a whole group is kept or removed.
        num_neurons: F_l for every layer l.
        attention_bias: Whether q, k and v projections have biases.
        ffn_bias: Whether up projections (and gates) have biases.
        queries_per_head: Query heads for every key and value head; 1 without grouped-query attention.
        gated: Whether every neuron has a gate, a second projection into it.
        position_projections: Number of further projections, with biases, that are split into heads: those of DeBERTa's
            relative positions.
        relative_positions: Rows of all relative position tables together that every head's queries or keys are
            multiplied by (DeBERTa).
        repeats: How often the layers run one after the other with the same weights; above 1 in ALBERT only.
    """

    family: str
    hidden_size: int
    head_dim: int
    num_heads: tuple[int, ...]
    num_neurons: tuple[int, ...]
    attention_bias: bool = True
    ffn_bias: bool = True
    queries_per_head: int = 1
    gated: bool = False
    position_projections: int = 0
    relative_positions: int = 0
    repeats: int = 1

    @property
    def num_layers(self) -> int:
        """L."""
        return len(self.num_heads)

    @property
    def total_heads(self) -> int:
        """Heads in all layers: L*H if every layer has H."""
        return sum(self.num_heads)

    @property
    def total_neurons(self) -> int:
        """Feed-forward neurons in all layers: L*F if every layer has F."""
        return sum(self.num_neurons)

    @property
    def unit_of_heads(self) -> str:
        """The unit of pruning in attention, in the plural: "heads", or "key/value groups" if heads are grouped."""
        return "heads" if self.queries_per_head == 1 else "key/value groups"

    def heads_of(self, whole: "Architecture", *, heads: str = "heads") -> str:
        """How many heads of the whole model are kept, for messages.

        "100 of 144 heads"; with grouped-query attention "4 of 8 key/value groups (16 of 32 heads)".
        """
        if whole.queries_per_head == 1:
            return f"{self.total_heads:,} of {whole.total_heads:,} {heads}"
        queries = whole.queries_per_head
        return (
            f"{self.total_heads:,} of {whole.total_heads:,} key/value groups "
            f"({queries * self.total_heads:,} of {queries * whole.total_heads:,} {heads})"
        )

    def differences(self, other: "Architecture") -> list[str]:
        """The sizes, of those that pruning does not change, that differ: ["hidden_size is 384, not 768"]."""
        return [
            f"{name} is {getattr(other, name)}, not {getattr(self, name)}"
            for name in ("num_layers", *(field.name for field in fields(self) if field.name not in _PRUNED))
            if getattr(other, name) != getattr(self, name)
        ]

    def describe(self) -> str:
        """One line for messages: "bert, 12 layers, hidden size 768, heads 12 x 12 of size 64, neurons 12 x 3072"."""
        return (
            f"{self.family}, {self.num_layers} layers, hidden size {self.hidden_size}, "
            f"{'heads' if self.queries_per_head == 1 else f'groups of {self.queries_per_head} heads'} "
            f"{_per_layer(self.num_heads)} of size {self.head_dim}, "
            f"{'gated neurons' if self.gated else 'neurons'} {_per_layer(self.num_neurons)}"
        )


def _per_layer(counts: tuple[int, ...]) -> str:
    return f"{len(counts)} x {counts[0]}" if len(set(counts)) == 1 else str(list(counts))
