"""Images: pictures in folders of classes or in columns of a data set, and batches of their pixels."""

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from PIL import Image
from transformers import BaseImageProcessor, default_data_collator

from prunelora.data.rgb import as_rgb, check_mode
from prunelora.errors import DataError

IMAGE, LABEL = "image", "label"
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")

Batch = dict[str, Any]


@dataclass(frozen=True)
class Picture:
    """An image as it was found: encoded, in memory or in a file.

    Attributes:
        data: The encoded bytes; None where they are in a file.
        path: The file; None where there is none.
        digest: Hash of the bytes, by which two rows are the same picture.
    """

    data: bytes | None
    path: str | None
    digest: str

    @classmethod
    def of(cls, cell: Any) -> "Picture":
        """From a cell as `datasets` stores images: {"bytes": ..., "path": ...}.

        Raises:
            DataError: If there is neither, or the bytes are no image that can be read, or one without a known black and
                white.
        """
        data, path = cell.get("bytes"), cell.get("path")
        if data is None and (path is None or not Path(path).is_file()):
            raise DataError(f"no image there: neither bytes nor a file (path {path!r}).")
        content = Path(path).read_bytes() if data is None else data
        try:
            _read(content)
        except DataError as error:
            raise DataError(f"{path or 'the image'} is {error}") from error
        except Exception as error:  # PIL raises whatever its readers meet in a damaged file
            raise DataError(
                f"{path or 'the image'} cannot be read as an image: {len(content):,} bytes"
                f"{f' that begin {content[:16]!r}' if content else ''} ({type(error).__name__}). "
                "Write the file again, or remove it."
            ) from error
        return cls(data, None if data is not None else str(path), hashlib.sha256(content).hexdigest()[:16])

    @property
    def cell(self) -> dict[str, Any]:
        """As `datasets` stores it."""
        return {"bytes": self.data, "path": self.path}


def _read(content: bytes) -> None:
    """Raise whatever PIL does for bytes that are no whole image."""
    with Image.open(io.BytesIO(content)) as image:
        image.verify()
    if image.mode in ("I", "F"):
        with Image.open(io.BytesIO(content)) as image:
            check_mode(image)
    if image.format != "PNG":  # The others have no checksums that tell: a photo that is cut off must be decoded.
        with Image.open(io.BytesIO(content)) as image:
            image.draft("L", (1, 1))  # Of a JPEG an eighth of the size, which takes the least time.
            image.load()


def is_image_cell(value: Any) -> bool:
    """Whether a cell of a table holds an image as `datasets` stores it."""
    return isinstance(value, dict) and value.keys() == {"bytes", "path"}


# Folders --------------------------------------------------------------------------------------------------------------


def is_image_folder(folder: Path) -> bool:
    """Whether a folder has images in folders of classes, in it or in folders of splits."""
    return any(_images_in(one) for one in _folders_in(folder)) or any(
        _images_in(inner) for one in _folders_in(folder) for inner in _folders_in(one)
    )


def read_image_folder(folder: Path) -> dict[str, tuple[dict[str, list[Any]], tuple[str, ...]]]:
    """Read a folder whose folders are classes, or splits with folders of classes in them.

    Returns:
        By split ("train" where there are none): the columns "image" and "label", and the names of the classes, which
        are those of the folders of all splits, in alphabetical order.

    Raises:
        DataError: If classes and splits stand beside each other, or something in a class is not read.
    """
    below = _folders_in(folder)
    flat = [one for one in below if _images_in(one)]
    splits = {"train": below} if flat else {one.name.lower(): _folders_in(one) for one in below}
    for where, classes in [(folder, below)] if flat else [(one, _folders_in(one)) for one in below]:
        _check_classes(where, classes)
    names = tuple(sorted({one.name for classes in splits.values() for one in classes}))
    return {split: (_columns(classes, names), names) for split, classes in splits.items()}


def _check_classes(where: Path, classes: Sequence[Path]) -> None:
    """Hold folders of classes to hold images and nothing else: what was passed over would be missing without a word."""
    full = [one for one in classes if _images_in(one)]
    empty = next((one for one in classes if one not in full), None)
    if empty is not None and full:
        raise DataError(
            f"{where}: {full[0].name} holds images and {empty.name} none. Give folders of classes that hold images, "
            "or folders named train, validation and test with folders of classes in them."
        )
    loose = [(where, _images_in(where))] + [(one, _not_read(one)) for one in classes]
    for holder, found in loose:
        if found:
            raise DataError(
                f"{found[0]} is not read, nor {len(found) - 1:,} more in {holder}: a folder of classes holds nothing "
                f"but the images of each class ({', '.join(IMAGE_SUFFIXES)}) in a folder of its own. Move it, or "
                "remove it."
            )


def _not_read(folder: Path) -> list[Path]:
    """What is in a class's folder and is no image, hidden files and notes on copyright and the like aside."""
    passed = ("thumbs.db", "desktop.ini")
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() not in (*IMAGE_SUFFIXES, ".txt", ".md")
        and not path.name.startswith(".")
        and path.name.lower() not in passed
    )


def _columns(classes: Sequence[Path], names: Sequence[str]) -> dict[str, list[Any]]:
    rows = [(str(path), names.index(one.name)) for one in classes for path in _images_in(one)]
    return {IMAGE: [{"bytes": None, "path": path} for path, _ in rows], LABEL: [label for _, label in rows]}


def _folders_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _images_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)


# Pixels ---------------------------------------------------------------------------------------------------------------


def holds_images(rows: datasets.Dataset) -> bool:
    """Whether rows are images, prepared for a model or not."""
    return IMAGE in rows.column_names


def prepared(split: datasets.Dataset, processor: BaseImageProcessor) -> datasets.Dataset:
    """Rows that turn into pixels when they are read: a data set of images rarely fits into memory as such.

    Args:
        split: Columns image and label.
        processor: The model's.

    Returns:
        A data set that gives `pixel_values` (channels, height, width), float32, and `labels`.
    """

    def read(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        pictures = [as_rgb(picture) for picture in rows[IMAGE]]
        return {"pixel_values": list(processor(images=pictures, return_tensors="pt")["pixel_values"])} | (
            {"labels": rows["labels"]} if "labels" in rows else {}
        )

    return split.rename_column(LABEL, "labels").with_transform(read)


class PixelBatches(Sequence[Batch]):
    """Batches of prepared images in the order of the rows, each made when it is asked for."""

    def __init__(self, rows: datasets.Dataset, batch_size: int) -> None:
        """Remember the rows."""
        self.rows, self.batch_size = rows, batch_size

    def __len__(self) -> int:
        """Batches."""
        return -(-len(self.rows) // self.batch_size)

    def __getitem__(self, number: Any) -> Any:
        """A batch: pixel_values (B, channels, height, width) and labels (B,)."""
        if not 0 <= number < len(self):
            raise IndexError(number)
        start = number * self.batch_size
        some = range(start, min(start + self.batch_size, len(self.rows)))
        return dict(collate([self.rows[row] for row in some]))

    def __iter__(self) -> Iterator[Batch]:
        """All of them."""
        return (self[number] for number in range(len(self)))


collate: Callable[[list[dict]], Batch] = default_data_collator
