"""LoRA (arXiv 2106.09685): W + s A B, computed as a side path or merged into the kernels.

Linear layers read factors from the collection "lora" and add (x A) B to their output: no array or
gradient of the kernel's size is made. The factors are a separate pytree with the paths of the
kernels; the model's parameters do not change.

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

Where A and B are both zero they stay zero, since neither has a gradient. Layers of a stack without
an adapter, and layers with a smaller rank than the others, are represented this way.
"""

Path = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Configuration of a LoRA adapter to train.

    Attributes:
      rank: r.
      alpha: s = alpha / rank.
      targets: regular expression that must match the full published name of a linear layer, e.g.
        `transformer_blocks.3.attn.to_q`.

    Raises:
      ValueError: naming the field that is out of range.
    """

    rank: int
    alpha: float
    targets: str

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank is {self.rank}, at least 1 expected")
        if self.alpha <= 0:
            raise ValueError(f"alpha is {self.alpha}, a positive number expected")

    @property
    def scale(self) -> float:
        """The scale s = alpha / rank."""
        return self.alpha / self.rank


class Adapter(NamedTuple):
    """A trained adapter: factors, their scales, and what only `lora_merge` can apply.

    Attributes:
      factors: A and B.
      scales: s of every adapted module, [l] or [], by the module paths of `factors`.
      biases: c of W + s A B, b + s c (peft's `lora_bias`), [l, o] or [o]; {}: none.
      magnitudes: m of DoRA, m V / norm(V) of V = W + s A B, [l, 1, o] or [l, i, 1], or without
        l; zero: not decomposed. {}: none.
    """

    factors: Factors
    scales: PyTree
    biases: PyTree = {}
    magnitudes: PyTree = {}


class Adapted(NamedTuple):
    """Weights of an adapted model, used in place of its parameters.

    Attributes:
      params: parameters of the base model, or `int8.Quantized` ones.
      factors: factors that include s, see `combine` and `scale_factors`.
    """

    params: PyTree
    factors: Factors


def own_factors(
    module: nn.Module,
) -> tuple[Float[Array, "i r"], Float[Array, "r o"]] | None:
    """A and B of this linear layer in its compute dtype; None if it has no adapter."""
    if not module.has_variable(COLLECTION, FACTOR_A):
        return None
    a, b = (module.get_variable(COLLECTION, name) for name in (FACTOR_A, FACTOR_B))
    return a.astype(module.dtype), b.astype(module.dtype)


def abstract_factors(abstract_params: PyTree, ranks: Mapping[Path, int]) -> Factors:
    """Shapes of float32 factors, sharded like their kernels.

    Args:
      abstract_params: shapes and shardings of the parameters.
      ranks: {module path: r}; the rank axis is never sharded.
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
    """Initial factors as in peft: A uniform in ±1/√i, B zero, so the model is unchanged.

    Args:
      key: RNG key.
      abstract: from `abstract_factors`.
      targets: {module path: which of its layers to adapt}, bool [l] or [].
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
    """Factors of scale · A B."""
    flat = flatten_dict(factors)
    return unflatten_dict(
        {path: leaf * scale if path[-1] == FACTOR_B else leaf for path, leaf in flat.items()}
    )


def uniform_adapter(factors: Factors, scale: float) -> Adapter:
    """An adapter with the same scale s for all modules."""
    modules = {
        path[:-1]: jnp.full(leaf.shape[:-2], scale, jnp.float32)
        for path, leaf in flatten_dict(factors).items()
    }
    return Adapter(factors, unflatten_dict(modules))


def combine(adapters: Sequence[tuple[Adapter, float]]) -> Factors:
    """Factors of the weighted sum Σ w s A B of multiple adapters, including s.

    A sum of products is one product of factors concatenated along the rank.

    Args:
      adapters: pairs (adapter, w).

    Raises:
      ValueError: an adapter has biases or magnitudes.
    """
    if any(adapter.biases or adapter.magnitudes for adapter, _ in adapters):
        raise ValueError("DoRA, and LoRA with biases, can only be merged: see merge_adapters")
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
    """Factors of A B - A' B' = (A - A') B + A' (B - B'); exactly zero if both are equal."""
    flat, other = flatten_dict(factors), flatten_dict(others)
    result = {}
    for path, leaf in flat.items():
        change = leaf - other[path]
        parts, axis = ((change, other[path]), -1) if path[-1] == FACTOR_A else ((leaf, change), -2)
        result[path] = jnp.concatenate(parts, axis=axis)
    return unflatten_dict(result)


def product(flat: Mapping[Path, Float[Array, "..."]], module: Path) -> Float32[Array, "..."]:
    """A B of one module, from flattened factors."""
    a, b = (flat[*module, name].astype(jnp.float32) for name in (FACTOR_A, FACTOR_B))
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def product_norm(factors: Factors) -> Float32[Array, ""]:
    """‖A B‖ over all modules, by ‖A B‖² = Σ (AᵀA) ∘ (B Bᵀ): no array of a kernel's size."""
    flat, total = flatten_dict(factors), jnp.float32(0.0)
    for *module, name in flat:
        if name == FACTOR_A:
            a, b = flat[*module, FACTOR_A], flat[*module, FACTOR_B]
            grams = jnp.einsum("...ir,...is->...rs", a, a), jnp.einsum("...ro,...so->...rs", b, b)
            total += jnp.sum(grams[0] * grams[1])
    # If products cancel, the sum may round to slightly below zero.
    return jnp.sqrt(jnp.maximum(total, 0.0))


def kernels_of(params: PyTree) -> dict[Path, Any]:
    """{module path: kernel} of all linear layers, with or without a layer axis."""
    flat = flatten_dict(params)
    return {path[:-1]: leaf for path, leaf in flat.items() if path[-1] == "kernel"}


def _abstract(shape: tuple[int, ...], kernel: Any, rank_axis: int) -> jax.ShapeDtypeStruct:
    """A float32 array sharded like `kernel`, except that the rank axis is not sharded."""
    sharding = getattr(kernel, "sharding", None)
    if isinstance(sharding, NamedSharding):
        axes = [*sharding.spec, *[None] * (len(shape) - len(sharding.spec))]
        axes[rank_axis] = None
        sharding = NamedSharding(sharding.mesh, PartitionSpec(*axes))
    return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding)
