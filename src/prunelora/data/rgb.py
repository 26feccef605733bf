"""Conversion of pictures of every mode to RGB with 8 bits a channel, as a viewer shows them."""

from typing import cast

import numpy as np
from PIL import Image, ImageOps

from prunelora.errors import DataError

_16_BITS = 65535


def as_rgb(picture: Image.Image) -> Image.Image:
    """A picture as RGB: rotated by its EXIF data, 16 bits scaled to 8, transparent parts white.

    `picture.convert("RGB")` clips 16 bits at 255, which makes nearly everything white, and shows the hidden colours of
    transparent parts, usually black. Of several frames the first is taken.

    Raises:
        DataError: If the values of its pixels have no known black and white.
    """
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I") or picture.mode == "F":
        return Image.fromarray(_in_8_bits(picture)).convert("RGB")
    if picture.mode in ("La", "RGBa"):  # Colours that are multiplied by their opacity.
        picture = picture.convert({"La": "LA", "RGBa": "RGBA"}[picture.mode])
    if picture.mode in ("LA", "PA", "RGBA") or "transparency" in picture.info:
        front = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", front.size, "white"), front)
    return picture.convert("RGB")


def check_mode(picture: Image.Image) -> None:
    """Raises DataError if pixels are floats or 32-bit integers, whose black and white are unknown."""
    if picture.mode in ("I", "F"):
        low, high = cast(tuple[float, float], picture.getextrema())  # There is one channel.
        # Pillow may hold the 16 bits of a PNG or PGM in 32. A decoded picture does not tell its original depth.
        is_wide = picture.format not in (None, "PNG", "PPM")
        if picture.mode == "F" or is_wide or low < 0 or high > _16_BITS:
            kind = "floating-point numbers" if picture.mode == "F" else "32-bit whole numbers"
            raise DataError(
                f"a picture of {kind}, from {low:g} to {high:g}, whose values for black and white are unknown. Save it "
                "with 8 or 16 bits a channel."
            )


def _in_8_bits(picture: Image.Image) -> np.ndarray:
    # 0 -> 0, 257 -> 1, 65535 -> 255
    check_mode(picture)
    return np.round(np.asarray(picture).astype(np.float64) * (255 / _16_BITS)).astype(np.uint8)
