"""Weight-only int8: the kernels of frozen linear layers at one byte per weight.

W [i, o] is stored as round(W / s) in int8, with one float32 scale per output channel, s = max|W| /
127 over its inputs (absmax quantisation as in LLM.int8(), arXiv 2208.07339, weights only). A linear
layer casts the integers to its compute dtype, and multiplies its output by s. No float copy of the
kernel is stored, and gradients with respect to the input are unchanged.

Single letters: l layers of a scanned stack (no such axis outside of stacks), i, o inputs and
outputs of a linear layer.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, PyTree

COLLECTION = "int8"
SCALE = "scale"
"""Name of the leaves: s, [l, o]."""

LARGEST = 127

KEPT = ("lm_head",)
"""Modules that are not quantised: the output projection computes the answer's logits."""


class Quantized(NamedTuple):
    """Weights of a quantised model, used in place of its parameters.

    Attributes:
      params: parameters of the model; kernels of linear layers are int8.
      scales: nested dictionaries with the module paths of these kernels, ending in `SCALE`.
    """

    params: PyTree
    scales: PyTree


def rescaled(module: nn.Module, product: Float[Array, "*b o"]) -> Float[Array, "*b o"]:
    """Multiplies a linear layer's product with its scale, if its kernel is quantised."""
    if not module.has_variable(COLLECTION, SCALE):
        return product
    return product * module.get_variable(COLLECTION, SCALE).astype(product.dtype)


def quantize(params: PyTree) -> Quantized:
    """Quantises the kernels of linear layers to int8, with scales."""
    flat, scales = flatten_dict(params), {}
    for path in _kernels(flat):
        wide = flat[path].astype(jnp.float32)
        scale = jnp.max(jnp.abs(wide), axis=-2) / LARGEST
        scale = jnp.where(scale == 0.0, 1.0, scale)
        flat[path] = jnp.rint(wide / scale[..., None, :]).astype(jnp.int8)
        scales[*path[:-1], SCALE] = scale
    return Quantized(unflatten_dict(flat), unflatten_dict(scales))


def abstract_quantized(abstract_params: PyTree) -> Quantized:
    """Shapes and shardings of the result of `quantize`.

    Scales are sharded like the output axis of their kernels.

    Args:
      abstract_params: shapes and shardings of the parameters.
    """
    flat, scales = flatten_dict(abstract_params), {}
    for path in _kernels(flat):
        kernel = flat[path]
        flat[path] = jax.ShapeDtypeStruct(kernel.shape, jnp.int8, sharding=kernel.sharding)
        *stack, _, outputs = range(len(kernel.shape))
        spec = (*kernel.sharding.spec, *(None,) * len(kernel.shape))
        scales[*path[:-1], SCALE] = jax.ShapeDtypeStruct(
            tuple(kernel.shape[axis] for axis in (*stack, outputs)),
            jnp.float32,
            sharding=NamedSharding(
                kernel.sharding.mesh, PartitionSpec(*(spec[axis] for axis in (*stack, outputs)))
            ),
        )
    return Quantized(unflatten_dict(flat), unflatten_dict(scales))


def _kernels(flat: dict[tuple[str, ...], Any]) -> list[tuple[str, ...]]:
    """Paths of the kernels of linear layers."""
    return [path for path in flat if path[-1] == "kernel" and path[0] not in KEPT]
