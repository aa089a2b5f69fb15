"""Picture files to arrays and back, as diffusers' `VaeImageProcessor` does it for FluxFillPipeline.

Pictures are resized by Lanczos before anything else, masks in their own mode; then a mask turns
grey and is cut at 1/2. Three things differ from the original, where it would fail or guess:
pictures of any mode (palette, transparent, grey) become RGB, a mask whose shape differs from its
picture's is refused instead of being stretched, and so is a mask that is empty.

Single letters: b batch, h, w height and width in pixels.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from absl import logging
from jaxtyping import Float32
from PIL import Image, ImageOps

from onereward_jax.data.aspect_buckets import Size

Picture = Image.Image | str | os.PathLike[str]
"""An opened picture, or the path of a file that PIL reads."""


def open_picture(source: Picture) -> Image.Image:
    """The decoded picture, turned upright where a camera noted its orientation; mode unchanged.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is not a picture, or damaged.
    """
    if isinstance(source, Image.Image):
        return source
    try:
        with Image.open(source) as picture:
            return ImageOps.exif_transpose(picture)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {os.fspath(source)}") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{os.fspath(source)} cannot be read as a picture: {error}") from error


def editing_size(
    picture: Image.Image, height: int | None, width: int | None, multiple: int
) -> Size:
    """The size in which a picture is edited: the wished one, cut to whole tokens.

    Args:
      picture: gives the sides that are None.
      height, width: wished; a warning is logged when they are cut.
      multiple: pixels per side of a token (16 for FLUX).

    Raises:
      ValueError: a side is shorter than a token, or a wished one is not positive.
    """
    for name, side in (("height", height), ("width", width)):
        if side is not None and side < 1:
            raise ValueError(f"{name} is {side}, at least 1 expected")
    asked = (height or picture.height, width or picture.width)
    size = (asked[0] - asked[0] % multiple, asked[1] - asked[1] % multiple)
    if not all(size):
        raise ValueError(
            f"a picture of {asked[1]}x{asked[0]} pixels is too small to be edited: "
            f"both sides need at least {multiple}"
        )
    if (height or width) and size != asked:
        logging.warning(
            "height and width have to be multiples of %d: %dx%d becomes %dx%d",
            multiple, *asked, *size,
        )  # fmt: skip
    return size


def image_pixels(picture: Image.Image, size: Size) -> Float32[np.ndarray, "h w 3"]:
    """A source picture in [-1, 1]."""
    resized = _resized(_rgb(picture), size)
    return 2.0 * (np.asarray(resized, np.float32) / 255.0) - 1.0


def mask_pixels(mask: Image.Image, size: Size) -> Float32[np.ndarray, "h w 1"]:
    """A mask, 1 where it is white (edit here) and 0 elsewhere.

    Raises:
      ValueError: nothing of it is white.
    """
    resized = _resized(mask, size).convert("L")
    pixels = (np.asarray(resized, np.float32) / 255.0 >= 0.5).astype(np.float32)[..., None]
    if not pixels.any():
        raise ValueError("the mask is empty: white pixels say where to edit, and there are none")
    return pixels


def check_shapes(picture: Image.Image, mask: Image.Image) -> None:
    """Makes sure that the mask, scaled to the picture's width or height, is the picture's size.

    Raises:
      ValueError: the aspect ratios differ by more than rounding to a pixel.
    """
    (width, height), (across, down) = picture.size, mask.size
    if abs(width * down / height - across) > 1 and abs(height * across / width - down) > 1:
        raise ValueError(
            f"the mask of {across}x{down} pixels does not have the shape of the picture of "
            f"{width}x{height}; it may be smaller or larger, but not narrower or wider"
        )


def to_unit(images: Float32[np.ndarray, "b h w 3"]) -> Float32[np.ndarray, "b h w 3"]:
    """[-1, 1] to [0, 1]; overshoot of the decoder is cut off."""
    return np.clip(images / 2 + 0.5, 0.0, 1.0)


def to_pictures(images: Float32[np.ndarray, "b h w 3"]) -> list[Image.Image]:
    """Images in [0, 1] as 8-bit pictures."""
    return [Image.fromarray(image) for image in (images * 255).round().astype(np.uint8)]


def pixels_of(pictures: Sequence[Picture]) -> Float32[np.ndarray, "b h w 3"]:
    """Pictures of one size as they are, in [-1, 1].

    Raises:
      FileNotFoundError, ValueError: one cannot be read, or the sizes differ.
    """
    opened = [open_picture(picture) for picture in pictures]
    for other in opened[1:]:
        if other.size != opened[0].size:
            sizes = " and ".join("{}x{}".format(*one.size) for one in (opened[0], other))
            raise ValueError(f"pictures to be compared have one size, these have {sizes}")
    return np.stack([image_pixels(one, (one.height, one.width)) for one in opened])


def _rgb(picture: Image.Image) -> Image.Image:
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _resized(picture: Image.Image, size: Size) -> Image.Image:
    return picture.resize((size[1], size[0]), Image.Resampling.LANCZOS)
