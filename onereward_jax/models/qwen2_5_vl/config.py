"""Configuration of Qwen2.5-VL, as stored in its `config.json`.

Two layouts exist: released checkpoints have the language model's fields at the top level,
transformers >= 4.52 nests them in `text_config`. Field names are the original ones in both. Fields
that transformers leaves out have the defaults of its classes, which are those of no released model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from onereward_jax.common.dataclass_fields import check_fields

LEFT_OUT = {
    "text_config": {
        "hidden_size": 8192,
        "intermediate_size": 29568,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-5,
    },
    "vision_config": {"hidden_size": 3584},
}
"""What transformers takes for a missing field, where it is not the value of the 7B."""

Grid = tuple[int, int, int]
"""Patches of one image along (time, height, width): a row of `image_grid_thw`."""


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """Sizes of the vision tower. Defaults are Qwen2.5-VL-7B's.

    Attributes:
      depth: transformer layers.
      hidden_size, intermediate_size: widths of the residual stream and of the SwiGLU MLP.
      num_heads: attention heads.
      in_channels, temporal_patch_size, patch_size: shape of a patch: channels, frames, pixels per
        side.
      spatial_merge_size: patches per side that the merger joins into one language token.
      window_size: pixels per side of an attention window.
      fullatt_block_indexes: layers that attend over the whole image instead of a window.
      out_hidden_size: width of the language model.
      rope_theta: base of the rotary frequencies.
    """

    depth: int = 32
    hidden_size: int = 1280
    intermediate_size: int = 3420
    num_heads: int = 16
    in_channels: int = 3
    patch_size: int = 14
    spatial_merge_size: int = 2
    temporal_patch_size: int = 2
    window_size: int = 112
    fullatt_block_indexes: tuple[int, ...] = (7, 15, 23, 31)
    out_hidden_size: int = 3584
    initializer_range: float = 0.02
    rope_theta: float = 10000.0

    def __post_init__(self) -> None:
        if self.hidden_size % (4 * self.num_heads):
            raise ValueError(
                f"vision_config: hidden_size {self.hidden_size} must be a multiple of 4 x "
                f"num_heads {self.num_heads} (rows and columns share the rotary pairs)"
            )
        if self.window_units < 1:
            raise ValueError(
                f"vision_config: window_size {self.window_size} is smaller than a merged patch"
            )

    @property
    def head_dim(self) -> int:
        """Channels per attention head."""
        return self.hidden_size // self.num_heads

    @property
    def patch_dim(self) -> int:
        """Length of a flattened patch, in the order (channel, frame, row, column)."""
        return self.in_channels * self.temporal_patch_size * self.patch_size**2

    @property
    def window_units(self) -> int:
        """Merged patches per side of an attention window."""
        return self.window_size // self.spatial_merge_size // self.patch_size


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """Sizes of the language model. Defaults are Qwen2.5-VL-7B's.

    Attributes:
      num_key_value_heads: heads of keys and values, shared by groups of query heads.
      mrope_section: rotary pairs of a head that rotate by the (time, row, column) position.
      rope_theta: base of the rotary frequencies.
    """

    vocab_size: int = 152064
    hidden_size: int = 3584
    intermediate_size: int = 18944
    num_hidden_layers: int = 28
    num_attention_heads: int = 28
    num_key_value_heads: int = 4
    rms_norm_eps: float = 1e-6
    initializer_range: float = 0.02
    rope_theta: float = 1e6
    mrope_section: tuple[int, ...] = (16, 24, 24)

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"text_config: hidden_size {self.hidden_size} is not a multiple of "
                f"num_attention_heads {self.num_attention_heads}"
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"text_config: num_attention_heads {self.num_attention_heads} is not a multiple "
                f"of num_key_value_heads {self.num_key_value_heads}"
            )
        if 2 * sum(self.mrope_section) != self.head_dim:
            raise ValueError(
                f"text_config: mrope_section {self.mrope_section} must add up to half of the "
                f"head's {self.head_dim} channels"
            )

    @property
    def head_dim(self) -> int:
        """Channels per attention head."""
        return self.hidden_size // self.num_attention_heads


@dataclasses.dataclass(frozen=True)
class Qwen2_5_VLConfig:
    """Sizes of the whole model; defaults are Qwen2.5-VL-7B-Instruct's.

    Attributes:
      image_token_id: placeholder token whose embedding is replaced by an image token.
      tie_word_embeddings: whether the output projection is the embedding table.

    Raises:
      ValueError: the vision tower's output width differs from the language model's width.
    """

    text_config: TextConfig = TextConfig()
    vision_config: VisionConfig = VisionConfig()
    image_token_id: int = 151655
    tie_word_embeddings: bool = False

    def __post_init__(self) -> None:
        if self.vision_config.out_hidden_size != self.text_config.hidden_size:
            raise ValueError(
                f"vision_config.out_hidden_size {self.vision_config.out_hidden_size} differs from "
                f"text_config.hidden_size {self.text_config.hidden_size}"
            )

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Qwen2_5_VLConfig:
        """From the parsed `config.json` in either layout.

        Raises:
          ValueError: another model's config, or a field value that is not implemented.
        """
        model_type = config.get("model_type", "qwen2_5_vl")
        if model_type != "qwen2_5_vl":
            raise ValueError(f"Qwen2.5-VL config: model_type is {model_type!r}, not 'qwen2_5_vl'")
        for part in ("text_config", "vision_config"):
            if not isinstance(config.get(part) or {}, Mapping):
                raise ValueError(
                    f"Qwen2.5-VL config: {part} is {config[part]!r}, not a JSON object"
                )
        check_fields("Qwen2.5-VL config", cls, {"image_token_id": config.get("image_token_id", 0)})
        text = config.get("text_config") or config
        for where, values in (("config", config), ("text_config", text)):
            _require(where, values, "tie_word_embeddings", (True, False, None))
        tied = config.get("tie_word_embeddings") or text.get("tie_word_embeddings")
        return cls(
            text_config=_text_config(text),
            vision_config=_vision_config(config.get("vision_config") or {}),
            image_token_id=config.get("image_token_id", cls.image_token_id),
            tie_word_embeddings=bool(tied),
        )


def _known(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of `values` that are fields of the dataclass `cls`."""
    names = {field.name for field in dataclasses.fields(cls)}
    return {name: value for name, value in values.items() if name in names}


def _require(where: str, values: Mapping[str, Any], field: str, allowed: tuple[Any, ...]) -> None:
    """ValueError unless `field` is absent or has an allowed value."""
    if field in values and values[field] not in allowed:
        raise ValueError(f"{where}: {field} = {values[field]!r} is not supported")


def _text_config(values: Mapping[str, Any]) -> TextConfig:
    _require("text_config", values, "hidden_act", ("silu",))
    _require("text_config", values, "use_sliding_window", (False, None))
    _require("text_config", values, "attention_dropout", (0, 0.0, None))
    if odd := set(values.get("layer_types") or ()) - {"full_attention"}:
        raise ValueError(f"text_config: layer_types has {min(odd)!r}, which is not supported")
    rope = _rope("text_config", values, "rope_scaling", "rope_parameters")
    kinds = {"rope_type": ("default", "mrope"), "type": ("default", "mrope")}
    for field, allowed in kinds.items():
        _require("text_config.rope_parameters", rope, field, allowed)
    known = LEFT_OUT["text_config"] | _known(TextConfig, values)
    if "rope_theta" in rope:
        known["rope_theta"] = rope["rope_theta"]
    if "mrope_section" in rope:
        known["mrope_section"] = rope["mrope_section"]
    if known["num_key_value_heads"] is None:
        known["num_key_value_heads"] = known["num_attention_heads"]
    known = check_fields("text_config", TextConfig, known)
    if "mrope_section" in known:
        known["mrope_section"] = tuple(known["mrope_section"])
    config = TextConfig(**known)
    _require("text_config", values, "head_dim", (config.head_dim, None))
    return config


def _vision_config(values: Mapping[str, Any]) -> VisionConfig:
    _require("vision_config", values, "hidden_act", ("silu",))
    rope = _rope("vision_config", values, "rope_parameters")
    _require("vision_config.rope_parameters", rope, "rope_type", ("axial",))
    known = LEFT_OUT["vision_config"] | _known(VisionConfig, values)
    if "rope_theta" in rope:
        known["rope_theta"] = rope["rope_theta"]
    known = check_fields("vision_config", VisionConfig, known)
    known["fullatt_block_indexes"] = tuple(
        known.get("fullatt_block_indexes", VisionConfig.fullatt_block_indexes)
    )
    # `in_chans`, which the released files have, is not read by transformers either.
    _require("vision_config", values, "in_channels", (3,))
    return VisionConfig(**known)


def _rope(where: str, values: Mapping[str, Any], *fields: str) -> Mapping[str, Any]:
    """The settings of the rotary positions; the first of `fields` that is given counts."""
    for field in fields:
        rope = values.get(field)
        if rope is not None and not isinstance(rope, Mapping):
            raise ValueError(f"{where}: {field} is {rope!r}, not a JSON object")
        if rope:
            return rope
    return {}
