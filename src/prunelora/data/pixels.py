"""Pixels of images: rows that are turned into pixels when they are read, and their batches."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import datasets
from transformers import BaseImageProcessor, default_data_collator

from prunelora.data.images import IMAGE, LABEL
from prunelora.data.rgb import as_rgb

Batch = dict[str, Any]

collate: Callable[[list[dict]], Batch] = default_data_collator


def prepared(split: datasets.Dataset, processor: BaseImageProcessor) -> datasets.Dataset:
    """Rows that are turned into pixels when they are read, since the pixels of a data set rarely fit into memory.

    Args:
        split: Columns image and label.
        processor: The model's image processor.

    Returns:
        A data set with `pixel_values` (channels, height, width), float32, and `labels`.
    """

    def read(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        pictures = [as_rgb(picture) for picture in rows[IMAGE]]
        labels = {"labels": rows["labels"]} if "labels" in rows else {}
        return {"pixel_values": list(processor(images=pictures, return_tensors="pt")["pixel_values"])} | labels

    return split.rename_column(LABEL, "labels").with_transform(read)


class PixelBatches(Sequence[Batch]):
    """Batches of prepared images in the order of the rows, each made when it is indexed."""

    def __init__(self, rows: datasets.Dataset, batch_size: int) -> None:
        """Keep the rows and the batch size."""
        self.rows, self.batch_size = rows, batch_size

    def __len__(self) -> int:
        """Number of batches."""
        return -(-len(self.rows) // self.batch_size)

    def __getitem__(self, number: Any) -> Any:
        """A batch: pixel_values (B, channels, height, width) and labels (B,)."""
        if not 0 <= number < len(self):
            raise IndexError(number)
        start = number * self.batch_size
        return dict(collate([self.rows[row] for row in range(start, min(start + self.batch_size, len(self.rows)))]))

    def __iter__(self) -> Iterator[Batch]:
        """All batches."""
        return (self[number] for number in range(len(self)))
