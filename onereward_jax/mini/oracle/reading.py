"""Reads a word in an image with an offline OCR network (rapidocr; its wheel has the models)."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from onereward_jax.evaluation.picture_features import Picture
from onereward_jax.mini.oracle.triplet import SceneTruth

Reader = Callable[[UInt8[np.ndarray, "h w 3"], tuple[int, int, int, int]], str]
"""(picture [h, w, 3] uint8, box) -> the letters read."""

LINE_HEIGHT = 48
"""Height in pixels that the recognition network was trained on."""

MARGIN = 2
"""Pixels left around the box: recognition fails on glyphs that touch the border."""


@functools.cache
def _engine() -> Any:
    """The OCR session, loaded at the first word: loading takes about a second."""
    from rapidocr import RapidOCR

    logging.getLogger("RapidOCR").setLevel(logging.ERROR)
    return RapidOCR(params={"Global.log_level": "error"})


@dataclasses.dataclass(frozen=True)
class WordReader:
    """Callable (picture [h,w,3] uint8, box) -> letters read, "" for none. About 60 ms."""

    def __call__(self, picture: UInt8[np.ndarray, "h w 3"], box: tuple[int, int, int, int]) -> str:
        y0, x0, y1, x1 = box
        crop = picture[max(0, y0 - MARGIN) : y1 + MARGIN, max(0, x0 - MARGIN) : x1 + MARGIN]
        height, width = crop.shape[:2]
        size = (max(1, round(width * LINE_HEIGHT / height)), LINE_HEIGHT)
        line = np.asarray(Image.fromarray(crop).resize(size, Image.BICUBIC))
        # The engine takes BGR, as OpenCV reads files.
        found = _engine()(line[..., ::-1], use_det=False, use_cls=False, use_rec=True)
        return " ".join(found.txts or ())


def letters_read(
    result: UInt8[np.ndarray, "h w 3"] | Float[np.ndarray, "h w 3"],
    triplet: SceneTruth,
    reader: Reader,
) -> float | None:
    """Share of the letters of the prompt's word that OCR reads in `result`, in [0, 1].

    `result` is uint8 in [0, 255] or float in [-1, 1]. None if the triplet has no word.
    """
    if triplet.kind != "word":
        return None
    pixels = np.round(Picture.read(result).rgb * 255).astype(np.uint8)
    return likeness(reader(pixels, triplet.box), triplet.label)


def likeness(read: str, meant: str) -> float:
    """How much of `meant` was read, in [0, 1], case ignored: 1 - edit distance / longer length.

    Case is ignored because at 14 pixels o and O, s and S are the same glyph.
    """
    read, meant = read.strip().lower(), meant.strip().lower()
    if not read or not meant:
        return float(read == meant)
    return 1.0 - _edit_distance(read, meant) / max(len(read), len(meant))


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
