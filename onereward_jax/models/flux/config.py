"""Configuration of the FLUX.1 transformer, as stored in diffusers' `transformer/config.json`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from onereward_jax.common.dataclass_fields import check_fields


@dataclasses.dataclass(frozen=True)
class FluxConfig:
    """Sizes of a FLUX.1 transformer. Field names and defaults are diffusers' (FLUX.1-dev).

    Attributes:
      patch_size: latent pixels per token side; 1 because the pipeline packs 2x2 patches itself.
      in_channels: channels of an image token; 384 for FLUX.1-Fill (latents, masked image, mask).
      out_channels: channels of the predicted velocity per token; None means `in_channels`.
      num_layers: double-stream blocks, where image and text tokens have their own weights.
      num_single_layers: single-stream blocks over the joined sequence.
      attention_head_dim: channels per head.
      num_attention_heads: heads; the width is heads x channels per head.
      joint_attention_dim: channels of the T5 prompt embeddings.
      pooled_projection_dim: channels of the pooled CLIP embedding.
      guidance_embeds: whether the distilled guidance scale is an input.
      axes_dims_rope: channels of each head rotated by the (time, row, column) position.

    Raises:
      ValueError: the sizes contradict each other.
    """

    patch_size: int = 1
    in_channels: int = 64
    out_channels: int | None = None
    num_layers: int = 19
    num_single_layers: int = 38
    attention_head_dim: int = 128
    num_attention_heads: int = 24
    joint_attention_dim: int = 4096
    pooled_projection_dim: int = 768
    guidance_embeds: bool = False
    axes_dims_rope: tuple[int, ...] = (16, 56, 56)

    def __post_init__(self) -> None:
        if sum(self.axes_dims_rope) != self.attention_head_dim:
            raise ValueError(
                f"FLUX config: axes_dims_rope {self.axes_dims_rope} must add up to "
                f"attention_head_dim {self.attention_head_dim}"
            )
        if any(dim % 2 for dim in self.axes_dims_rope):
            raise ValueError(f"FLUX config: axes_dims_rope {self.axes_dims_rope} must be even")
        if self.num_layers < 1 or self.num_single_layers < 1:
            raise ValueError(
                f"FLUX config: num_layers {self.num_layers} and num_single_layers "
                f"{self.num_single_layers} must be at least 1"
            )

    @property
    def inner_dim(self) -> int:
        """Width of the residual stream."""
        return self.num_attention_heads * self.attention_head_dim

    @property
    def token_out_channels(self) -> int:
        """Channels of an output token."""
        return self.patch_size**2 * (self.out_channels or self.in_channels)

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> FluxConfig:
        """From the parsed `config.json`; entries beginning with "_" are ignored.

        Raises:
          ValueError: another model's config, or an unknown field.
        """
        name = config.get("_class_name", "FluxTransformer2DModel")
        if name != "FluxTransformer2DModel":
            raise ValueError(f"FLUX config: _class_name is {name!r}, not 'FluxTransformer2DModel'")
        values = {key: value for key, value in config.items() if not key.startswith("_")}
        unknown = sorted(values.keys() - {field.name for field in dataclasses.fields(cls)})
        if unknown:
            raise ValueError(f"FLUX config: unsupported field {unknown[0]!r}")
        values = check_fields("FLUX config", cls, values)
        if "axes_dims_rope" in values:
            values["axes_dims_rope"] = tuple(values["axes_dims_rope"])
        return cls(**values)
