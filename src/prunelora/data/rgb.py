"""Pictures of every mode as RGB with 8 bits a channel, as a viewer shows them."""

from typing import cast

import numpy as np
from PIL import Image, ImageOps

from prunelora.errors import DataError

_16_BITS = 65535


def as_rgb(picture: Image.Image) -> Image.Image:
    """A picture as RGB: turned as its EXIF data says, 16 bits scaled to 8, transparent parts white.

    `picture.convert("RGB")` cuts 16 bits off at 255, which makes nearly everything white, and shows what lies hidden
    in transparent parts, which is black most often. Of several frames the first is taken.

    Raises:
        DataError: If its numbers have no known black and white.
    """
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I") or picture.mode == "F":
        return Image.fromarray(_in_8_bits(picture)).convert("RGB")
    if picture.mode in ("La", "RGBa"):  # Colours that are multiplied with their opacity.
        picture = picture.convert({"La": "LA", "RGBa": "RGBA"}[picture.mode])
    if picture.mode in ("LA", "PA", "RGBA") or "transparency" in picture.info:
        front = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", front.size, "white"), front)
    return picture.convert("RGB")


def check_mode(picture: Image.Image) -> None:
    """Refuse a picture whose numbers have no known black and white.

    Raises:
        DataError: If they are fractions, or whole numbers of 32 bits.
    """
    if picture.mode in ("I", "F"):
        low, high = cast(tuple[float, float], picture.getextrema())  # There is one channel.
        # Pillow may show the 16 bits of a PNG or PGM in 32. Once decoded, a picture does not say what it was.
        is_wide = picture.format not in (None, "PNG", "PPM")
        if picture.mode == "F" or is_wide or low < 0 or high > _16_BITS:
            kind = "floating-point numbers" if picture.mode == "F" else "32-bit whole numbers"
            raise DataError(
                f"a picture of {kind}, from {low:g} to {high:g}, of which nobody knows which is black and which is "
                "white. Save it with 8 or 16 bits a channel."
            )


def _in_8_bits(picture: Image.Image) -> np.ndarray:
    # 0 -> 0, 257 -> 1, 65535 -> 255
    check_mode(picture)
    return np.round(np.asarray(picture).astype(np.float64) * (255 / _16_BITS)).astype(np.uint8)
