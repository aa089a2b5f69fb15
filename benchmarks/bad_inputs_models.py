"""The packaged mini models, component by component, read as the commands read them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from onereward_jax.convert import (
    CLIP,
    FLUX,
    QWEN2_5_VL,
    T5,
    VAE,
    Layout,
    component_config,
    load_params,
)
from onereward_jax.convert.hub import PACKAGE
from onereward_jax.models.clip import ClipTextConfig, ClipTextModel
from onereward_jax.models.flux import FluxConfig, FluxTransformer
from onereward_jax.models.qwen2_5_vl import Qwen2_5_VL, Qwen2_5_VLConfig, init_params
from onereward_jax.models.t5 import T5Config, T5Encoder
from onereward_jax.models.vae import AutoencoderKL, VaeConfig

MODELS = PACKAGE / "mini" / "models"
EDITOR, JUDGE = MODELS / "editor", MODELS / "judge"


@dataclasses.dataclass(frozen=True)
class Component:
    """A model with its own folder.

    Attributes:
      folder: the intact folder.
      layout: its names on disk.
      parse: content of config.json -> config.
      init: config -> parameters, for `jax.eval_shape`.
    """

    folder: Path
    layout: Layout
    parse: Callable[[Mapping[str, Any]], Any]
    init: Callable[[Any], Any]

    @property
    def weights(self) -> str:
        """Name of its weight file."""
        return f"{self.layout.basename}.safetensors"


def _flux(config: FluxConfig) -> Any:
    return FluxTransformer(config).init(
        jax.random.key(0),
        jnp.zeros((1, 1, config.in_channels)),
        jnp.zeros((1, 1, config.joint_attention_dim)),
        jnp.zeros((1, config.pooled_projection_dim)),
        jnp.zeros((1,)),
        jnp.zeros((1, 3)),
        jnp.zeros((1, 3)),
        jnp.ones((1,)) if config.guidance_embeds else None,
    )["params"]


def _vae(config: VaeConfig) -> Any:
    side = config.scale_factor
    images = jnp.zeros((1, side, side, config.in_channels))
    return AutoencoderKL(config).init(jax.random.key(0), images)["params"]


def _text(model: Any, config: Any) -> Any:
    return model(config).init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]


COMPONENTS = {
    "transformer": Component(EDITOR / "transformer", FLUX, FluxConfig.from_dict, _flux),
    "vae": Component(EDITOR / "vae", VAE, VaeConfig.from_dict, _vae),
    "clip": Component(
        EDITOR / "text_encoder",
        CLIP,
        ClipTextConfig.from_dict,
        functools.partial(_text, ClipTextModel),
    ),
    "t5": Component(
        EDITOR / "text_encoder_2", T5, T5Config.from_dict, functools.partial(_text, T5Encoder)
    ),
    "judge": Component(
        JUDGE,
        QWEN2_5_VL,
        Qwen2_5_VLConfig.from_dict,
        lambda config: init_params(Qwen2_5_VL(config), jax.random.key(0)),
    ),
}


def read_component(name: str, folder: Path) -> dict[str, Any]:
    """{"config": config, "params": parameters} of a component's folder."""
    one = COMPONENTS[name]
    config = one.parse(component_config(folder, one.layout))
    return {"config": config, "params": load_params(folder, _abstract(name, config), one.layout)}


@functools.cache
def intact(name: str) -> dict[str, Any]:
    """`read_component` of the packaged folder."""
    return jax.device_get(read_component(name, COMPONENTS[name].folder))


@functools.lru_cache(maxsize=32)
def _abstract(name: str, config: Any) -> Any:
    return jax.eval_shape(functools.partial(COMPONENTS[name].init, config))
