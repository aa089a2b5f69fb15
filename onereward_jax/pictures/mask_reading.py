"""Masks as people have them, to greys: 128 and more mean "edit here".

The greys are the luminance of the picture, or its alpha where the visible colours do not vary.
Two values 0 and 1 count as black and white. Values that cannot mark an area, as in the label maps
and the coloured palettes of segmentation sets, are refused unless `indices` names those that do.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from PIL import Image, ImageFilter

from onereward_jax.common.listing import first_of
from onereward_jax.pictures.eight_bits import array_of_wide, greys_of_wide, is_wide, rgb_of
from onereward_jax.pictures.opening import (
    PictureSource,
    RefusedPictureError,
    decode,
    opened,
    shown_name,
    warn_once,
)
from onereward_jax.pictures.orientation import stored_orientation, upright
from onereward_jax.pictures.photograph import frame_notes, has_transparency

EDITED = 128
"""The least grey that means "edit here"."""

MOSTLY = 0.8
"""Part of a mask that is white from which on it may be inverted."""

VARIES = 16
"""Levels by which alpha or colours must differ to show a shape: lossy files are not even."""

GREATEST_LABEL, THICKEST_OUTLINE = 40, 9
"""Of a label map with outlines of 255, as Pascal VOC's; the latter in pixels."""

ALTERNATIVE = "white pixels mark where to edit, or name the values that do (mask_indices)"


class RefusedMaskError(ValueError):
    """A mask that can be read, but marks no area; the message says what to do."""


def read_mask(
    source: PictureSource,
    name: str = "",
    *,
    indices: Collection[int] = (),
    size: tuple[int, int] | None = None,
) -> Image.Image:
    """The greys of a mask, upright, mode L.

    Args:
      source: the mask.
      name: its name in messages; "": its path.
      indices: palette indices or labels that mark the area; (): white marks it.
      size: width and height to resize to, in the stored mode, as diffusers does before it takes
        the luminance: 1-bit and palette masks to the nearest pixel, others with Lanczos. None: as
        stored.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is not a readable picture.
      RefusedMaskError: nothing in it could mark an area, or two things could; a ValueError.
    """
    shown = shown_name(source, name)
    try:
        with opened(source, name) as picture:
            notes = frame_notes(picture)
            decode(picture)
            orientation, broken = stored_orientation(picture)
            labels = _labels(picture)
            if indices:
                found = _with_labels(labels, picture.mode, indices)
            else:
                found = _shape(picture, labels)
            found = upright(found, orientation)
    except RefusedPictureError as error:
        raise RefusedMaskError(f"{shown}: the mask {error}") from None
    for note in (*notes, *([broken] * bool(broken))):
        warn_once(f"{shown}: {note}")
    if size is not None and size != found.size:
        found = found.resize(size, Image.Resampling.LANCZOS)
    grey = found.convert("L")  # a copy, also of mode L
    grey.info = {}
    return grey


def mask_warning(mask: Image.Image) -> str | None:
    """A suspicion about a mask of mode L: almost all is white. None: nothing is odd."""
    part = float((np.asarray(mask) >= EDITED).mean())
    if part <= MOSTLY:
        return None
    return (
        f"{part:.0%} of the mask is white, and will be edited: is the mask inverted? White marks "
        "where to edit"
    )


def _shape(mask: Image.Image, labels: np.ndarray | None) -> Image.Image:
    """The picture of mode 1, L, P or RGB whose luminance is the mask; raises RefusedPictureError.

    Args:
      mask: decoded.
      labels: see `_labels`.
    """
    if has_transparency(mask) and (alpha := _alpha_with_shape(mask)) is not None:
        return alpha
    if mask.mode == "P" and not _has_grey_palette(mask, labels):
        raise RefusedPictureError(
            f"has a palette of colours, with the indices {_listed(labels)}: name those that mark "
            "the area (mask_indices)"
        )
    if is_wide(mask):
        binary = mask.mode != "F" and labels.max() == 1
        found = _black_and_white(labels == 1) if binary else greys_of_wide(mask)
    else:
        found = mask if mask.mode in ("1", "L", "P") else rgb_of(mask)
    greys = found.convert("L")
    greatest = greys.getextrema()[1]
    if mask.mode in ("L", "LA") and _has_outlined_labels(greys):
        raise RefusedPictureError(
            f"has labels, with the values {_listed(labels)}: name those that mark the area "
            "(mask_indices)"
        )
    if greatest == 1:
        return _black_and_white(np.asarray(greys) == 1)
    if greatest < EDITED:
        values = np.asarray(greys) if labels is None or mask.mode == "P" else labels
        if values.max() == 0:
            raise RefusedPictureError("is empty: it has no white pixels, which mark where to edit")
        raise RefusedPictureError(
            f"is empty: its greatest value is {values.max():g}, and {ALTERNATIVE}; "
            f"its values are {_listed(values)}"
        )
    return found


def _alpha_with_shape(mask: Image.Image) -> Image.Image | None:
    """The alpha of a mask if it is the mask; None if it is even. Raises RefusedPictureError."""
    whole = (mask.convert("LA") if mask.mode == "La" else mask).convert("RGBA")
    colours, alpha = np.asarray(whole)[..., :3], np.asarray(whole)[..., 3]
    if int(alpha.max()) - int(alpha.min()) <= VARIES:
        return None
    # What is invisible has any colour; often black.
    visible = colours[alpha >= EDITED]
    if not len(visible):
        raise RefusedPictureError(
            f"is empty: its alpha is at most {alpha.max()} of 255; opaque pixels mark where to edit"
        )
    one_colour = int(np.ptp(visible, axis=0).max()) <= VARIES
    luminance = np.asarray(whole.convert("RGB").convert("L"))
    if one_colour or ((luminance >= EDITED) == (alpha >= EDITED)).all():
        return whole.getchannel("A")
    raise RefusedPictureError(
        "has different shapes in its colours and in its alpha: save it without transparency, "
        "white where to edit"
    )


def _labels(mask: Image.Image) -> np.ndarray | None:
    """Palette indices or values of a decoded mask of one channel; None if it has colours."""
    if is_wide(mask):
        return array_of_wide(mask)
    if mask.mode in ("P", "L", "1"):
        return np.asarray(mask).astype(np.uint8)
    return np.asarray(mask)[..., 0] if mask.mode in ("LA", "PA") else None


def _with_labels(labels: np.ndarray | None, mode: str, indices: Collection[int]) -> Image.Image:
    """White where a label is one of `indices`; raises RefusedPictureError."""
    if labels is None:
        raise RefusedPictureError(
            f"has colours of mode {mode}, no palette or labels: mask_indices are for these"
        )
    marked = np.isin(labels, list(indices))
    if not marked.any():
        wanted = ", ".join(map(str, indices))
        raise RefusedPictureError(
            f"has no pixel with an index of mask_indices ({wanted}), but {_listed(labels)}"
        )
    return _black_and_white(marked)


def _has_grey_palette(mask: Image.Image, labels: np.ndarray) -> bool:
    """Whether the colours that a palette mask uses are greys, or black and a bright one."""
    _, places = np.unique(labels, return_index=True)
    colours = np.asarray(mask.convert("RGB")).reshape(-1, 3)[places].astype(int)
    if np.ptp(colours, axis=1).max() <= VARIES:
        return True
    dark, bright = colours[np.argsort(colours.sum(1))][[0, -1]]
    luminance = bright @ (0.299, 0.587, 0.114)
    return len(colours) == 2 and int(dark.max()) <= VARIES and bool(luminance >= EDITED)


def _has_outlined_labels(greys: Image.Image) -> bool:
    """Whether greys are labels with thin outlines of 255, which would be taken for the area."""
    counts = greys.histogram()
    labelled = sum(counts[1 : GREATEST_LABEL + 1])
    between = any(counts[GREATEST_LABEL + 1 : 255])
    if not (counts[0] > 0 and labelled > counts[255] > 0) or between:
        return False
    white = greys.point(lambda value: 255 * (value == 255))
    return white.filter(ImageFilter.MinFilter(THICKEST_OUTLINE)).getextrema() == (0, 0)


def _black_and_white(marked: np.ndarray) -> Image.Image:
    return Image.fromarray(marked.astype(np.uint8) * np.uint8(255))


def _listed(values: np.ndarray) -> str:
    return ", ".join(first_of([f"{value:g}" for value in np.unique(values).tolist()]))
