"""Counts the FLOPs of a traced function, from its jaxpr.

XLA's cost analysis counts the body of a loop once and ignores Pallas kernels. Here loop bodies
count once per iteration, Pallas kernels once per grid point, cuDNN attention by its sizes, and
rematerialized operations count again. Only matmuls and convolutions: the rest is a fraction of a
per cent and does not use the matrix units.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

CUDNN_PRODUCTS = {"dot_product_attention_fwd_wrapper": 2, "dot_product_attention_bwd_wrapper": 5}
"""Number of matmuls of size queries x keys x width. Forward: logits and output; backward: logits
again, and the gradients of weights, values, queries and keys."""


@dataclasses.dataclass(frozen=True)
class Assumptions:
    """Assumptions about values that are only known at run time.

    Attributes:
      loop_trips: iterations of a `while` loop.
      true_share: fraction of times that a `cond` takes its last branch instead of its first.
      only_int8: count the products of int8 with int8 alone.
    """

    loop_trips: float = 1.0
    true_share: float = 0.5
    only_int8: bool = False


def count_flops(jaxpr: core.Jaxpr, assumptions: Assumptions) -> float:
    """FLOPs of the whole function over all devices; a multiply-add counts as two."""
    return math.fsum(_equation_flops(equation, assumptions) for equation in jaxpr.eqns)


def function_flops(function: Any, *arguments: Any, assumptions: Assumptions) -> float:
    """`count_flops` of a function of arrays or shapes."""
    return count_flops(jax.make_jaxpr(function)(*arguments).jaxpr, assumptions)


def _equation_flops(equation: core.JaxprEqn, assumptions: Assumptions) -> float:
    name, parameters = equation.primitive.name, equation.params
    if assumptions.only_int8 and not _may_be_int8(equation):
        return 0.0
    if name == "dot_general":
        ((contracted, _), _) = parameters["dimension_numbers"]
        left, out = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
        return 2.0 * math.prod(out) * math.prod(left[axis] for axis in contracted)
    if name == "conv_general_dilated":
        return _convolution_flops(equation)
    if name in CUDNN_PRODUCTS:
        queries, keys = (variable.aval.shape for variable in equation.invars[:2])
        return 2.0 * CUDNN_PRODUCTS[name] * math.prod(queries) * keys[1]
    if name == "pallas_call":
        # Conditions in a kernel skip masked blocks: none are skipped without a mask.
        assumptions = dataclasses.replace(assumptions, true_share=1.0)
    inner = [count_flops(jaxpr, assumptions) for jaxpr in inner_jaxprs(parameters)]
    if name == "scan":
        return parameters["length"] * math.fsum(inner)
    if name == "while":
        return assumptions.loop_trips * math.fsum(inner)
    if name == "cond":
        if len(inner) == 2:
            return inner[0] + assumptions.true_share * (inner[1] - inner[0])
        return max(inner)
    if name == "shard_map":
        return math.prod(parameters["mesh"].shape.values()) * math.fsum(inner)
    if name == "pallas_call":
        return math.prod(parameters["grid_mapping"].grid) * math.fsum(inner)
    return math.fsum(inner)


def _may_be_int8(equation: core.JaxprEqn) -> bool:
    """Whether it is a product of int8 with int8, or has inner equations."""
    if equation.primitive.name not in ("dot_general", "conv_general_dilated", *CUDNN_PRODUCTS):
        return True
    return all(variable.aval.dtype == jnp.int8 for variable in equation.invars[:2])


def _convolution_flops(equation: core.JaxprEqn) -> float:
    """Does not count products with the zeros of a dilated input (gradients of strided ones)."""
    parameters = equation.params
    numbers = parameters["dimension_numbers"]
    kernel, out = equation.invars[1].aval.shape, equation.outvars[0].aval.shape
    inputs = kernel[numbers.rhs_spec[1]]
    window = math.prod(kernel[axis] for axis in numbers.rhs_spec[2:])
    return 2.0 * math.prod(out) * inputs * window / math.prod(parameters["lhs_dilation"])


def inner_jaxprs(parameters: dict[str, Any]) -> list[core.Jaxpr]:
    """The jaxprs in the parameters of an equation, without loop conditions."""
    found = []
    for name, value in parameters.items():
        if name in ("cond_jaxpr", "jvp_jaxpr_fun", "fwd_jaxpr_thunk"):
            continue
        for part in value if isinstance(value, tuple | list) else (value,):
            if isinstance(part, core.ClosedJaxpr):
                found.append(part.jaxpr)
            elif isinstance(part, core.Jaxpr):
                found.append(part)
    return found
