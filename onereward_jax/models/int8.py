"""int8: the kernels of linear layers at one byte per weight.

W [i, o] is stored as round(W / s) in int8, with one float32 scale per output channel, s = max|W| /
127 over its inputs (absmax quantisation as in LLM.int8(), arXiv 2208.07339). No float copy of the
kernel is stored. A linear layer computes with it in one of two ways:

- weights only (`rescaled`, the judge): it casts the integers to its compute dtype, and multiplies
  its output by s. Gradients with respect to the input are unchanged.
- int8 products (`matmul`, the rollouts of FLUX): it rounds its input too, with one scale per token,
  as it comes. The product of int8 with int8 adds up in int32 and is exact, on every mesh. Rounding
  has no gradient, so this is for passes without one.

Single letters: l layers of a scanned stack (no such axis outside of stacks), i, o inputs and
outputs of a linear layer.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Float32, Int8, Num, PyTree

COLLECTION = "int8"
SCALE = "scale"
"""Name of the leaves: s, [l, o]."""

LARGEST = 127

NOT_THE_ANSWER = r"(?!lm_head)"
"""Linear layers of the judge to quantise: the output projection computes the answer's logits."""


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


def matmul(
    module: nn.Module, x: Float[Array, "*b i"], kernel: Num[Array, "i o"]
) -> Float[Array, "*b o"]:
    """x @ kernel in the dtype of x; by int8 products if the kernel of this layer is quantised.

    `kernel` may be some of the layer's rows: the scales belong to its columns.
    """
    if not module.has_variable(COLLECTION, SCALE):
        return x @ kernel
    integers, scale = rounded_tokens(x)
    contracted = (((x.ndim - 1,), (0,)), ((), ()))
    product = jax.lax.dot_general(
        integers, kernel, contracted, preferred_element_type=jnp.int32
    ).astype(jnp.float32)
    return (product * scale * module.get_variable(COLLECTION, SCALE)).astype(x.dtype)


def rounded_tokens(
    x: Float[Array, "*b i"],
) -> tuple[Int8[Array, "*b i"], Float32[Array, "*b 1"]]:
    """Integers and the scale of each token, so that x is about integers · scale."""
    wide = x.astype(jnp.float32)
    return _rounded(wide, jnp.max(jnp.abs(wide), axis=-1, keepdims=True))


def quantize(params: PyTree, layers: str = NOT_THE_ANSWER) -> Quantized:
    """Quantises the kernels of linear layers to int8, with scales.

    Args:
      params: parameters of a model.
      layers: regular expression that the beginning of a module's path matches, if it is to be
        quantised; names are joined by "/".
    """
    flat, scales = flatten_dict(params), {}
    for path in _kernels(flat, layers):
        wide = jnp.asarray(flat[path], jnp.float32)
        flat[path], scale = _rounded(wide, jnp.max(jnp.abs(wide), axis=-2, keepdims=True))
        scales[*path[:-1], SCALE] = jnp.squeeze(scale, -2)
    return Quantized(unflatten_dict(flat), unflatten_dict(scales))


def abstract_quantized(abstract_params: PyTree, layers: str = NOT_THE_ANSWER) -> Quantized:
    """Shapes and shardings of the result of `quantize`.

    Scales are sharded like the output axis of their kernels.

    Args:
      abstract_params: shapes and shardings of the parameters.
      layers: as of `quantize`.
    """
    flat, scales = flatten_dict(abstract_params), {}
    for path in _kernels(flat, layers):
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


def _rounded(
    wide: Float32[Array, "*shape"], largest: Float32[Array, "*sides"]
) -> tuple[Int8[Array, "*shape"], Float32[Array, "*sides"]]:
    """Integers and scales of values whose largest magnitudes are given."""
    scale = jnp.where(largest == 0.0, 1.0, largest / LARGEST)
    return jnp.rint(wide / scale).astype(jnp.int8), scale


def _kernels(flat: dict[tuple[str, ...], Any], layers: str) -> list[tuple[str, ...]]:
    """Paths of the kernels of linear layers that match `layers`."""
    wanted = re.compile(layers)
    return [path for path in flat if path[-1] == "kernel" and wanted.match("/".join(path[:-1]))]
