"""Small parts shared by the FLUX blocks: projections and adaptive norms."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from onereward_jax.models.flux.token_order import TOKENS
from onereward_jax.models.int8 import matmul
from onereward_jax.models.layers import CHANNELS, constrain
from onereward_jax.models.lora import own_factors

XAVIER = nn.initializers.xavier_uniform()
ZEROS = nn.initializers.zeros
NORM_EPS = 1e-6


class Dense(nn.Module):
    """x @ kernel + bias, and the side path of a low-rank adapter where there is one.

    The kernel [in, out] has the logical axes `axes`; it may be quantised, see `models/int8.py`.
    """

    features: int
    axes: tuple[str, str]
    dtype: Any
    param_dtype: Any
    kernel_init: Any = XAVIER

    @nn.compact
    def __call__(self, x: Float[Array, "*b i"]) -> Float[Array, "*b o"]:
        kernel, bias = kernel_and_bias(
            self, (x.shape[-1], self.features), self.axes, self.kernel_init
        )
        x = x.astype(self.dtype)
        output = matmul(self, x, kernel) + bias
        if (factors := own_factors(self)) is None:
            return output
        a, b = factors
        return output + (x @ a) @ b


class TwoPartDense(nn.Module):
    """A linear layer over the concatenation of two inputs, which is never formed.

    The kernel's first rows belong to the first input. Equal to `concat([a, b]) @ kernel + bias`.
    With a quantised kernel, each input has its own scales.
    """

    features: int
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(
        self, first: Float[Array, "b s i"], second: Float[Array, "b s j"]
    ) -> Float[Array, "b s o"]:
        split = first.shape[-1]
        kernel, bias = kernel_and_bias(
            self, (split + second.shape[-1], self.features), ("mlp", "embed"), XAVIER
        )
        products = matmul(self, first, kernel[:split]), matmul(self, second, kernel[split:])
        output = products[0] + products[1] + bias
        if (factors := own_factors(self)) is None:
            return output
        a, b = factors
        # Gathered before the cut, as in `Modulation`.
        a = constrain(a, (None, None))
        return output + (first @ a[:split] + second @ a[split:]) @ b


def kernel_and_bias(
    module: nn.Module,
    shape: tuple[int, int],
    axes: tuple[str, str],
    kernel_init: jax.nn.initializers.Initializer,
) -> tuple[Num[Array, "i o"], Float[Array, "o"]]:
    """The parameters of a linear layer in its compute dtype; a quantised kernel in int8."""
    kernel = module.param(
        "kernel", nn.with_logical_partitioning(kernel_init, axes), shape, module.param_dtype
    )
    bias = module.param(
        "bias", nn.with_logical_partitioning(ZEROS, axes[1:]), shape[1:], module.param_dtype
    )
    kept = jnp.int8 if kernel.dtype == jnp.int8 else module.dtype
    return jnp.asarray(kernel, kept), jnp.asarray(bias, module.dtype)


class Modulation(nn.Module):
    """Shifts, scales and gates made from the conditioning vector (AdaLN).

    Starts at zero (AdaLN-Zero), so that a fresh block is the identity.
    """

    parts: int
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, conditioning: Float[Array, "b d"]) -> list[Float[Array, "b 1 d"]]:
        """`parts` float32 vectors per sample, from silu(time + guidance + text)."""
        vectors = Dense(
            self.parts * conditioning.shape[-1],
            ("embed", "mlp"),
            name="linear",
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            kernel_init=ZEROS,
        )(conditioning)
        # Gathered before the cut: XLA's partitioner gives wrong values when the parts of a tensor
        # lie on different devices, and the vectors are small.
        vectors = constrain(vectors.astype(jnp.float32)[:, None, :], CHANNELS)
        return jnp.split(vectors, self.parts, axis=-1)


def modulate(
    x: Float[Array, "b s d"], shift: Float[Array, "b 1 d"], scale: Float[Array, "b 1 d"]
) -> Float[Array, "b s d"]:
    """LayerNorm(x) · (1 + scale) + shift, in float32; dtype of x kept."""
    wide = x.astype(jnp.float32)
    centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    normed = centred * jax.lax.rsqrt(variance + NORM_EPS)
    return (normed * (1.0 + scale) + shift).astype(x.dtype)


def gated_residual(
    x: Float[Array, "b s d"], gate: Float[Array, "b 1 d"], update: Float[Array, "b s d"]
) -> Float[Array, "b s d"]:
    """x + gate · update, in float32; dtype of x kept, layout constrained."""
    total = x.astype(jnp.float32) + gate * update.astype(jnp.float32)
    return constrain(total.astype(x.dtype), TOKENS)
