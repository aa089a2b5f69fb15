"""Convolution, group norm, residual block and attention of AutoencoderKL, channels last.

Original: diffusers' `resnet.py`, `attention_processor.py`. Norms and upsampling are written in the
form that was fastest on CPU and that fuses well on TPU.
"""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from onereward_jax.models.attention import attention
from onereward_jax.models.layers import constrain
from onereward_jax.parallel import RULES

ROWS = ("batch", "height", None, None)
WHOLE = ("batch", None, None, None)


def spread_rows(x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Shards the rows of `x` over the mesh axes of "height", if they divide them.

    The VAE's weights are not sharded over those axes, and a 1024x1024 image needs gigabytes in the
    outer layers. So each device holds some rows, and exchanges edge rows with its neighbours.
    """
    parts = _row_parts()
    if parts == 1 or x.shape[1] % parts:
        return x
    return constrain(x, ROWS)


def gather_rows(x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Gathers all rows of an image, for attention."""
    return x if _row_parts() == 1 else constrain(x, WHOLE)


def _row_parts() -> int:
    """Size of the mesh axes of "height"; 1 without a mesh."""
    sizes = dict(jax.sharding.get_abstract_mesh().shape)
    return math.prod(sizes.get(name, 1) for name in dict(RULES)["height"])


class Conv(nn.Module):
    """A 2-D convolution with bias; `padding` as ((top, bottom), (left, right))."""

    features: int
    size: int = 3
    stride: int = 1
    padding: tuple[tuple[int, int], tuple[int, int]] | None = None
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        around = self.size // 2
        kernel, bias = conv_params(self, (self.size, self.size, x.shape[-1], self.features))
        return jax.lax.conv_general_dilated(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            window_strides=(self.stride, self.stride),
            padding=self.padding or ((around, around), (around, around)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        ) + bias.astype(self.dtype)


class GroupNorm(nn.Module):
    """Group normalisation, with float32 moments computed per channel, then summed over groups."""

    groups: int
    epsilon: float = 1e-6
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        batch, height, width, channels = x.shape
        init = nn.with_logical_partitioning
        scale = self.param("scale", init(nn.initializers.ones, ("norm",)), (channels,),
                           self.param_dtype)  # fmt: skip
        bias = self.param("bias", init(nn.initializers.zeros, ("norm",)), (channels,),
                          self.param_dtype)  # fmt: skip
        count = height * width * (channels // self.groups)

        def over_group(moment: Float[Array, "b c"]) -> Float[Array, "b c"]:
            sums = moment.reshape(batch, self.groups, -1).sum(-1) / count
            return jnp.repeat(sums, channels // self.groups, axis=1)

        mean = over_group(jnp.sum(x, (1, 2), dtype=jnp.float32))
        centred = x - mean[:, None, None].astype(x.dtype)
        variance = over_group(
            jnp.einsum("bhwc,bhwc->bc", centred, centred, preferred_element_type=jnp.float32)
        )
        gain = jax.lax.rsqrt(variance + self.epsilon) * scale
        return _unfused((centred * gain[:, None, None] + bias).astype(self.dtype))


def _unfused(x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Prevents fusion of x into the next layers on CPU, where XLA would recompute it many times
    (a gradient step of the mini VAE takes 1.3 times as long). No effect on other platforms."""
    return jax.lax.platform_dependent(
        x, cpu=jax.lax.optimization_barrier, default=lambda value: value
    )


class ResnetBlock(nn.Module):
    """norm, SiLU, conv, norm, SiLU, conv, plus the (projected) input. Original: ResnetBlock2D."""

    features: int
    groups: int
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w d"]:
        kinds = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        hidden = nn.silu(GroupNorm(self.groups, name="norm1", **kinds)(x))
        hidden = Conv(self.features, name="conv1", **kinds)(hidden)
        hidden = nn.silu(GroupNorm(self.groups, name="norm2", **kinds)(hidden))
        hidden = Conv(self.features, name="conv2", **kinds)(hidden)
        if x.shape[-1] != self.features:
            x = Conv(self.features, size=1, name="conv_shortcut", **kinds)(x)
        return x + hidden


class AttentionBlock(nn.Module):
    """One-headed self-attention over all latent pixels. Original: Attention with group norm."""

    groups: int
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        kinds = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        batch, height, width, channels = x.shape

        def dense(name: str) -> nn.Dense:
            return nn.Dense(
                channels,
                name=name,
                kernel_init=nn.with_logical_partitioning(
                    nn.initializers.lecun_normal(), ("conv_in", "conv_out")
                ),
                bias_init=nn.with_logical_partitioning(nn.initializers.zeros, ("conv_out",)),
                **kinds,
            )

        tokens = GroupNorm(self.groups, name="group_norm", **kinds)(x)
        tokens = tokens.reshape(batch, height * width, 1, channels)
        mixed = attention(*(dense(name)(tokens) for name in ("to_q", "to_k", "to_v")))
        return x + dense("to_out_0")(mixed).reshape(x.shape)


class Upsample(nn.Module):
    """Nearest-neighbour doubling and a convolution. Original: Upsample2D."""

    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        kinds = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        return DoublingConv(x.shape[-1], name="conv", **kinds)(x)


class DoublingConv(nn.Module):
    """The 3 x 3 convolution, with bias, of an image whose pixels are doubled, at 4/9 of its cost.

    Two of the three rows (columns) under the kernel are always copies of each other. So each of the
    four kinds of output pixel (even or odd row and column) is a 2 x 2 convolution of the image
    before doubling, and the doubled image is never materialized.
    """

    features: int
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        kernel, bias = conv_params(self, (3, 3, x.shape[-1], self.features))

        def pixels(row: int, column: int) -> Float[Array, "b h w d"]:
            return jax.lax.conv_general_dilated(
                x.astype(self.dtype),
                _fold(_fold(kernel, 0, row), 1, column).astype(self.dtype),
                window_strides=(1, 1),
                padding=[(1 - row, row), (1 - column, column)],
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )

        rows = [jnp.stack([pixels(row, column) for column in (0, 1)], axis=3) for row in (0, 1)]
        batch, height, width, _ = x.shape
        doubled = jnp.stack(rows, axis=2).reshape(batch, 2 * height, 2 * width, self.features)
        return doubled + bias.astype(self.dtype)


def _fold(kernel: Float[Array | np.ndarray, "..."], axis: int, odd: int) -> Float[Array, "..."]:
    """The kernel for even or odd output pixels: three taps along `axis` become two."""
    first, middle, last = jnp.split(kernel, 3, axis)
    taps = [first + middle, last] if odd else [first, middle + last]
    return jnp.concatenate(taps, axis)


def conv_params(
    module: nn.Module, shape: tuple[int, int, int, int]
) -> tuple[Float[Array | np.ndarray, "h w i o"], Float[Array | np.ndarray, "o"]]:
    """Kernel and bias of a convolution, all-gathered (FSDP).

    They are gathered before the convolution: XLA computes a wrong input gradient when the rows of
    the image are sharded over one mesh axis and the features of the kernel over another.
    """
    init = nn.with_logical_partitioning
    kernel = module.param(
        "kernel",
        init(nn.initializers.lecun_normal(), (None, None, "conv_in", "conv_out")),
        shape,
        module.param_dtype,
    )
    bias = module.param(
        "bias", init(nn.initializers.zeros, ("conv_out",)), shape[-1:], module.param_dtype
    )
    return whole(kernel), whole(bias)


def whole(x: Float[Array | np.ndarray, "..."]) -> Float[Array | np.ndarray, "..."]:
    """Replicates `x` over the mesh; no effect without a mesh."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return constrain(x, (None,) * x.ndim)
