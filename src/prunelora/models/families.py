"""The table of families: where each kind of transformer keeps the parts that scoring and pruning touch.

A family is a row of names. Adding a model whose layout fits the columns means adding a row; nothing else knows a family
by name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal


@dataclass(frozen=True)
class Family:
    """One row. Paths of block parts start at the block; `blocks`, `outer_norms` and `pooler` start at the base model.

    Attributes:
        name: Key of the row, also written into plans.
        title: Name that people use.
        model_types: Values of `config.model_type` that have this layout.
        blocks: The list of transformer blocks.
        attention: The module that computes attention over the heads.
        query, key, value: Projections of attention; one path three times where a fused layer has their rows one after
            the other, query first.
        output: The projection of attention back into the residual stream.
        up, down: The projections into and out of the feed-forward neurons.
        gate: The projection into the gates of the neurons, where there are some; the path of `up` again where a fused
            layer has both, half of the rows each.
        norms: Norms of a block that do not depend on how many heads it has.
        outer_norms: Norms outside the blocks.
        pooler: Module of the base model that belongs to the task head, where there is one.
        pooler_activation: Module that follows it, where the pooler is a bare linear layer on the first token.
        counts: Attributes of the attention module that must be told of a cut, and what they hold: "heads" (key and
            value heads), "queries" (query heads), "width" (channels of all query heads).
        config_counts: The same for what the attention module reads from its configuration.
        head_dim: Attribute of the attention module that holds d_h.
        with_heads: Further linear layers of a block whose rows go with the heads as the query's do; where a model has
            none of these, they are passed over.
        shared_bias: Argument of the attention module that all layers are given alike, with a part for every head.
        norm_in_attention: Norm within the attention module, where that adds its input and takes the norm itself.
        repeated: Whether the blocks are run over and over, `num_hidden_layers` times, with the same weights.
        prenorm: Whether a block's norms stand before attention and the feed-forward layer, and what these give is added
            to what came in; otherwise the norms are taken of the sums.
        scales: Parameters that multiply, channel by channel, what the output and the down projection give, before it is
            added to what came in; where there are some.
        reads: What a classification head is given: the vector of the "first" token or of the "last", what "pooling" of
            the configuration says ("cls" or "mean"), or the first token's and the others' mean ("first_and_mean").
        images: Whether it reads images, of one size, and not tokens.
        decoder: Whether tokens see only those before them, and the model can generate.
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
    up: str
    down: str
    norms: tuple[str, ...]
    outer_norms: tuple[str, ...]
    head_dim: str
    gate: str | None = None
    pooler: str | None = None
    pooler_activation: str | None = None
    counts: Mapping[str, str] = field(default_factory=dict)
    config_counts: Mapping[str, str] = field(default_factory=dict)
    with_heads: tuple[str, ...] = ()
    shared_bias: str | None = None
    norm_in_attention: str | None = None
    repeated: bool = False
    prenorm: bool = False
    scales: tuple[str, str] | None = None
    reads: Literal["first", "last", "pooling", "first_and_mean"] = "first"
    images: bool = False
    decoder: bool = False
    grouped: bool = False
    onnx: bool = True

    def path(self, part: str) -> str:
        """Path of a part of the block by its standard name: "query" is at "attention.self.query" in BERT."""
        return str(getattr(self, part))

    @property
    def unit_of_attention(self) -> str:
        """What stays or goes as one: a head, or a key and value head with the query heads that share it."""
        return "head or group" if self.grouped else "head"

    def facts(self) -> dict[str, Any]:
        """What is supported, for machines."""
        return {
            "family": self.name,
            "title": self.title,
            "model_types": list(self.model_types),
            "task": "image classification" if self.images else "sequence classification",
            "heads": True,
            "neurons": True,
            "lora": True,
            "save_and_load": True,
            "onnx": self.onnx,
            "grouped_queries": self.grouped,
            "gated_neurons": self.gate is not None,
            "generates": self.decoder,
        }

    @property
    def fused_attention(self) -> bool:
        """Whether q, k and v are rows of one layer."""
        return self.query == self.key

    @property
    def fused_gate(self) -> bool:
        """Whether up and gate are rows of one layer."""
        return self.gate == self.up


# Adapters, ranks and repair all speak of these, in this order.
ATTENTION_PROJECTIONS = ("query", "key", "value", "output")
FFN_PROJECTIONS = ("up", "down")
PROJECTIONS = ATTENTION_PROJECTIONS + FFN_PROJECTIONS

_BERT = Family(
    name="bert",
    title="BERT",
    model_types=("bert",),
    blocks="encoder.layer",
    attention="attention.self",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    output="attention.output.dense",
    up="intermediate.dense",
    down="output.dense",
    norms=("attention.output.LayerNorm", "output.LayerNorm"),
    outer_norms=("embeddings.LayerNorm",),
    counts={"num_attention_heads": "heads", "all_head_size": "width"},
    head_dim="attention_head_size",
    pooler="pooler",
)
_ROBERTA = replace(_BERT, name="roberta", title="RoBERTa", model_types=("roberta",))
_XLM_ROBERTA = replace(_ROBERTA, name="xlm-roberta", title="XLM-RoBERTa", model_types=("xlm-roberta",))
_CAMEMBERT = replace(_ROBERTA, name="camembert", title="CamemBERT", model_types=("camembert",))
_ELECTRA = replace(_BERT, name="electra", title="ELECTRA", model_types=("electra",), pooler=None)
_DISTILBERT = Family(
    name="distilbert",
    title="DistilBERT",
    model_types=("distilbert",),
    blocks="transformer.layer",
    attention="attention",
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    output="attention.out_lin",
    up="ffn.lin1",
    down="ffn.lin2",
    norms=("sa_layer_norm", "output_layer_norm"),
    outer_norms=("embeddings.LayerNorm",),
    counts={"n_heads": "heads"},
    head_dim="attention_head_size",
)
_ALBERT = replace(
    _BERT,
    name="albert",
    title="ALBERT",
    model_types=("albert",),
    blocks="encoder.albert_layer_groups.0.albert_layers",
    attention="attention",
    query="attention.query",
    key="attention.key",
    value="attention.value",
    output="attention.dense",
    up="ffn",
    down="ffn_output",
    norms=("attention.LayerNorm", "full_layer_layer_norm"),
    norm_in_attention="LayerNorm",
    pooler_activation="pooler_activation",
    repeated=True,
)
_MPNET = replace(
    _BERT,
    name="mpnet",
    title="MPNet",
    model_types=("mpnet",),
    attention="attention.attn",
    query="attention.attn.q",
    key="attention.attn.k",
    value="attention.attn.v",
    output="attention.attn.o",
    norms=("attention.LayerNorm", "output.LayerNorm"),
    # Relative positions give every head of every layer a bias, from one table.
    shared_bias="position_bias",
    pooler=None,
)
_DEBERTA = replace(
    _BERT,
    name="deberta-v2",
    title="DeBERTa-v2, DeBERTa-v3",
    model_types=("deberta-v2",),
    query="attention.self.query_proj",
    key="attention.self.key_proj",
    value="attention.self.value_proj",
    # Relative positions have projections of their own where they are not shared with those of the content.
    with_heads=("attention.self.pos_key_proj", "attention.self.pos_query_proj"),
    pooler=None,
)
_NOMIC = Family(
    name="nomic_bert",
    title="NomicBERT",
    model_types=("nomic_bert",),
    blocks="layers",
    attention="self_attn",
    query="self_attn.q_proj",
    key="self_attn.k_proj",
    value="self_attn.v_proj",
    output="self_attn.o_proj",
    gate="mlp.gate_proj",
    up="mlp.up_proj",
    down="mlp.down_proj",
    norms=("post_attention_layernorm", "post_mlp_layernorm"),
    outer_norms=("embeddings.LayerNorm",),
    head_dim="head_dim",
    pooler="pooler",
)
_MODERNBERT = Family(
    name="modernbert",
    title="ModernBERT",
    model_types=("modernbert",),
    blocks="layers",
    attention="attn",
    query="attn.Wqkv",
    key="attn.Wqkv",
    value="attn.Wqkv",
    output="attn.Wo",
    gate="mlp.Wi",
    up="mlp.Wi",
    down="mlp.Wo",
    norms=("attn_norm", "mlp_norm"),
    outer_norms=("embeddings.norm", "final_norm"),
    head_dim="head_dim",
    prenorm=True,
    reads="pooling",
)
_VIT = Family(
    name="vit",
    title="ViT",
    model_types=("vit",),
    blocks="layers",
    attention="attention",
    query="attention.q_proj",
    key="attention.k_proj",
    value="attention.v_proj",
    output="attention.o_proj",
    up="mlp.fc1",
    down="mlp.fc2",
    norms=("layernorm_before", "layernorm_after"),
    outer_norms=("layernorm",),
    head_dim="head_dim",
    prenorm=True,
    images=True,
)
_DEIT = replace(_VIT, name="deit", title="DeiT", model_types=("deit",))
_DINOV2 = replace(
    _VIT,
    name="dinov2",
    title="DINOv2",
    model_types=("dinov2",),
    blocks="encoder.layer",
    norms=("norm1", "norm2"),
    scales=("layer_scale1.lambda1", "layer_scale2.lambda1"),
    reads="first_and_mean",
)
_GPT2 = Family(
    name="gpt2",
    title="GPT-2",
    model_types=("gpt2",),
    blocks="h",
    attention="attn",
    query="attn.c_attn",
    key="attn.c_attn",
    value="attn.c_attn",
    output="attn.c_proj",
    up="mlp.c_fc",
    down="mlp.c_proj",
    norms=("ln_1", "ln_2"),
    outer_norms=("ln_f",),
    counts={"num_heads": "heads", "split_size": "width"},
    head_dim="head_dim",
    prenorm=True,
    reads="last",
    decoder=True,
)
_LLAMA = Family(
    name="llama",
    title="Llama",
    model_types=("llama",),
    blocks="layers",
    attention="self_attn",
    query="self_attn.q_proj",
    key="self_attn.k_proj",
    value="self_attn.v_proj",
    output="self_attn.o_proj",
    gate="mlp.gate_proj",
    up="mlp.up_proj",
    down="mlp.down_proj",
    norms=("input_layernorm", "post_attention_layernorm"),
    outer_norms=("norm",),
    head_dim="head_dim",
    prenorm=True,
    reads="last",
    decoder=True,
    grouped=True,
)
_MISTRAL = replace(_LLAMA, name="mistral", title="Mistral", model_types=("mistral",))
_QWEN2 = replace(_LLAMA, name="qwen2", title="Qwen2", model_types=("qwen2",))
_QWEN3 = replace(_LLAMA, name="qwen3", title="Qwen3", model_types=("qwen3",))
_GEMMA = replace(_LLAMA, name="gemma", title="Gemma", model_types=("gemma",))
_PHI3 = replace(
    _LLAMA,
    name="phi3",
    title="Phi-3",
    model_types=("phi3",),
    query="self_attn.qkv_proj",
    key="self_attn.qkv_proj",
    value="self_attn.qkv_proj",
    gate="mlp.gate_up_proj",
    up="mlp.gate_up_proj",
    counts={"num_key_value_heads": "heads"},
    config_counts={"num_attention_heads": "queries", "num_key_value_heads": "heads"},
)

FAMILIES: dict[str, Family] = {
    row.name: row
    for row in (
        _BERT,
        _ROBERTA,
        _XLM_ROBERTA,
        _CAMEMBERT,
        _DISTILBERT,
        _ELECTRA,
        _ALBERT,
        _MPNET,
        _DEBERTA,
        _NOMIC,
        _MODERNBERT,
        _VIT,
        _DEIT,
        _DINOV2,
        _GPT2,
        _LLAMA,
        _MISTRAL,
        _QWEN2,
        _QWEN3,
        _GEMMA,
        _PHI3,
    )
}


def family_of_model_type(model_type: str) -> Family | None:
    """Find the row for a `config.model_type`, or None."""
    return next((row for row in FAMILIES.values() if model_type in row.model_types), None)


def supported_families() -> str:
    """Names for error messages: "BERT (bert), RoBERTa (roberta), ..."."""
    return ", ".join(f"{row.title} ({', '.join(row.model_types)})" for row in FAMILIES.values())
