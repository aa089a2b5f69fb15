"""Parts shared by the vision tower and the language model: RMSNorm, linear layers, SwiGLU."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from onereward_jax.models.int8 import rescaled
from onereward_jax.models.layers import HIDDEN, constrain, normal, ones, zeros
from onereward_jax.models.lora import own_factors


class Dense(nn.Module):
    """x @ kernel + bias, and the side path of a low-rank adapter where there is one.

    The kernel may be quantised, see `models/int8.py`.

    The kernel [in, out] has the logical axes `axes`.
    """

    features: int
    axes: tuple[str, str]
    stddev: float
    use_bias: bool
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "*b i"]) -> Float[Array, "*b o"]:
        shape = (x.shape[-1], self.features)
        kernel = self.param("kernel", normal(self.stddev, self.axes), shape, self.param_dtype)
        x = x.astype(self.dtype)
        output = rescaled(self, x @ kernel.astype(self.dtype))
        if self.use_bias:
            bias = self.param("bias", zeros(self.axes[1:]), (self.features,), self.param_dtype)
            output = output + bias.astype(self.dtype)
        if (factors := own_factors(self)) is None:
            return output
        a, b = factors
        return output + (x @ a) @ b


class RMSNorm(nn.Module):
    """x / rms(x) · scale, normalised in float32, scaled and returned in `dtype`."""

    epsilon: float
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "... d"]) -> Float[Array, "... d"]:
        scale = self.param("scale", ones(("norm",)), x.shape[-1:], self.param_dtype)
        wide = x.astype(jnp.float32)
        mean_square = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
        normed = wide * jax.lax.rsqrt(mean_square + self.epsilon)
        return normed.astype(self.dtype) * scale.astype(self.dtype)


class SwiGLU(nn.Module):
    """down(silu(gate(x)) · up(x))."""

    intermediate_size: int
    stddev: float
    use_bias: bool
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        options = {"use_bias": self.use_bias, "dtype": self.dtype, "param_dtype": self.param_dtype}
        inner, outer = ("embed", "mlp"), ("mlp", "embed")
        gate = Dense(self.intermediate_size, inner, self.stddev, name="gate_proj", **options)(x)
        up = Dense(self.intermediate_size, inner, self.stddev, name="up_proj", **options)(x)
        hidden = constrain(nn.silu(gate) * up, HIDDEN)
        return Dense(x.shape[-1], outer, self.stddev, name="down_proj", **options)(hidden)
