"""Tokenisation of splits, and batches as `model(**batch)` takes them."""

import copy
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import datasets
import numpy as np
import torch
from transformers import (
    BaseImageProcessor,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    PreTrainedTokenizerBase,
)

from prunelora.data.answers import is_by_token
from prunelora.data.encoding import ROWS_AT_ONCE, encode_rows, lengths_of
from prunelora.data.images import holds_images
from prunelora.data.pixels import PixelBatches, prepared
from prunelora.data.pixels import collate as collate_images
from prunelora.data.task import TaskData
from prunelora.errors import DataError, check_count

# Makes the inputs of a model from rows.
Processor = PreTrainedTokenizerBase | BaseImageProcessor


def tokenise(split: datasets.Dataset, tokenizer: Processor, *, max_length: int) -> datasets.Dataset:
    """Tokenise one split of a `TaskData`, truncated to `max_length` and not padded, in memory.

    A pair is shortened on its longer side first. The first token of a word has the word's label. The labels of a
    language model are the tokens of the text and the end-of-text token. Images are turned into pixels when they are
    read (see `prunelora.data.pixels.prepared`).

    Args:
        split: Columns text, optionally text_pair, and label; or lists of words and of labels; or text alone, for
            language modelling; or image and label.
        tokenizer: Tokenizer of the model, or its image processor.
        max_length: Longest input in tokens, special tokens included.

    Returns:
        The columns that the tokenizer makes, and `labels`: int64, float32, or lists of float32; lists of int32, as
        long as the tokens, if tokens are labelled.

    Raises:
        DataError: If a row gives no tokens.
    """
    check_count(DataError, "max_length", max_length)
    if holds_images(split):
        return prepared(split, cast(BaseImageProcessor, tokenizer))
    tokenizer = cast(PreTrainedTokenizerBase, tokenizer)
    parts = [
        encode_rows(split.select(range(start, min(start + ROWS_AT_ONCE, len(split)))), tokenizer, max_length, start)
        for start in range(0, max(1, len(split)), ROWS_AT_ONCE)
    ]
    return parts[0] if len(parts) == 1 else datasets.concatenate_datasets(parts)


def batches(tokenised: datasets.Dataset, tokenizer: Processor, *, batch_size: int) -> Sequence[dict[str, torch.Tensor]]:
    """Batches in the order of the rows, each padded to its longest row; those of images are made when indexed.

    Raises:
        DataError: If the tokenizer has no padding token.
    """
    check_count(DataError, "batch_size", batch_size)
    if holds_images(tokenised):
        return PixelBatches(tokenised, batch_size)
    collate = collator(tokenised, tokenizer)
    return [dict(collate(rows)) for rows in _chunks(tokenised, batch_size)]


def collator(tokenised: datasets.Dataset, tokenizer: Processor) -> Callable[[list[dict]], Any]:
    """A function that makes a batch of rows: inputs padded on the right, and the labels of tokens too.

    Padding on the left is for generation. In training and evaluation it would make positions depend on the longest row
    of the batch.

    Raises:
        DataError: If the tokenizer has no padding token.
    """
    if holds_images(tokenised):
        return collate_images
    tokenizer = cast(PreTrainedTokenizerBase, tokenizer)
    if tokenizer.pad_token is None:
        raise DataError(
            f"The tokenizer {tokenizer.name_or_path or type(tokenizer).__name__} has no padding token, so rows cannot "
            "be batched. Set one first, for example: tokenizer.pad_token = tokenizer.eos_token"
        )
    tokenizer = copy.copy(tokenizer)
    tokenizer.padding_side = "right"
    if is_by_token(tokenised):
        return DataCollatorForTokenClassification(tokenizer)
    return DataCollatorWithPadding(tokenizer)


def calibration_batches(
    task: TaskData,
    tokenizer: Processor,
    *,
    rows: int = 1024,
    batch_size: int = 32,
    seed: int = 0,
    max_length: int = 128,
) -> Sequence[dict[str, torch.Tensor]]:
    """Batches of a seeded sample of training rows, never of any other split.

    Rows are sorted by length, which leaves little padding; scores do not depend on the order.

    Args:
        task: The task; only `task.train` is read.
        tokenizer: Tokenizer of the model, or its image processor.
        rows: Rows to sample; all if train has fewer.
        batch_size: Rows a batch.
        seed: Seed of the sample.
        max_length: Longest input in tokens.

    Returns:
        Dicts as `model(**batch)` takes them, `labels` included.
    """
    check_count(DataError, "rows", rows)
    count = min(rows, len(task.train))
    indices = sorted(random.Random(seed).sample(range(len(task.train)), count))
    tokenised = tokenise(task.train.select(indices), tokenizer, max_length=max_length)
    return batches(tokenised.select(by_length(tokenised)), tokenizer, batch_size=batch_size)


def by_length(tokenised: datasets.Dataset) -> list[int]:
    """Numbers of the rows, shortest first; images, which have one size, in their order."""
    if holds_images(tokenised):
        return list(range(len(tokenised)))
    order: list[int] = np.argsort(lengths_of(tokenised), kind="stable").tolist()
    return order


def _chunks(tokenised: datasets.Dataset, batch_size: int) -> Iterator[list[dict]]:
    for start in range(0, len(tokenised), batch_size):
        columns = tokenised[start : start + batch_size]
        yield [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
