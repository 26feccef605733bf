"""A small training: random rows of equal length, and LoRA on a tiny BERT."""

import torch
from datasets import Dataset
from tiny import PAD, tiny_model
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

import prunelora as pl
from prunelora.models.anatomy import dissect
from prunelora.planning.plan import Plan

STEPS_AN_EPOCH = 3


def make_tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {"[UNK]": 0, "[PAD]": PAD} | {f"w{i}": i for i in range(2, 50)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]")),
        pad_token="[PAD]",
        unk_token="[UNK]",
    )


def rows(count: int = 24, seed: int = 0) -> Dataset:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 50, (count, 5), generator=generator).tolist()
    labels = torch.randint(0, 2, (count,), generator=generator).tolist()
    return Dataset.from_dict({"input_ids": ids, "attention_mask": [[1] * 5] * count, "labels": labels})


def adapted(seed: int = 0, rank: int = 4):
    model = tiny_model(dtype=torch.float32, num_labels=2)
    plan = Plan.whole(dissect(model).lineage, rank=rank)
    return pl.add_adapter(pl.prune_(model, plan), plan, seed=seed)


def tune(model, folder, tokenizer, *, train=None, validation=None, **options):
    return pl.finetune(
        model, train or rows(), validation or rows(8, 1), tokenizer=tokenizer, checkpoints=folder, progress=False,
        **({"epochs": 3, "batch_size": 8, "learning_rate": 1e-2} | options),
    )  # fmt: skip


def weights(model) -> torch.Tensor:
    return torch.cat([one.detach().flatten() for one in model.parameters() if one.requires_grad])
