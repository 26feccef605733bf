"""Tiny random models and batches, the same on every machine."""

import numpy as np
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

from prunelora.models.families import FAMILIES
from prunelora.planning.plan import Plan

LAYERS, HEADS, HEAD_DIM, NEURONS, VOCABULARY, PAD, END = 3, 4, 6, 20, 50, 1, 2
HIDDEN = HEADS * HEAD_DIM

_SHAPE = {
    "hidden_size": HIDDEN,
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "intermediate_size": NEURONS,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 40,
    "pad_token_id": PAD,
}
# Words that decoders begin and end with by default lie outside the tiny vocabulary.
_ENDS = {"bos_token_id": 0, "eos_token_id": END}
# Two query heads share each of the HEADS key and value heads, which are what stays or goes.
_GROUPED = _SHAPE | _ENDS | {"num_attention_heads": 2 * HEADS, "num_key_value_heads": HEADS, "head_dim": HEAD_DIM}
# Nine patches an image.
_IMAGES = {
    "hidden_size": HIDDEN,
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "intermediate_size": NEURONS,
    "image_size": 12,
    "patch_size": 4,
    "num_channels": 3,
}
# The decoder has another number of layers than the encoder.
_ENCODER_DECODER = {
    "d_model": HIDDEN,
    "encoder_layers": LAYERS,
    "decoder_layers": 2,
    "encoder_attention_heads": HEADS,
    "decoder_attention_heads": HEADS,
    "encoder_ffn_dim": NEURONS,
    "decoder_ffn_dim": NEURONS,
    "max_position_embeddings": 40,
    "vocab_size": VOCABULARY,
    "pad_token_id": PAD,
    "bos_token_id": 0,
    "eos_token_id": END,
    "decoder_start_token_id": END,
}
# Families whose attention has no implementation through torch's own.
EAGER_ONLY = ("deberta-v2", "mpnet")
_CONFIGS = {
    "bert": _SHAPE,
    "roberta": _SHAPE,
    "xlm-roberta": _SHAPE,
    "camembert": _SHAPE,
    "electra": _SHAPE | {"embedding_size": 16},
    # Its layers are run twice, with the same weights.
    "albert": _SHAPE | {"embedding_size": 16, "num_hidden_layers": 2, "inner_group_num": LAYERS},
    "mpnet": _SHAPE | _ENDS,
    "distilbert": {
        "dim": HIDDEN,
        "n_heads": HEADS,
        "n_layers": LAYERS,
        "hidden_dim": NEURONS,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 40,
        "pad_token_id": PAD,
    },
    "deberta-v2": _SHAPE | {"relative_attention": True, "position_buckets": 8, "pos_att_type": ["p2c", "c2p"]},
    "nomic_bert": _SHAPE,
    "modernbert": _SHAPE | _ENDS | {"cls_token_id": 0, "sep_token_id": 2, "local_attention": 12},
    "vit": _IMAGES,
    "deit": _IMAGES,
    # It has whole multiples of its width as neurons.
    "dinov2": {name: one for name, one in _IMAGES.items() if name != "intermediate_size"} | {"mlp_ratio": 2},
    "gpt2": {
        "n_embd": HIDDEN,
        "n_head": HEADS,
        "n_layer": LAYERS,
        "n_inner": NEURONS,
        "vocab_size": VOCABULARY,
        "n_positions": 40,
        "pad_token_id": PAD,
        **_ENDS,
    },
    "llama": _GROUPED,
    "mistral": _GROUPED,
    "qwen2": _GROUPED,
    "qwen3": _GROUPED,
    "gemma": _GROUPED,
    "phi3": _GROUPED,
    "bart": _ENCODER_DECODER,
    "mbart": _ENCODER_DECODER,
    "t5": {
        "d_model": HIDDEN,
        "d_kv": HEAD_DIM,
        "d_ff": NEURONS,
        "num_heads": HEADS,
        "num_layers": LAYERS,
        "num_decoder_layers": 2,
        "feed_forward_proj": "gated-gelu",
        "relative_attention_num_buckets": 8,
        "relative_attention_max_distance": 6,
        "vocab_size": VOCABULARY,
        "pad_token_id": PAD,
        "decoder_start_token_id": 0,
        "eos_token_id": END,
    },
}


def tiny_config(family: str, *, num_labels: int = 3, problem_type: str = "single_label_classification", **changed):
    config = AutoConfig.for_model(family, **_CONFIGS[family] | changed)
    config.num_labels = num_labels
    config.problem_type = problem_type
    if family == "deit":
        config.architectures = ["DeiTForImageClassification"]  # There is one with a teacher too.
    return config


def tiny_model(
    family: str = "bert",
    *,
    attention: str = "sdpa",
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    num_labels: int = 3,
    problem_type: str = "single_label_classification",
    **changed,
) -> PreTrainedModel:
    """A random model with weights large enough that every head and neuron matters; `changed` of its configuration."""
    config = tiny_config(family, num_labels=num_labels, problem_type=problem_type, **changed)
    if family in EAGER_ONLY:
        attention = "eager"
    # Made in its dtype: what is no weight, such as rotations, would stay as it is in `.to(dtype)`.
    kind = AutoModelForImageClassification if FAMILIES[family].images else AutoModelForSequenceClassification
    model = kind.from_config(config, attn_implementation=attention, dtype=dtype).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            shift = 1.0 if ("norm" in name.lower() and name.endswith("weight")) or "layer_scale" in name else 0.0
            parameter.copy_(shift + 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    model.config.name_or_path = f"tiny-{family}"
    return model


def language_model(family: str, seed: int = 0):
    """A random one whose words depend on every head and neuron."""
    kind = AutoModelForSeq2SeqLM if FAMILIES[family].encoder_decoder else AutoModelForCausalLM
    model = kind.from_config(tiny_config(family), dtype=torch.float64).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            shift = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
            parameter.copy_(shift + 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
            if "norm" in name and name.endswith("bias"):
                parameter.zero_()  # The last norm's would choose the words alone.
    model.generation_config.eos_token_id = None  # Every example is as long as was asked.
    return model


def tiny_batch(
    size: int = 6,
    tokens: int = 9,
    *,
    seed: int = 0,
    num_labels: int = 3,
    problem_type: str = "single_label_classification",
    family: str = "bert",
) -> dict[str, torch.Tensor]:
    """Random rows of different lengths, padded; or random images, for a family that reads them."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, VOCABULARY, (size, tokens), generator=generator)
    mask = torch.ones_like(ids)
    for row in range(size):
        length = int(torch.randint(3, tokens + 1, (1,), generator=generator))
        mask[row, length:] = 0
        ids[row, length:] = PAD
        if FAMILIES[family].encoder_decoder:
            ids[row, length - 1] = END  # Its head reads this token.
    if problem_type == "regression":
        labels = torch.randn(size, generator=generator, dtype=torch.float64)
    elif problem_type == "multi_label_classification":
        labels = torch.randint(0, 2, (size, num_labels), generator=generator).double()
    else:
        labels = torch.randint(0, num_labels, (size,), generator=generator)
    if FAMILIES[family].images:
        shape = (size, _IMAGES["num_channels"], _IMAGES["image_size"], _IMAGES["image_size"])
        return {"pixel_values": torch.randn(shape, generator=generator, dtype=torch.float64), "labels": labels}
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def split(batch: dict[str, torch.Tensor], size: int) -> list[dict[str, torch.Tensor]]:
    """The same rows in smaller batches."""
    rows = len(batch["labels"])
    return [{name: value[start : start + size] for name, value in batch.items()} for start in range(0, rows, size)]


@torch.no_grad()
def logits(model, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return model(**{name: value for name, value in batch.items() if name != "labels"}).logits


# Layers that lose all heads; the last two are there in encoder-decoders only.
HEADLESS = (1, LAYERS, LAYERS + 3)


def random_plan(model, *, seed: int = 0, empty: bool = True, ranks: bool = True) -> Plan:
    """A plan that cuts here and there; with `empty`, one layer loses all heads and another all neurons.

    Of an encoder-decoder one does in the encoder, one in the decoder, and one in what the decoder reads of the encoder.
    """
    from prunelora.models.anatomy import dissect

    lineage = dissect(model).lineage
    rng = np.random.default_rng(seed)

    def some(ids: tuple[int, ...]) -> tuple[int, ...]:
        return (
            tuple(sorted(rng.choice(ids, size=int(rng.integers(1, len(ids) + 1)), replace=False).tolist()))
            if ids
            else ()
        )

    heads, neurons = [some(ids) for ids in lineage.heads], [some(ids) for ids in lineage.neurons]
    if empty:
        for layer in HEADLESS:
            heads[layer : layer + 1] = [()] * len(heads[layer : layer + 1])
        neurons[2] = ()
    rank_of = {
        name: tuple(int(r) for r in rng.integers(1, 5, size=len(heads))) for name in ("query", "key", "value", "output")
    }
    return Plan(base=lineage.base, heads=tuple(heads), neurons=tuple(neurons), ranks=rank_of if ranks else {})


def largest_difference(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((first - second).abs().max())


def stir(peft_model) -> None:
    """Move LoRA away from where it begins, at no effect."""
    with torch.no_grad():
        for name, parameter in peft_model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
