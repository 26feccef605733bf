"""Pictures of every mode are the same picture to a model."""

import io

import numpy as np
import pytest
from PIL import Image

from prunelora.data.images import Picture
from prunelora.data.rgb import as_rgb
from prunelora.errors import DataError

# Grey, from left to right.
SLOPE = np.linspace(0, 255, 24).round().astype(np.uint8)[None].repeat(16, 0)


def pixels(picture) -> np.ndarray:
    made = as_rgb(picture)
    assert made.mode == "RGB"
    return np.asarray(made).astype(int)


def stored(picture, **options) -> Image.Image:
    content = io.BytesIO()
    picture.save(content, **options)
    return Image.open(io.BytesIO(content.getvalue()))


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "CMYK", "YCbCr", "La", "RGBa"])
def test_a_picture_is_the_same_in_every_mode(mode):
    opaque = Image.fromarray(SLOPE)
    if mode == "RGBa":
        opaque = opaque.convert("RGBA")
    if mode == "La":
        opaque = opaque.convert("LA")
    assert np.abs(pixels(opaque.convert(mode)) - SLOPE[..., None]).max() <= 1


@pytest.mark.parametrize(("kind", "file"), [("<u2", "PNG"), ("<u2", "TIFF"), (">u2", "TIFF")])
def test_16_bits_are_scaled_to_8(kind, file):
    deep = (SLOPE.astype(np.uint16) * 257).astype(kind)
    assert np.array_equal(pixels(stored(Image.fromarray(deep), format=file)), SLOPE[..., None].repeat(3, 2))


def test_whole_numbers_of_16_bits_in_a_mode_of_32_are_scaled_to_8():
    """Pillow reads a PGM of 16 bits so, older versions of it a PNG too."""
    content = io.BytesIO()
    Image.fromarray(SLOPE.astype(np.int32) * 257).save(content, "PPM")
    read = Image.open(io.BytesIO(content.getvalue()))
    assert read.mode == "I"
    assert np.array_equal(pixels(read), SLOPE[..., None].repeat(3, 2))
    Picture.of({"bytes": content.getvalue(), "path": None})


@pytest.mark.parametrize(("values", "message"), [(np.float32, "floating-point"), (np.int32, "32-bit")])
@pytest.mark.parametrize("scale", [1, 1000])
def test_a_picture_without_a_known_black_and_white_is_refused_when_it_is_read(values, message, scale):
    content = io.BytesIO()
    Image.fromarray(SLOPE.astype(values) * scale).save(content, "TIFF")
    with pytest.raises(DataError, match=message):
        Picture.of({"bytes": content.getvalue(), "path": None})


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_the_way_up_that_its_camera_says(orientation):
    """By the transposition that undoes each of EXIF's eight orientations."""
    undone = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    marked = SLOPE.copy()
    marked[:4] //= 4
    upright = Image.fromarray(marked)
    exif = Image.Exif()
    exif[0x0112] = orientation
    held = upright.transpose(undone[orientation]) if orientation in undone else upright
    assert np.array_equal(pixels(stored(held, format="PNG", exif=exif)), marked[..., None].repeat(3, 2))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L"])
def test_transparent_parts_are_white_whatever_lies_hidden_there(mode):
    """A drawing in black lines on nothing would be all black otherwise."""
    drawing = Image.new("RGBA", (24, 16), (0, 0, 0, 0))
    drawing.paste((0, 0, 0, 255), (0, 0, 12, 16))
    if mode == "LA":
        drawing = drawing.convert("LA")
    if mode == "P":
        flat = Image.new("P", (24, 16), 1)
        flat.putpalette([0, 0, 0] * 256)
        flat.paste(0, (0, 0, 12, 16))
        drawing = stored(flat, format="PNG", transparency=1)
    if mode == "L":
        flat = Image.new("L", (24, 16), 1)
        flat.paste(0, (0, 0, 12, 16))
        drawing = stored(flat, format="PNG", transparency=1)
        assert drawing.mode == "L"
    made = pixels(drawing)
    assert made[:, :12].max() == 0
    assert made[:, 12:].min() == 255


@pytest.mark.parametrize("file", ["GIF", "WEBP"])
def test_of_several_frames_the_first_is_read(file):
    frames = [Image.new("RGB", (24, 16), colour) for colour in ("red", "blue")]
    moving = stored(frames[0], format=file, save_all=True, append_images=frames[1:])
    assert np.abs(pixels(moving) - (255, 0, 0)).max() < 8
