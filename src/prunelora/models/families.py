"""The table of model families: where each family keeps the modules that scoring and pruning use.

A new family whose layout fits the columns is a new row. No other code depends on a family's name.
"""

from dataclasses import replace

from prunelora.models.family import Family

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
    # One table of relative positions gives a bias for every head of every layer.
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
    # Relative positions have their own projections unless share_att_key is set.
    with_heads=("attention.self.pos_key_proj", "attention.self.pos_query_proj"),
    # encoder.LayerNorm normalises relative positions (version 3); encoder.conv is in the largest models only.
    outer_norms=(*_BERT.outer_norms, "encoder.LayerNorm", "encoder.conv.LayerNorm"),
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
    any_image_size=True,
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
_QWEN3 = replace(
    _LLAMA,
    name="qwen3",
    title="Qwen3",
    model_types=("qwen3",),
    # q_norm and k_norm act on a head's channels and are shared by all heads.
    norms=(*_LLAMA.norms, "self_attn.q_norm", "self_attn.k_norm"),
)
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

_BART = Family(
    name="bart",
    title="BART",
    model_types=("bart",),
    blocks="encoder.layers",
    attention="self_attn",
    query="self_attn.q_proj",
    key="self_attn.k_proj",
    value="self_attn.v_proj",
    output="self_attn.out_proj",
    up="fc1",
    down="fc2",
    norms=("self_attn_layer_norm", "final_layer_norm"),
    outer_norms=("encoder.layernorm_embedding", "decoder.layernorm_embedding"),
    counts={"num_heads": "heads"},
    head_dim="head_dim",
    reads="end",
)
_BART_SELF = replace(_BART, blocks="decoder.layers", up=None, down=None, norms=("self_attn_layer_norm",), decoder=True)
_BART_CROSS = replace(
    _BART,
    blocks="decoder.layers",
    attention="encoder_attn",
    query="encoder_attn.q_proj",
    key="encoder_attn.k_proj",
    value="encoder_attn.v_proj",
    output="encoder_attn.out_proj",
    norms=("encoder_attn_layer_norm", "final_layer_norm"),
    decoder=True,
)
_BART = replace(_BART, stacks=(_BART_SELF, _BART_CROSS))
_MBART = replace(
    _BART,
    name="mbart",
    title="mBART",
    model_types=("mbart",),
    outer_norms=(*_BART.outer_norms, "encoder.layer_norm", "decoder.layer_norm"),
    prenorm=True,
    last_norm="encoder.layer_norm",
    onnx=False,  # shift_tokens_right uses `squeeze`, which an exported graph fixes to one batch size.
    stacks=tuple(replace(stack, prenorm=True) for stack in _BART.stacks),
)
_T5 = Family(
    name="t5",
    title="T5",
    model_types=("t5",),
    blocks="encoder.block",
    attention="layer.0.SelfAttention",
    query="layer.0.SelfAttention.q",
    key="layer.0.SelfAttention.k",
    value="layer.0.SelfAttention.v",
    output="layer.0.SelfAttention.o",
    gate="layer.1.DenseReluDense.wi_0",
    up="layer.1.DenseReluDense.wi_1",
    # T5 1.0 has no gates; T5 1.1 and later models have.
    up_without_gate="layer.1.DenseReluDense.wi",
    down="layer.1.DenseReluDense.wo",
    norms=("layer.0.layer_norm", "layer.1.layer_norm"),
    outer_norms=("encoder.final_layer_norm", "decoder.final_layer_norm"),
    counts={"n_heads": "heads", "inner_dim": "width"},
    head_dim="key_value_proj_dim",
    # A table in the first layer gives a bias for every head of every layer.
    shared_bias="position_bias",
    bias_maker="compute_bias",
    bias_table="relative_attention_bias",
    prenorm=True,
    last_norm="encoder.final_layer_norm",
    reads="end",
)
_T5_SELF = replace(
    _T5,
    blocks="decoder.block",
    gate=None,
    up=None,
    up_without_gate=None,
    down=None,
    norms=("layer.0.layer_norm",),
    decoder=True,
)
_T5_CROSS = replace(
    _T5,
    blocks="decoder.block",
    attention="layer.1.EncDecAttention",
    query="layer.1.EncDecAttention.q",
    key="layer.1.EncDecAttention.k",
    value="layer.1.EncDecAttention.v",
    output="layer.1.EncDecAttention.o",
    gate="layer.2.DenseReluDense.wi_0",
    up="layer.2.DenseReluDense.wi_1",
    up_without_gate="layer.2.DenseReluDense.wi",
    down="layer.2.DenseReluDense.wo",
    norms=("layer.1.layer_norm", "layer.2.layer_norm"),
    decoder=True,
)
_T5 = replace(_T5, stacks=(_T5_SELF, _T5_CROSS))

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
        _BART,
        _MBART,
        _T5,
    )
}


def family_of_model_type(model_type: str) -> Family | None:
    """The row for a `config.model_type`; None if there is none."""
    return next((row for row in FAMILIES.values() if model_type in row.model_types), None)


def supported_families() -> str:
    """Names for error messages: "BERT (bert), RoBERTa (roberta), ..."."""
    return ", ".join(f"{row.title} ({', '.join(row.model_types)})" for row in FAMILIES.values())
