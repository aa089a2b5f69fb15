"""The weights that policy and reference compute with: whole transformers, or a base and adapters.

What is trained (`state.params`, and its average `state.ema`) is the transformer itself, or with
`config.lora` the factors of an adapter. Here it becomes what `FillPolicy.velocity` takes; nothing
else of the step knows which of the two it is.
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
from onereward_jax.policy.lora_adapters import abstract_adapter
from onereward_jax.policy.policy_loader import abstract_params
from onereward_jax.training.ema import relative_distance
from onereward_jax.training.mixed_precision import cast_params
from onereward_jax.training.rl_config import Frozen, RLConfig, RLModels
from onereward_jax.training.train_state import TrainState, shardings_of


def policy_weights(
    models: RLModels, config: RLConfig, trained: PyTree, frozen: Frozen
) -> PyTree | Adapted:
    """π of `state.params` or `state.ema`, in the compute dtype; differentiable in `trained`."""
    dtype = models.editor.transformer.dtype
    if config.lora is None:
        return cast_params(trained, dtype)
    return Adapted(cast_params(frozen.base, dtype), scale_factors(trained, config.lora.scale))


def reference_weights(
    models: RLModels, config: RLConfig, state: TrainState, frozen: Frozen
) -> PyTree | Adapted:
    """π_ref: the first policy, as in Algorithm 1, or the moving average, as in Algorithm 2."""
    if config.algorithm.reference == "average":
        return policy_weights(models, config, state.ema, frozen)
    first = frozen.reference if config.lora is None else frozen.base
    return cast_params(first, models.editor.transformer.dtype)


def reference_distance(config: RLConfig, state: TrainState, frozen: Frozen) -> Float32[Array, ""]:
    """‖θ - θ_ref‖ / ‖θ_ref‖ over all weights; of adapters, relative to their base.

    θ in the dtypes of θ_ref, which are those it computes in: what rounding makes of the same
    weights is no distance.
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
    """Makes sure that the transformers of `frozen` are those the step needs, and no other.

    Raises:
      ValueError: naming the one that is missing or too many.
    """
    adapts = config.lora is not None
    wanted = {"reference": config.algorithm.reference == "first" and not adapts, "base": adapts}
    for name, needed in wanted.items():
        given = getattr(frozen, name) is not None
        if given != needed:
            raise ValueError(
                f"the reference is {config.algorithm.reference!r} "
                f"{'with' if adapts else 'without'} an adapter, "
                f"but there is {'a' if given else 'no'} frozen.{name}"
            )


def abstract_trained(models: RLModels, config: RLConfig, mesh: Mesh) -> PyTree:
    """Shapes and shardings of what is trained."""
    if config.lora is None:
        return abstract_params(models.editor, mesh).transformer
    return abstract_adapter(models.editor, config.lora, mesh)


def abstract_reference(models: RLModels, config: RLConfig, mesh: Mesh) -> PyTree | None:
    """Shapes and shardings of what `first_reference` makes."""
    if config.algorithm.reference != "first" or config.lora is not None:
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
    """`Frozen.reference`: a copy of the pre-trained transformer, in the dtype it computes in.

    None where the reference is the average, and with an adapter. The transformer may be donated
    afterwards. A run that goes on reads the same from the transformer's folder, by
    `abstract_reference`.
    """
    abstract = abstract_reference(models, config, mesh)
    if abstract is None:
        return None

    def copy(transformer: PyTree) -> PyTree:
        # where there is nothing to cast, jit gives its arguments back
        return jax.tree.map(jnp.copy, cast_params(transformer, models.editor.transformer.dtype))

    return mesh_jit(copy, mesh, out_shardings=shardings_of(abstract))(transformer)
