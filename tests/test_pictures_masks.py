"""Masks as people have them: what marks the area, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from made_pictures import encoded, png, tiff
from PIL import Image

from onereward_jax.pictures import mask_warning, read_mask

SHAPE = np.zeros((32, 40), bool)
SHAPE[8:20, 10:30] = True
WHITE, BLACK = np.uint8(255) * SHAPE, np.zeros(SHAPE.shape, np.uint8)
FULL = np.full(SHAPE.shape, 255, np.uint8)
NOISE = np.random.default_rng(0).integers(0, 256, SHAPE.shape, dtype=np.uint8)


def palette(labels: np.ndarray, *colours: tuple[int, int, int]) -> Image.Image:
    """A palette picture of labels."""
    picture = Image.fromarray(labels.astype(np.uint8), "L")
    picture.putpalette(np.array(colours, np.uint8).tobytes())
    return picture


def layered(colour: np.ndarray, alpha: np.ndarray) -> Image.Image:
    """A picture with alpha, of one colour channel."""
    return Image.fromarray(np.dstack([colour, colour, colour, alpha]).astype(np.uint8))


VOC = palette(SHAPE * 1, (0, 0, 0), (128, 0, 0))
WIDE = WHITE.astype(np.uint16) * 257
MASKS = {
    "8 bits": Image.fromarray(WHITE),
    "colours": Image.fromarray(WHITE).convert("RGB"),
    "1 bit": Image.fromarray(WHITE).convert("1"),
    "1 bit, as a file": encoded(Image.fromarray(WHITE).convert("1"), "TIFF", compression="group4"),
    "JPEG": encoded(Image.fromarray(WHITE), "JPEG", quality=95),
    "16 bits, not quite black": Image.fromarray(np.where(SHAPE, 65535, 1000).astype(np.uint16)),
    "16 bits, big endian": tiff(WIDE, 1, ">"),
    "16 bits, 0 and 1": png(SHAPE.astype(np.uint16), 0),
    "32 bits, 0 and 255": Image.fromarray(WHITE.astype(np.int32)),
    "32 bits, 0 and 1": Image.fromarray(SHAPE.astype(np.int32)),
    "float, 0 and 1": Image.fromarray(SHAPE.astype(np.float32)),
    "float, 0 and 255": Image.fromarray(WHITE.astype(np.float32)),
    "nearly black around": Image.fromarray(np.where(SHAPE, 255, NOISE % 3).astype(np.uint8)),
    "8 bits, 0 and 1": Image.fromarray(SHAPE.astype(np.uint8)),
    "colours, 0 and 1": Image.fromarray(np.repeat(SHAPE.astype(np.uint8)[..., None], 3, -1)),
    "palette of greys": Image.fromarray(WHITE).convert("P"),
    "palette of black and white": palette(SHAPE * 1, (0, 0, 0), (255, 255, 255)),
    "palette of black and yellow": palette(SHAPE * 1, (0, 0, 0), (255, 255, 0)),
    "GIF": encoded(Image.fromarray(WHITE), "GIF"),
    "white, shape in alpha": layered(FULL, WHITE),
    "black, shape in alpha": layered(BLACK, WHITE),
    "grey and alpha": layered(BLACK, WHITE).convert("LA"),
    "white strokes on invisible black": layered(WHITE, WHITE),
    "strokes on invisible noise": layered(np.where(SHAPE, 200, NOISE), WHITE),
    "premultiplied": layered(FULL, WHITE).convert("RGBa"),
    "palette, transparent around the shape": encoded(
        palette(SHAPE * 1, (0, 0, 0), (0, 0, 0)), "PNG", transparency=0
    ),
    "opaque alpha": layered(WHITE, FULL),
    "half transparent everywhere": layered(WHITE, FULL // 2),
    "nearly opaque": layered(WHITE, FULL - NOISE % 4),
    "CMYK": Image.fromarray(WHITE).convert("RGB").convert("CMYK"),
    "array of bool": SHAPE,
    "array of 0 and 1": SHAPE.astype(np.uint8),
    "array of int64, 0 and 1": SHAPE.astype(np.int64),
    "array of uint16, 0 and 1": SHAPE.astype(np.uint16),
    "array of uint16": WIDE,
    "array of float": SHAPE.astype(np.float64),
    "array [h, w, 1]": WHITE[..., None],
}


@pytest.mark.parametrize("name", MASKS)
def test_the_marked_area_is_found(name):
    grey = read_mask(MASKS[name])
    assert grey.mode == "L"
    np.testing.assert_array_equal(np.asarray(grey) >= 128, SHAPE)


LABELS = np.where(SHAPE, 15, 0)
LABELS[:4] = 7
STREET = palette(
    np.where(SHAPE, 2, 1), (0, 0, 0), (220, 20, 60), (250, 250, 140), *[(0, 0, 0)] * 253
)
INDEXED = {
    "palette of VOC": (VOC, (1,)),
    "bright palette": (STREET, (2,)),
    "palette as a file": (encoded(VOC, "PNG", bits=1), (1,)),
    "labels": (Image.fromarray(LABELS.astype(np.uint8)), (15,)),
    "labels of 16 bits": (Image.fromarray(LABELS.astype(np.uint16)), (15, 300)),
    "labels of 32 bits": (Image.fromarray(LABELS.astype(np.int32) * 1000), (15000,)),
    "labels as an array": (LABELS.astype(np.uint8), (15,)),
    "several": (Image.fromarray((LABELS + SHAPE * (NOISE % 2)).astype(np.uint8)), (15, 16)),
    "labels with outlines": (np.where(SHAPE, 1, 255 * (NOISE < 9)).astype(np.uint8), (1,)),
    "inverted": (Image.fromarray(~SHAPE).convert("L"), (0,)),
}


@pytest.mark.parametrize("name", INDEXED)
def test_indices_name_what_marks_the_area(name):
    source, indices = INDEXED[name]
    np.testing.assert_array_equal(np.asarray(read_mask(source, indices=indices)) == 255, SHAPE)


OUTLINED = SHAPE.astype(np.uint8)
OUTLINED[8, 10:30] = 255
REFUSED = {
    "black": (BLACK, (), "the mask is empty: it has no white pixels"),
    "grey": (BLACK + np.uint8(127), (), "the mask is empty: its greatest value is 127"),
    "labels": (LABELS.astype(np.uint8), (), r"greatest value is 15, .*\(mask_indices\).* 0, 7, 15"),
    "labels of 16 bits": (Image.fromarray(LABELS.astype(np.uint16)), (), "greatest value is 15"),
    "labels with outlines": (OUTLINED, (), "has labels, with the values 0, 1, 255"),
    "many labels": (NOISE % 100, (), "0, 1, 2, .* and 80 more"),
    "palette of VOC": (VOC, (), r"a palette of colours, with the indices 0, 1: name those"),
    "bright palette": (STREET, (), "a palette of colours, with the indices 1, 2"),
    "colours and alpha": (layered(NOISE, WHITE), (), "different shapes in its colours and"),
    "a photograph with a hole": (
        Image.fromarray(np.dstack([NOISE, NOISE.T.reshape(SHAPE.shape), NOISE, 255 - WHITE])),
        (),
        "different shapes in its colours and",
    ),
    "faint alpha": (layered(FULL, WHITE // 4), (), "its alpha is at most 63 of 255"),
    "no such index": (VOC, (4,), r"no pixel with an index of mask_indices \(4\), but 0, 1"),
    "indices of colours": (Image.fromarray(WHITE).convert("RGB"), (1,), "no palette or labels"),
    "empty file": (b"", (), "the file is empty"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_mark_an_area_is_refused(name):
    source, indices, reason = REFUSED[name]
    with pytest.raises(ValueError, match=reason) as error:
        read_mask(source, "row 7", indices=indices)
    assert str(error.value).startswith("row 7") and "\n" not in str(error.value)


def test_a_mask_that_is_nearly_white_may_be_inverted():
    assert mask_warning(read_mask(SHAPE)) is None
    assert "is the mask inverted?" in mask_warning(read_mask(~SHAPE))
    assert mask_warning(read_mask(FULL)).startswith("100% of the mask is white")


def test_masks_are_upright_and_resized_in_their_own_mode(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(WHITE).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(np.asarray(read_mask(tmp_path / "a.png")), WHITE)
    colours = Image.fromarray(np.random.default_rng(1).integers(0, 256, (9, 7, 3), np.uint8))
    for mask in (colours, colours.convert("L"), colours.convert("1"), VOC):
        indices = (1,) if mask is VOC else ()
        whole = read_mask(mask, indices=indices) if indices else mask
        expected = whole.resize((23, 31), Image.Resampling.LANCZOS).convert("L")
        found = read_mask(mask, indices=indices, size=(23, 31))
        np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))
