"""Configuration of CLIP's two towers, as stored in transformers' `config.json`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from onereward_jax.common.dataclass_fields import check_fields

ACTIVATIONS = ("quick_gelu", "gelu")

LEGACY_EOS_TOKEN_ID = 2
"""Early conversions wrote it instead of the true id; the end token is then the highest id."""


@dataclasses.dataclass(frozen=True)
class ClipTextConfig:
    """Sizes of the text tower. Names and defaults are those of transformers' `CLIPTextConfig`.

    Attributes:
      vocab_size: rows of the token embedding.
      hidden_size: width of the residual stream.
      intermediate_size: hidden width of the MLPs.
      num_hidden_layers: blocks.
      num_attention_heads: heads; must divide the width.
      max_position_embeddings: longest sequence.
      hidden_act: "quick_gelu" (OpenAI) or "gelu" (OpenCLIP).
      layer_norm_eps: added to the variance.
      eos_token_id: token whose hidden state is the pooled output, see `LEGACY_EOS_TOKEN_ID`.

    Raises:
      ValueError: a value that is not supported.
    """

    vocab_size: int = 49408
    hidden_size: int = 512
    intermediate_size: int = 2048
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    max_position_embeddings: int = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    eos_token_id: int = 49407

    def __post_init__(self) -> None:
        _check(self)

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> ClipTextConfig:
        """From the parsed `config.json`; generation and projection entries are ignored.

        Raises:
          ValueError: another kind of model, or an unsupported field value.
        """
        if config.get("model_type", "clip_text_model") != "clip_text_model":
            raise ValueError(
                f"CLIP config: model_type is {config['model_type']!r}, not 'clip_text_model'"
            )
        config = check_fields("CLIP config", cls, config)
        names = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in config.items() if name in names})


@dataclasses.dataclass(frozen=True)
class ClipVisionConfig:
    """Sizes of the vision tower. Names and defaults are those of transformers' `CLIPVisionConfig`.

    Attributes:
      hidden_size: width of the residual stream.
      intermediate_size: hidden width of the MLPs.
      num_hidden_layers: blocks.
      num_attention_heads: heads; must divide the width.
      image_size: side of the square input in pixels.
      patch_size: side of a patch in pixels; must divide `image_size`.
      num_channels: colour channels of the input.
      projection_dim: width of the embedding that both towers share.
      hidden_act: "quick_gelu" (OpenAI) or "gelu" (OpenCLIP).
      layer_norm_eps: added to the variance.

    Raises:
      ValueError: a value that is not supported.
    """

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    image_size: int = 224
    patch_size: int = 32
    num_channels: int = 3
    projection_dim: int = 512
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        _check(self)
        if self.image_size % self.patch_size:
            raise ValueError(
                f"CLIP config: patch_size {self.patch_size} must divide image_size "
                f"{self.image_size}"
            )
        if self.num_channels != 3:
            raise ValueError(f"CLIP config: num_channels is {self.num_channels}, 3 expected")

    @property
    def patches(self) -> int:
        """Number of patches of a picture."""
        return (self.image_size // self.patch_size) ** 2

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> ClipVisionConfig:
        """From the parsed `config.json` of the vision tower, or of a model with both towers.

        Raises:
          ValueError: another kind of model, or an unsupported field value.
        """
        stated = config.get("model_type", "clip_vision_model")
        if stated not in ("clip", "clip_vision_model"):
            raise ValueError(f"CLIP config: model_type is {stated!r}, not a CLIP vision model's")
        if stated == "clip":
            tower = config.get("vision_config") or {}
            if not isinstance(tower, Mapping):
                raise ValueError(f"CLIP config: vision_config is {tower!r}, an object expected")
            shared = {name: config[name] for name in ("projection_dim",) if name in config}
            config = {**tower, **shared}
        config = check_fields("CLIP config", cls, config)
        names = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in config.items() if name in names})


def _check(config: ClipTextConfig | ClipVisionConfig) -> None:
    if config.hidden_act not in ACTIVATIONS:
        raise ValueError(
            f"CLIP config: hidden_act {config.hidden_act!r} is not supported; "
            f"choose one of {', '.join(ACTIVATIONS)}"
        )
    if isinstance(config, ClipTextConfig) and config.eos_token_id >= config.vocab_size:
        raise ValueError(
            f"CLIP config: eos_token_id {config.eos_token_id} is not below vocab_size "
            f"{config.vocab_size}"
        )
    if config.hidden_size % config.num_attention_heads:
        raise ValueError(
            f"CLIP config: num_attention_heads {config.num_attention_heads} must divide "
            f"hidden_size {config.hidden_size}"
        )
