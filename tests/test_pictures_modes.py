"""Every mode that Pillow opens becomes the right 8-bit RGB, or one sentence."""

from __future__ import annotations

import io

import ml_dtypes
import numpy as np
import pytest
from made_pictures import SIDE, colours, encoded, png, tiff, without_adobe_marker
from PIL import Image, ImageCms

from onereward_jax.pictures import picture_list, read_photograph, read_picture

RGB = colours()
PICTURE = Image.fromarray(RGB)
RED = RGB[..., 0]
GREY = np.asarray(PICTURE.convert("L"))
PALETTE = PICTURE.quantize(16)
WIDE = RGB.astype(np.uint16) * 257
INKS = PICTURE.convert("CMYK")


def opaque(pixels: np.ndarray) -> np.ndarray:
    most = np.iinfo(pixels.dtype).max
    return np.concatenate([pixels, np.full_like(pixels[..., :1], most)], -1)


def three(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, -1)


def twelve_bits(values: np.ndarray) -> np.ndarray:
    """Two values of 12 bits in three bytes."""
    left, right = values[:, ::2].astype(int), values[:, 1::2].astype(int)
    packed = [left >> 4, (left & 15) << 4 | right >> 8, right & 255]
    return np.stack(packed, -1).reshape(len(values), -1).astype(np.uint8)


def lab() -> Image.Image:
    spaces = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    mild = Image.fromarray((RGB // 4 + 96).astype(np.uint8))
    return ImageCms.profileToProfile(mild, *spaces, outputMode="LAB")


def of_raw(mode: str, dtype: str) -> Image.Image:
    return Image.frombytes(mode, (SIDE, SIDE), WIDE[..., 0].astype(dtype).tobytes())


MODES = {
    "1": (PICTURE.convert("1"), np.asarray(PICTURE.convert("1").convert("RGB")), 0),
    "L": (PICTURE.convert("L"), three(GREY), 0),
    "LA": (PICTURE.convert("LA"), three(GREY), 0),
    "La": (PICTURE.convert("LA").convert("La"), three(GREY), 0),
    "P": (PALETTE, np.asarray(PALETTE.convert("RGB")), 0),
    "PA": (PALETTE.convert("PA"), np.asarray(PALETTE.convert("RGB")), 0),
    "P, transparent": (
        encoded(PALETTE, "PNG", transparency=3), np.asarray(PALETTE.convert("RGB")), 0
    ),
    "GIF": (encoded(PALETTE, "GIF"), np.asarray(PALETTE.convert("RGB")), 0),
    "RGB": (PICTURE, RGB, 0),
    "RGBA": (PICTURE.convert("RGBA"), RGB, 0),
    "RGBa": (PICTURE.convert("RGBA").convert("RGBa"), RGB, 0),
    "RGBX": (PICTURE.convert("RGBX"), RGB, 0),
    "tRNS of RGB": (png(RGB, 2, [(b"tRNS", RGB[0, 0].astype(">u2").tobytes())]), RGB, 0),
    "tRNS of greys": (png(RED, 0, [(b"tRNS", RED[0, :1].astype(">u2").tobytes())]), three(RED), 0),
    "CMYK": (INKS, RGB, 0),
    "CMYK TIFF": (encoded(INKS, "TIFF"), RGB, 0),
    "CMYK JPEG of Adobe": (encoded(INKS, "JPEG", quality=100, subsampling=0), RGB, 2),
    "CMYK JPEG without Adobe's marker": (
        without_adobe_marker(
            encoded(
                Image.fromarray(255 - np.asarray(INKS), "CMYK"), "JPEG", quality=100, subsampling=0
            )
        ),
        RGB,
        2,
    ),
    "YCbCr": (PICTURE.convert("YCbCr"), RGB, 3),
    "YCbCr TIFF": (encoded(PICTURE.convert("YCbCr"), "TIFF"), RGB, 3),
    "HSV": (PICTURE.convert("HSV"), RGB, 6),
    "LAB": (lab(), RGB // 4 + 96, 3),
    "LAB TIFF": (encoded(lab(), "TIFF"), RGB // 4 + 96, 3),
    "I;16": (of_raw("I;16", "<u2"), three(RED), 0),
    "I;16L": (of_raw("I;16L", "<u2"), three(RED), 0),
    "I;16B": (of_raw("I;16B", ">u2"), three(RED), 0),
    "I;16N": (of_raw("I;16N", "=u2"), three(RED), 0),
    "I of 16 bits": (Image.fromarray(WIDE[..., 0].astype(np.int32)), three(RED), 0),
    "I of 8 bits": (Image.fromarray(RED.astype(np.int32)), three(RED), 0),
    "F in [0, 1]": (Image.fromarray(RED.astype(np.float32) / 255), three(RED), 0),
    "F in [0, 255]": (Image.fromarray(RED.astype(np.float32)), three(RED), 0),
    "PNG of 16-bit greys": (png(WIDE[..., 0], 0), three(RED), 0),
    "PNG of 16-bit greys with alpha": (png(opaque(WIDE[..., :1]), 4), three(RED), 0),
    "PNG of 48 bits": (png(WIDE, 2), RGB, 0),
    "PNG of 64 bits": (png(opaque(WIDE), 6), RGB, 0),
    "PNG of dark 16 bits": (png((RED // 2).astype(np.uint16), 0), three(RED * 0), 0),
    "TIFF of 12 bits": (
        tiff(twelve_bits(RED * 4095.0 / 255), 1, bits=12, width=SIDE), three(RED), 1
    ),
    "TIFF of signed 16 bits": (tiff((WIDE[..., 0] >> 1).astype(np.int16), 1), three(RED), 1),
    "TIFF of 16 bits, white is 0": (tiff(WIDE[..., 0], 0), three(255 - RED), 0),
    "TIFF of floats, white is 0": (
        tiff((RED / 255).astype(np.float32), 0), three(255 - RED), 0
    ),
    "TIFF of 8 bits in 32": (tiff(RED.astype(np.uint32), 1), three(RED), 0),
    "TIFF, one channel after the other": (tiff(RGB, 2, planar=2), RGB, 0),
}  # fmt: skip
for order, named in {"<": "little", ">": "big"}.items():
    MODES[f"TIFF of 16-bit greys, {named} endian"] = (tiff(WIDE[..., 0], 1, order), three(RED), 0)
    MODES[f"TIFF of 48 bits, {named} endian"] = (tiff(WIDE, 2, order), RGB, 0)
    MODES[f"TIFF of floats, {named} endian"] = (
        tiff((RED / 255).astype(np.float32), 1, order), three(RED), 0
    )  # fmt: skip


@pytest.mark.parametrize("name", MODES)
def test_every_mode_has_the_right_colours(name):
    source, expected, tolerance = MODES[name]
    photograph = read_photograph(source)
    assert photograph.pixels.mode == "RGB" and photograph.profile is None
    found = np.asarray(photograph.srgb())
    assert np.abs(found.astype(int) - expected).max() <= tolerance
    if isinstance(source, Image.Image):
        photograph.pixels.paste(0, (0, 0, SIDE, SIDE))
        assert np.asarray(source).any(), "the caller's picture is left as it was"


ARRAYS = {
    "bool": (GREY >= 128, three(np.uint8(255) * (GREY >= 128))),
    "uint8 [h, w]": (GREY, three(GREY)),
    "uint8 [h, w, 1]": (GREY[..., None], three(GREY)),
    "uint8 [h, w, 3]": (RGB, RGB),
    "uint8 [h, w, 4]": (opaque(RGB), RGB),
    "not contiguous": (RGB[:, ::-1], RGB[:, ::-1]),
    "uint16": (WIDE, RGB),
    "int64": (RGB.astype(np.int64), RGB),
    "float16": ((RGB / 255).astype(np.float16), RGB),
    "float32": ((RGB / 255).astype(np.float32), RGB),
    "float64": (RGB / 255, RGB),
    "slight overshoot": (np.where(GREY >= 128, 1.004, -0.004), three(255 * (GREY >= 128))),
}  # fmt: skip


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_are_pictures(name):
    source, expected = ARRAYS[name]
    np.testing.assert_array_equal(np.asarray(read_picture(source)), expected)


def test_arrays_of_jax_are_pictures():
    import jax.numpy as jnp

    np.testing.assert_array_equal(np.asarray(read_picture(jnp.asarray(RGB))), RGB)
    half = jnp.full((4, 4, 3), 0.5, ml_dtypes.bfloat16)
    assert np.asarray(read_picture(half)).tolist() == [[[128] * 3] * 4] * 4


REFUSED = {
    "channels first": (np.zeros((3, 8, 8)), r"its shape is \(3, 8, 8\): .*channels come last"),
    "a batch": (np.zeros((2, 8, 8, 3)), "pass a batch as a list"),
    "empty": (np.zeros((0, 8)), r"its shape is \(0, 8\)"),
    "NaN": (np.full((8, 8), np.nan), r"from nan to nan: \[0, 1\] expected"),
    "[-1, 1]": (np.linspace(-1, 1, 64).reshape(8, 8), r"from -1 to 1: \[0, 1\] expected"),
    "floats of bytes": (np.full((8, 8), 255.0), "divide by 255"),
    "large integers": (np.full((8, 8), 300), "int64 values are from 300 to 300: 0 to 255"),
    "text": (np.full((8, 8), "x"), "its dtype is <U1: real numbers expected"),
    "complex": (np.full((8, 8), 1j), "its dtype is complex128: real numbers expected"),
    "HDR": (Image.fromarray(np.full((4, 4), 3.5, np.float32)), r"to 3.5: \[0, 1\]"),
    "float picture with NaN": (Image.fromarray(np.full((4, 4), np.nan, np.float32)), "nan"),
    "negative integers": (Image.fromarray(np.full((4, 4), -5, np.int32)), "from -5 to -5"),
    "32 bits": (tiff(WIDE[..., 0].astype(np.uint32) << 16, 1), "0 to 255 or to 65535 expected"),
    "planar 48 bits": (tiff(WIDE, 2, planar=2), "interleaved channels"),
    "TIFF of float colours": (tiff((RGB / 255).astype(np.float32), 2), "Pillow does not know"),
    "nothing": (b"", "the file is empty"),
    "text file": (b"a,b\n1,2\n", "cannot identify image file"),
    "HEIC without plug-in": (b"\0\0\0\x18ftypheic" + bytes(40), "is not a readable image"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_picture_is_refused_in_a_sentence(name):
    source, reason = REFUSED[name]
    with pytest.raises(ValueError, match=reason) as error:
        read_picture(source)
    assert "is not a readable image: " in str(error.value) and "\n" not in str(error.value)


def test_names_of_files_stand_in_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"^there is no file {tmp_path}/a.png$"):
        read_picture(tmp_path / "a.png")
    with pytest.raises(FileNotFoundError, match=r"^there is no file row 7$"):
        read_picture(tmp_path / "a.png", "row 7")
    with pytest.raises(ValueError, match=f"{tmp_path} is not a readable image: it is a folder"):
        read_picture(tmp_path)


def test_opened_pictures_bytes_and_home_are_the_same_picture(tmp_path, monkeypatch):
    PICTURE.save(tmp_path / "a.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    content = (tmp_path / "a.png").read_bytes()
    opened = Image.open(tmp_path / "a.png")
    for source in ("~/a.png", tmp_path / "a.png", content, bytearray(content), opened):
        np.testing.assert_array_equal(np.asarray(read_picture(source)), RGB)
    with Image.open(io.BytesIO(content)) as closed:
        pass
    with pytest.raises(ValueError, match="is not a readable image"):
        read_picture(closed)


def test_one_picture_or_several():
    batch = np.stack([RGB, RGB])
    assert [len(picture_list(one)) for one in (RGB, GREY, "a.png", PICTURE, b"x")] == [1] * 5
    assert [len(picture_list(one)) for one in (batch, batch[..., 0], ["a", RGB])] == [2] * 3
