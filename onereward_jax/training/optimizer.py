"""The optimizer: AdamW with gradient clipping, warm-up and learning rate schedule."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from onereward_jax.models.lora import FACTOR_A, FACTOR_B
from onereward_jax.training.int8_adam import scale_by_int8_adam

DECAYED = ("kernel", "embedding", FACTOR_A, FACTOR_B)
"""Names of the parameters with weight decay: no biases, no norm scales."""

SCHEDULES = ("constant", "cosine")
MOMENTS = ("float32", "bfloat16", "int8")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Settings of the optimizer.

    Attributes:
      learning_rate: peak. The paper: 1e-5 for the policy, 1e-6 for the judge.
      schedule: "constant" or "cosine", after the warm-up.
      warmup_steps: steps of linear warm-up from 0.
      total_steps: step at which "cosine" ends; not used by "constant".
      final_fraction: learning rate at the end of "cosine", as a fraction of the peak.
      b1, b2, eps: Adam's.
      weight_decay: decoupled, on kernels, embeddings and adapters only.
      clip_norm: clipping threshold of the global gradient norm.
      moments: dtype of Adam's moments: "float32", "bfloat16" (only the first; the second is
        float32), or "int8" (both, see `int8_adam`).
    """

    learning_rate: float = 1e-5
    schedule: str = "constant"
    warmup_steps: int = 0
    total_steps: int = 0
    final_fraction: float = 0.0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    moments: str = "float32"

    def __post_init__(self) -> None:
        """Checks the fields.

        Raises:
          ValueError: naming the field.
        """
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule is {self.schedule!r}: choose one of {', '.join(SCHEDULES)}")
        if self.moments not in MOMENTS:
            raise ValueError(f"moments is {self.moments!r}: choose one of {', '.join(MOMENTS)}")
        if self.schedule == "cosine" and self.total_steps <= self.warmup_steps:
            raise ValueError(
                f"warmup_steps is {self.warmup_steps}: fewer are expected for a cosine schedule "
                f"that ends at step {self.total_steps}"
            )
        for name in ("learning_rate", "clip_norm"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}, a positive number expected")


def make_schedule(config: OptimizerConfig) -> optax.Schedule:
    """Learning rate as a function of the number of updates so far."""
    peak, warmup = config.learning_rate, config.warmup_steps
    if config.schedule == "cosine":
        after = optax.cosine_decay_schedule(
            peak, config.total_steps - warmup, alpha=config.final_fraction
        )
    else:
        after = optax.constant_schedule(peak)
    if not warmup:
        return after
    # (n + 1) / warmup: the first update has a non-zero learning rate.
    rise = optax.linear_schedule(peak / warmup, peak, max(warmup - 1, 1))
    return optax.join_schedules([rise, after], [warmup])


def in_words(config: OptimizerConfig, step: int) -> str:
    """Where training goes on and by which schedule, as one line for people."""
    now, total_steps = float(make_schedule(config)(step)), config.total_steps
    line = f"goes on after step {step} of {total_steps}; learning rate {now:.2g}, "
    if config.schedule == "cosine":
        end = config.learning_rate * config.final_fraction
        return line + f"a cosine from {config.learning_rate:.2g} to {end:.2g} at step {total_steps}"
    return line + f"constant at {config.learning_rate:.2g} after {config.warmup_steps} steps"


def decay_mask(params: PyTree) -> PyTree:
    """True for parameters with weight decay.

    Selected by name, not by rank: norm scales stacked over layers are two-dimensional too.
    """

    def decays(path: tuple, _leaf: object) -> bool:
        names = [getattr(key, "key", None) for key in path]
        return any(name in DECAYED for name in names)

    return jax.tree_util.tree_map_with_path(decays, params)


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """The optimizer chain: clip by global norm, then AdamW."""
    adam = {"b1": config.b1, "b2": config.b2, "eps": config.eps}
    if config.moments == "int8":
        scale = scale_by_int8_adam(**adam)
    else:
        scale = optax.scale_by_adam(**adam, mu_dtype=jnp.dtype(config.moments))
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        scale,
        optax.add_decayed_weights(config.weight_decay, decay_mask),
        optax.scale_by_learning_rate(make_schedule(config)),
    )
