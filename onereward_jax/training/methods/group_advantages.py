"""From the judge's answers about groups of samples to rewards and advantages.

Shapes: b triplets, g samples of a triplet, s = b g samples with those of a triplet side by side,
e dimensions (padded).
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int, Shaped

EPSILON = 1e-4
"""Added to the standard deviation, as in the code released with both papers."""


def neighbour(
    of: Shaped[Array, "s *rest"], group_size: int, by: int | Int[Array, ""]
) -> Shaped[Array, "s *rest"]:
    """For each sample the one `by` places later in its group, in a ring."""
    groups = of.reshape(-1, group_size, *of.shape[1:])
    return jnp.roll(groups, -by, axis=1).reshape(of.shape)


def ring_win_rates(
    log_yes: Float32[Array, "s e"],
    log_no: Float32[Array, "s e"],
    group_size: int,
    by: int | Int[Array, ""],
) -> Float32[Array, "s e"]:
    """Win rates where each sample was compared with the one `by` places later in its group.

    Sample i wins P("Yes" | x_i, x_i+by) and P("No" | x_i-by, x_i): the mean of both is an unbiased
    estimate of its win rate against its group, at one comparison per sample, and every sample is
    once the first and once the second picture.
    """
    as_second = neighbour(jnp.exp(log_no), group_size, -by)
    return 0.5 * (jnp.exp(log_yes) + as_second)


def advantages(rewards: Float[Array, "s"], group_size: int) -> Float32[Array, "s"]:
    """(R - mean over the group) / (standard deviation over the batch).

    The group's mean is subtracted as in GRPO; one standard deviation for the whole batch, as both
    papers' code is set up, does not blow up groups whose samples are all alike. The sum over a
    group is 0.
    """
    groups = rewards.astype(jnp.float32).reshape(-1, group_size)
    centred = groups - jnp.mean(groups, axis=1, keepdims=True)
    return (centred / (jnp.std(rewards) + EPSILON)).reshape(-1)


def spread(rewards: Float[Array, "s"], group_size: int) -> Float32[Array, "b"]:
    """Standard deviation of the rewards within each group; at 0 there is nothing to learn from."""
    return jnp.std(rewards.astype(jnp.float32).reshape(-1, group_size), axis=1)
