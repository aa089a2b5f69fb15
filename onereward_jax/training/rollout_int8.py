"""Rollouts in int8: the passes of FLUX without gradient, at the speed of int8 products.

Most of a step of Algorithm 1 are forward passes without gradient: x_ref, and the policy's way to
x_t. With `RLConfig.rollout_int8` (ours, not in the paper) they multiply int8 with int8
(`models.int8.matmul`). Prediction, anchor, gradient, update and saved weights stay in full
precision: x_ref and x_t differ a little, and nothing of how the step learns from them.

- The trained transformer is quantised once per step, outside of sampling and microbatches.
- The initial one, which is π_ref of Algorithm 1, is quantised once, when the run begins:
  `Frozen.int8`. No other copy of it is kept, unless the anchor needs one.
- With LoRA, `Frozen.int8` is the base of both rollouts; the adapter stays a side path in the
  compute dtype.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import PyTree

from onereward_jax.models.flux import INT8_LAYERS
from onereward_jax.models.int8 import Quantized, abstract_quantized, quantize
from onereward_jax.models.lora import Adapted, scale_factors
from onereward_jax.parallel import mesh_jit
from onereward_jax.policy.policy_loader import abstract_params
from onereward_jax.training.mixed_precision import cast_params
from onereward_jax.training.rl_config import Frozen, RLConfig, RLModels
from onereward_jax.training.train_state import TrainState, shardings_of

Rounded = tuple[Quantized | Adapted, Quantized | Adapted | None]
"""Weights of the passes without gradient: π_θ and, unless its pictures come from a bank, π_ref."""


def keeps_int8(config: RLConfig) -> bool:
    """Whether the step needs the initial transformer in int8."""
    first = config.references == "rollout" and config.algorithm.reference == "first"
    return config.rollout_int8 and (first or config.lora is not None)


def abstract_int8(models: RLModels, config: RLConfig, mesh: Mesh) -> Quantized | None:
    """Shapes and shardings of the result of `first_int8`."""
    return _abstract(models, mesh) if keeps_int8(config) else None


def first_int8(models: RLModels, config: RLConfig, transformer: PyTree, mesh: Mesh) -> Quantized:
    """`Frozen.int8` from the initial transformer, which may be donated afterwards.

    For a run that `keeps_int8`. A resumed run gets the same integers from the same weights.
    """

    def copy(transformer: PyTree) -> Quantized:
        # copy: jit may return its arguments, such as norms
        return jax.tree.map(jnp.copy, _rounded(models, transformer))

    return mesh_jit(copy, mesh, out_shardings=shardings_of(_abstract(models, mesh)))(transformer)


def make_round_weights(
    models: RLModels, config: RLConfig, mesh: Mesh
) -> Callable[[TrainState, Frozen], Rounded | None]:
    """The function (state, frozen) -> `Rounded`, to be called once per step; None if off."""
    if not config.rollout_int8:
        return lambda state, frozen: None
    shardings = shardings_of(_abstract(models, mesh))

    def rounded(trained: PyTree, frozen: Frozen) -> Quantized | Adapted:
        if config.lora is not None:
            return Adapted(frozen.int8, scale_factors(trained, config.lora.scale))
        return jax.lax.with_sharding_constraint(_rounded(models, trained), shardings)

    def round_weights(state: TrainState, frozen: Frozen) -> Rounded:
        reference = None
        if config.references == "rollout":
            average = config.algorithm.reference == "average"
            reference = rounded(state.ema, frozen) if average else frozen.int8
        return rounded(state.params, frozen), reference

    return round_weights


def _rounded(models: RLModels, transformer: PyTree) -> Quantized:
    """`transformer` in int8; kernels that are not quantised in the compute dtype."""
    found = quantize(transformer, INT8_LAYERS)
    return found._replace(params=cast_params(found.params, models.editor.transformer.dtype))


def _abstract(models: RLModels, mesh: Mesh) -> Quantized:
    abstract = abstract_params(models.editor, mesh).transformer
    shardings = shardings_of(abstract_quantized(abstract, INT8_LAYERS))
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        jax.eval_shape(lambda leaves: _rounded(models, leaves), abstract),
        shardings,
    )
