"""Pictures to the editor's arrays and back, as diffusers' `VaeImageProcessor` for FluxFillPipeline.

Images are resized with Lanczos; masks too, in their stored mode, and then converted to grey and
binarized at 1/2. Two differences to the original: a mask with another aspect ratio than its image
is refused instead of stretched; an empty mask is refused. `pictures` reads files of all kinds.

Single letters: b batch, h, w height and width in pixels.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from absl import logging
from jaxtyping import Float32
from PIL import Image

from onereward_jax.data.aspect_buckets import Size
from onereward_jax.pictures import PictureSource, read_mask, read_picture


def editing_size(
    picture: tuple[int, int], height: int | None, width: int | None, multiple: int
) -> Size:
    """The size in which an image is edited: rounded down to whole tokens.

    Args:
      picture: width and height of the source image.
      height, width: requested size in pixels; None: that of the image. Rounding these logs a
        warning.
      multiple: pixels per side of a token (16 for FLUX).

    Raises:
      ValueError: a side is shorter than a token, or not positive.
    """
    for name, side in (("height", height), ("width", width)):
        if side is not None and side < 1:
            raise ValueError(f"{name} is {side}, at least 1 expected")
    requested = (height or picture[1], width or picture[0])
    size = (requested[0] - requested[0] % multiple, requested[1] - requested[1] % multiple)
    if not all(size):
        raise ValueError(
            f"an image of {requested[1]}x{requested[0]} pixels is too small to be edited: "
            f"both sides need at least {multiple}"
        )
    if (height or width) and size != requested:
        logging.warning(
            "height and width must be multiples of %d: %dx%d becomes %dx%d",
            multiple, *requested, *size,
        )  # fmt: skip
    return size


def image_pixels(picture: Image.Image, size: Size) -> Float32[np.ndarray, "h w 3"]:
    """A source image of mode RGB, in [-1, 1]."""
    resized = picture.resize(size[::-1], Image.Resampling.LANCZOS)
    return 2.0 * (np.asarray(resized, np.float32) / 255.0) - 1.0


def mask_pixels(
    mask: PictureSource, size: Size, indices: Collection[int] = ()
) -> Float32[np.ndarray, "h w 1"]:
    """A mask, 1 where white (edit here), 0 elsewhere.

    Args:
      mask: the mask.
      size: height and width to resize to.
      indices: see `pictures.read_mask`.

    Raises:
      FileNotFoundError, ValueError: as `pictures.read_mask`, or no pixel is white.
    """
    resized = read_mask(mask, indices=indices, size=size[::-1])
    pixels = (np.asarray(resized, np.float32) / 255.0 >= 0.5).astype(np.float32)[..., None]
    if not pixels.any():
        raise ValueError("the mask is empty: it has no white pixels, which mark where to edit")
    return pixels


def check_shapes(size: tuple[int, int], mask_size: tuple[int, int]) -> None:
    """Checks that mask and image, of these widths and heights, have the same aspect ratio.

    Raises:
      ValueError: the aspect ratios differ by more than rounding to a pixel.
    """
    (width, height), (across, down) = size, mask_size
    if abs(width * down / height - across) > 1 and abs(height * across / width - down) > 1:
        raise ValueError(
            f"the mask of {across}x{down} pixels has another aspect ratio than the image of "
            f"{width}x{height}"
        )


def to_unit(images: Float32[np.ndarray, "b h w 3"]) -> Float32[np.ndarray, "b h w 3"]:
    """[-1, 1] to [0, 1]; overshoot of the decoder is clipped."""
    return np.clip(images / 2 + 0.5, 0.0, 1.0)


def to_pictures(images: Float32[np.ndarray, "b h w 3"]) -> list[Image.Image]:
    """Images in [0, 1] as 8-bit PIL images."""
    return [Image.fromarray(image) for image in (images * 255).round().astype(np.uint8)]


def pixels_of(pictures: Sequence[PictureSource]) -> Float32[np.ndarray, "b h w 3"]:
    """Images of one size, without resizing, in [-1, 1].

    Raises:
      FileNotFoundError, ValueError: an image is unreadable, or the sizes differ.
    """
    opened = [read_picture(picture) for picture in pictures]
    for other in opened[1:]:
        if other.size != opened[0].size:
            sizes = " and ".join("{}x{}".format(*one.size) for one in (opened[0], other))
            raise ValueError(
                f"images to compare must have the same size, these have {sizes}: resize one, as "
                "training compares equal sizes only"
            )
    return np.stack([image_pixels(one, one.size[::-1]) for one in opened])
