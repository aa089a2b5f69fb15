"""LPIPS: a distance between pictures in the features of a network (Zhang et al. 2018).

arXiv 1801.03924, Eq. 1; equal to version 0.1 of the package lpips. Its three backbones are
torchvision's AlexNet, VGG-16 and SqueezeNet 1.1, up to their last tapped layer.

Single letters: b batch, h, w height and width in pixels, c channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Float32

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Normalisation of pictures in [-1, 1]; ImageNet's mean and deviation, moved there."""

EPSILON = 1e-10
LEAST_SIDE = 32
"""Pixels: smaller pictures leave no features after the poolings."""


class Conv(NamedTuple):
    """A convolution and a ReLU: number of its module in `features`, stride, padding."""

    number: int
    stride: int = 1
    padding: int = 1


class Fire(NamedTuple):
    """A fire module of SqueezeNet: number of its module in `features`."""

    number: int


class Pool(NamedTuple):
    """Max pooling over `side` pixels with stride 2; `ceil` keeps a last incomplete window."""

    side: int
    ceil: bool = False


class Tap(NamedTuple):
    """Here features are compared."""


Layer = Conv | Fire | Pool | Tap

BACKBONES: dict[str, tuple[Layer, ...]] = {
    "alex": (
        Conv(0, 4, 2), Tap(), Pool(3), Conv(3, 1, 2), Tap(), Pool(3),
        Conv(6), Tap(), Conv(8), Tap(), Conv(10), Tap(),
    ),
    "vgg": (
        Conv(0), Conv(2), Tap(), Pool(2), Conv(5), Conv(7), Tap(), Pool(2),
        Conv(10), Conv(12), Conv(14), Tap(), Pool(2), Conv(17), Conv(19), Conv(21), Tap(), Pool(2),
        Conv(24), Conv(26), Conv(28), Tap(),
    ),
    "squeeze": (
        Conv(0, 2, 0), Tap(), Pool(3, True), Fire(3), Fire(4), Tap(),
        Pool(3, True), Fire(6), Fire(7), Tap(), Pool(3, True), Fire(9), Tap(),
        Fire(10), Tap(), Fire(11), Tap(), Fire(12), Tap(),
    ),
}  # fmt: skip
"""Name in the package lpips -> its layers."""

Params = Mapping[str, Float32[np.ndarray | Array, "..."]]
"""features.<number>..., torchvision's names, OIHW; lin<tap>, the weights of the channels [c]."""


def lpips(
    params: Params, a: Float[Array, "b h w 3"], b: Float[Array, "b h w 3"]
) -> Float[Array, "b"]:
    """The distance of pictures in [-1, 1]: 0 for equal ones, at least 0; symmetric.

    d = sum_l mean_hw sum_c w_lc (f_lc(a) - f_lc(b))^2, where f_l has length 1 in each pixel.

    Args:
      params: see `convert.lpips_file.read_lpips`.
      a, b: pictures of one size, at least `LEAST_SIDE` on each side.
    """
    both = _features(params, jnp.concatenate([a, b]))
    total = jnp.zeros(a.shape[0])
    for number, features in enumerate(both):
        length = jnp.sqrt(jnp.sum(features**2, -1, keepdims=True))
        first, second = jnp.split(features / (length + EPSILON), 2)
        total += jnp.mean(jnp.square(first - second) @ params[f"lin{number}"], (1, 2))
    return total


def backbone_of(params: Params) -> str:
    """The name of the backbone in `BACKBONES`."""
    shapes = {name: tuple(tensor.shape) for name, tensor in params.items()}
    return next(name for name in BACKBONES if expected_shapes(name) == shapes)


def expected_shapes(backbone: str) -> dict[str, tuple[int, ...]]:
    """Name -> shape of each tensor."""
    shapes: dict[str, tuple[int, ...]] = {}
    channels, taps = 3, 0
    for layer, (out, squeezed) in zip(BACKBONES[backbone], _widths(backbone)):
        if isinstance(layer, Tap):
            shapes[f"lin{taps}"] = (channels,)
            taps += 1
        elif isinstance(layer, Conv):
            side = {("alex", 0): 11, ("alex", 3): 5}.get((backbone, layer.number), 3)
            shapes |= _conv_shapes(f"features.{layer.number}", channels, out, side)
            channels = out
        elif isinstance(layer, Fire):
            place = f"features.{layer.number}"
            shapes |= _conv_shapes(f"{place}.squeeze", channels, squeezed, 1)
            shapes |= _conv_shapes(f"{place}.expand1x1", squeezed, out // 2, 1)
            shapes |= _conv_shapes(f"{place}.expand3x3", squeezed, out // 2, 3)
            channels = out
    return shapes


_WIDTHS: dict[str, tuple[tuple[int, int], ...]] = {
    "alex": ((64, 0), (192, 0), (384, 0), (256, 0), (256, 0)),
    "vgg": ((64, 0),) * 2 + ((128, 0),) * 2 + ((256, 0),) * 3 + ((512, 0),) * 6,
    "squeeze": (
        (64, 0), (128, 16), (128, 16), (256, 32), (256, 32),
        (384, 48), (384, 48), (512, 64), (512, 64),
    ),
}  # fmt: skip
"""Backbone -> channels of each convolution or fire module, and of the latter's squeeze."""


def _widths(backbone: str) -> Iterator[tuple[int, int]]:
    """(channels, squeezed channels) for each layer; of taps and poolings unused zeros."""
    widths = iter(_WIDTHS[backbone])
    for layer in BACKBONES[backbone]:
        yield next(widths) if isinstance(layer, Conv | Fire) else (0, 0)


def _conv_shapes(name: str, inside: int, out: int, side: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (out, inside, side, side), f"{name}.bias": (out,)}


def _features(params: Params, pictures: Float[Array, "b h w 3"]) -> Iterator[Array]:
    """The features at each tap."""
    x = (pictures - jnp.array(SHIFT)) / jnp.array(SCALE)
    for layer in BACKBONES[backbone_of(params)]:
        if isinstance(layer, Tap):
            yield x
        elif isinstance(layer, Pool):
            x = _max_pool(x, layer)
        elif isinstance(layer, Conv):
            x = _conv(params, f"features.{layer.number}", x, layer.stride, layer.padding)
        else:
            place = f"features.{layer.number}"
            squeezed = _conv(params, f"{place}.squeeze", x, 1, 0)
            x = jnp.concatenate(
                [
                    _conv(params, f"{place}.expand1x1", squeezed, 1, 0),
                    _conv(params, f"{place}.expand3x3", squeezed, 1, 1),
                ],
                -1,
            )


def _conv(params: Params, name: str, x: Array, stride: int, padding: int) -> Array:
    """Convolution, bias, ReLU."""
    convolved = lax.conv_general_dilated(
        x,
        jnp.asarray(params[f"{name}.weight"]),
        (stride, stride),
        ((padding, padding), (padding, padding)),
        dimension_numbers=("NHWC", "OIHW", "NHWC"),
    )
    return jax.nn.relu(convolved + jnp.asarray(params[f"{name}.bias"]))


def _max_pool(x: Array, pool: Pool) -> Array:
    ends = [0, 0]
    if pool.ceil:  # torch's ceil_mode: the last window may leave the picture at its end
        ends = [-(size - pool.side) % 2 for size in x.shape[1:3]]
    padding = ((0, 0), (0, ends[0]), (0, ends[1]), (0, 0))
    window, strides = (1, pool.side, pool.side, 1), (1, 2, 2, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, padding)
