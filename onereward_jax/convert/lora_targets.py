"""The linear layers that take a LoRA adapter, by their published names, and new adapters."""

from __future__ import annotations

import re

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, PRNGKeyArray, PyTree

from onereward_jax.convert.layouts import Layout
from onereward_jax.convert.tensor_names import entry_of, unbox
from onereward_jax.models import lora
from onereward_jax.parallel import mesh_jit


def published_modules(params: PyTree, layout: Layout) -> dict[lora.Path, tuple[str, ...]]:
    """{path of a linear layer: its published names}: one name per layer of a stack, else one.

    Without convolutions and `layout.unadapted`.
    """
    modules = {}
    for path, kernel in lora.kernels_of(unbox(params)).items():
        entry = entry_of("/".join((*path, "kernel")), kernel.shape, layout, {})
        if not entry.flat and entry.keys[0] not in layout.unadapted:
            modules[path] = tuple(key.removesuffix(".weight") for key in entry.keys)
    return modules


def find_targets(
    params: PyTree, layout: Layout, pattern: str
) -> dict[lora.Path, Bool[np.ndarray, "..."]]:
    """The linear layers whose published names match, as input of `lora.first_factors`.

    Args:
      params: parameters or their shapes.
      layout: the architecture's `Layout`.
      pattern: regular expression that must match the full name, as in peft.

    Returns:
      {path of a linear layer: bool [layers] for a scanned stack, else bool []}.

    Raises:
      ValueError: not a regular expression, or it matches nothing.
    """
    try:
        matches = re.compile(pattern).fullmatch
    except re.error as error:
        raise ValueError(f"lora targets {pattern!r} is not a regular expression: {error}") from None
    kernels = lora.kernels_of(unbox(params))
    targets = {}
    for path, names in published_modules(params, layout).items():
        layers = np.array([bool(matches(name)) for name in names])
        if layers.any():
            targets[path] = layers if kernels[path].ndim > 2 else layers.reshape(())
    if not targets:
        raise ValueError(f"lora targets {pattern!r} matches the name of no linear layer")
    return targets


def abstract_adapter(
    abstract_params: PyTree, layout: Layout, config: lora.LoraConfig
) -> lora.Factors:
    """Shapes and shardings of the factors of a new adapter.

    Args:
      abstract_params: shapes and shardings of the base's parameters.
      layout: the architecture's `Layout`.
      config: rank and targets.

    Raises:
      ValueError: see `find_targets`.
    """
    targets = find_targets(abstract_params, layout, config.targets)
    return lora.abstract_factors(abstract_params, dict.fromkeys(targets, config.rank))


def init_adapter(
    abstract_params: PyTree, layout: Layout, config: lora.LoraConfig, key: PRNGKeyArray, mesh: Mesh
) -> lora.Factors:
    """A new adapter on `mesh`, with no effect yet (B = 0); other arguments: `abstract_adapter`."""
    targets = find_targets(abstract_params, layout, config.targets)
    abstract = abstract_adapter(abstract_params, layout, config)

    def init(key: PRNGKeyArray) -> lora.Factors:
        return lora.first_factors(key, abstract, targets)

    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    return mesh_jit(init, mesh, out_shardings=shardings)(key)
