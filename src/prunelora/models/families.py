"""The table of families: where each kind of transformer keeps the parts that scoring and pruning touch.

A family is a row of names. Adding a model whose layout fits the columns means adding a row; nothing else knows a family
by name.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Family:
    """One row. Paths of block parts start at the block; `blocks`, `outer_norms` and `pooler` start at the base model.

    Attributes:
        name: Key of the row, also written into plans.
        title: Name that people use.
        model_types: Values of `config.model_type` that have this layout.
        blocks: The list of transformer blocks.
        attention: The module that computes attention over the heads.
        query, key, value, output: The four projections of attention.
        up, down: The projections into and out of the feed-forward neurons.
        norms: LayerNorms of a block.
        outer_norms: LayerNorms outside the blocks.
        pooler: Module of the base model that belongs to the task head, where there is one.
        head_count: Attributes of the attention module that hold H_l; the first is read, all are written.
        heads_width: Attributes of the attention module that hold H_l * d_h.
        head_dim: Attribute of the attention module that holds d_h.
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
    head_count: tuple[str, ...]
    heads_width: tuple[str, ...]
    head_dim: str
    pooler: str | None = None

    def path(self, part: str) -> str:
        """Path of a part of the block by its standard name: "query" is at "attention.self.query" in BERT."""
        return str(getattr(self, part))


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
    head_count=("num_attention_heads",),
    heads_width=("all_head_size",),
    head_dim="attention_head_size",
    pooler="pooler",
)
_ROBERTA = replace(_BERT, name="roberta", title="RoBERTa", model_types=("roberta",))
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
    head_count=("n_heads",),
    heads_width=(),
    head_dim="attention_head_size",
)

FAMILIES: dict[str, Family] = {row.name: row for row in (_BERT, _ROBERTA, _DISTILBERT, _ELECTRA)}


def family_of_model_type(model_type: str) -> Family | None:
    """Find the row for a `config.model_type`, or None."""
    return next((row for row in FAMILIES.values() if model_type in row.model_types), None)


def supported_families() -> str:
    """Names for error messages: "BERT (bert), RoBERTa (roberta), ..."."""
    return ", ".join(f"{row.title} ({', '.join(row.model_types)})" for row in FAMILIES.values())
