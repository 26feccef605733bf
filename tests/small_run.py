"""A run small enough for a test: a tiny random BERT with a real tokenizer, and a small CSV."""

import csv
import math
import random
import shutil
from pathlib import Path

import torch
from transformers import AutoTokenizer, BertConfig, BertModel

from prunelora.delivery import onnx

GOOD, BAD = ["good", "funny", "moving", "great"], ["bad", "dull", "boring", "awful"]
FILLER = ["the", "film", "is", "a", "story", "of", "and", "plot", "with", "cast"]


def make_model(folder: Path, tokenizer_from: Path) -> Path:
    tokenizer = AutoTokenizer.from_pretrained(str(tokenizer_from))
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=24,
        num_attention_heads=4,
        num_hidden_layers=3,
        intermediate_size=32,
        vocab_size=len(tokenizer),
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


def make_data(path: Path, rows: int = 120) -> Path:
    rng = random.Random(0)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["review", "label"])
        for number in range(rows):
            words = [*rng.choices(FILLER, k=rng.randint(3, 8)), rng.choice(GOOD if number % 2 else BAD), str(number)]
            rng.shuffle(words)
            writer.writerow([" ".join(words), "good" if number % 2 else "bad"])
    return path


def make_mnli(folder: Path) -> Path:
    """MNLI's files, a few rows of each: two reported splits, neither of which is called "test"."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("train", 60), ("validation_matched", 9), ("validation_mismatched", 12)):
        lines = [f"{FILLER[i % 10]} {GOOD[i % 4]} {i}\t{BAD[i % 4]} {name} {i}\t{i % 3}" for i in range(rows)]
        (folder / f"{name}.tsv").write_text("\n".join(["premise\thypothesis\tlabel", *lines]) + "\n", encoding="utf-8")
    return folder


def copy_dense_exports(patch) -> None:
    """Replace the dense model's export, which is only timed, by a copy of the last export: tracing takes seconds."""
    export, exported = onnx.export, []

    def export_pruned(model, path, **options):
        if exported and options.get("tolerance") == math.inf:
            return Path(shutil.copy(exported[-1], path))
        exported.append(export(model, path, **options))
        return exported[-1]

    patch.setattr(onnx, "export", export_pruned)
