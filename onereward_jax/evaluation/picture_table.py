"""Pictures side by side as one picture: a heading above each column, a caption below each row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

SIDE = 128
"""Least side of a picture in pixels; smaller ones are enlarged by a whole factor."""

GAP, HEADER, LABEL = 4, 18, 12
BACKGROUND, INK = (255, 255, 255), (60, 60, 60)


def picture_table(
    title: str,
    columns: Mapping[str, Sequence[UInt8[np.ndarray, "h w *c"] | None]],
    captions: Sequence[str],
) -> UInt8[np.ndarray, "y x 3"]:
    """One row for each caption.

    Args:
      title: above everything.
      columns: heading -> a picture for each row, grey or RGB; None stays empty.
      captions: as many as each column has pictures.

    Raises:
      ValueError: there is no picture.
    """
    sizes = [one.shape[:2] for column in columns.values() for one in column if one is not None]
    if not sizes:
        raise ValueError("a table of pictures needs at least one picture")
    height, width = map(max, zip(*sizes))
    factor = max(1, SIDE // min(height, width))
    cell_width, cell_height = width * factor + GAP, height * factor + GAP + LABEL
    size = (len(columns) * cell_width, 2 * HEADER + len(captions) * cell_height)
    sheet = Image.new("RGB", size, BACKGROUND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    draw.text((0, 1), title, fill=INK, font=font)
    for column, (heading, pictures) in enumerate(columns.items()):
        x = column * cell_width
        draw.text((x, HEADER), heading, fill=INK, font=font)
        for row, pixels in enumerate(pictures):
            if pixels is None:
                continue
            picture = Image.fromarray(pixels).convert("RGB")
            larger = picture.width * factor, picture.height * factor
            enlarged = picture.resize(larger, Image.NEAREST)
            sheet.paste(enlarged, (x, 2 * HEADER + row * cell_height))
    for row, caption in enumerate(captions):
        below = 2 * HEADER + (row + 1) * cell_height - LABEL - GAP
        draw.text((0, below), caption, fill=INK, font=font)
    return np.asarray(sheet)
