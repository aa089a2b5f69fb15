"""Low-rank adapters (LoRA, arXiv 2106.09685): W + s A B, as a side path or added to the kernels.

Linear layers look for factors in the collection "lora" and add (x A) B to their output: nothing
of the kernel's size is made, and no gradient of that size. The factors are a tree of their own,
with the paths of the kernels, so that the parameters of the model stay what they are.

Single letters: l layers of a scanned stack (no such axis outside of stacks), i, o inputs and
outputs of a linear layer, r rank.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Float32, PRNGKeyArray, PyTree

COLLECTION = "lora"
FACTOR_A, FACTOR_B = "lora_a", "lora_b"
"""Names of the leaves: A [l, i, r] and B [l, r, o]."""

Factors = PyTree
"""Nested dictionaries with the module paths of the parameters, ending in `FACTOR_A`, `FACTOR_B`.

Where both are zero they stay so, since neither has a gradient: that is how layers of a stack are
left out, and how a layer has a smaller rank than its neighbours.
"""

Path = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """The adapter to be trained.

    Attributes:
      rank: r.
      alpha: s = alpha / rank.
      targets: regular expression that the full published name of a linear layer has to match,
        such as `transformer_blocks.3.attn.to_q`.

    Raises:
      ValueError: naming the field that is out of range.
    """

    rank: int
    alpha: float
    targets: str

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"lora rank is {self.rank}, at least 1 expected")
        if self.alpha <= 0:
            raise ValueError(f"lora alpha is {self.alpha}, a positive number expected")

    @property
    def scale(self) -> float:
        """s."""
        return self.alpha / self.rank


class Adapter(NamedTuple):
    """Factors and what their product is multiplied with.

    Attributes:
      factors: A and B.
      scales: s of every adapted module, [l] or [], by the module paths of `factors`.
    """

    factors: Factors
    scales: PyTree


class Adapted(NamedTuple):
    """Weights of an adapted model; they take the place of its parameters.

    Attributes:
      params: of the model below.
      factors: see `combine` and `scale_factors`; s is in them.
    """

    params: PyTree
    factors: Factors


def variables(weights: PyTree | Adapted) -> dict[str, Any]:
    """What `Module.apply` takes, from parameters with or without factors."""
    if isinstance(weights, Adapted):
        return {"params": weights.params, COLLECTION: weights.factors}
    return {"params": weights}


def own_factors(
    module: nn.Module,
) -> tuple[Float[Array, "i r"], Float[Array, "r o"]] | None:
    """A and B of this linear layer in its compute dtype, if it is adapted."""
    if not module.has_variable(COLLECTION, FACTOR_A):
        return None
    a, b = (module.get_variable(COLLECTION, name) for name in (FACTOR_A, FACTOR_B))
    return a.astype(module.dtype), b.astype(module.dtype)


def abstract_factors(abstract_params: PyTree, ranks: Mapping[Path, int]) -> Factors:
    """Shapes of float32 factors; they lie on the mesh as their kernels do.

    Args:
      abstract_params: shapes and shardings of the parameters.
      ranks: {module path: r}; this axis is never split.
    """
    kernels = kernels_of(abstract_params)
    flat = {}
    for path, rank in ranks.items():
        *stack, inputs, outputs = kernels[path].shape
        flat[*path, FACTOR_A] = _abstract((*stack, inputs, rank), kernels[path], -1)
        flat[*path, FACTOR_B] = _abstract((*stack, rank, outputs), kernels[path], -2)
    return unflatten_dict(flat)


def first_factors(
    key: PRNGKeyArray, abstract: Factors, targets: Mapping[Path, Bool[np.ndarray, "..."]]
) -> Factors:
    """A drawn evenly from ±1/√i and B zero, as peft does: the model is what it was.

    Args:
      key: of the draw.
      abstract: from `abstract_factors`.
      targets: {module path: which layers of it}, [l] or [].
    """
    flat = {}
    for index, (path, leaf) in enumerate(flatten_dict(abstract).items()):
        *module, name = path
        if name == FACTOR_B:
            flat[path] = jnp.zeros(leaf.shape, leaf.dtype)
            continue
        bound = leaf.shape[-2] ** -0.5
        drawn = jax.random.uniform(
            jax.random.fold_in(key, index), leaf.shape, leaf.dtype, -bound, bound
        )
        flat[path] = jnp.where(targets[tuple(module)][..., None, None], drawn, 0.0)
    return unflatten_dict(flat)


def scale_factors(factors: Factors, scale: float) -> Factors:
    """Factors of the product times `scale`."""
    flat = flatten_dict(factors)
    return unflatten_dict(
        {path: leaf * scale if path[-1] == FACTOR_B else leaf for path, leaf in flat.items()}
    )


def uniform_adapter(factors: Factors, scale: float) -> Adapter:
    """Factors with one s for all modules."""
    modules = {
        path[:-1]: jnp.full(leaf.shape[:-2], scale, jnp.float32)
        for path, leaf in flatten_dict(factors).items()
    }
    return Adapter(factors, unflatten_dict(modules))


def combine(adapters: Sequence[tuple[Adapter, float]]) -> Factors:
    """Factors of the weighted sum Σ w s A B of several adapters, s within.

    Sums of products are one product of longer factors, so nothing else has to know of it.

    Args:
      adapters: (adapter, w).
    """
    parts: dict[Path, list[Array]] = {}
    for adapter, weight in adapters:
        scales = flatten_dict(adapter.scales)
        for path, leaf in flatten_dict(adapter.factors).items():
            if path[-1] == FACTOR_B:
                leaf = leaf * (weight * scales[path[:-1]])[..., None, None]
            parts.setdefault(path, []).append(leaf)
    axes = {FACTOR_A: -1, FACTOR_B: -2}
    return unflatten_dict(
        {path: jnp.concatenate(leaves, axis=axes[path[-1]]) for path, leaves in parts.items()}
    )


def difference(factors: Factors, others: Factors) -> Factors:
    """Factors of A B - A' B' = (A - A') B + A' (B - B'): exactly zero where both are equal."""
    flat, other = flatten_dict(factors), flatten_dict(others)
    result = {}
    for path, leaf in flat.items():
        change = leaf - other[path]
        parts, axis = ((change, other[path]), -1) if path[-1] == FACTOR_A else ((leaf, change), -2)
        result[path] = jnp.concatenate(parts, axis=axis)
    return unflatten_dict(result)


def product(flat: Mapping[Path, Float[Array, "..."]], module: Path) -> Float32[Array, "..."]:
    """A B of one module of flattened factors."""
    a, b = (flat[*module, name].astype(jnp.float32) for name in (FACTOR_A, FACTOR_B))
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def product_norm(factors: Factors) -> Float32[Array, ""]:
    """‖A B‖ over all modules, by ‖A B‖² = Σ (AᵀA) ∘ (B Bᵀ): nothing of a kernel's size is made."""
    flat, total = flatten_dict(factors), jnp.float32(0.0)
    for *module, name in flat:
        if name == FACTOR_A:
            a, b = flat[*module, FACTOR_A], flat[*module, FACTOR_B]
            grams = jnp.einsum("...ir,...is->...rs", a, a), jnp.einsum("...ro,...so->...rs", b, b)
            total += jnp.sum(grams[0] * grams[1])
    # Of products that cancel, the sum may round to a little below zero.
    return jnp.sqrt(jnp.maximum(total, 0.0))


def kernels_of(params: PyTree) -> dict[Path, Any]:
    """{module path: kernel} of all linear layers, with or without a layer axis."""
    flat = flatten_dict(params)
    return {path[:-1]: leaf for path, leaf in flat.items() if path[-1] == "kernel"}


def _abstract(shape: tuple[int, ...], kernel: Any, whole: int) -> jax.ShapeDtypeStruct:
    """A float32 array that lies as `kernel` does, but for the axis `whole`."""
    sharding = getattr(kernel, "sharding", None)
    if isinstance(sharding, NamedSharding):
        axes = [*sharding.spec, *[None] * (len(shape) - len(sharding.spec))]
        axes[whole] = None
        sharding = NamedSharding(sharding.mesh, PartitionSpec(*axes))
    return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding)
