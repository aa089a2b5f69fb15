"""EMA of the policy's weights, π_ema: the reference of Algorithm 2.

π_ema ← τ π_ema + (1 - τ) π_θ
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Float32, PyTree


def moving_average(ema: PyTree, params: PyTree, decay: float | Float[Array, ""]) -> PyTree:
    """π_ema ← τ π_ema + (1 - τ) π_θ, in a form that keeps equal trees exactly equal."""
    return jax.tree.map(lambda mean, leaf: mean + (1.0 - decay) * (leaf - mean), ema, params)


def relative_distance(params: PyTree, reference: PyTree) -> Float32[Array, ""]:
    """‖params - reference‖ / ‖reference‖ over all parameters, in float32."""
    difference = jax.tree.map(
        lambda a, b: a.astype(jnp.float32) - b.astype(jnp.float32), params, reference
    )
    return optax.tree.norm(difference) / optax.tree.norm(
        jax.tree.map(lambda leaf: leaf.astype(jnp.float32), reference)
    )
