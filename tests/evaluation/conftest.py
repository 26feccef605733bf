import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertConfig, RobertaConfig

CONFIGS = {
    "bert": (BertConfig, {"max_position_embeddings": 32}),
    "roberta": (RobertaConfig, {"max_position_embeddings": 34}),
}


@pytest.fixture
def make_tiny():
    def make(family="bert", **options):
        torch.manual_seed(0)
        config, sizes = CONFIGS[family]
        return AutoModelForSequenceClassification.from_config(
            config(
                hidden_size=16,
                num_attention_heads=2,
                num_hidden_layers=2,
                intermediate_size=24,
                vocab_size=40,
                **sizes,
                **options,
            )
        )

    return make
