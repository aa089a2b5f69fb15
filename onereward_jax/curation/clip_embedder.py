"""CLIP's vision tower on the devices of this host: batches of pictures to embeddings."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32

from onereward_jax.convert import CLIP_BOTH, CLIP_VISION, Layout, load_params, read_config
from onereward_jax.convert.layouts import stated_architecture
from onereward_jax.curation.clip_preprocess import ClipPreprocess, read_preprocess
from onereward_jax.models.clip import ClipVisionConfig, ClipVisionModel
from onereward_jax.parallel import make_mesh
from onereward_jax.parallel.batch import batch_sharding, replicated
from onereward_jax.parallel.jit import logical_axes
from onereward_jax.parallel.sharding_rules import abstract_arrays

LAYOUTS = (CLIP_VISION, CLIP_BOTH)


@dataclasses.dataclass(frozen=True)
class ClipFolder:
    """What the JSON files of a CLIP folder say.

    Attributes:
      layout: one of `LAYOUTS`.
      config: sizes of the vision tower.
      preprocess: pictures to its input.
    """

    layout: Layout
    config: ClipVisionConfig
    preprocess: ClipPreprocess


def read_clip_folder(folder: Path) -> ClipFolder:
    """Reads the config and the preprocessing of a transformers folder, but no weights.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: another architecture, or a setting that is not supported.
    """
    found = read_config(folder)
    stated = stated_architecture(found)
    layouts = {layout.architecture: layout for layout in LAYOUTS}
    if stated not in layouts:
        raise ValueError(
            f"{folder}/config.json describes a {stated}; expected a {' or a '.join(layouts)}"
        )
    config, preprocess = ClipVisionConfig.from_dict(found), read_preprocess(folder)
    if preprocess.crop != config.image_size:
        raise ValueError(
            f"{folder}: preprocessor_config.json crops to {preprocess.crop} pixels, but the model "
            f"has image_size {config.image_size}"
        )
    return ClipFolder(layouts[stated], config, preprocess)


class ClipEmbedder:
    """A loaded vision tower: weights on every device of this host, batches sharded over them.

    Attributes:
      preprocess: pictures to pixels.
      width: length of an embedding.
      batch_size: pictures per call, a multiple of the number of devices.
    """

    def __init__(self, folder: Path, *, batch_size: int, dtype: Any = jnp.float32) -> None:
        """Loads the weights.

        Args:
          folder: as `read_clip_folder`.
          batch_size: pictures per call; rounded up to a multiple of the number of devices.
          dtype: compute dtype, and dtype of the parameters.

        Raises:
          FileNotFoundError, ValueError: as `read_clip_folder` and `convert.load_params`.
        """
        read = read_clip_folder(folder)
        devices = jax.local_devices()
        self._mesh = make_mesh(data=len(devices), fsdp=1, devices=devices)
        self.preprocess, self.width = read.preprocess, read.config.projection_dim
        self.batch_size = -(-batch_size // len(devices)) * len(devices)
        model = ClipVisionModel(read.config, dtype=dtype, param_dtype=dtype)
        self._params = load_params(folder, _abstract(model, self._mesh), read.layout)
        everywhere = replicated(self._mesh)

        def embed(params: Any, pixels: Float32[Array, "b h w 3"]) -> Float32[Array, "b e"]:
            return _normalised(model.apply({"params": params}, pixels))

        self._embed = jax.jit(
            embed,
            in_shardings=(everywhere, batch_sharding(self._mesh)),
            out_shardings=everywhere,
        )

    def __call__(self, pixels: Float32[np.ndarray, "b h w 3"]) -> Float32[np.ndarray, "b e"]:
        """Embeddings of length 1 of at most `batch_size` pictures; a short batch is padded."""
        count = len(pixels)
        padded = np.pad(pixels, ((0, self.batch_size - count), (0, 0), (0, 0), (0, 0)))
        with logical_axes(self._mesh):
            return np.asarray(self._embed(self._params, padded))[:count]


def _abstract(model: ClipVisionModel, mesh: Mesh) -> Any:
    """The parameters as `jax.ShapeDtypeStruct`, replicated."""
    side = model.config.image_size
    pixels = jnp.zeros((mesh.size, side, side, 3))
    return abstract_arrays(jax.eval_shape(model.init, jax.random.key(0), pixels)["params"], mesh)


def _normalised(embeddings: Float[Array, "b e"]) -> Float32[Array, "b e"]:
    """Scaled to length 1, in float32."""
    embeddings = embeddings.astype(jnp.float32)
    return embeddings / jnp.linalg.norm(embeddings, axis=-1, keepdims=True)
