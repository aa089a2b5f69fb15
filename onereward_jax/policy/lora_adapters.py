"""LoRA adapters of an editor: initializes new ones, and loads and merges trained ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jax
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray, PyTree

from onereward_jax.convert import FLUX, find_targets, is_adapter, load_adapter, load_params
from onereward_jax.models.lora import Factors, LoraConfig, abstract_factors, combine, first_factors
from onereward_jax.models.lora_merge import merge
from onereward_jax.parallel import mesh_jit
from onereward_jax.policy.fill_policy import FillPolicy
from onereward_jax.policy.policy_loader import abstract_params


def abstract_adapter(editor: FillPolicy, config: LoraConfig, mesh: Mesh) -> Factors:
    """Shapes and shardings of the adapter's factors.

    Raises:
      ValueError: `config.targets` is not a regular expression or matches no linear layer.
    """
    transformer = abstract_params(editor, mesh).transformer
    targets = find_targets(transformer, FLUX, config.targets)
    return abstract_factors(transformer, dict.fromkeys(targets, config.rank))


def init_adapter(editor: FillPolicy, config: LoraConfig, key: PRNGKeyArray, mesh: Mesh) -> Factors:
    """A new adapter on `mesh`, with no effect yet (B = 0); raises as `abstract_adapter`."""
    targets = find_targets(abstract_params(editor, mesh).transformer, FLUX, config.targets)
    abstract = abstract_adapter(editor, config, mesh)

    def init(key: PRNGKeyArray) -> Factors:
        return first_factors(key, abstract, targets)

    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    return mesh_jit(init, mesh, out_shardings=shardings)(key)


def load_trained(
    folder: str | Path, base_transformer: str | Path, editor: FillPolicy, mesh: Mesh
) -> PyTree:
    """Loads the transformer in `folder`: full weights, or an adapter merged into its base.

    Args:
      folder: folder of a transformer or of an adapter.
      base_transformer: folder of the adapter's base transformer.
      editor: the static part of the editor.
      mesh: mesh of the weights.

    Raises:
      FileNotFoundError, ValueError: as `convert.load_params` and `convert.load_adapter`.
    """
    abstract = abstract_params(editor, mesh).transformer
    if not is_adapter(folder):
        return load_params(folder, abstract, FLUX)
    factors = load_factors([(folder, 1.0)], editor, mesh)
    return merge_into(load_params(base_transformer, abstract, FLUX), factors, mesh)


def load_factors(
    adapters: Sequence[tuple[str | Path, float]], editor: FillPolicy, mesh: Mesh
) -> Factors:
    """Loads the factors of a weighted sum of adapters, without the weights of their base.

    Args:
      adapters: pairs (file or folder, weight).
      editor: the static part of the editor that they are for.
      mesh: mesh of the factors.

    Raises:
      FileNotFoundError, ValueError: as `convert.load_adapter`.
    """
    abstract = abstract_params(editor, mesh).transformer
    return combine([(load_adapter(source, abstract, FLUX), weight) for source, weight in adapters])


def merge_into(transformer: PyTree, factors: Factors, mesh: Mesh) -> PyTree:
    """Merges A B into the transformer's kernels on `mesh`; `transformer` is donated."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, transformer)
    # Donated: callers that need the base again reload it from its folder.
    jitted = mesh_jit(merge, mesh, donate_argnums=0, out_shardings=shardings)
    return jitted(transformer, factors)
