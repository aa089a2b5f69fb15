"""What the judge sees of an edit: two whole results, as in the paper, or more.

A small judge has few tokens per picture. With a crop around the mask all of them are about the
edited area. With the source picture, the mask outlined or blanked, it also sees what was asked.
Neither is in the paper. Boxes of crops are computed on the host, so shapes are static; pictures are
made inside the jitted function by the same code in the judge's training, in RL, in `evaluate` and
in `inference.Judge`.

Single letters: b batch, h, w image height and width, n masks.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Int32

from onereward_jax.data.boxes import Box, bounding_box
from onereward_jax.reward.image_preprocess import cubic_kernel

LEAST = 0.375
"""The least side of a crop, in sides of the picture: pixels magnified further hold no detail."""


SOURCES = ("", "outlined", "blanked")
"""Values of `JudgeView.source`."""

LINE = (1.0, -1.0, 1.0)
"""Colour of the outline, magenta, in [-1, 1]."""

BLANK = 128 / 127.5 - 1.0
"""The grey of a blanked area in [-1, 1]: 128 in a file."""


@dataclasses.dataclass(frozen=True)
class JudgeView:
    """What a judge is trained to see, stored in its folder; static.

    Attributes:
      crop: sides of the part that it sees of every picture, in sides of the mask's bounding box, at
        least 1; 0: the whole picture.
      source: how the source picture is shown before the two results: "": not at all; "outlined":
        with a line around the mask; "blanked": the masked area grey.

    Raises:
      ValueError: a field is out of range; the message begins with its name.
    """

    crop: float = 0.0
    source: str = ""

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            shown = ", ".join(map(repr, SOURCES))
            raise ValueError(f"source is {self.source!r}: choose one of {shown}")
        if self.crop and not 1.0 <= self.crop < math.inf:
            raise ValueError(f"crop is {self.crop}: 0, or a number of at least 1 expected")

    @property
    def needs_mask(self) -> bool:
        """Whether the judge must know the mask of the edit."""
        return bool(self.crop or self.source)

    @property
    def sees(self) -> str:
        """What it sees besides two whole results, in words."""
        crop = f"crops around the mask (crop {self.crop:g})" if self.crop else ""
        source = f"the source picture, {self.source}" if self.source else ""
        return " and ".join(filter(None, (crop, source)))

    @property
    def needed(self) -> tuple[str, ...]:
        """The fields of `QueryBatch` that it needs."""
        return ("box",) * bool(self.crop) + ("source", "mask") * bool(self.source)

    def inputs(
        self, masks: Bool[np.ndarray, "n h w"], sources: Float[np.ndarray, "n h w 3"] | None = None
    ) -> dict[str, np.ndarray]:
        """The fields of `QueryBatch` that it needs, by name; on the host.

        Args:
          masks: True where the pictures are edited.
          sources: the source pictures in [-1, 1], if it shows them.
        """
        edits = {"source": sources, "mask": masks[..., None].astype(np.float32)}
        boxes = {"box": self.boxes(masks)} if self.crop else {}
        return boxes | (edits if self.source else {})

    def boxes(self, masks: Iterable[Bool[np.ndarray, "h w"]]) -> Int32[np.ndarray, "n 4"]:
        """The boxes (y0, x0, y1, x1) of the crops, half-open; on the host."""
        return np.array([crop_box(mask, self.crop) for mask in masks], np.int32).reshape(-1, 4)


WHOLE = JudgeView()
"""The paper's view."""


def crop_box(mask: Bool[np.ndarray, "h w"], crop: float) -> Box:
    """The part of a picture that the judge sees, with the picture's aspect ratio and inside it.

    It covers `crop` times the sides of the mask's bounding box where the picture is large enough,
    and at least `LEAST` of the picture's sides. It is centred on the box, and shifted at the border
    of the picture. The whole picture if the mask is empty, or spans one of its sides.

    Args:
      mask: True where the picture is edited.
      crop: see `JudgeView`, at least 1.
    """
    height, width = mask.shape
    if not mask.any():
        return 0, 0, height, width
    box = bounding_box(mask)
    wanted = max(crop * (box[2] - box[0]), crop * (box[3] - box[1]) * height / width)
    rows = min(max(math.ceil(wanted), math.ceil(LEAST * height)), height)
    sides = rows, max(round(rows * width / height), 1)
    top, left = (
        min(max((box[axis] + box[axis + 2] - sides[axis]) // 2, 0), mask.shape[axis] - sides[axis])
        for axis in (0, 1)
    )
    return top, left, top + sides[0], left + sides[1]


def source_picture(
    source: Float[Array, "b h w 3"], mask: Float[Array, "b h w 1"], shown: str
) -> Float32[Array, "b h w 3"]:
    """The source picture as the judge sees it, in [-1, 1].

    The line runs outside the mask, so what is to be edited stays visible. It is a 128th of the
    picture's shorter side wide, at least one pixel.

    Args:
      source: in [-1, 1].
      mask: 1 where the source is edited, 0 elsewhere.
      shown: "outlined" or "blanked", see `JudgeView.source`.
    """
    masked = mask > 0.5
    if shown == "blanked":
        return jnp.where(masked, BLANK, source.astype(jnp.float32))
    reach = max(1, round(min(mask.shape[1:3]) / 128))
    window = (1, 2 * reach + 1, 2 * reach + 1, 1)
    grown = jax.lax.reduce_window(mask, -jnp.inf, jax.lax.max, window, (1,) * 4, "SAME") > 0.5
    return jnp.where(grown & ~masked, jnp.asarray(LINE), source.astype(jnp.float32))


def mirrored_box(box: Int32[np.ndarray, "4"], width: int) -> Int32[np.ndarray, "4"]:
    """The box in the picture that is mirrored left to right."""
    return np.array([box[0], width - box[3], box[2], width - box[1]], np.int32)


def cropped(images: Float[Array, "b h w c"], box: Int[Array, "b 4"]) -> Float32[Array, "b h w c"]:
    """The part of each image inside its box, magnified to the size of the image.

    Bicubic, as Pillow resizes a cropped picture; differentiable. Pixels outside the box neither
    count nor get a gradient. The box of the whole image gives the image itself. Overshoot is not
    clipped: `ImageProcessor` clips where it resizes.

    Args:
      images: any range.
      box: (y0, x0, y1, x1), half-open and inside the image.
    """
    height, width = images.shape[1:3]
    rows = _weights(box[:, 0], box[:, 2], height)
    columns = _weights(box[:, 1], box[:, 3], width)
    # Channels first, as in `image_preprocess.resize`.
    planes = images.astype(jnp.float32).transpose(0, 3, 1, 2)
    for weights, spec in ((columns, "bjw,bchw->bchj"), (rows, "bih,bchw->bciw")):
        planes = jnp.einsum(spec, weights, planes, precision=jax.lax.Precision.HIGHEST)
    return planes.transpose(0, 2, 3, 1)


def _weights(
    start: Int[Array, "b"], stop: Int[Array, "b"], size: int
) -> Float32[Array, "b size size"]:
    """The matrices that magnify [start, stop) of an axis of `size` pixels to its whole length.

    A box is never larger than the picture, so the kernel is not widened. As in
    `image_preprocess.bicubic_weights`, it is truncated at the border and renormalised.
    """
    pixels = jnp.arange(size, dtype=jnp.float32)
    scale = (stop - start).astype(jnp.float32) / size
    centres = start[:, None] + (pixels + 0.5) * scale[:, None]
    weights = cubic_kernel(jnp.abs(pixels + 0.5 - centres[:, :, None]), jnp)
    inside = (pixels >= start[:, None]) & (pixels < stop[:, None])
    weights = jnp.where(inside[:, None, :], weights, 0.0)
    return weights / jnp.sum(weights, axis=-1, keepdims=True)
