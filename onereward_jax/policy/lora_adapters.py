"""LoRA adapters of an editor: initializes new ones; loads, merges and writes trained ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray, PyTree

from onereward_jax.convert import (
    FLUX,
    abstract_adapter,
    init_adapter,
    is_adapter,
    load_adapter,
    load_params,
    save_adapter_file,
)
from onereward_jax.models.lora import Adapter, Factors, LoraConfig
from onereward_jax.models.lora_merge import merge_adapters
from onereward_jax.policy.fill_policy import FillPolicy
from onereward_jax.policy.policy_loader import abstract_params


def abstract_editor_adapter(editor: FillPolicy, config: LoraConfig, mesh: Mesh) -> Factors:
    """Shapes and shardings of a new adapter of the transformer; see `convert.abstract_adapter`."""
    return abstract_adapter(abstract_params(editor, mesh).transformer, FLUX, config)


def init_editor_adapter(
    editor: FillPolicy, config: LoraConfig, key: PRNGKeyArray, mesh: Mesh
) -> Factors:
    """A new adapter of the transformer; see `convert.init_adapter`."""
    return init_adapter(abstract_params(editor, mesh).transformer, FLUX, config, key, mesh)


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
    adapters = load_adapters([(folder, 1.0)], editor, mesh)
    return merge_adapters(load_params(base_transformer, abstract, FLUX), adapters, mesh)


def load_adapters(
    adapters: Sequence[tuple[str | Path, float]], editor: FillPolicy, mesh: Mesh
) -> list[tuple[Adapter, float]]:
    """Loads adapters of an editor's transformer, for `merge_adapters`.

    Args:
      adapters: pairs (file or folder, weight).
      editor: the static part of the editor that they are for.
      mesh: mesh of the factors.

    Raises:
      FileNotFoundError, ValueError: as `convert.load_adapter`.
    """
    abstract = abstract_params(editor, mesh).transformer
    return [(load_adapter(source, abstract, FLUX), weight) for source, weight in adapters]


def write_editor_adapter(
    path: Path, trained: Path, editor: FillPolicy, mesh: Mesh, *, spelling: str, dtype: str
) -> None:
    """Writes a trained adapter of an editor as one file; see `convert.save_adapter_file`.

    Args:
      path: the file.
      trained: the adapter's folder.
      editor: the static part of the editor.
      mesh: mesh of the factors.
      spelling, dtype: see `convert.save_adapter_file`.
    """
    ((adapter, _),) = load_adapters([(trained, 1.0)], editor, mesh)
    save_adapter_file(path, adapter, FLUX, spelling=spelling, dtype=jnp.dtype(dtype))
