"""Adapters merged into their base: LoRA, W + s A B, and DoRA (arXiv 2402.09353)."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh
from jaxtyping import PyTree

from onereward_jax.models.lora import (
    FACTOR_A,
    Adapter,
    Factors,
    combine,
    product,
    scale_factors,
)
from onereward_jax.parallel import mesh_jit


def merge(params: PyTree, factors: Factors) -> PyTree:
    """Parameters with A B added to the kernels, in float32; each kernel keeps its dtype.

    The given parameters stay: they are what to go back to. Where they are gone, `unmerge`.

    Raises:
      KeyError: a module of `factors` is not in `params`.
    """
    flat, found = flatten_dict(params), flatten_dict(factors)
    for *module, name in found:
        if name == FACTOR_A:
            kernel = flat[*module, "kernel"]
            wide = kernel.astype(jnp.float32) + product(found, tuple(module))
            flat[*module, "kernel"] = wide.astype(kernel.dtype)
    return unflatten_dict(flat)


def unmerge(params: PyTree, factors: Factors) -> PyTree:
    """The parameters before `merge`, up to the rounding of the kernels' dtype."""
    return merge(params, scale_factors(factors, -1.0))


def merge_into(params: PyTree, factors: Factors, mesh: Mesh) -> PyTree:
    """`merge` on `mesh`; `params` is donated."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, params)
    # Donated: callers that need the base again reload it from its folder.
    return mesh_jit(merge, mesh, donate_argnums=0, out_shardings=shardings)(params, factors)


def merge_adapters(params: PyTree, adapters: Sequence[tuple[Adapter, float]], mesh: Mesh) -> PyTree:
    """The base with a weighted sum of adapters; `params` is donated.

    DoRA is no sum: if there is one, the adapters are merged in their order, each into the result of
    those before, as with diffusers' `fuse_lora`. A weight w multiplies A B and the bias, not the
    magnitude; an adapter of weight 0 is left out.

    Args:
      params: parameters of the base on `mesh`.
      adapters: pairs (adapter, w).
      mesh: mesh of the parameters.
    """
    adapters = [(adapter, weight) for adapter, weight in adapters if weight]
    if not adapters:
        return params
    if not any(adapter.biases or adapter.magnitudes for adapter, _ in adapters):
        return merge_into(params, combine(adapters), mesh)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, params)
    merged = mesh_jit(merge_one, mesh, donate_argnums=0, out_shardings=shardings)
    for adapter, weight in adapters:
        params = merged(params, adapter, jnp.float32(weight))
    return params


def merge_one(params: PyTree, adapter: Adapter, weight: float | jax.Array) -> PyTree:
    """m (W + w s A B) / |W + w s A B| and b + w s c of one adapter, in float32.

    The norm is over the inputs for magnitudes [l, 1, o], over the outputs for [l, i, 1]. Kernels
    keep their dtype. Original: peft's `DoraLinearVariant.merge_safe`.
    """
    weighted = jax.tree.map(lambda scale: weight * scale, adapter.scales)
    flat, found = (
        flatten_dict(params),
        flatten_dict(combine([(Adapter(adapter.factors, weighted), 1.0)])),
    )
    scales, biases, magnitudes = map(flatten_dict, (weighted, adapter.biases, adapter.magnitudes))
    for *module, name in found:
        if name != FACTOR_A:
            continue
        module = tuple(module)
        kernel = flat[*module, "kernel"]
        wide = kernel.astype(jnp.float32) + product(found, module)
        if module in magnitudes:
            magnitude = magnitudes[module]
            axis = -2 if magnitude.shape[-2] == 1 else -1
            norm = jnp.linalg.norm(wide, axis=axis, keepdims=True)
            wide *= jnp.where(magnitude == 0, 1.0, magnitude / jnp.where(norm == 0, 1.0, norm))
        flat[*module, "kernel"] = wide.astype(kernel.dtype)
        if module in biases:
            bias = flat[*module, "bias"]
            change = scales[module][..., None] * biases[module]
            flat[*module, "bias"] = (bias.astype(jnp.float32) + change).astype(bias.dtype)
    return unflatten_dict(flat)
