"""The flow-matching path and its Euler grid.

The path is a straight line from data (σ = 0) to noise (σ = 1):

    x_σ = (1 - σ) x_0 + σ ε,   velocity v = dx/dσ = ε - x_0,   hence x_0 = x_σ - σ v.

The σ grid equals that of diffusers' `FlowMatchEulerDiscreteScheduler` as set up in
`FluxFillPipeline.__call__`. All arithmetic is float32, whatever the compute dtype: rounding σ or
latents to bfloat16 between steps visibly degrades quality.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from onereward_jax.common.dataclass_fields import check_fields

Sigma = float | np.floating | Float[Array, ""] | Float[Array, "b"]
"""A noise level in [0, 1], shared by all samples or one per sample."""

_UNSUPPORTED = {
    "invert_sigmas": False,
    "shift_terminal": None,
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "time_shift_type": "exponential",
    "stochastic_sampling": False,
}
"""Scheduler fields with the only supported value of each, those of FLUX."""


@dataclasses.dataclass(frozen=True)
class NoiseSchedule:
    """The noise levels of the Euler steps. Fields and defaults are those of
    `scheduler_config.json`.

    Attributes:
      num_train_timesteps: range of the model's timesteps; σ is the timestep divided by it.
      shift: static shift, used without dynamic shifting.
      use_dynamic_shifting: shift more towards noise for images with more tokens.
      base_shift, max_shift: log-shift µ at `base_image_seq_len` and `max_image_seq_len` tokens.
    """

    num_train_timesteps: int = 1000
    shift: float = 1.0
    use_dynamic_shifting: bool = False
    base_shift: float = 0.5
    max_shift: float = 1.15
    base_image_seq_len: int = 256
    max_image_seq_len: int = 4096

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> NoiseSchedule:
        """Reads the contents of a `scheduler_config.json`.

        Raises:
          ValueError: another scheduler class, or an unsupported setting.
        """
        name = config.get("_class_name", "FlowMatchEulerDiscreteScheduler")
        if name != "FlowMatchEulerDiscreteScheduler":
            raise ValueError(
                f"scheduler _class_name {name!r}: FlowMatchEulerDiscreteScheduler expected"
            )
        for field, expected in _UNSUPPORTED.items():
            if config.get(field, expected) != expected:
                raise ValueError(f"scheduler {field} = {config[field]!r} is not supported")
        config = check_fields("scheduler", cls, config)
        known = {field.name for field in dataclasses.fields(cls)}
        schedule = cls(**{key: value for key, value in config.items() if key in known})
        if schedule.base_image_seq_len >= schedule.max_image_seq_len:
            raise ValueError(
                f"scheduler base_image_seq_len {schedule.base_image_seq_len} must be below "
                f"max_image_seq_len {schedule.max_image_seq_len}"
            )
        return schedule

    def log_shift(self, image_seq_len: int) -> float:
        """µ: linear in the number of image tokens, extrapolated beyond base and max."""
        slope = (self.max_shift - self.base_shift) / (
            self.max_image_seq_len - self.base_image_seq_len
        )
        return image_seq_len * slope + (self.base_shift - slope * self.base_image_seq_len)

    def sigmas(
        self, num_steps: int, image_seq_len: int, strength: float = 1.0
    ) -> Float32[np.ndarray, "points"]:
        """Descending noise levels, from that of the first step to 0.

        Args:
          num_steps: steps of the full grid (diffusers' `num_inference_steps`).
          image_seq_len: number of image tokens.
          strength: initial noise strength in (0, 1]; below 1, the first (1 - strength) of the grid
            is dropped, and sampling starts from the source image noised to the first level.

        Returns:
          num_steps + 1 levels at strength 1, fewer below.

        Raises:
          ValueError: an argument is out of range, or no step remains.
        """
        first = first_step(num_steps, strength)
        grid = np.linspace(1.0, 1.0 / num_steps, num_steps).astype(np.float32)
        if self.use_dynamic_shifting:
            stretch = math.exp(self.log_shift(image_seq_len))
            grid = stretch / (stretch + (1 / grid - 1))
        else:
            grid = self.shift * grid / (1 + (self.shift - 1) * grid)
        return np.append(grid, 0.0).astype(np.float32)[first:]


def first_step(num_steps: int, strength: float) -> int:
    """Index of the first step for an initial noise `strength` in (0, 1].

    Raises:
      ValueError: `num_steps` or `strength` out of range, or no step remains.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps is {num_steps}, at least 1 expected")
    if not 0.0 <= strength <= 1.0:
        raise ValueError(f"strength is {strength}, a number in (0, 1] expected")
    # Truncation as in FluxFillPipeline.get_timesteps, including its float rounding.
    first = int(max(num_steps - min(num_steps * strength, num_steps), 0))
    if first >= num_steps:
        raise ValueError(f"strength {strength} leaves none of {num_steps} steps")
    return first


def sigma_table(
    rows: Sequence[Float32[np.ndarray, "_"]], points: int
) -> Float32[np.ndarray, "b points"]:
    """Stacks the grids of a batch, each padded with zero-length steps at σ = 0.

    Args:
      rows: one grid per sample, from `NoiseSchedule.sigmas`.
      points: number of columns, at least the longest grid.

    Raises:
      ValueError: a grid is longer than `points`.
    """
    table = np.zeros((len(rows), points), np.float32)
    for index, row in enumerate(rows):
        if len(row) > points:
            raise ValueError(f"grid {index} has {len(row)} noise levels, the table only {points}")
        table[index, : len(row)] = row
    return table


def broadcast_sigma(sigma: Sigma, ndim: int) -> Float32[Array, "..."]:
    """`sigma` in float32 with trailing axes of size 1, to multiply an array of `ndim` axes."""
    sigma = jnp.asarray(sigma, jnp.float32)
    return sigma.reshape(sigma.shape + (1,) * (ndim - sigma.ndim))


def add_noise(
    clean: Float[Array, "b *rest"], noise: Float[Array, "b *rest"], sigma: Sigma
) -> Float32[Array, "b *rest"]:
    """x_σ = (1 - σ) x_0 + σ ε. Also used to start sampling from a source image at σ < 1."""
    sigma = broadcast_sigma(sigma, clean.ndim)
    return (1.0 - sigma) * clean.astype(jnp.float32) + sigma * noise.astype(jnp.float32)


def velocity_target(
    clean: Float[Array, "b *rest"], noise: Float[Array, "b *rest"]
) -> Float32[Array, "b *rest"]:
    """v = ε - x_0, the transformer's training target at every σ."""
    return noise.astype(jnp.float32) - clean.astype(jnp.float32)


def predict_x0(
    latents: Float[Array, "b *rest"], velocity: Float[Array, "b *rest"], sigma: Sigma
) -> Float32[Array, "b *rest"]:
    """x'_0 = x_σ - σ v: the single-step prediction of Algorithm 1, exact on a straight line."""
    sigma = broadcast_sigma(sigma, latents.ndim)
    return latents.astype(jnp.float32) - sigma * velocity.astype(jnp.float32)
