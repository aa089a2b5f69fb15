"""Adam with both moments quantised to one byte per weight.

Each moment is stored as a code relative to the largest magnitude of its row (last axis): the first
moment as a signed square root in ±127 steps, the second as a fourth root in 255 steps. Roots,
because values of one row may differ by orders of magnitude. Codes are rounded stochastically: the
second moment changes by a factor of a thousandth per step, and with rounding to nearest it would
never change. Updates are computed from float32 moments; only the stored moments are quantised.
Updates are clipped to Adam's maximum, that of a first non-zero gradient, (1 - b1) / √(1 - b2),
because the code of a second moment may be 0.

Non-linear quantisation follows 8-bit optimizers (Dettmers et al., arXiv 2110.02861), which quantise
by blocks; rows have the same sharding as their weights.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int32, Integer, PRNGKeyArray, PyTree

from onereward_jax.common.rng import stream

SIGNED_STEPS, UNSIGNED_STEPS = 127, 255


class Int8AdamState(NamedTuple):
    """Optimizer state; every pytree has the structure of the parameters.

    Attributes:
      count: number of updates.
      mu, nu: codes of the moments, int8 and uint8.
      mu_top, nu_top: float32, the largest magnitude of each row; one element on the last axis.
    """

    count: Int32[Array, ""]
    mu: PyTree
    mu_top: PyTree
    nu: PyTree
    nu_top: PyTree


def scale_by_int8_adam(b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """Like `optax.scale_by_adam`, with moments in `Int8AdamState`."""

    def init(params: PyTree) -> Int8AdamState:
        def zeros(dtype: Any) -> PyTree:
            return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, dtype), params)

        def tops() -> PyTree:
            return jax.tree.map(lambda leaf: jnp.zeros(_top_shape(leaf.shape)), params)

        count = jnp.zeros((), jnp.int32)
        return Int8AdamState(count, zeros(jnp.int8), tops(), zeros(jnp.uint8), tops())

    def update(
        gradients: PyTree, state: Int8AdamState, params: PyTree | None = None
    ) -> tuple[PyTree, Int8AdamState]:
        del params
        leaves, tree = jax.tree.flatten(gradients)
        old = [tree.flatten_up_to(part) for part in state[1:]]
        most = (1 - b1) / (1 - b2) ** 0.5
        count = optax.safe_increment(state.count)
        key = stream(0, "rounding of moments", count)
        made = []
        for number, (gradient, mu, mu_top, nu, nu_top) in enumerate(zip(leaves, *old)):
            gradient = gradient.astype(jnp.float32)
            first = b1 * decode_signed(mu, mu_top) + (1 - b1) * gradient
            second = b2 * decode_unsigned(nu, nu_top) + (1 - b2) * gradient**2
            mean, square = first / (1 - b1**count), second / (1 - b2**count)
            made.append(
                (
                    jnp.clip(mean / (jnp.sqrt(square) + eps), -most, most),
                    *encode_signed(jax.random.fold_in(key, 2 * number), first),
                    *encode_unsigned(jax.random.fold_in(key, 2 * number + 1), second),
                )
            )
        updates, *kept = (tree.unflatten(column) for column in zip(*made))
        return updates, Int8AdamState(count, *kept)

    return optax.GradientTransformation(init, update)


def encode_signed(
    key: PRNGKeyArray, values: Float[Array, "..."]
) -> tuple[Integer[Array, "..."], Float[Array, "..."]]:
    """Quantises signed values: codes, and the largest magnitude of each row."""
    top = _top(values)
    share = jnp.sqrt(jnp.abs(values) / _divisor(top))
    return (_rounded(key, share * SIGNED_STEPS) * jnp.sign(values)).astype(jnp.int8), top


def decode_signed(codes: Integer[Array, "..."], top: Float[Array, "..."]) -> Float[Array, "..."]:
    """Inverse of `encode_signed`, up to quantisation."""
    share = codes.astype(jnp.float32) / SIGNED_STEPS
    return jnp.sign(share) * share**2 * top


def encode_unsigned(
    key: PRNGKeyArray, values: Float[Array, "..."]
) -> tuple[Integer[Array, "..."], Float[Array, "..."]]:
    """Quantises non-negative values: codes, and the maximum of each row."""
    top = _top(values)
    share = jnp.sqrt(jnp.sqrt(values / _divisor(top)))
    return _rounded(key, share * UNSIGNED_STEPS).astype(jnp.uint8), top


def decode_unsigned(codes: Integer[Array, "..."], top: Float[Array, "..."]) -> Float[Array, "..."]:
    """Inverse of `encode_unsigned`, up to quantisation."""
    return (codes.astype(jnp.float32) / UNSIGNED_STEPS) ** 4 * top


def _rounded(key: PRNGKeyArray, steps: Float[Array, "..."]) -> Float[Array, "..."]:
    """Stochastic rounding, unbiased."""
    return jnp.floor(steps + jax.random.uniform(key, steps.shape))


def _top(values: Float[Array, "..."]) -> Float[Array, "..."]:
    return jnp.max(jnp.abs(values), axis=-1, keepdims=True) if values.ndim else jnp.abs(values)


def _top_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:-1], 1) if shape else ()


def _divisor(top: Float[Array, "..."]) -> Float[Array, "..."]:
    """The row's maximum, or 1 if the row is all zeros."""
    return jnp.where(top > 0, top, 1.0)
