"""Reads words in a picture with an offline OCR network (rapidocr; its wheel has the models).

The package rapidocr is in the extra `mini`; it is imported at the first word.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import logging
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

LINE_HEIGHT = 48
"""Height in pixels that the recognition network was trained on."""

MARGIN = 2
"""Pixels left around the box: recognition fails on glyphs that touch the border."""

OCR = "rapidocr"

Box = tuple[int, int, int, int]
"""(y0, x0, y1, x1), half-open."""


@functools.cache
def _engine() -> Any:
    """The OCR session, loaded at the first word: loading takes about a second."""
    from rapidocr import RapidOCR

    logging.getLogger("RapidOCR").setLevel(logging.ERROR)
    return RapidOCR(params={"Global.log_level": "error"})


@dataclasses.dataclass(frozen=True)
class WordReader:
    """Callable (picture [h,w,3] uint8, box) -> letters read, "" for none. About 60 ms.

    The box is one line of text.
    """

    def __call__(self, picture: UInt8[np.ndarray, "h w 3"], box: Box) -> str:
        crop = _crop(picture, box)
        height, width = crop.shape[:2]
        size = (max(1, round(width * LINE_HEIGHT / height)), LINE_HEIGHT)
        line = np.asarray(Image.fromarray(crop).resize(size, Image.BICUBIC))
        # The engine takes BGR, as OpenCV reads files.
        found = _engine()(line[..., ::-1], use_det=False, use_cls=False, use_rec=True)
        return " ".join(found.txts or ())


def words_read(
    picture: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"], words: str
) -> float:
    """How much of `words` can be read inside the box of a mask, in [0, 1], see `likeness`.

    The box is read as one line, and as a picture in which lines are first looked for; the better
    reading counts, because either may miss what a person reads.
    """
    ys, xs = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    box = (int(ys[0]), int(xs[0]), int(ys[-1]) + 1, int(xs[-1]) + 1)
    one = likeness(WordReader()(picture, box), words)
    if one == 1.0:
        return one
    found = _engine()(_crop(picture, box)[..., ::-1], use_det=True, use_cls=False, use_rec=True)
    return max(one, likeness(" ".join(found.txts or ()), words))


def can_read() -> bool:
    """Whether the package is installed."""
    return importlib.util.find_spec(OCR) is not None


def likeness(read: str, meant: str) -> float:
    """How much of `meant` was read, in [0, 1], case ignored: 1 - edit distance / longer length.

    Case is ignored because at 14 pixels o and O, s and S are the same glyph.
    """
    read, meant = read.strip().lower(), meant.strip().lower()
    if not read or not meant:
        return float(read == meant)
    return 1.0 - _edit_distance(read, meant) / max(len(read), len(meant))


def _crop(picture: UInt8[np.ndarray, "h w 3"], box: Box) -> UInt8[np.ndarray, "y x 3"]:
    y0, x0, y1, x1 = box
    return picture[max(0, y0 - MARGIN) : y1 + MARGIN, max(0, x0 - MARGIN) : x1 + MARGIN]


def _edit_distance(a: str, b: str) -> int:
    """Levenshtein distance: insertions, deletions, substitutions."""
    previous = list(range(len(b) + 1))
    for row, letter in enumerate(a, 1):
        current = [row]
        for column, other in enumerate(b, 1):
            current.append(
                min(previous[column] + 1, current[-1] + 1, previous[column - 1] + (letter != other))
            )
        previous = current
    return previous[-1]
