"""The weights of policy and reference: whole transformers, or a base and adapters.

The trained weights (`state.params`, and their average `state.ema`) are the transformer itself, or
with `config.lora` the factors of an adapter. This module converts both to the input of
`FillPolicy.velocity`; the rest of the step does not depend on which it is.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float32, PyTree

from onereward_jax.models.lora import Adapted, difference, product_norm, scale_factors
from onereward_jax.parallel import mesh_jit
from onereward_jax.policy.lora_adapters import abstract_editor_adapter
from onereward_jax.policy.policy_loader import abstract_params
from onereward_jax.training.ema import relative_distance
from onereward_jax.training.metrics import Metrics, once
from onereward_jax.training.mixed_precision import cast_params
from onereward_jax.training.rl_config import Frozen, RLConfig, RLModels
from onereward_jax.training.rollout_int8 import Rounded, keeps_int8
from onereward_jax.training.train_state import TrainState, shardings_of


def policy_weights(
    models: RLModels, config: RLConfig, trained: PyTree, frozen: Frozen
) -> PyTree | Adapted:
    """π for `state.params` or `state.ema`, in the compute dtype; differentiable in `trained`."""
    dtype = models.editor.transformer.dtype
    if config.lora is None:
        return cast_params(trained, dtype)
    return Adapted(cast_params(frozen.base, dtype), scale_factors(trained, config.lora.scale))


def keeps_reference(config: RLConfig) -> bool:
    """Whether the step needs a transformer for π_ref beside those of policy and average.

    With a bank of references, or with rollouts in int8, only the anchor asks it.
    """
    sampled = config.references == "rollout" and not config.rollout_int8
    asked = sampled or config.anchor_weight > 0.0
    return asked and config.algorithm.reference == "first" and config.lora is None


def reference_weights(
    models: RLModels, config: RLConfig, state: TrainState, frozen: Frozen
) -> PyTree | Adapted | None:
    """π_ref: the initial policy (Algorithm 1) or the moving average (Algorithm 2).

    None with a bank of references, where it samples nothing.
    """
    if config.references == "bank":
        return None
    if config.algorithm.reference == "average":
        return policy_weights(models, config, state.ema, frozen)
    first = frozen.reference if config.lora is None else frozen.base
    return cast_params(first, models.editor.transformer.dtype)


def rollout_weights(
    models: RLModels, config: RLConfig, state: TrainState, frozen: Frozen, rounded: Rounded | None
) -> tuple[PyTree, PyTree | None]:
    """π_θ and π_ref for the passes without gradient: `rounded` if there are such weights."""
    if rounded is not None:
        return rounded
    policy = policy_weights(models, config, state.params, frozen)
    return policy, reference_weights(models, config, state, frozen)


def distance_metric(config: RLConfig, state: TrainState, frozen: Frozen) -> Metrics:
    """The metric `reference_distance`; left out where the reference is not in memory."""
    first = config.algorithm.reference == "first" and config.lora is None
    if first and not keeps_reference(config):
        return {}
    return {"reference_distance": once(reference_distance(config, state, frozen))}


def reference_distance(config: RLConfig, state: TrainState, frozen: Frozen) -> Float32[Array, ""]:
    """‖θ - θ_ref‖ / ‖θ_ref‖ over all weights; with LoRA, relative to the base.

    θ is cast to the dtypes of θ_ref, so that rounding of equal weights does not count as distance.
    """
    average = config.algorithm.reference == "average"
    if config.lora is None:
        reference = state.ema if average else frozen.reference
        rounded = jax.tree.map(lambda own, other: own.astype(other.dtype), state.params, reference)
        return relative_distance(rounded, reference)
    change = difference(state.params, state.ema) if average else state.params
    base = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), frozen.base)
    return config.lora.scale * product_norm(change) / optax.tree.norm(base)


def check_frozen(config: RLConfig, frozen: Frozen) -> None:
    """Checks that `frozen` has exactly the transformers that the step needs.

    Raises:
      ValueError: one is missing or not needed; names it.
    """
    adapts = config.lora is not None
    int8 = keeps_int8(config)
    wanted = {"reference": keeps_reference(config), "base": adapts, "int8": int8}
    for name, needed in wanted.items():
        given = getattr(frozen, name) is not None
        if given != needed:
            raise ValueError(
                f"the reference is {config.algorithm.reference!r} "
                f"{'with' if adapts else 'without'} an adapter, "
                f"{'from a bank, ' if config.references == 'bank' else ''}"
                f"{'with rollouts in int8, ' if config.rollout_int8 else ''}"
                f"but there is {'a' if given else 'no'} frozen.{name}"
            )
    if config.held_out_every and frozen.held_out is None:
        raise ValueError(
            f"held_out_every is {config.held_out_every}, but there is no frozen.held_out"
        )


def abstract_trained(models: RLModels, config: RLConfig, mesh: Mesh) -> PyTree:
    """Shapes and shardings of the trained weights."""
    if config.lora is None:
        return abstract_params(models.editor, mesh).transformer
    return abstract_editor_adapter(models.editor, config.lora, mesh)


def abstract_reference(models: RLModels, config: RLConfig, mesh: Mesh) -> PyTree | None:
    """Shapes and shardings of the result of `first_reference`."""
    if not keeps_reference(config):
        return None
    transformer = abstract_params(models.editor, mesh).transformer
    copy = functools.partial(cast_params, dtype=models.editor.transformer.dtype)
    return jax.tree.map(
        lambda leaf, source: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=source.sharding),
        jax.eval_shape(copy, transformer),
        transformer,
    )


def first_reference(
    models: RLModels, config: RLConfig, transformer: PyTree, mesh: Mesh
) -> PyTree | None:
    """`Frozen.reference`: a copy of the pre-trained transformer, in the compute dtype.

    None if the step needs none (`keeps_reference`). The transformer may be donated afterwards. A
    resumed run loads the same weights from the transformer's folder, by `abstract_reference`.
    """
    abstract = abstract_reference(models, config, mesh)
    if abstract is None:
        return None

    def copy(transformer: PyTree) -> PyTree:
        # copy: without a cast, jit may return its arguments
        return jax.tree.map(jnp.copy, cast_params(transformer, models.editor.transformer.dtype))

    return mesh_jit(copy, mesh, out_shardings=shardings_of(abstract))(transformer)
