"""Puts an edit into its photograph: colours matched at the seam, and faded out beyond it.

Works in bands of rows, so that memory does not grow with the photograph. Single letters: h, w
height and width in pixels.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Float32
from PIL import Image
from scipy import ndimage

from onereward_jax.inference.picture_io import check_shapes

BAND = 256
"""Rows that are blended at a time."""

RING = 1 / 16
"""Width of the ring of kept pixels whose colours are compared, of the shorter side."""


def paste_back(
    source: Image.Image, edited: Image.Image, mask: Image.Image, feather: int = 8
) -> Image.Image:
    """Pastes the edit into the source where the mask is white, at the source's original size.

    Blending happens outside the mask, so that nothing under the mask shows through: the edit fades
    out linearly over `feather` pixels. From `feather` + 1 on the source is unchanged, bit for bit.

    Args:
      source: the source image.
      edited: the edited image, in any size.
      mask: white = edited.
      feather: blending width in pixels of the source; 0 for a hard edge.

    Raises:
      ValueError: `feather` is negative, or mask and source differ in aspect ratio.
    """
    check_shapes(source.size, mask.size)
    return stitched(source.convert("RGB"), edited, white(mask, source.size), feather)


def white(mask: Image.Image, size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """Where a mask, scaled to a picture's width and height, is white."""
    whole = mask if mask.size == size else mask.resize(size, Image.Resampling.LANCZOS)
    return np.asarray(whole.convert("L")) >= 128


def stitched(
    source: Image.Image,
    edited: Image.Image,
    where: Bool[np.ndarray, "h w"],
    feather: int,
    offset: Float32[np.ndarray, "_ _ 3"] | None = None,
) -> Image.Image:
    """The source with the edit in its masked pixels and, fading, in `feather` pixels around them.

    Args:
      source: mode RGB.
      edited: the edit of all of the source, in any size.
      where: the masked pixels of the source.
      feather: blending width in pixels of the source.
      offset: levels to add to the edit, in any size; None for none. See `colour_offset`.

    Raises:
      ValueError: `feather` is negative.
    """
    if feather < 0:
        raise ValueError(f"feather is {feather}: at least 0 pixels expected")
    width, height = source.size
    result = source.copy()
    touched = np.flatnonzero(where.any(1))
    if not touched.size:
        return result
    after = edited
    if edited.size != source.size:
        after = edited.resize(source.size, Image.Resampling.LANCZOS)
    first = max(int(touched[0]) - feather, 0)
    last = min(int(touched[-1]) + feather + 1, height)
    for top in range(first, last, BAND):
        bottom = min(top + BAND, last)
        band = (0, top, width, bottom)
        # Rows farther than the seam is wide do not matter for its distances.
        start = max(top - feather - 1, 0)
        near = where[start : bottom + feather + 1]
        opacity = seam(near, feather)[top - start :][: bottom - top, :, None]
        before = np.asarray(source.crop(band), np.float32)
        change = np.asarray(after.crop(band), np.float32) - before
        if offset is not None:
            change += _scaled(offset, source.size, top, bottom)
        blended = np.clip(np.rint(before + opacity * change), 0, 255).astype(np.uint8)
        result.paste(Image.fromarray(blended), band[:2])
    return result


def seam(edited: Bool[np.ndarray, "h w"], feather: int) -> Float32[np.ndarray, "h w"]:
    """Opacity of the edit: 1 inside the mask, falling linearly to 0 at distance `feather` + 1.

    Args:
      edited: where the mask is white; if nowhere, the opacity is 0.
      feather: blending width in pixels.
    """
    if not edited.any():
        return np.zeros(edited.shape, np.float32)
    if not feather:
        return edited.astype(np.float32)
    distance = ndimage.distance_transform_edt(~edited).astype(np.float32)
    return np.clip(1.0 - distance / np.float32(feather + 1), 0.0, 1.0)


def colour_offset(
    source: Image.Image, edited: Image.Image, where: Bool[np.ndarray, "h w"]
) -> Float32[np.ndarray, "h w 3"]:
    """What to add to an edit so that its colours meet the source's at the mask's border.

    The autoencoder and the model shift colours a little, also where nothing was to be edited. The
    shift is measured there, in a ring around the mask, and continued smoothly: a Gaussian average
    near the border, the ring's mean in the middle of the mask.

    Args:
      source, edited: mode RGB, of one size, that of the edit.
      where: the masked pixels.

    Returns:
      Levels of 255. 0 if nothing is kept.
    """
    before, after = np.asarray(source, np.float32), np.asarray(edited, np.float32)
    width = max(min(where.shape) * RING, 2.0)
    distance = ndimage.distance_transform_edt(~where)
    ring = ((distance > 0) & (distance <= width)).astype(np.float32)
    if not ring.any():
        return np.zeros_like(before)
    shift = (before - after) * ring[..., None]
    mean = shift.sum((0, 1)) / ring.sum()
    blur = lambda values: ndimage.gaussian_filter(values, width / 2, mode="constant")
    weight = blur(ring)
    near = np.stack([blur(shift[..., channel]) for channel in range(3)], -1)
    trust = 0.01  # of the mean, against the weight of pixels: decides only far from the ring
    return (near + trust * mean) / (weight + trust)[..., None]


def _scaled(
    offset: Float32[np.ndarray, "_ _ 3"], size: tuple[int, int], top: int, bottom: int
) -> Float[np.ndarray, "_ _ 3"]:
    """Rows `top` to `bottom` of `offset`, scaled to a picture's width and height."""
    (rows, columns), scale = offset.shape[:2], offset.shape[0] / size[1]
    box = (0, top * scale, columns, min(bottom * scale, rows))
    channels = (
        Image.fromarray(offset[..., channel]).resize(
            (size[0], bottom - top), Image.Resampling.BILINEAR, box=box
        )
        for channel in range(3)
    )
    return np.stack([np.asarray(channel) for channel in channels], -1)
