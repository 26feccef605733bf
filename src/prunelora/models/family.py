"""The columns of the table of families: the facts about a transformer that scoring and pruning need."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from prunelora.models.problem_types import CAUSAL_LM, IMAGES, SEQUENCES, TOKENS

# The projections that adapters, ranks and repair refer to, in this order.
ATTENTION_PROJECTIONS = ("query", "key", "value", "output")
PROJECTIONS = (*ATTENTION_PROJECTIONS, "up", "down")


@dataclass(frozen=True)
class Family:
    """One row. Paths of block parts start at the block; `blocks` and paths outside the blocks start at the base model.

    An encoder-decoder has one row for its encoder blocks and, in `stacks`, one row for each further kind of block:
    decoder self-attention, and cross-attention with the feed-forward layer.

    Attributes:
        name: Key of the row, also written into plans.
        title: Name for messages and documentation.
        model_types: Values of `config.model_type` that have this layout.
        blocks: The list of transformer blocks.
        attention: The module that computes attention over the heads.
        query, key, value: Projections of attention; one path three times if a fused layer stacks their rows, query
            first.
        output: The projection of attention back into the residual stream.
        up, down: The projections into and out of the feed-forward neurons; None if blocks have no feed-forward layer.
        gate: The projection into the gates of the neurons; the path of `up` again if a fused layer stacks both; None
            without gates.
        up_without_gate: The path of `up` in models without gates, if only some models of the family have gates.
        norms: Norms of a block whose size does not depend on the number of heads.
        outer_norms: Norms outside the blocks. Norms that a model lacks, here or in a block, are skipped.
        pooler: Module of the base model that belongs to the task head, if there is one.
        pooler_activation: Activation module of a pooler that is a bare linear layer on the first token.
        counts: Attributes of the attention module to update after pruning, and the count that each holds: "heads" (key
            and value heads), "queries" (query heads), "width" (channels of all query heads).
        config_counts: Likewise, values that the attention module reads from its configuration.
        head_dim: Attribute of the attention module that holds d_h.
        with_heads: Further linear layers of a block whose rows are split into heads like the query's. Layers that a
            model lacks are skipped.
        shared_bias: Argument of the attention module that passes every layer the same bias, with a part for each head.
        bias_maker: Method of the attention module that computes the shared bias, if the first layer computes it and
            every layer returns it as its second output.
        bias_table: Submodule of the first layer's attention module that the method reads.
        norm_in_attention: Norm inside an attention module that adds its input and normalises the sum itself.
        repeated: Whether the blocks run `num_hidden_layers` times with the same weights.
        prenorm: Whether a block's norms come before attention and the feed-forward layer (pre-norm) instead of after
            the residual additions (post-norm).
        scales: Parameters that multiply the outputs of the output and down projections, channel by channel, before the
            residual addition.
        reads: The vector that a classification head reads: that of the "first" token, the "last" token, the last "end"
            token of a sequence, the one that `classifier_pooling` of the configuration selects ("pooling"), or the
            first token's and the mean of the rest ("first_and_mean").
        images: Whether the model reads images instead of tokens.
        any_image_size: Whether images may differ in size from the configuration's: positions are interpolated.
        decoder: Whether the block is a decoder's: self-attention is causal, and keys and values may be cached.
        stacks: Rows of further kinds of blocks, in forward order; rows with the same `blocks` are consecutive parts of
            one layer.
        last_norm: Norm after the last encoder block of an encoder-decoder, if there is one.
        grouped: Whether models of the family may have fewer key and value heads than query heads.
        onnx: Whether ONNX export of the family is tested against torch.
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
        """The unit of pruning in attention: a head, or a key and value head with the query heads that share it."""
        return "head or group" if self.grouped else "head"

    @property
    def unit_of_feed_forward(self) -> str:
        """The unit of pruning in the feed-forward layer."""
        if self.gate is None:
            return "neuron"
        return "neuron, gated or not" if self.up_without_gate else "gated neuron"

    @property
    def feed_forward(self) -> bool:
        """Whether blocks have a feed-forward layer."""
        return self.down is not None

    @property
    def encoder_decoder(self) -> bool:
        """Whether a decoder attends to the output of an encoder."""
        return bool(self.stacks)

    @property
    def generates(self) -> bool:
        """Whether models of the family can generate text."""
        return self.decoder or any(stack.decoder for stack in self.stacks)

    @property
    def into_neurons(self) -> tuple[str, ...]:
        """Standard names of the projections into the neurons."""
        if not self.feed_forward:
            return ()
        return ("up", "gate") if self.gate else ("up",)

    @property
    def projections(self) -> tuple[str, ...]:
        """Standard names of a block's projections: query, key, value, output, and those of the feed-forward layer."""
        return (*ATTENTION_PROJECTIONS, *self.into_neurons, *(("down",) if self.feed_forward else ()))

    @property
    def tasks(self) -> tuple[str, ...]:
        """Kinds of task head that can be trained, as `prunelora.models.problem_types` groups them."""
        if self.images:
            return (IMAGES,)
        if self.encoder_decoder:
            return (SEQUENCES,)
        return (SEQUENCES, TOKENS, CAUSAL_LM) if self.decoder else (SEQUENCES, TOKENS)

    def facts(self) -> dict[str, Any]:
        """What is supported, for `prunelora families --json`."""
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
    def shared_bias_settings(self) -> dict[str, str] | None:
        """Arguments of `NoHeadsWithBias`, if the first layer computes the shared bias; None otherwise."""
        if self.shared_bias is None or self.bias_maker is None or self.bias_table is None:
            return None
        return {"argument": self.shared_bias, "maker": self.bias_maker, "table": self.bias_table}

    @property
    def fused_attention(self) -> bool:
        """Whether q, k and v are rows of one linear layer."""
        return self.query == self.key

    @property
    def fused_gate(self) -> bool:
        """Whether up and gate are rows of one linear layer."""
        return self.gate == self.up
