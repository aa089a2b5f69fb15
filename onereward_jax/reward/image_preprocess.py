"""Differentiable image preprocessing of Qwen2.5-VL: resize, normalise, split into patches.

Judge training and RL use the same function. It follows transformers' `Qwen2VLImageProcessor`, which
resizes uint8 images by antialiased bicubic interpolation (PIL or torchvision). Here the resize is
two matmuls with constant matrices in float32, so its gradient is exact. The only difference: the
original rounds to integer grey levels after each of its two passes, an error below 2/255 (tested).
Both clip overshoot to the valid range.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from onereward_jax.common.dataclass_fields import check_fields
from onereward_jax.common.listing import shown
from onereward_jax.models.qwen2_5_vl import Grid

BICUBIC = -0.5
"""The cubic kernel's parameter a, as in PIL and in torchvision's antialiased resize."""

MAX_ASPECT_RATIO = 200

MIN_PIXELS, MAX_PIXELS = 56 * 56, 28 * 28 * 1280
"""Bounds of height x width where nothing is stated."""


@dataclasses.dataclass(frozen=True)
class ImageProcessor:
    """Images to patches. Fields and defaults are those of transformers' processor.

    Attributes:
      patch_size: pixels per side of a patch.
      temporal_patch_size: frames per patch; a still image is repeated.
      merge_size: patches per side that become one language token.
      min_pixels, max_pixels: bounds of height x width after resizing.
      image_mean, image_std: per channel, for values in [0, 1].
    """

    patch_size: int = 14
    temporal_patch_size: int = 2
    merge_size: int = 2
    min_pixels: int = MIN_PIXELS
    max_pixels: int = MAX_PIXELS
    image_mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    image_std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> ImageProcessor:
        """From the parsed `preprocessor_config.json`, of old and new transformers.

        Fields that are missing or null have transformers' defaults; `min_pixels` and `max_pixels`
        count before `size`, as there.

        Raises:
          ValueError: a setting that is not implemented.
        """
        config = {name: value for name, value in config.items() if value is not None}
        for field, allowed in _FIXED.items():
            found = config.get(field, allowed[0])
            if not any(found == one and type(found) is type(one) for one in allowed):
                found, expected = shown(config[field]), " or ".join(map(repr, allowed))
                raise ValueError(
                    f"preprocessor_config: {field} is {found}, only {expected} is read"
                )
        factor = config.get("rescale_factor", 1 / 255)
        if not isinstance(factor, int | float) or not abs(factor * 255 - 1) < 1e-4:
            raise ValueError(f"preprocessor_config: rescale_factor is {shown(factor)}, not 1/255")
        names = {field.name for field in dataclasses.fields(cls)}
        values = {key: value for key, value in config.items() if key in names}
        values |= _areas(config)
        for field in ("image_mean", "image_std"):
            if isinstance(values.get(field), int | float):
                values[field] = 3 * [values[field]]
        values = check_fields("preprocessor_config", cls, values)
        for field in ("image_mean", "image_std"):
            if len(values.get(field, "rgb")) != 3:
                raise ValueError(f"preprocessor_config: {field} is not one number per channel")
            if field in values:
                values[field] = tuple(values[field])
        if values["min_pixels"] > values["max_pixels"]:
            raise ValueError(
                f"preprocessor_config: min_pixels {values['min_pixels']} is above max_pixels "
                f"{values['max_pixels']}"
            )
        return cls(**values)

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Size after resizing: multiples of a merged patch, within the pixel bounds.

        Keeps the aspect ratio as closely as possible (the original's `smart_resize`).

        Raises:
          ValueError: one side is more than 200 times the other.
        """
        if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
            raise ValueError(f"image of {height} x {width}: aspect ratio above {MAX_ASPECT_RATIO}")
        factor = self.patch_size * self.merge_size
        rounded = tuple(round(side / factor) * factor for side in (height, width))
        if math.prod(rounded) > self.max_pixels:
            shrink = math.sqrt(height * width / self.max_pixels)
            rounded = tuple(
                max(factor, math.floor(side / shrink / factor) * factor) for side in (height, width)
            )
        elif math.prod(rounded) < self.min_pixels:
            grow = math.sqrt(self.min_pixels / (height * width))
            rounded = tuple(math.ceil(side * grow / factor) * factor for side in (height, width))
        return rounded[0], rounded[1]

    def grid(self, height: int, width: int) -> Grid:
        """Patches along (time, height, width) of an image of height x width pixels."""
        rows, columns = (side // self.patch_size for side in self.resized(height, width))
        return 1, rows, columns

    def tokens_per_image(self, height: int, width: int) -> int:
        """Language tokens of an image of height x width pixels."""
        return math.prod(self.grid(height, width)) // self.merge_size**2

    def __call__(self, images: Float[Array, "b h w 3"]) -> Float32[Array, "b n p"]:
        """Patches of images in [-1, 1], for `VisionTower`."""
        height, width = self.resized(*images.shape[1:3])
        pixels = resize((images.astype(jnp.float32) + 1.0) / 2.0, height, width)
        pixels = (pixels - np.asarray(self.image_mean, np.float32)) / np.asarray(
            self.image_std, np.float32
        )
        return self._patches(pixels)

    def _patches(self, pixels: Float32[Array, "b h w 3"]) -> Float32[Array, "b n p"]:
        """Flattened patches (channel, frame, row, column), in blocks of merge_size²."""
        batch, height, width, channels = pixels.shape
        merge, patch = self.merge_size, self.patch_size
        blocks = (height // (merge * patch), width // (merge * patch))
        cut = pixels.reshape(batch, blocks[0], merge, patch, blocks[1], merge, patch, channels)
        cut = cut.transpose(0, 1, 4, 2, 5, 7, 3, 6)[..., None, :, :]
        cut = jnp.repeat(cut, self.temporal_patch_size, axis=-3)
        patches = math.prod(blocks) * merge**2
        return cut.reshape(batch, patches, channels * self.temporal_patch_size * patch**2)


def _areas(config: Mapping[str, Any]) -> dict[str, Any]:
    """`min_pixels` and `max_pixels`, which newer versions call `size` as if they were edges."""
    size = config.get("size", {"shortest_edge": MIN_PIXELS, "longest_edge": MAX_PIXELS})
    if not isinstance(size, Mapping):
        raise ValueError(f"preprocessor_config: size is {shown(size)}, a JSON object expected")
    areas = {}
    for name, edge in (("min_pixels", "shortest_edge"), ("max_pixels", "longest_edge")):
        areas[name] = config.get(name, size.get(edge))
        if areas[name] is None:
            raise ValueError(
                f"preprocessor_config: there is neither {name} nor {edge} in size "
                f"{shown(dict(size))}"
            )
    return areas


_FIXED: dict[str, tuple[Any, ...]] = {
    "image_processor_type": (
        "Qwen2VLImageProcessor",
        "Qwen2VLImageProcessorFast",
        "Qwen2VLImageProcessorPil",
        "Qwen2_5_VLImageProcessor",
    ),
    "do_resize": (True,),
    "do_rescale": (True,),
    "do_normalize": (True,),
    "resample": (3,),
    "do_center_crop": (False,),
    "do_pad": (False,),
}


def resize(images: Float32[Array, "b h w c"], height: int, width: int) -> Float32[Array, "b i j c"]:
    """Antialiased bicubic resize of images in [0, 1], columns first; overshoot is clipped.

    Channels first: XLA's GPU kernels failed on matmuls whose rows interleave three channels.
    """
    planes = images.transpose(0, 3, 1, 2)
    for axis, size, spec in ((3, width, "jw,bchw->bchj"), (2, height, "ih,bchw->bciw")):
        if planes.shape[axis] != size:
            weights = bicubic_weights(planes.shape[axis], size)
            planes = jnp.einsum(spec, weights, planes, precision=jax.lax.Precision.HIGHEST)
            planes = jnp.clip(planes, 0.0, 1.0)
    return planes.transpose(0, 2, 3, 1)


@functools.cache
def bicubic_weights(size_in: int, size_out: int) -> Float32[np.ndarray, "o i"]:
    """The matrix that resizes one axis; rows sum to 1.

    When downscaling, the kernel is widened by the scale factor, which removes aliasing; at the
    border the kernel is truncated and renormalised.
    """
    scale = size_in / size_out
    stretch = max(scale, 1.0)
    centres = (np.arange(size_out) + 0.5) * scale
    distance = np.abs(np.arange(size_in) + 0.5 - centres[:, None]) / stretch
    weights = cubic_kernel(distance)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def cubic_kernel(x: Float[Array | np.ndarray, "..."], numpy: Any = np) -> Any:
    """Keys' cubic convolution kernel at distances x >= 0; `numpy` is numpy or jax.numpy."""
    near = (BICUBIC + 2) * x**3 - (BICUBIC + 3) * x**2 + 1
    far = BICUBIC * (x**3 - 5 * x**2 + 8 * x - 4)
    return numpy.where(x < 1, near, numpy.where(x < 2, far, 0.0))
