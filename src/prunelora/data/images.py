"""Images as found: folders of classes, cells of a data set, and checks that they can be read."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunelora.errors import DataError

if TYPE_CHECKING:
    import datasets

IMAGE, LABEL = "image", "label"
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")

# What a folder of a class may hold besides images.
_IGNORED_SUFFIXES = (".txt", ".md")
_IGNORED_NAMES = ("thumbs.db", "desktop.ini")


@dataclass(frozen=True)
class Picture:
    """An encoded image, in memory or in a file.

    Attributes:
        data: The encoded bytes; None if they are in a file.
        path: The file; None if there is none.
        digest: Hash of the bytes; two rows with the same digest are the same picture.
    """

    data: bytes | None
    path: str | None
    digest: str

    @classmethod
    def of(cls, cell: Any) -> "Picture":
        """From a cell as `datasets` stores images: {"bytes": ..., "path": ...}.

        Raises:
            DataError: If there are neither bytes nor a file, or these are no readable image, or one without a known
                black and white.
        """
        data, path = cell.get("bytes"), cell.get("path")
        if data is None and (path is None or not Path(path).is_file()):
            raise DataError(f"no image there: neither bytes nor a file (path {path!r}).")
        content = Path(path).read_bytes() if data is None else data
        try:
            _check_readable(content)
        except DataError as error:
            raise DataError(f"{path or 'the image'} is {error}") from error
        except Exception as error:  # PIL raises many kinds of errors for a damaged file
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


def _check_readable(content: bytes) -> None:
    """Raises an error of PIL if bytes are no whole image, and DataError if it has no known black and white."""
    from PIL import Image

    from prunelora.data.rgb import check_mode

    with Image.open(io.BytesIO(content)) as image:
        image.verify()
    if image.mode in ("I", "F"):
        with Image.open(io.BytesIO(content)) as image:
            check_mode(image)
    if image.format != "PNG":  # Other formats have no checksums, so only decoding shows that an image is cut off.
        with Image.open(io.BytesIO(content)) as image:
            image.draft("L", (1, 1))  # Decodes a JPEG at an eighth of its size, which is fastest.
            image.load()


def is_image_cell(value: Any) -> bool:
    """Whether a cell of a table holds an image as `datasets` stores it."""
    return isinstance(value, dict) and value.keys() == {"bytes", "path"}


def holds_images(rows: "datasets.Dataset") -> bool:
    """Whether rows are images, prepared for a model or not."""
    return IMAGE in rows.column_names


def is_image_folder(folder: Path) -> bool:
    """Whether a folder has images in folders of classes, or in folders of splits with folders of classes."""
    below = _folders_in(folder)
    return any(_images_in(inner) for inner in below + [inner for each in below for inner in _folders_in(each)])


def read_image_folder(folder: Path) -> dict[str, tuple[dict[str, list[Any]], tuple[str, ...]]]:
    """Read a folder whose folders are classes, or splits with folders of classes in them.

    Returns:
        By split ("train" if there are none): the columns "image" and "label", and the names of the classes, which are
        those of the folders of all splits, in alphabetical order.

    Raises:
        DataError: If classes and splits stand beside each other, or a file of a class would not be read.
    """
    below = _folders_in(folder)
    is_flat = any(map(_images_in, below))
    holders = {"train": folder} if is_flat else {split.name.lower(): split for split in below}
    for holder in holders.values():
        _check_classes(holder)
    splits = {split: _folders_in(holder) for split, holder in holders.items()}
    names = tuple(sorted({each.name for classes in splits.values() for each in classes}))
    return {split: (_columns(classes, names), names) for split, classes in splits.items()}


def _check_classes(holder: Path) -> None:
    """Raises DataError if not all folders hold images, or there are other files, which would be lost silently."""
    classes = _folders_in(holder)
    full = [each for each in classes if _images_in(each)]
    empty = next((each for each in classes if each not in full), None)
    if empty is not None and full:
        raise DataError(
            f"{holder}: {full[0].name} holds images and {empty.name} none. Give folders of classes that hold images, "
            "or folders named train, validation and test with folders of classes in them."
        )
    for place, unread in [(holder, _images_in(holder)), *((each, _unread_in(each)) for each in classes)]:
        if unread:
            raise DataError(
                f"{unread[0]} is not read, nor {len(unread) - 1:,} more in {place}: a folder of classes holds only "
                f"the images of each class ({', '.join(IMAGE_SUFFIXES)}), in a folder for each. Move or remove it."
            )


def _unread_in(folder: Path) -> list[Path]:
    """Files in the folder of a class that are neither images, nor hidden, nor notes such as a licence."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() not in (*IMAGE_SUFFIXES, *_IGNORED_SUFFIXES)
        and not path.name.startswith(".")
        and path.name.lower() not in _IGNORED_NAMES
    )


def _columns(classes: Sequence[Path], names: Sequence[str]) -> dict[str, list[Any]]:
    rows = [(str(path), names.index(each.name)) for each in classes for path in _images_in(each)]
    return {IMAGE: [{"bytes": None, "path": path} for path, _ in rows], LABEL: [label for _, label in rows]}


def _folders_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _images_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
