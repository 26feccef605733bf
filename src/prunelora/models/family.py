"""The columns of the table of families: what has to be known of a kind of transformer to score and cut it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from prunelora.models.problem_types import CAUSAL_LM, IMAGES, SEQUENCES, TOKENS

# Adapters, ranks and repair all speak of these, in this order.
ATTENTION_PROJECTIONS = ("query", "key", "value", "output")
FFN_PROJECTIONS = ("up", "down")
PROJECTIONS = ATTENTION_PROJECTIONS + FFN_PROJECTIONS


@dataclass(frozen=True)
class Family:
    """One row. Paths of block parts start at the block; `blocks` and what is outside of them start at the base model.

    An encoder-decoder has one row for its encoder, and in `stacks` one for each further kind of block: attention of the
    decoder's layers to themselves, and their attention to the encoder with the feed-forward layer behind it.

    Attributes:
        name: Key of the row, also written into plans.
        title: Name that people use.
        model_types: Values of `config.model_type` that have this layout.
        blocks: The list of transformer blocks.
        attention: The module that computes attention over the heads.
        query, key, value: Projections of attention; one path three times where a fused layer has their rows one after
            the other, query first.
        output: The projection of attention back into the residual stream.
        up, down: The projections into and out of the feed-forward neurons; None where blocks have no such layer.
        gate: The projection into the gates of the neurons, where there are some; the path of `up` again where a fused
            layer has both, half of the rows each.
        up_without_gate: What `up` is in models of the family that have no gates, where only some have.
        norms: Norms of a block that do not depend on how many heads it has.
        outer_norms: Norms outside the blocks. Where a model has none of some name, here or in a block, it is passed
            over: some models of a family have more than others, and those of heads go with the last head.
        pooler: Module of the base model that belongs to the task head, where there is one.
        pooler_activation: Module that follows it, where the pooler is a bare linear layer on the first token.
        counts: Attributes of the attention module that must be told of a cut, and what they hold: "heads" (key and
            value heads), "queries" (query heads), "width" (channels of all query heads).
        config_counts: The same for what the attention module reads from its configuration.
        head_dim: Attribute of the attention module that holds d_h.
        with_heads: Further linear layers of a block whose rows go with the heads as the query's do; where a model has
            none of these, they are passed over.
        shared_bias: Argument of the attention module that all layers are given alike, with a part for every head.
        bias_maker: Method of the attention module that computes the shared bias, where the first layer does that, and
            every layer hands it on to the next one as its second output.
        bias_table: What the first layer has in its attention module to compute it from.
        norm_in_attention: Norm within the attention module, where that adds its input and takes the norm itself.
        repeated: Whether the blocks are run over and over, `num_hidden_layers` times, with the same weights.
        prenorm: Whether a block's norms stand before attention and the feed-forward layer, and what these give is added
            to what came in; otherwise the norms are taken of the sums.
        scales: Parameters that multiply, channel by channel, what the output and the down projection give, before it is
            added to what came in; where there are some.
        reads: What a classification head is given: the vector of the "first" token, of the "last", or of the last "end"
            of a sequence, what "pooling" of the configuration says ("cls" or "mean"), or the first token's and the
            others' mean ("first_and_mean").
        images: Whether it reads images, of one size, and not tokens.
        any_image_size: Whether that size may be another than the configuration's: positions are interpolated.
        decoder: Whether tokens see only those before them, and their keys and values may be in a cache.
        stacks: Rows of further kinds of blocks, in the order they run; those with the same `blocks` are parts of one
            layer, one after the other.
        last_norm: Norm behind the last block of an encoder whose output a decoder reads, where there is one.
        grouped: Whether models of the family may have fewer key and value heads than query heads.
        onnx: Whether export has been held to torch for it.
    """

    name: str
    title: str
    model_types: tuple[str, ...]
    blocks: str
    attention: str
    query: str
    key: str
    value: str
    output: str
    up: str | None
    down: str | None
    norms: tuple[str, ...]
    outer_norms: tuple[str, ...]
    head_dim: str
    gate: str | None = None
    up_without_gate: str | None = None
    pooler: str | None = None
    pooler_activation: str | None = None
    counts: Mapping[str, str] = field(default_factory=dict)
    config_counts: Mapping[str, str] = field(default_factory=dict)
    with_heads: tuple[str, ...] = ()
    shared_bias: str | None = None
    bias_maker: str | None = None
    bias_table: str | None = None
    norm_in_attention: str | None = None
    repeated: bool = False
    prenorm: bool = False
    scales: tuple[str, str] | None = None
    reads: Literal["first", "last", "end", "pooling", "first_and_mean"] = "first"
    images: bool = False
    any_image_size: bool = False
    decoder: bool = False
    stacks: tuple["Family", ...] = ()
    last_norm: str | None = None
    grouped: bool = False
    onnx: bool = True

    def path(self, part: str) -> str:
        """Path of a part of the block by its standard name: "query" is at "attention.self.query" in BERT."""
        return str(getattr(self, part))

    @property
    def unit_of_attention(self) -> str:
        """What stays or goes as one: a head, or a key and value head with the query heads that share it."""
        return "head or group" if self.grouped else "head"

    @property
    def unit_of_feed_forward(self) -> str:
        """What stays or goes as one of the feed-forward layer."""
        if self.gate is None:
            return "neuron"
        return "neuron, gated or not" if self.up_without_gate else "gated neuron"

    @property
    def feed_forward(self) -> bool:
        """Whether its blocks have a feed-forward layer."""
        return self.down is not None

    @property
    def encoder_decoder(self) -> bool:
        """Whether a decoder attends to what an encoder gives."""
        return bool(self.stacks)

    @property
    def generates(self) -> bool:
        """Whether models of the family can generate text."""
        return self.decoder or any(stack.decoder for stack in self.stacks)

    @property
    def into_neurons(self) -> tuple[str, ...]:
        """Parts of a block that lead into its neurons."""
        if not self.feed_forward:
            return ()
        return ("up", "gate") if self.gate else ("up",)

    @property
    def projections(self) -> tuple[str, ...]:
        """Parts of a block that are linear layers: query, key, value, output, and those of the feed-forward layer."""
        return (*ATTENTION_PROJECTIONS, *self.into_neurons, *(("down",) if self.feed_forward else ()))

    @property
    def tasks(self) -> tuple[str, ...]:
        """What it has heads for that runs train, as `prunelora.models.problem_types` groups kinds of task."""
        if self.images:
            return (IMAGES,)
        if self.encoder_decoder:
            return (SEQUENCES,)
        return (SEQUENCES, TOKENS, CAUSAL_LM) if self.decoder else (SEQUENCES, TOKENS)

    def facts(self) -> dict[str, Any]:
        """What is supported, for machines."""
        return {
            "family": self.name,
            "title": self.title,
            "model_types": list(self.model_types),
            "tasks": list(self.tasks),
            "heads": True,
            "neurons": True,
            "lora": True,
            "save_and_load": True,
            "onnx": self.onnx,
            "grouped_queries": self.grouped,
            "gated_neurons": self.gate is not None,
            "encoder_decoder": self.encoder_decoder,
            "generates": self.generates,
        }

    @property
    def handing_on(self) -> dict[str, str] | None:
        """How layers compute the shared bias and hand it on, as `HandsOn` takes it; None where they do not."""
        if self.shared_bias is None or self.bias_maker is None or self.bias_table is None:
            return None
        return {"argument": self.shared_bias, "maker": self.bias_maker, "table": self.bias_table}

    @property
    def fused_attention(self) -> bool:
        """Whether q, k and v are rows of one layer."""
        return self.query == self.key

    @property
    def fused_gate(self) -> bool:
        """Whether up and gate are rows of one layer."""
        return self.gate == self.up
