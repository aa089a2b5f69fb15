"""Convolution, group norm, residual block and attention of AutoencoderKL, channels last.

Original: diffusers' `resnet.py`, `attention_processor.py`. The norms and the upsampling are written
in the forms that were measured to be fastest on CPU and that fuse well on TPU.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from onereward_jax.models.attention import attention
from onereward_jax.parallel import RULES

ROWS = ("batch", "height", None, None)
WHOLE = ("batch", None, None, None)


def spread_rows(x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """`x` with its rows over the mesh axis of "height", where they divide.

    No weight of the autoencoder is split over that axis, and a picture of 1024x1024 takes gigabytes
    in its outer layers: so each device takes some rows, and its neighbours' rows at the edge.
    """
    parts = _row_parts()
    if parts == 1 or x.shape[1] % parts:
        return x
    return nn.with_logical_constraint(x, ROWS, rules=RULES)


def gather_rows(x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """`x` with all rows of a picture on its devices, for attention."""
    return x if _row_parts() == 1 else nn.with_logical_constraint(x, WHOLE, rules=RULES)


def _row_parts() -> int:
    """Devices of the mesh axis of "height"; 1 without a mesh."""
    return dict(jax.sharding.get_abstract_mesh().shape).get(dict(RULES)["height"], 1)


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
        return nn.Conv(
            self.features,
            (self.size, self.size),
            strides=self.stride,
            padding=self.padding or ((around, around), (around, around)),
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            kernel_init=nn.with_logical_partitioning(
                nn.initializers.lecun_normal(), (None, None, "conv_in", "conv_out")
            ),
            bias_init=nn.with_logical_partitioning(nn.initializers.zeros, ("conv_out",)),
            parent=self.scope,
        )(x)


class GroupNorm(nn.Module):
    """Group normalisation, with moments in float32 taken per channel, then summed over groups."""

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
    """x, as its own buffer on CPU: fused into the next layers it is computed again and again
    (a gradient step of the mini VAE takes 1.3 times as long). Elsewhere fusion is welcome."""
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
        batch, height, width, channels = x.shape
        x = jnp.broadcast_to(x[:, :, None, :, None], (batch, height, 2, width, 2, channels))
        x = x.reshape(batch, 2 * height, 2 * width, channels)
        return Conv(channels, name="conv", dtype=self.dtype, param_dtype=self.param_dtype)(x)
