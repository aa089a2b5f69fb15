"""CLIP's text tower on the devices of this host: prompts to embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int

from onereward_jax.convert import CLIP_BOTH_TEXT, load_params, load_tokenizer, read_config
from onereward_jax.convert.layouts import stated_architecture
from onereward_jax.models.clip import ClipTextConfig, ClipTextProjection
from onereward_jax.parallel import make_mesh
from onereward_jax.parallel.batch import replicated
from onereward_jax.parallel.jit import logical_axes
from onereward_jax.parallel.sharding_rules import abstract_arrays


class ClipTextEmbedder:
    """A loaded text tower, whole on every device of this host.

    Attributes:
      tokenizer: its tokenizer.
      length: tokens that it reads; longer prompts are cut, as everywhere where CLIP is used.
    """

    def __init__(self, folder: Path, *, dtype: Any = jnp.float32) -> None:
        """Loads the weights of a folder with both towers.

        Args:
          folder: in transformers' format.
          dtype: compute dtype, and dtype of the parameters.

        Raises:
          FileNotFoundError: a file is missing.
          ValueError: as `read_text_config` and `convert.load_params`.
        """
        config, width = read_text_config(folder)
        self.tokenizer = load_tokenizer(folder)
        self.length = min(config.max_position_embeddings, int(self.tokenizer.model_max_length))
        devices = jax.local_devices()
        mesh = make_mesh(data=len(devices), fsdp=1, devices=devices)
        model = ClipTextProjection(config, width, dtype=dtype, param_dtype=dtype)
        ids = jnp.zeros((1, self.length), jnp.int32)
        abstract = jax.eval_shape(model.init, jax.random.key(0), ids)["params"]
        self._params = load_params(folder, abstract_arrays(abstract, mesh), CLIP_BOTH_TEXT)
        everywhere = replicated(mesh)
        self._mesh = mesh

        def embed(params: Any, ids: Int[Array, "b l"]) -> Float32[Array, "b e"]:
            found = model.apply({"params": params}, ids).astype(jnp.float32)
            return found / jnp.linalg.norm(found, axis=-1, keepdims=True)

        self._embed = jax.jit(
            embed, in_shardings=(everywhere, everywhere), out_shardings=everywhere
        )

    def __call__(self, prompts: Sequence[str]) -> Float32[np.ndarray, "b e"]:
        """Embeddings of length 1; another number of prompts compiles anew."""
        ids = self.tokenizer(
            list(prompts),
            padding="max_length",
            max_length=self.length,
            truncation=True,
            return_tensors="np",
        ).input_ids
        with logical_axes(self._mesh):
            return np.asarray(self._embed(self._params, ids.astype(np.int32)))


def read_text_config(folder: Path) -> tuple[ClipTextConfig, int]:
    """(sizes of the text tower, width of the embedding) of a folder with both towers.

    Raises:
      FileNotFoundError: there is no config.json.
      ValueError: it has no text tower, or a setting that is not supported.
    """
    found = read_config(folder)
    stated = stated_architecture(found)
    if stated != CLIP_BOTH_TEXT.architecture:
        raise ValueError(f"{folder} is a {stated}, without a text tower: a CLIPModel has one")
    tower = found.get("text_config") or {}
    if not isinstance(tower, dict):
        raise ValueError(f"{folder}/config.json: text_config is {tower!r}, an object expected")
    return ClipTextConfig.from_dict(tower), int(found.get("projection_dim", 512))
